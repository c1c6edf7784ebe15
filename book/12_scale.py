# ---
# jupyter:
#   cmic:
#     needs: []
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Speed and scale
#
# What do search, training and preparation cost, how does that grow, and how far is it from what the machine could do at
# best? The large measurements are loaded from `data/results/bench.json`, which `make bench` wrote on an idle machine;
# a small one is made here and now. Operations and bytes are counted, not guessed; where a figure is an estimate, it
# says so.
#
# **What it needs:** nothing but the repository.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"

# %%
import pandas as pd
from IPython.display import Markdown

from cmiclib import figures
from cmiclib.book import open_chapter
from cmiclib.config import profile
from cmiclib.book.results import read_results
from cmiclib.study.speed import least_seconds, median, step_cost

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS)
bench = read_results(chapter.root / "data/results/bench.json")
rows = bench["search"]["rows"]


# %%
def made_on(part):
    about = bench[part]["environment"]
    return f"{about['date']}, {about['processor']}, {about['threads']} threads, accelerator: {about['accelerator']}"


Markdown(
    f"Search was measured on {made_on('search')}. Times below are medians where a thing was repeated; the file holds "
    "every repetition."
)

# %% [markdown]
# ## Search over time
#
# A search computes two products for each view of the gallery, one softmax for each shape, and keeps the best. Nothing
# is approximated. A few queries are scored in one compiled pass, because reading the gallery is all there is to do.
# Many queries are matrix products; the softmax then passes over each block while it is in the processor's caches.
#
# Dotted: the least time that the machine allows, from how fast it copies memory and multiplies matrices, both measured
# in turns with the search. Shaded: from the fastest repetition to the slowest.

# %%
figures.search_scaling(rows)

# %%
largest = max(row["shapes"] for row in rows)


def case(dtype, queries):
    return next(r for r in rows if (r["dtype"], r["shapes"], r["queries"]) == (dtype, largest, queries))


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
    f"{largest:,} shapes. Reading the gallery in float32 takes {1e3 * floor:.1f} ms at least. One in bfloat16 has half "
    f"the bytes; against float32 one query takes {one:.2f} times as long and a batch of 256 {batch:.2f} times, because "
    "that processor must widen each number before it multiplies."
)

# %% [markdown]
# The same below the machine's two limits. On the left reading the gallery bounds the rate, on the right multiplying;
# more queries in a batch do more with each byte.

# %%
figures.roofline([row for row in rows if row["shapes"] == largest])

# %% [markdown]
# ### Against the released code's loop
#
# It goes photo by photo and computes a layer whose result nobody uses; with that layer and without, in turns with this
# library:

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
# A gallery in bfloat16 (`cmic index --half`) holds half the bytes. Up to four queries are compared with it as they are;
# a batch is rounded, too, where the processor has products of bfloat16 of its own; elsewhere the gallery is widened to
# float32, block by block. On the vectors of the shipped, trained model and on as many random ones, against double
# precision:

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
# The index file is memory-mapped: opening it reads the names, not the vectors, and a search keeps no scores but the
# best ones of each block. The answers are compared with a plain computation in double precision.

# %%
million = bench["million"]
facts = {
    "file, GB": million["bytes"] / 1e9,
    "opening, s": million["open_seconds"],
    "most memory, mapped parts of the file among it, GB": million["peak_memory"] / 1e9,
    "one query, s": median(million["single_seconds"]),
    f"{million['batch']} queries, s": median(million["batch_seconds"]),
    "queries checked": million["checked"],
    "of these with the same first ten": million["same_top10"],
    "largest error of a score": million["largest_error"],
}
pd.Series(facts, name=f"{million['shapes']:,} shapes").map("{:.3g}".format).to_frame()

# %% [markdown]
# ### The memory of an evaluation
#
# `cmic evaluate`, from the benchmark's folder to the figures, in a process of its own: views are read batch by batch,
# and the pages of their file given back; vectors and scores are kept.

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
# A small gallery on the machine that made this report:

