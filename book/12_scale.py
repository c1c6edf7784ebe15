# ---
# jupyter:
#   cmic:
#     needs: []
#     alone: true
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Speed and scale
#
# What do search, training and preparation cost, how does the cost grow, and how far is it from the best that the
# machine could do? The large measurements are loaded from `data/results/bench.json`, which `make bench` wrote on an
# idle machine; this chapter measures a small one itself. Operations and bytes are counted, not guessed; where a figure
# is an estimate, the text says so.
#
# **What it needs:** only the repository.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"

# %%
import pandas as pd
from IPython.display import Markdown, display

from cmiclib import figures
from cmiclib.book import open_chapter
from cmiclib.config import profile
from cmiclib.book.gpu import cases, gpu_about, gpu_tables, gpu_training, read_gpu
from cmiclib.book.tables import effort_table, read_results
from cmiclib.study.speed import least_seconds, median, step_cost

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS)
bench = read_results(chapter.root / "data/results/bench.json")
gpu = read_gpu(chapter.root)
rows = bench["search"]["rows"]


# %%
def made_on(part):
    about = bench[part]["environment"]
    return f"{about['date']}, {about['processor']}, {about['threads']} threads, accelerator: {about['accelerator']}"


Markdown(
    f"Search was measured on {made_on('search')}. Times below are medians over repetitions; the file holds every "
    "repetition."
)

# %% [markdown]
# ## Search over time
#
# A search computes two products for each view of the gallery and one softmax for each shape, and keeps the best scores.
# Nothing is approximated. A few queries are scored in one compiled pass, because reading the gallery takes most of the
# time. Many queries are scored by matrix products; the softmax then runs over each block while it is in the processor's
# caches.
#
# Dotted lines: the shortest time that the machine allows, computed from how fast it copies memory and multiplies
# matrices; both were measured in turns with the search. Shaded areas: from the fastest repetition to the slowest.

# %%
largest = max(row["shapes"] for row in rows)


def case(dtype, queries):
    return next(r for r in rows if (r["dtype"], r["shapes"], r["queries"]) == (dtype, largest, queries))


one_query = median(case("float32", 1)["seconds"])
figures.captioned(
    figures.search_scaling(rows),
    "12.1",
    f"Time of an exact search, over the gallery and over the batch. One query over {largest:,} shapes takes "
    f"{1e3 * one_query:.0f} ms in float32, {100 * least_seconds(case('float32', 1)) / one_query:.0f} per cent of the "
    "rate at which the machine copies memory. In small galleries fixed costs and caches decide, so the "
    "curves bend there.",
    "Two panels, all axes logarithmic. Left: milliseconds over shapes for 1 and 256 queries in float32 and bfloat16. "
    "Right: milliseconds over queries. Dotted lines below them are the least time.",
)

# %%

table = [
    {
        "gallery": dtype,
        "queries": queries,
        "ms": 1e3 * median(case(dtype, queries)["seconds"]),
        "least ms": 1e3 * least_seconds(case(dtype, queries)),
        "share of the limit": least_seconds(case(dtype, queries)) / median(case(dtype, queries)["seconds"]),
    }
    for dtype in ("float32", "bfloat16")
    for queries in (1, 16, 256)
]
pd.DataFrame(table).round(3)

# %%
floor = least_seconds(case("float32", 1))
one, batch = (median(case("bfloat16", n)["seconds"]) / median(case("float32", n)["seconds"]) for n in (1, 256))
Markdown(
    f"{largest:,} shapes. Reading the gallery in float32 takes at least {1e3 * floor:.1f} ms. In bfloat16 it has "
    f"half the bytes; with it, one query takes {one:.2f} times as long as with float32, and a batch of 256 takes "
    f"{batch:.2f} times as long, because that processor must widen each number before it multiplies."
)

# %% [markdown]
# The same measurements below the machine's two limits, a roofline plot. On the left, reading the gallery limits the
# rate; on the right, multiplying does. More queries in a batch do more work with each byte.

