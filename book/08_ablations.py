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
# # Ablations: what each choice is worth
#
# CMIC {cite:p}`lin2021cmic` combines several choices: colour transfer, two contrastive losses, a query that weighs
# twelve gray views, a mask. This chapter removes or replaces each of them, trains again with the same seeds, and
# measures how much worse retrieval becomes. It ends with claims, the paper's and a few others, each with a verdict that
# follows from a rule.
#
# **What it needs:** the benchmark. The whole grid takes long, so `make ablations` computes it and stores it in
# `data/results/ablations.json`; this chapter computes a few of its runs again and compares them with the stored ones.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
VARIANTS_NOW = ["full", "mean-fusion", "no-category"]
SEEDS_NOW = [0]

# %%
import pandas as pd
from IPython.display import Markdown

from cmiclib import figures
from cmiclib.study.effects import SCALES, SMALLEST_EFFECT, Grid, along, claims_table, effect_table, lost_photos
from cmiclib.study.ablations import SEEDS, for_profile, run_grid
from cmiclib.book import open_chapter

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS)
benchmark = chapter.benchmark
reference, variants = for_profile(PROFILE)

# %% [markdown]
# ## The variants
#
# Each variant changes only what its row lists. Most rows change the configuration. Fewer views, silhouettes and wrong
# masks (`data.…`) change the benchmark instead (`cmiclib/study/variants.py`), in training *and* in evaluation: a
# gallery with three views has three views everywhere. The views are spread evenly, so three views are the one from the
# front and those from behind on both sides. A wrong mask has a wrong outline, always the same one for the same photo; a
# good part of a corrupted mask is in the wrong place. Triplets replace the instance loss; they are compared with the
# method *without* category loss, because the two losses are not on the same scale. Smaller batches keep the number of
# steps, so they also see fewer photos. Hard negatives are weighted as in {cite:t}`robinson2021hard`.

# %%
listed = pd.DataFrame({"changes": {v.title: ", ".join(v.changes) or "–" for v in variants.values()}})
listed.assign(part=[v.part for v in variants.values()], against=[variants[v.against].title for v in variants.values()])

# %% [markdown]
# ## The scale
#
# A run should fit into four minutes on two cores, so the runs are smaller than the demo's: smaller pictures, fewer
# copies and steps. The convolutions keep their ImageNet weights, so these runs learn less than the paper's; a choice
# that matters for a whole network may matter less here, and the other way round. No setting was tuned for a variant, or
# for the full method at this scale, but the demo's settings were chosen on the same validation photos. Each run
# evaluates the validation photos once, after the last step, and never reads the test photos.

# %%
shown = {"image size": reference.model.image_size}
shown |= reference.train.model_dump(include={"batch", "steps", "views", "copies", "view_copies"})
Markdown(f"{', '.join(f'{name} {value}' for name, value in shown.items())}; seeds {', '.join(map(str, SEEDS))}.")

# %% [markdown]
# ## Computed now
#
# This is a reduced grid: the full method and two variants, with one seed. They share their frozen features, and only
# the first run computes these (column `seconds`), so the grid fits into `make reproduce`. One seed decides nothing;
# these runs show that the stored rows can be reproduced within the tolerance below.

# %%
table = chapter.outputs / "08_ablations" / "ablations.json"
now = run_grid(
    benchmark, chapter.outputs.parent / "ablations", table, names=VARIANTS_NOW, seeds=SEEDS_NOW, reference=reference,
    variants=variants, same_code=True, replace=True,
)  # fmt: skip

# %%
computed = Grid.load(table, reference, variants)
stored = Grid.load(chapter.root / "data/results/ablations.json") if PROFILE != "smoke" else None
of_this = stored is not None and stored.benchmark == benchmark.hash
grid, origin = (stored, "loaded") if of_this else (computed, "computed now")


def metrics_of(rows):
    made = pd.json_normalize(rows.to_dict("records")).set_index(["variant", "seed"])
    return made.rename(columns=lambda name: name.removeprefix("metrics."))


# %%
pd.set_option("display.max_colwidth", None)
columns = ["top1", "top10", "category", "unseen_top1"]
asked = computed.rows.variant.isin(VARIANTS_NOW) & computed.rows.seed.isin(SEEDS_NOW)
here = metrics_of(computed.rows[asked])
beside = metrics_of(stored.rows).reindex(here.index) if of_this else here[columns] * float("nan")
measured = (100 * here[columns]).round(1).join(here[["seconds", "machine", "date"]])
pd.concat({"now": measured, "stored": (100 * beside[columns]).round(1)}, axis=1)

# %%
TOLERANCE = 0.02  # of Top-1
gap = (here.top1 - beside.top1).abs().max()
place = "within" if gap <= TOLERANCE else "**outside**"
Markdown(
    "**Not compared:** no stored row belongs to this benchmark and scale."
    if pd.isna(gap)
    else f"Largest difference in Top-1: {100 * gap:.1f} points, {place} the tolerance of {100 * TOLERANCE:g}."
)

# %% [markdown]
# ## What is shown below

# %%
total = len(variants) * len(SEEDS)
machines = ", ".join(f"{machine} ({len(part)} runs)" for machine, part in grid.rows.groupby("machine"))
dates = " to ".join(sorted({grid.rows.date.min(), grid.rows.date.max()}))
absent = [v.title for name, v in variants.items() if not grid.seeds(name)]
Markdown(
    f"All numbers from here on were **{origin}**: {len(grid.rows)} of {total} runs, {dates}, {machines}; "
    f"{grid.rows.seconds.sum() / 3600:.1f} hours in total. A run took a median of {grid.rows.seconds.median():.0f} "
    f"seconds and at most {grid.rows.seconds.max():.0f}; the time depends on the machine's other load. "
    + (f"**Not run:** {', '.join(absent)}; `make ablations` runs them." if absent else "Every variant was run.")
)