# %%
from cmiclib.model import attention_scores
from cmiclib.study.speed import random_gallery, seconds

query, views, weight = random_gallery(2_000, 256)
now = {q: median(seconds(lambda q=q: attention_scores(query[:q], views, weight))) for q in (1, 256)}
Markdown(f"2,000 shapes: one query takes {1e3 * now[1]:.2f} ms, a batch of 256 takes {1e3 * now[256]:.1f} ms.")

# %% [markdown]
# ## Could a search skip most of the gallery?
#
# The score is a mixture of the products of a query with a shape's views, so the largest product is an upper bound of
# it. If all views are clustered, the product with a cluster's centre plus its radius bounds the products of all its
# views. Shapes whose bound lies below the tenth best score need no scoring, and the first ten stay exact. How many are
# these, if the tenth best score were known from the start?

# %%
bounds = read_results(chapter.root / "data/results/bounds.json")
figures.bound_shares(bounds["results"])

# %%
trained = next(result for result in bounds["results"] if result["vectors"] == "trained")
best = max(trained["rows"], key=lambda row: row["skipped_by_distance"])
vectors = 12 * trained["shapes"]
left = (best["clusters"] + (1 - best["skipped_by_distance"]) * vectors) / vectors
Markdown(
    f"On trained vectors ({trained['queries']} photos, {trained['shapes']} shapes) the largest product itself would "
    f"spare {100 * trained['skipped_by_products']:.0f} % of the pairs, but to know it is the very work to be spared. "
    f"With {best['clusters']:,} clusters for {vectors:,} views, each view's own distance from its centre spares "
    f"{100 * best['skipped_by_distance']:.0f} %, the radius alone {100 * best['skipped_by_radius']:.0f} %; with the "
    f"products of the centres, {100 * left:.0f} % of the work is left. ({bounds['about']})"
)

# %% [markdown]
# Does it get better as a gallery grows? The same with parts of this one, drawn at random, each with the number of
# clusters that leaves it the least work:

# %%
grown = pd.DataFrame(trained["grown"])
grown.assign(left=100 * grown.left)[["shapes", "clusters", "left"]].round(1).rename(
    columns={"left": "% of products left"}
)

# %%
first, last = grown.left.iloc[0], grown.left.iloc[-1]
Markdown(
    f"From {grown.shapes.min()} to {grown.shapes.max()} shapes the share that is left goes from {100 * first:.0f} to "
    f"{100 * last:.0f} %. Larger galleries of trained vectors were not at hand, so **where this ends is not known**."
)

# %% [markdown]
# At this size that is no win. The part that is left would be read here and there instead of in a row, a batch needs
# the union of what its queries need, and the tenth best score is not known from the start. In 128 dimensions a view is
# far from the centre of its cluster compared with how far good scores lie above bad ones. So the library has no such
# index; this answer is what remains of the attempt (`tools/measure/measure_bounds.py`). With a trained model's vectors
# of tens of thousands of shapes it is worth asking again.
#
# ## Training
#
# A step draws a batch, augments it on the device, embeds, compares, and goes back. How much of it is waiting for data?

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
# The pictures of the paper's batch, prepared as one batch here and one after the other with PIL as the released loader
# does it, without the colour transfer, with the same threads and in turns:

# %%
pipelines = bench["pipelines"]
here, released = (median(pipelines["seconds"][name]) for name in ("here", "released"))
Markdown(
    f"{pipelines['photos']} photos and {pipelines['views']} views of {pipelines['size']} px: {1e3 * here:.0f} ms here, "
    f"{1e3 * released:.0f} ms with PIL. **On a CPU the released way is {here / released:.1f} times as fast**: it "
    "resizes whole numbers, while a batch is resampled by dense matrices. Those run wherever the batch lies; on a GPU "
    "no picture has to be brought there. That was not measured: no GPU was at hand."
)