# %%
figures.captioned(
    figures.roofline([row for row in rows if row["shapes"] == largest]),
    "12.2",
    f"The rate of a search below the machine's two limits, {largest:,} shapes. Memory limits a single query, "
    "arithmetic a batch of 256: asking many photos together is what makes them cheap.",
    "Operations a second over operations for each byte, both logarithmic: points for batches of 1 to 256 queries below "
    "a dotted line that rises and then stays level.",
)

# %% [markdown]
# ### Against the released code's loop
#
# The released code scores photo by photo and computes a layer whose result it never uses. The table times it with and
# without that layer, in turns with this library:

# %%
loop = bench["search"]["loop"]
taken = {name: median(values) for name, values in loop["seconds"].items()}
compared = pd.DataFrame({"ms": {name: 1e3 * value for name, value in taken.items()}})
compared["as released / this"] = taken["as released"] / compared.ms * 1e3
compared["without the layer / this"] = taken["without the unused layer"] / compared.ms * 1e3
print(f"{loop['queries']} photos, {loop['shapes']:,} shapes")
compared.round(1)

# %% [markdown]
# ### What half precision costs
#
# A gallery in bfloat16 (`cmic index --half`) takes half the bytes. Its numbers are widened to float32 as they are read,
# and the arithmetic is float32 on every processor. The table compares it with double precision, on the vectors of the
# shipped, trained model and on the same number of random vectors:

# %%
precision = [
    {"vectors": row["vectors"], "queries": way, **row[way]}
    for row in bench["precision"]["rows"]
    for way in ("one by one", "in batches")
]
pd.DataFrame(precision).rename(columns=lambda name: name.replace("_", " ")).round(4)

# %% [markdown]
# ### One million shapes
#
# The index file is memory-mapped: opening it reads the names, not the vectors, and a search keeps only the best scores
# of each block. The answers are compared with a plain computation in double precision.

# %%
million = bench["million"]
facts = {
    "file, GB": million["bytes"] / 1e9,
    "opening, s": million["open_seconds"],
    "peak memory, mapped parts of the file included, GB": million["peak_memory"] / 1e9,
    "one query, s": median(million["single_seconds"]),
    f"{million['batch']} queries, s": median(million["batch_seconds"]),
    "queries checked": million["checked"],
    "of these, same first ten": million["same_top10"],
    "largest error of a score": million["largest_error"],
}
pd.Series(facts, name=f"{million['shapes']:,} shapes").map("{:.3g}".format).to_frame()

# %% [markdown]
# ### The memory of an evaluation
#
# This is `cmic evaluate`, from the benchmark's folder to the figures, in its own process: views are read batch by batch
# and their pages released again; vectors and scores stay in memory.

# %%
whole = bench.get("evaluation")
Markdown(
    f"{whole['shapes']:,} shapes, {whole['photos']:,} photos, views of {whole['size']} px in a file of "
    f"{whole['bytes'] / 1e9:.1f} GB: at most **{whole['peak_memory'] / 1e9:.2f} GB** in memory "
    f"({made_on('evaluation')})."
    if whole
    else "**Not run**: `python tools/measure/bench.py evaluation` measures it."
)

# %% [markdown]
# ### Here and now
#
# A small gallery, measured on the machine that made this report:

# %%
from cmiclib.model import attention_scores
from cmiclib.study.speed import random_gallery, seconds

query, views, weight = random_gallery(2_000, 256)
now = {q: median(seconds(lambda q=q: attention_scores(query[:q], views, weight))) for q in (1, 256)}
Markdown(f"2,000 shapes: one query takes {1e3 * now[1]:.2f} ms, a batch of 256 takes {1e3 * now[256]:.1f} ms.")

# %% [markdown]
# ## Could a search skip most of the gallery?
#
# The score is a weighted mean of the products of a query with a shape's views, so the largest product is an upper bound
# on the score. If all views are clustered, the product with a cluster's centre plus the cluster's radius bounds the
# products of all its views. Shapes whose bound is below the tenth best score need no scoring, and the first ten stay
# exact. How many shapes could be skipped if the tenth best score were known from the start?