# %%
from cmiclib.io.code import code_digest
from cmiclib.training.loop import METHOD

others = (grid.rows.code != code_digest(METHOD)).sum()
Markdown(
    f"The code of the method has changed since {others} of these runs ({grid.rows.code.nunique()} versions). "
    "The comparison above shows how much this matters."
    if others
    else "These runs were computed with the present code of the method."
)

# %% [markdown]
# ## Effects
#
# Each point is a difference in Top-1 on validation photos, averaged over the seeds: the Top-1 of what the variant is
# compared with, minus that of the variant. Right of zero, the variant is worse. Both sides use the same seeds, so each
# seed gives one difference, shown as a small mark. The line is the 95 % interval. It adds the variance over seeds
# (another training) and the variance over shapes (other photographed shapes), with Student's t; variance that seeds and
# shapes share is counted twice, so the interval is a little too wide rather than too narrow. There are many intervals
# here: of twenty effects that are truly zero, chance makes about one interval exclude zero. The gray band is the
# smallest effect of interest.

# %%
seen, unseen = effect_table(grid, variants=variants), effect_table(grid, seen=False, variants=variants)
figures.forest([seen, unseen], ["Seen shapes", "Unseen shapes"], SMALLEST_EFFECT)

# %%
numbers = ["accuracy", "difference", "low", "high"]
tables = {name: 100 * part.set_index("name")[numbers] for name, part in (("seen", seen), ("unseen", unseen))}
both = pd.concat(tables | {"runs": seen.set_index("name")[["seeds"]]}, axis=1)
both.style.format("{:.1f}", subset=list(tables), na_rep="–").set_caption(f"per cent, {origin}")

# %% [markdown]
# ## Views, batch, masks
#
# The same runs along three scales; each dot is a seed. Steps that were not run stay empty.

# %%
scales = [
    figures.Scale(title, label, list(steps), along(grid, steps), along(grid, steps, seen=False))
    for title, (label, steps) in SCALES.items()
]
figures.accuracy_along(scales)

# %% [markdown]
# ## What goes wrong
#
# The figure shows photos that the variant gets wrong with every seed, while the method that it is compared with gets
# them right with every seed: the first such photo of each variant, in the benchmark's order. Green frames a view of the
# own shape, orange a view of the shape that the variant found instead. The outline on the photo is always the exact
# mask, even where the variant used another mask or none. First, the number of shapes with such a photo:

# %%
losses = {name: lost_photos(grid, name, v.against) for name, v in variants.items() if name != v.against}
counts = {variants[name].title: len(lost) for name, lost in losses.items() if grid.seeds(name)}
pd.Series(counts, name="shapes with such a photo").to_frame()

# %%
examples = pd.concat([lost.head(1).assign(title=variants[name].title) for name, lost in losses.items()])
query = {name: row for row, name in enumerate(benchmark.queries.query_id)}
shape = {name: row for row, name in enumerate(benchmark.shapes.shape_id)}
own = [shape[name.partition("|")[0]] for name in examples.shape_id]
pictures = benchmark.images[[query[name] for name in examples.query_id]], benchmark.views[own, 1]

# %%
wrong = benchmark.views[[shape[name] for name in examples.found], 1]
texts = examples.title.tolist(), examples.found.tolist()
figures.wrong_without(*pictures, wrong, *texts) if len(examples) else Markdown("No photo was lost in this way.")

# %% [markdown]
# ## The claims
#
# The claims are what the paper's abstract says, what its released code relies on, what later work adds, and what this
# book assumes, in the words of this book. The paper's full text was not at hand, so no sections are named. The effect
# is the result of the side that the claim prefers minus that of the other side, in points, on photos of seen shapes, as
# the paper measures; the column `unseen` gives the same difference on photos of unseen shapes, which does not affect
# the verdict. A rule gives the verdict; nobody types it, and it makes no correction for the number of claims:
#
# - A claim that something is **better** is *supported* if the whole interval is above zero and the effect is at least
#   the smallest effect of interest; it is *not supported* if the whole interval is below that smallest effect.
# - A claim that something is **no worse**, or enough, is *supported* if the whole interval is above minus the smallest
#   effect; it is *not supported* if the whole interval is below zero and the effect is at most minus the smallest
#   effect.
# - Otherwise it is *undecided*. Fewer than two seeds decide nothing. A claim without runs is *not run*.
#
# "Not supported" refers to this benchmark at this scale, with frozen convolutions; it does not refute the paper.

# %%
claims = claims_table(grid, variants=variants)
points = ["effect", "from", "to", "unseen"]
styled = claims.style.hide(axis="index").format("{:+.1f}", subset=points, na_rep="–")
styled.set_caption(f"Smallest effect of interest: {100 * SMALLEST_EFFECT:g} point; {origin}, {dates}")

# %%
said = claims.verdict.value_counts()
Markdown("; ".join(f"**{verdict}**: {count}" for verdict, count in said.items()) + ".")

# %% [markdown]
# ## Try it
#
# Add a variant of your own to `VARIANTS` in `cmiclib/study/ablations.py`, such as `"all-views": Variant("twelve views a
# step", ("train.views=12",), "views")`, and run `make ablations JOBS=2`: it trains only the new variant, once for each
# seed. Would you have guessed on which side of the band it falls?
