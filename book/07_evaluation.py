# ---
# jupyter:
#   cmic:
#     needs: [06_training]
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Evaluation
#
# Here the test photos are read, after everything is decided: settings and weights were chosen on the validation
# photos. You will see the main table with its baselines and intervals, the published figures beside it, and then where
# the errors are: by category, by what hides the object, by rank.
#
# It needs the run of the chapter [Training](06_training.ipynb) and writes `metrics.json`, from which the first page,
# the README and `make verify` take their numbers.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
OVERRIDES = []
SPLIT = "test"

# %%
from cmiclib.book import open_chapter

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)
benchmark, run = chapter.benchmark, chapter.run

# %% [markdown]
# ## Scores
#
# Every shape's twelve views are embedded once and kept as an index. Every photo is scored against the whole gallery,
# shapes without photos included, with the very function that was trained. All that follows judges this one matrix.

# %%
import numpy as np
import pandas as pd

from cmiclib.evaluation.report import Scored, by_category, by_part, evaluate_scored, score_index
from cmiclib.evaluation.baselines import kept_untrained_scores
from cmiclib.index.cache import gallery_index

scored = score_index(gallery_index(run, benchmark), benchmark, SPLIT)
print(f"{scored.scores.shape[0]} photos × {scored.scores.shape[1]} shapes")

# %% [markdown]
# ## Baselines
#
# - **Chance** orders the gallery at random, the **category prior** lists the most photographed category first. Both are
#   expectations in closed form.
# - The **untrained network** is EfficientNet-Lite0 with ImageNet weights that saw neither a view nor this task. The
#   photo is cut out by its mask, put on white and compared with every view; the nearest view counts. Two kinds of its
#   features are compared: the usual ones, averaged over the whole picture, and those averaged in 3 × 3 cells, which
#   keep the layout and find more. Both are strong: with exact masks, much of the task is matching of outlines.

# %%
untrained = kept_untrained_scores(benchmark, SPLIT, chapter.outputs)
metrics = evaluate_scored(scored, run.config, SPLIT, untrained)

# %% [markdown]
# The numbers of the test photos go into the run's folder, and into the profile's folder unless a setting was
# overridden. Those of another `SPLIT` are not written: what you try out here does not change the report. The file holds
# no date, so that equal runs have equal files.

# %%
from cmiclib.training.run import write_json

if SPLIT == "test":
    write_json(run.path / "metrics.json", metrics)
if SPLIT == "test" and not OVERRIDES:
    write_json(chapter.outputs / "metrics.json", metrics)

# %% [markdown]
# ## The main table
#
# - **Top-1, Top-10**: the photo's own shape is the first, or among the first ten. Another variant of it is wrong here.
# - **Category**: the first shape is of the right category.
# - **mAP@10, MRR**: mean average precision of the first ten; mean of one over the rank of the own shape.
#
# In brackets: 95 % bootstrap intervals, in which whole shapes are drawn, not single photos. Photos of one shape succeed
# and fail together, so drawing photos would make the intervals too narrow. They say how much the result depends on
# which shapes were photographed; they do not cover another training run.

# %%
from cmiclib.book.result_tables import measured_table, percent, published_table

table = measured_table(metrics)
percent(table).set_index(table.label.rename("per cent"))

# %%
from cmiclib import figures

figures.result_points(table)

# %% [markdown]
# The trained model and the untrained network answered the same photos, so their difference can be judged photo by
# photo.

# %%
from IPython.display import Markdown

from cmiclib.metrics import paired_interval
from cmiclib.book.result_tables import ROWS

judged = scored.table()  # one row a photo
rivals = {kind: Scored(scores, scored.rows, benchmark).table() for kind, scores in untrained.items()}
seen = judged.seen.to_numpy()

# %%
gains = {}
for kind, plain in rivals.items():
    for part, photos in (("seen", seen), ("unseen", ~seen)):
        if judged.shape_id[photos].nunique() < 2:
            continue  # an interval over shapes needs two of them
        pair = judged.top1[photos], plain.top1[photos]
        low, high = paired_interval(*pair, judged.shape_id[photos])
        gains[ROWS[kind if part == "seen" else f"{kind}_unseen"]] = [(pair[0] - pair[1]).mean(), low, high]
columns = ["points of Top-1", "from", "to"]
(100 * pd.DataFrame(gains, index=columns).T).style.format("{:+.1f}").set_caption("Trained model minus …")