# %%
bounds = read_results(chapter.root / "data/results/bounds.json")
trained = next(result for result in bounds["results"] if result["vectors"] == "trained")
best = max(trained["rows"], key=lambda row: row["skipped_by_distance"])
vectors = 12 * trained["shapes"]
left = (best["clusters"] + (1 - best["skipped_by_distance"]) * vectors) / vectors
figures.captioned(
    figures.bound_shares(bounds["results"]),
    "12.3",
    "The share of pairs that a bound would spare, by the number of clusters. On trained vectors the best setting still "
    f"leaves {100 * left:.0f} per cent of the work, on random ones next to all of it: clusters do not pay here.",
    "A panel for trained and one for random vectors: the spared share over 16 to 1,024 clusters for two bounds, and a "
    "dashed line for the largest product itself.",
)

# %%
Markdown(
    f"On trained vectors ({trained['queries']} photos, {trained['shapes']} shapes) the largest product itself would "
    f"save {100 * trained['skipped_by_products']:.0f} % of the pairs, but computing it is the very work to be saved. "
    f"With {best['clusters']:,} clusters for {vectors:,} views, each view's own distance from its centre saves "
    f"{100 * best['skipped_by_distance']:.0f} %, the radius alone {100 * best['skipped_by_radius']:.0f} %; with the "
    f"products of the centres included, {100 * left:.0f} % of the work remains. ({bounds['about']})"
)

# %% [markdown]
# Does the saving grow with the gallery? The table repeats the measurement with random parts of this gallery, each with
# the number of clusters that leaves the least work:

# %%
grown = pd.DataFrame(trained["grown"])
grown.assign(left=100 * grown.left)[["shapes", "clusters", "left"]].round(1).rename(
    columns={"left": "% of products left"}
)

# %%
first, last = grown.left.iloc[0], grown.left.iloc[-1]
Markdown(
    f"From {grown.shapes.min()} to {grown.shapes.max()} shapes, the remaining share of the work changes from "
    f"{100 * first:.0f} to {100 * last:.0f} %. Larger galleries of trained vectors were not at hand, so **its limit is "
    "not known**."
)

# %% [markdown]
# At this size it does not pay. The remaining part would be read in scattered pieces instead of in sequence, a batch
# needs the union of what its queries need, and the tenth best score is not known from the start. In 128 dimensions the
# distance of a view from the centre of its cluster is large compared with the gap between good scores and bad ones. So
# the library has no such index; `tools/measure/measure_bounds.py` repeats this measurement. It is worth repeating with
# a trained model's vectors of tens of thousands of shapes.
#
# ## Past one machine
#
# The score is a mixture of the products $q \cdot r_v$ of a query with a shape's views, so $\max_v q \cdot r_v$ is never
# below it. Engines for several vectors a document order documents by that maximum (*MaxSim* with one query vector), so
# any of them can serve this method exactly. A search takes candidates in this order and scores them exactly; as soon as
# the tenth score reaches the bound of the last candidate, no other shape can be among the first ten. The answer is then
# *certified*; without that proof the library does not call it so.
#
# `cmic index --engine lance --output DIR` writes a gallery into a [LanceDB](https://lancedb.github.io/lancedb/)
# database (`pip install -e '.[scale]'`), a folder or the address of a bucket. `cmic search`, `find`, `app` and
# `evaluate` take it as `--index`. A search scores a fixed number of candidates and says where they do not suffice;
# `--exact` then reads the whole gallery. Shapes are added and deleted in place, every write is a version, and under
# torchrun each process writes its share.

# %%
scale = read_results(chapter.root / "data/results/scale.json")
default = scale["search"]["candidates"]
needed = pd.Series(list(scale["brute"]["needed"].values())[-1])
figures.captioned(
    figures.certificates(scale["brute"]["needed"], default),
    "12.4",
    "Left, how many shapes a search visits until its first ten are proven; right, how many photos a number of "
    f"candidates proves. Of {scale['shapes']:,} shapes the median photo needs {needed.median():,.0f}; the default of "
    f"{default:,} certifies {100 * (needed <= default).mean():.1f} per cent.",
    "Left: visited shapes over the size of the gallery, both logarithmic, for the median photo, 95 of 100 and all. "
    "Right: the certified share over candidates, with a dashed line at the default.",
)

