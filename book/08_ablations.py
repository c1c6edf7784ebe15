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
# follows from a rule, on seen and on unseen shapes.
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
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from cmiclib import figures
from cmiclib.study.effects import SCALES, SMALLEST_EFFECT, UNORDERED, Grid, along, effect_table, lost_photos
from cmiclib.study.ablations import SEEDS, for_profile, run_grid, variant_config
from cmiclib.study.claims import claims_table, counted_verdicts, shown_claims
from cmiclib.study.variants import seen_photos
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
# that matters for a whole network may matter less here, and the other way round. Each run evaluates the validation
# photos once, after the last step, and never reads the test photos.
#
# The comparison favours the full method. No setting was tuned for any variant, but dropout, batch, head, cells and the
# attention's start come from the demo, which was chosen with the full method on these same validation photos
# ([Training](06_training.ipynb)).

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
# here: of twenty effects that are truly zero, chance makes about one interval exclude zero; the verdicts below allow
# for that. The gray band is the smallest effect of interest.

# %%
seen, unseen = effect_table(grid, variants=variants), effect_table(grid, seen=False, variants=variants)
clear = [part[part.low > 0] for part in (seen, unseen)]
largest = [part.sort_values("difference").name.iloc[-1] if len(part) else "none" for part in (seen, unseen)]
figures.captioned(
    figures.forest([seen, unseen], ["Seen shapes", "Unseen shapes"], SMALLEST_EFFECT),
    "8.1",
    f"What each choice is worth. On seen shapes {len(clear[0])} of {len(seen)} intervals lie above zero, on unseen "
    f"shapes {len(clear[1])} of {len(unseen)}; the largest effects are those of “{largest[0]}” and “{largest[1]}”.",
    "Two panels with a row for each variant: a point with its interval and a mark for each seed, around zero.",
)

# %%
numbers = ["accuracy", "difference", "low", "high"]
tables = {name: 100 * part.set_index("name")[numbers] for name, part in (("seen", seen), ("unseen", unseen))}
both = pd.concat(tables | {"runs": seen.set_index("name")[["seeds"]]}, axis=1)
both.style.format("{:.1f}", subset=list(tables), na_rep="–").set_caption(f"per cent, {origin}")

# %% [markdown]
# ## Views, batch, masks
#
# The same runs along two scales, and with four kinds of masks, which have no order. The large dot is the mean, each
# small one a seed. What was not run stays empty.

# %%
scales = [
    figures.Scale(title, label, [*steps], along(grid, steps), along(grid, steps, seen=False), title not in UNORDERED)
    for title, (label, steps) in SCALES.items()
]
ends = {
    scale.title: [100 * (np.mean(steps[-1]) - np.mean(steps[0])) for steps in (scale.seen, scale.unseen)]
    for scale in scales
    if all(steps[0] and steps[-1] for steps in (scale.seen, scale.unseen))
}
figures.captioned(
    figures.accuracy_along(scales),
    "8.2",
    "Top-1 with more views, larger batches and better masks. "
    + " ".join(
        f"{title}: from the first step to the last {a:+.1f} points on seen, {b:+.1f} on unseen shapes."
        for title, (a, b) in ends.items()
    ),
    "Three panels, for views, batch and masks: the mean Top-1 on seen and on unseen shapes, and a dot for each seed.",
)

# %% [markdown]
# ## What goes wrong
#
# The figure shows photos that the variant gets wrong with every seed, while the method that it is compared with gets
# them right with every seed: the first such photo of each variant, in the benchmark's order. The line on the photo is
# the outline of the mask that the variant saw; without a mask there is none. The views are those of the full method.
# First, the number of shapes with such a photo:

# %%
losses = {name: lost_photos(grid, name, v.against) for name, v in variants.items() if name != v.against}
counts = {variants[name].title: len(lost) for name, lost in losses.items() if grid.seeds(name)}
pd.Series(counts, name="shapes with such a photo").to_frame()

# %%
examples = pd.concat([lost.head(1).assign(variant=name) for name, lost in losses.items()])
query = {name: row for row, name in enumerate(benchmark.queries.query_id)}
shape = {name: row for row, name in enumerate(benchmark.shapes.shape_id)}


def photo_of(example):
    masked = variant_config(example.variant, 0, reference, variants).model.mask != "none"
    return seen_photos(benchmark, [query[example.query_id]], variants[example.variant].data, masked)[0]


# %%
own = benchmark.views[[shape[name.partition("|")[0]] for name in examples.shape_id], 1]
wrong = benchmark.views[[shape[name] for name in examples.found], 1]
titles, found = [variants[name].title for name in examples.variant], examples.found.tolist()
photos = [photo_of(example) for example in examples.itertuples()]
if photos:
    of = benchmark.shapes.set_index("shape_id").category
    near = (of[examples.found].to_numpy() == examples.category.to_numpy()).sum()
    lost = figures.captioned(
        figures.wrong_without(photos, own, wrong, titles, found),
        "8.3",
        "The first photo that each variant never gets right, though the method it is compared with always does: of the "
        f"{len(photos)} shapes found instead, {near} are of the right category.",
        "For each variant a photo with the outline of the mask that it saw, a view of the photo's own shape, framed "
        "green, and a view of the shape found instead, framed orange.",
        cut=False,
    )