# %% [markdown]
# ### What a step needs, counted
#
# Operations forward and backward; memory for what is kept from forward to backward in float32, and for weights,
# gradients and Adam's moments. Counted without running the step:

# %%
cost = pd.DataFrame({name: step_cost(profile(name)) for name in ("demo", "photos", "paper")}).T
cost.assign(operations=cost.operations / 1e9, activations=cost.activations / 1e9, weights=cost.weights / 1e9).rename(
    columns={"operations": "10⁹ operations", "activations": "activations, GB", "weights": "weights, GB"}
).round(2)

# %% [markdown]
# **An estimate, nothing measured:** GPU hours of the whole paper profile, if a device reaches a third of the rate that
# its data sheet promises for dense products. The rows in bf16 hold for `train.precision=bf16`; the profile itself
# computes in fp32.

# %%
SHEETS = {"RTX 3090, fp32": 35.6e12, "A100, bf16": 312e12, "H100 SXM, bf16": 989e12}  # operations a second
total = step_cost(profile("paper"))["operations"] * profile("paper").train.steps
hours = {name: total / (rate / 3) / 3600 for name, rate in SHEETS.items()}
pd.Series(hours, name="hours, estimated").round(1).to_frame()

# %% [markdown]
# On a GPU a thread gives the device the next batch's input, on a stream of its own, while the step computes; nothing
# reads a value back but the loss where it is logged. `cmic train --compile` lets `torch.compile` fuse the step.
# `python tools/measure/profile_step.py --profile paper` prints where a step's time goes on your device, and on a GPU
# how often the host waits for it. **On a GPU none of this has been run yet.**
#
# ### Several processes
#
# The same global batch, by one process and by two, on one machine of two cores (ResNet-18, 64 px):

# %%
pd.DataFrame([
    {"processes": row["processes"], "threads each": row["threads"], "s a step": median(row["whole"])}
    for row in bench["processes"]["rows"]
]).round(3)  # fmt: skip

# %% [markdown]
# Two processes on two cores are slower than one with two threads: each draws and augments the whole batch, and they
# talk. They pay where each has a device of its own. `cmic train`, `cmic evaluate` and `cmic index` run under torchrun,
# which takes `--run` for an option of its own, so write `-r`:
#
# ```
# torchrun --nproc-per-node=8 -m cmiclib.cli train --profile paper --benchmark DIR --output RUN
# torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=FIRST-HOST:29500 \
#     -m cmiclib.cli train --profile paper --benchmark DIR --output RUN      # the same line on both machines
# torchrun --nproc-per-node=8 -m cmiclib.cli evaluate -r RUN --benchmark DIR
# ```
#
# All machines need the benchmark and the run folder by the same paths; only the first process writes. More than one
# machine was not tried here.

# %% [markdown]
# ## Preparation
#
# Rendering, sampling and voxelising one shape takes no more than its file, so shapes are spread over processes, or over
# a Dask cluster with `CMIC_SCHEDULER=tcp://HOST:8786 cmic prepare …` (`.venv/bin/pip install -e '.[cluster]'`). A mesh
# that cannot be used costs that mesh: with `--allow-missing` it stands in `left_out.txt` beside the benchmark, with the
# reason; what is done stays done.

# %%
done = bench.get("preparation")
each = done["seconds"] / done["shapes"] if done else None
Markdown(
    f"{done['shapes']} shapes of the shipped benchmark at {done['size']} px took {each:.2f} s each with {done['jobs']} "
    f"processes ({made_on('preparation')}). Extrapolated, 50,000 such shapes would take "
    f"{50_000 * each / 3600:.1f} hours."
    if done
    else "What a shape costs was **not run**: `python tools/measure/bench.py preparation` measures 300 of them."
)

# %% [markdown]
# ## Try it
#
# `make bench` measures your machine into `outputs/bench.json`. Read that file above instead of the stored one: which
# of the two limits does your machine come closer to, and from how many queries on do products take longer than reading?