# %%
Markdown(
    f"{scale['shapes']:,} shapes, made of the learnt numbers of the shipped model's 519 as "
    f"`tools/measure/measure_scale.py` says, and {scale['photos']} photos: half of the photos need "
    f"{needed.median():,.0f} shapes, the worst needs {needed.max():,}. The default of {default:,} candidates certifies "
    f"**{100 * (needed <= default).mean():.1f} %**, by brute force. How many shapes have a bound above the tenth score "
    "depends on how crowded the gallery is; this one is, because each shape is made of two real ones."
)

# %% [markdown]
# The same gallery, asked in the database and in memory, one photo at a time. Other work ran on the machine, so the
# table gives the processor's time beside the clock's:


# %%
def asked(part):
    run = scale.get(part)
    if not run:
        return {"photos asked": "not run"}
    row = {"photos asked": len(run["seconds"]), "ms a photo, median": 1e3 * median(run["seconds"]),
           "ms of one core, median": 1e3 * median(run["cpu_seconds"]), "recall of the first ten": run["recall"],
           "peak memory, GB": run["peak_memory"] / 1e9}  # fmt: skip
    if "certified" in run:
        row["certified, %"] = 100 * sum(run["certified"]) / len(run["certified"])
        row["of these, wrong"] = sum(c and not s for c, s in zip(run["certified"], run["same"], strict=True))
    return row


pd.DataFrame({"database": asked("search"), "in memory, bfloat16": asked("in_memory")}).T.round(3)

# %%
facts = []
if whole := scale.get("exact"):
    facts.append(
        f"`--exact` reads the whole gallery once for all photos that are left: {whole['photos']} photos took "
        f"{whole['seconds']:.0f} s ({whole['cpu_seconds']:.0f} s of one core), and {whole['same']} of their answers "
        "were those of brute force."
    )
if more := scale.get("added"):
    facts.append(
        f"{more['shapes']:,} shapes more took **{more['seconds']:.2f} s**, and {more['found']} of {more['asked']} "
        f"photos found theirs at once; written again, {more['again_written']} were added; the version before still had "
        f"{more['earlier_version']:,}."
    )
Markdown(" ".join(facts) or "**Not run**: `python tools/measure/measure_scale.py` measures the rest.")

# %% [markdown]
# The engine has no index of its own here and reads every vector for each photo: that saves memory, not time.
# Approximate indexes (IVF-PQ) read a small part, but what they do not return has no bound, so they can never certify;
# the library does not use them.
#
# | engine | orders by the bound | here |
# |---|---|---|
# | LanceDB, files | multivector column, cosine | run: all figures above |
# | LanceDB, `s3://` addresses | the same code | **not run**: no object storage was at hand |
# | Qdrant | multivectors with MaxSim | **not run**, and not checked in its documentation |
# | faiss | one row a view, inner product, grouped by shape | **not run**, and not checked in its documentation |
#
# **Computed, not measured:** what 100 million shapes would need, if time and bytes grow with the shapes:

# %%
factor, nodes, cores = 1e8 / scale["shapes"], 16, 32
plan = {
    "vectors, GB": factor * scale["build"]["bytes"] / 1e9,
    f"of these on each of {nodes} nodes, GB": factor * scale["build"]["bytes"] / 1e9 / nodes,
    f"writing with {nodes} processes, hours": factor * scale["build"]["append_seconds"] / nodes / 3600,
}
if run := scale.get("search"):
    each = factor * median(run["cpu_seconds"]) / nodes / cores
    plan |= {f"a photo, all {nodes} × {cores} cores, s": each, "photos a second": 1 / each}
pd.Series(plan, name="computed").map("{:.3g}".format).to_frame()