lost if photos else Markdown("No photo was lost in this way.")

# %% [markdown]
# ## The claims
#
# The claims are what the paper's abstract says, what its released code relies on, and what later work and this book
# add, in the words of this book. The paper's full text was not at hand, so the settings of the released code stand for
# its method section. The **effect** is the result of the side that the claim prefers minus that of the other side, in
# points, with its 95 % interval. The paper measures seen shapes; the other half of each table asks the same of shapes
# that training never saw.
#
# A rule gives the verdict; nobody types it. **p** is the probability of at least this much evidence for the claim if it
# were false (of a contradicted one: against it, if it were true). It follows from the same error and degrees of freedom
# as the interval, counts both sides, and is adjusted by Holm's procedure: all claims of a table, on seen and on unseen
# shapes, form one family, so that with 95 % probability the table holds no verdict that chance alone made. An interval
# can therefore exclude zero while the verdict is *undecided*.
#
# - A claim that something is **better** is *supported* if p for an effect above zero is below 0.05 and the effect is at
#   least the smallest effect of interest; it is *contradicted* if p for an effect below that smallest effect is.
# - A claim that something is **no worse**, or enough, is *supported* if p for an effect above minus the smallest effect
#   is below 0.05; it is *contradicted* if p for an effect below zero is, and the effect is at most minus the smallest
#   effect.
# - Otherwise it is *undecided*. Fewer than two seeds decide nothing. A claim without runs is *not run*.
#
# "Contradicted" refers to this benchmark at this scale, with frozen convolutions; it does not refute the paper.

# %%
claims = claims_table(grid, variants=variants)
Markdown("\n".join(f"- {sentence}" for sentence in counted_verdicts(claims)))

# %% [markdown]
# **The smallest effect of interest** was fixed in the code before the stored runs were made. Why one point?

# %%
from cmiclib.book.tables import published_table

on_pix3d = published_table(chapter.root / "data/results/published.json").query("benchmark == 'pix3d'")
steps = 100 * on_pix3d.sort_values("year").top1.diff().dropna()
full = {part: along(grid, {"full": "full"}, seen=part == "seen")[0] for part in ("seen", "unseen")}
spread = {part: 100 * pd.Series(values, dtype=float).std() for part, values in full.items()}
in_photos = {part: SMALLEST_EFFECT * (grid.photos.seen == (part == "seen")).sum() for part in spread}
noisy = " and ".join(part for part, value in spread.items() if value > 100 * SMALLEST_EFFECT)
alone = f", so another seed alone can change more than a point on {noisy} shapes" if noisy else ""
Markdown(
    f"{100 * SMALLEST_EFFECT:g} point is {in_photos['seen']:.0f} of the photos of seen shapes and "
    f"{in_photos['unseen']:.0f} of those of unseen ones. Trainings of the full method that differ only in the seed "
    f"have a standard deviation of {spread['seen']:.1f} points on seen and {spread['unseen']:.1f} on unseen "
    f"shapes{alone}. And methods are published for gains of about this size: on Pix3D the reported methods differ from "
    f"the one before by {', '.join(f'{step:.1f}' for step in steps)} points."
)

# %%
for group, rows in claims.groupby("group", sort=False):
    styled = shown_claims(rows).style.hide(axis="index").set_properties(**{"text-align": "left"})
    display(styled.set_caption(f"{group[0].upper()}{group[1:]}; {origin}, {dates}; {rows.seeds.max()} seeds"))

# %% [markdown]
# ## What we learned

# %%
sure = {part: claims.loc[claims[f"{part}_verdict"] == "supported", "experiment"] for part in ("seen", "unseen")}
both = [name for name in sure["seen"] if name in set(sure["unseen"])]
only = {part: [name for name in names if name not in both] for part, names in sure.items()}


def listed_names(names):
    return "; ".join(f"*{name}*" for name in names) or "none"


Markdown(
    f"- A claim is supported on seen and on unseen shapes alike where these are changed: {listed_names(both)}.\n"
    f"- On seen shapes only: {listed_names(only['seen'])}.\n"
    f"- On unseen shapes only: {listed_names(only['unseen'])}.\n"
    "- All other claims are open at this scale, which does not make them wrong."
)

# %% [markdown]
# ## Try it
#
# Add a variant of your own to `VARIANTS` in `cmiclib/study/ablations.py`, such as `"all-views": Variant("twelve views a
# step", ("train.views=12",), "views")`, and run `make ablations JOBS=2`: it trains only the new variant, once for each
# seed. Would you have guessed on which side of the band it falls?