# %%
Markdown(
    f"Benchmark `{metrics['benchmark']}`, profile `{metrics['profile']}`, {metrics['gallery_size']} shapes in the "
    f"gallery; 95 % intervals of the paired difference. Training on few shapes can cost what ImageNet's features know "
    f"about others: look at the unseen ones."
)

# %% [markdown]
# ## Published figures: other data, not comparable
#
# What the literature reports on Pix3D and the car benchmarks. Real photos, other galleries, other splits: these figures
# say what the task is like elsewhere, they are no yardstick for the table above. The photos of `sweethome` are
# synthetic and show the very meshes of the gallery, which is easier.

# %%
published = published_table(chapter.root / "data/results/published.json")
names = {"title": "benchmark", "method": "method", "year": "year", "source": "reported by", "mark": "mark"}
published[list(names)].rename(columns=names).join(percent(published, ["top1", "top10"])).set_index("benchmark")

# %%
from cmiclib.book.results import read_results

stored = read_results(chapter.root / "data/results/published.json")
used = sorted(set(published.mark))
Markdown(" ".join(f"Mark {mark}: {stored['marks'][mark]}." for mark in used) + f" {stored['note']}")

# %% [markdown]
# ## The same answer, counted in other ways
#
# **Macro** is the mean over categories, so that a category with few photos counts as much as one with many. With the
# **category given** only its shapes are searched, which leaves the fine question: which chair? **Variants count** also
# accepts other shapes of the own group, such as the same sofa with another number of seats.

# %%
ways = {"": "micro", "macro_": "macro", "given_": "category given", "group_": "variants count"}
lines = table.set_index("method").dropna(subset="macro_top1")
tops = {label: lines[[f"{way}top1", f"{way}top10"]] for way, label in ways.items()}
tops = {label: values.set_axis(["Top-1", "Top-10"], axis=1) for label, values in tops.items()}
(100 * pd.concat(tops, axis=1)).round(1)

# %% [markdown]
# ## How wrong is a wrong shape?
#
# A wrong shape can be almost right. **d_HAU** is the modified Hausdorff distance between 10,000 surface points of the
# first and of the own shape, coordinates halved as in the released protocol {cite:p}`dubuisson1994hausdorff`; smaller
# is better, 0 is the same shape. **d_IoU** is the overlap of their solid 128³ grids; larger is better, 1 is the same.

# %%
lines.filter(["d_hau", "d_iou"]).round(4)

# %% [markdown]
# ## By category
#
# Seen shapes only. Few shapes make wide intervals: a category whose interval is wide cannot be called good or bad yet.

# %%
on_seen = scored.part(seen)
categories = by_category(on_seen)
figures.category_bars(categories)

# %%
categories[["of", "queries"]].join(percent(categories)).sort_values("of").set_index("of")

# %% [markdown]
# ## Whole, truncated, hidden
#
# The benchmark flags photos whose object leaves the picture or stands behind another object. The mask shows only what
# is visible, so both change the outline.

# %%
flags = {name: judged[name].to_numpy() for name in ("truncated", "occluded", "slightly_occluded")}
parts = {"whole and free": ~np.any(list(flags.values()), axis=0), **flags}
flagged = by_part(on_seen, {name: mask[seen] for name, mask in parts.items()})
flagged[["of", "queries"]].join(percent(flagged)).set_index("of")

# %% [markdown]
# ## How far down is the own shape?
#
# For every k, the share of photos whose own shape is among the first k. The line at 1 is Top-1, at 10 Top-10.

# %%
curves = {
    "seen": judged["rank"][seen],
    "unseen": judged["rank"][~seen],
    "untrained network, seen": rivals["untrained"]["rank"][seen],
}
curves = {name: values.to_numpy() for name, values in curves.items() if len(values)}
figures.rank_curves(curves, metrics["gallery_size"])

# %% [markdown]
# ## Which categories are taken for which?
#
# A row is what the photos show, a column what the first shape is. The last column collects categories that no photo
# has.

# %%
figures.confusion(judged.category, judged.found)

# %% [markdown]
# ## Margins
#
# The score of the own shape minus the best other score. A photo right of zero is answered right; how far right says how
# safely. Photos close to zero are the ones that another seed would answer differently.

# %%
margins = {"seen shapes": judged.margin[seen].to_numpy(), "unseen shapes": judged.margin[~seen].to_numpy()}
figures.margins({name: values for name, values in margins.items() if len(values)})

# %% [markdown]
# ## Try it
#
# Set `SPLIT = "val"` before you compare two ideas: as often as you like, without using up the test photos. Then ask
# whether seen and unseen shapes differ because of the shapes or because of the training: run it with `SPLIT = "train"`
# and see what is left of the errors.