# %% [markdown]
# A bucket holds the vectors; each node searches its part of the shapes and returns its first ten, and the best of those
# are the answer, with a certificate where all parts have one. The engine's vectors must be in each node's memory or on
# fast disks for this rate.
#
# ## Training
#
# A step draws a batch, augments it on the device, embeds it, computes the loss, and backpropagates. How much of its
# time is waiting for data?

# %%
steps = pd.DataFrame([
    {
        "profile": row["profile"],
        "photos": row["photos"],
        "s a step": median(row["whole"]),
        "s of it for its input": median(row["input"]),
        "share, %": 100 * row["waiting"],
        "steps timed": len(row["whole"]),
    }
    for row in bench["steps"]["rows"]
])  # fmt: skip
print(made_on("steps"))
steps.round(4)

# %% [markdown]
# The pictures of the paper's batch are prepared in two ways: as one batch here, and one after the other with PIL as in
# the released loader. Neither includes the colour transfer; both use the same threads and run in turns:

# %%
pipelines = bench["pipelines"]
here, released = (median(pipelines["seconds"][name]) for name in ("here", "released"))
Markdown(
    f"{pipelines['photos']} photos and {pipelines['views']} views of {pipelines['size']} px: {1e3 * here:.0f} ms here, "
    f"{1e3 * released:.0f} ms with PIL. **On a CPU the released way is {here / released:.1f} times as fast**: it "
    "resizes integers, while this library resamples a batch with dense matrices. These run on the batch's own device; "
    "on a GPU no picture has to be copied there. "
    + (
        "On the GPU measured below, in *On a GPU*, such a batch, colour transfer included, takes "
        f"{1e3 * on_gpu['input']['median']:.1f} ms."
        if (on_gpu := cases(gpu, "step").get("fp32"))
        else "That was not run on a GPU."
    )
)

# %% [markdown]
# ### What a step needs, counted
#
# The table counts, without running the step, the operations of the forward and the backward pass, the memory of the
# activations that are kept for the backward pass in float32, and the memory of weights, gradients and Adam's moments:

# %%
cost = pd.DataFrame({name: step_cost(profile(name)) for name in ("demo", "photos", "paper")}).T
cost.assign(operations=cost.operations / 1e9, activations=cost.activations / 1e9, weights=cost.weights / 1e9).rename(
    columns={"operations": "10⁹ operations", "activations": "activations, GB", "weights": "weights, GB"}
).round(2)

# %% [markdown]
# **An estimate, not a measurement:** GPU hours of the whole paper profile, if a device reaches a third of the rate that
# its data sheet promises for dense products. The rows in bf16 hold for `train.precision=bf16`; the profile itself
# computes in fp32.

# %%
SHEETS = {"RTX 3090, fp32": 35.6e12, "A100, bf16": 312e12, "H100 SXM, bf16": 989e12}  # operations a second
total = step_cost(profile("paper"))["operations"] * profile("paper").train.steps
hours = {name: total / (rate / 3) / 3600 for name, rate in SHEETS.items()}
pd.Series(hours, name="hours, estimated").round(1).to_frame()

# %% [markdown]
# On a GPU a thread copies the next batch's input to the device, on its own stream, while the step computes; only the
# loss is read back, and only when it is logged. `cmic train --compile` lets `torch.compile` fuse the step. `python
# tools/measure/profile_step.py --profile paper` prints where a step's time goes on your device, and on a GPU how often
# the host waits for it. What was measured on one stands below, in *On a GPU*.
#
# ### Several processes
#
# The same global batch, trained by one process and by two, on one machine with two cores (ResNet-18, 64 px):

# %%
pd.DataFrame([
    {"processes": row["processes"], "threads each": row["threads"], "s a step": median(row["whole"])}
    for row in bench["processes"]["rows"]
]).round(3)  # fmt: skip

# %% [markdown]
# Two processes on two cores are slower than one with two threads: each draws and augments the whole batch, and they
# exchange data. They pay off where each has its own device. `cmic train`, `cmic evaluate` and `cmic index` run under
# torchrun, which interprets `--run` as an option of its own, so write `-r`:
#
# ```
# torchrun --nproc-per-node=8 -m cmiclib.cli train --profile paper --benchmark DIR --output RUN
# torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=FIRST-HOST:29500 \
#     -m cmiclib.cli train --profile paper --benchmark DIR --output RUN      # the same line on both machines
# torchrun --nproc-per-node=8 -m cmiclib.cli evaluate -r RUN --benchmark DIR
# ```
#
# All machines need the benchmark and the run folder under the same paths; only the first process writes. More than one
# machine was not tried here.

# %% [markdown]
# ## On a GPU
#
# `make gpu-report` measures one card for seven minutes: its limits, the tests that need a GPU, training steps of the
# paper's profile, the embedding of a gallery, a search over a million shapes, and the paper's recipe for the minutes
# that are left. What follows is its file, `data/results/gpu.json`; every time is the median of at least five.

# %%
Markdown(gpu_about(gpu))

# %%
for caption, table in gpu_tables(gpu):
    display(Markdown(caption), table)
if trained_on_gpu := gpu_training(gpu):
    display(Markdown(trained_on_gpu))

# %% [markdown]
# ## Where the time of a demo goes
#
# glibc gives each large block of memory back to Linux and asks for it again; the system then clears every page anew.
# The commands and chapters keep such blocks (`CMIC_MALLOC=default` in the environment leaves glibc as it is). Networks
# that do not learn run with their normalisation folded into the convolutions, and the channels of a pixel lie side by
# side in memory. The stored run of the demo took, chapter by chapter:

# %%
demo = read_results(chapter.root / "data/results/demo.json")
effort = effort_table(demo)
effort.astype(float).round(1).astype(object).fillna("not measured")

# %%
share = effort["CPU s, system"].sum() / effort[["CPU s, own code", "CPU s, system"]].sum().sum()
whose = f"{100 * share:.0f} % of the CPU time was the system's" if share == share else "CPU time was **not measured**"
Markdown(f"All chapters: {effort.minutes.sum():.1f} minutes on {demo['environment']['cores']} cores; {whose}.")

# %% [markdown]
# ## Preparation
#
# Rendering, sampling and voxelising a shape need only the shape's file, so shapes are spread over processes, or over a
# Dask cluster with `CMIC_SCHEDULER=tcp://HOST:8786 cmic prepare …` (`.venv/bin/pip install -e '.[cluster]'`). With
# `--allow-missing` an unusable mesh is skipped; `left_out.txt` beside the benchmark lists it with the reason. Finished
# shapes are kept.

# %%
done = bench.get("preparation")
each = done["seconds"] / done["shapes"] if done else None
Markdown(
    f"{done['shapes']} shapes of the shipped benchmark at {done['size']} px took {each:.2f} s each with {done['jobs']} "
    f"processes ({made_on('preparation')}). Extrapolated, 50,000 such shapes would take "
    f"{50_000 * each / 3600:.1f} hours."
    if done
    else "The cost of a shape was **not measured**: `python tools/measure/bench.py preparation` measures 300 of them."
)

# %% [markdown]
# ## What we learned

# %%
Markdown(
    f"- Search is exact and cheap at this size: {largest:,} shapes take {1e3 * one_query:.0f} ms for one photo, and "
    f"{million['shapes']:,} take {median(million['single_seconds']):.1f} s from a file that is larger than what stays "
    "in memory.\n"
    "- Asking many photos together is what arithmetic rewards; half precision saves memory, not time.\n"
    f"- A bound proves the first ten without reading the rest of a gallery: {default:,} candidates suffice for "
    f"{100 * (needed <= default).mean():.0f} per cent of the photos. The engine that holds the vectors on disk reads "
    "all of them for each photo, so it saves memory and not time.\n"
    "- Clusters of views do not pay at this size."
)

# %% [markdown]
# ## Try it
#
# `make bench` measures your machine into `outputs/bench.json`. Load that file above instead of the stored one: which of
# the two limits does your machine come closer to, and from how many queries on do products take longer than reading?
