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
# This chapter reads the test photos, after everything is decided: settings and weights were chosen on the validation
# photos. It shows the main table with its baselines and intervals, the published figures beside it, and then where the
# errors are: by category, by what hides the object, by rank.
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
from cmiclib.book.trained import trained_run

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)
benchmark, run = chapter.benchmark, trained_run(chapter)

# %% [markdown]
# ## Scores
#
# Every shape's twelve views are embedded once and kept as an index. Every photo, with its exact mask, is scored against
# the whole gallery, shapes without photos included, by the same function that training used. Everything below evaluates
# this one matrix.

# %%
import numpy as np
import pandas as pd

from cmiclib.evaluation.report import Scored, by_category, by_part, evaluate_scored, learnt_scores, score_index
from cmiclib.evaluation.baselines import kept_untrained_scores
from cmiclib.evaluation.masks import by_mask, other_masks
from cmiclib.index.cache import gallery_index, photo_vectors

index = gallery_index(run, benchmark)
vectors = photo_vectors(run, index, benchmark, SPLIT)
scored = score_index(index, benchmark, SPLIT, vectors)
print(f"{scored.scores.shape[0]} photos × {scored.scores.shape[1]} shapes")

# %% [markdown]
# ## Baselines
#
# - **Chance** orders the gallery at random; the **category prior** lists the most photographed category first. Both are
#   expectations in closed form.
# - The **untrained network** is EfficientNet-Lite0 with ImageNet weights; it was never trained on views or on this
#   task. The photo is cut out by its mask, put on white and compared with every view; the nearest view counts. Two
#   kinds of its features are compared: the usual ones, averaged over the whole picture, and features averaged in 3 × 3
#   cells, which keep the layout and find more. Both are strong: with exact masks, much of the task is matching
#   outlines.
# - **Learnt numbers alone** is the trained model without the fixed numbers, the untrained features that
#   [Training](06_training.ipynb) puts beside the learnt ones (`model.fixed`): what the paper's training alone gives.

# %% [markdown]
# The same photos are read twice more, with less said about the object: with the mask that GrabCut finds in the box of
# the exact one, and without a mask, which is what a box alone gives, because the photos are squares around the object.
# This reading of the test photos chooses nothing; settings and weights were fixed before it.

# %%
marked = other_masks(benchmark, SPLIT, chapter.outputs)  # each photo twice
also = score_index(index, marked, SPLIT, photo_vectors(run, index, marked, SPLIT))
both = kept_untrained_scores(benchmark, SPLIT, chapter.outputs, marked)
untrained, on_marked = ({kind: scores[rows] for kind, scores in both.items()}
                        for rows in (slice(len(vectors)), slice(len(vectors), None)))  # fmt: skip

# %%
others = learnt_scores(index, vectors) | untrained
metrics = evaluate_scored(scored, run.config, SPLIT, others)
metrics["masks"] = by_mask(also, on_marked)

# %% [markdown]
# The results on the test photos are written to the run's folder, and to the profile's folder unless a setting was
# overridden. Results on another `SPLIT` are not written, so experiments do not change the report. The file holds no
# date, so equal runs have equal files.

# %%
from cmiclib.training.run import write_json

if SPLIT == "test":
    write_json(run.path / "metrics.json", metrics)
if SPLIT == "test" and not OVERRIDES:
    write_json(chapter.outputs / "metrics.json", metrics)

# %% [markdown]
# ## The main table
#
# - **Top-1, Top-10**: share of photos whose own shape is the first, or among the first ten. A variant of the own shape
#   counts as wrong here.
# - **Category**: share of photos whose first shape has the right category.
# - **mAP@10, MRR**: mean average precision of the first ten; mean reciprocal rank of the own shape.
#
# Brackets hold 95 % bootstrap intervals that resample whole shapes, not single photos. Photos of one shape succeed and
# fail together, so resampling photos would make the intervals too narrow. The intervals say how much the result depends
# on which shapes were photographed; they do not cover the variation between training runs.

# %%
from cmiclib.book.tables import measured_table, percent, published_table

table = measured_table(metrics)
percent(table).set_index(table.label.rename("per cent"))

# %%
from cmiclib import figures

figures.captioned(
    figures.result_points(table), "7.1",
    f"The same table as points, with 95 % intervals over shapes, in per cent of {scored.scores.shape[0]} photos. Where "
    "intervals of two rows overlap, look at the paired differences below before you call one better.",
    "Three panels, Top-1, Top-10 and category: a row for each method, a point with its interval.",
    cut=False,
)  # fmt: skip

# %% [markdown]
# All of them answered the same photos, so the table compares them with the trained model photo by photo.

# %%
from IPython.display import Markdown

from cmiclib.book.tables import ROWS

judged = scored.table()  # one row per photo
rivals = {kind: Scored(scores, scored.rows, benchmark).table() for kind, scores in others.items()}
seen = judged.seen.to_numpy()

# %%
gains = {ROWS[name]: values for name, values in metrics["gains"].items() if len(values) == 3}
columns = ["points of Top-1", "from", "to"]
(100 * pd.DataFrame(gains, index=columns).T).style.format("{:+.1f}").set_caption("Trained model minus …")

# %% [markdown]
# What a mask is worth, in per cent; *untrained* is the network with 3 × 3 cells, and the differences are paired.
# *Seeds*: how many trainings, the mean of their Top-1, the lowest and the highest (`tools/measure/measure_seeds.py`).

# %%
from cmiclib.book.front import mask_table

mask_table(metrics, chapter.root / "data/results")

# %%
Markdown(
    f"Benchmark `{metrics['benchmark']}`, profile `{metrics['profile']}`, {metrics['gallery_size']} shapes in the "
    "gallery; 95 % intervals of the paired difference. "
    + " ".join(
        f"Compared with *{name}*, the trained model brings "
        f"{'no measurable gain' if low <= 0 <= high else 'a gain' if gain > 0 else 'a loss'}: "
        f"{100 * gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})."
        for name, (gain, low, high) in gains.items()
        if "unseen" in name
    )
)

# %% [markdown]
# ### Other networks, untrained
#
# Networks that learned from many more pictures are stronger baselines. Their weights need a download of about 0.8 GB,
# which the report does not do. Where there is a network, one command measures them on all test photos and fills the
# table:
#
# ```
# cmic evaluate --benchmark sweethome --json data/results/downloaded.json \
#     --untrained vit_small_patch14_dinov2.lvd142m --untrained vit_base_patch16_siglip_224.webli \
#     --untrained vit_base_patch16_clip_224.openai
# ```
#
# `--untrained` takes any network of timm, and each can be trained as well: `model.query_backbone`, `model.init=timm`.

# %%
from cmiclib.book.tables import downloaded_table

downloaded_table(chapter.root / "data/results/downloaded.json")

# %% [markdown]
# ## Published figures: other data, not comparable
#
# This table shows what the literature reports on Pix3D and the car benchmarks. The photos there are real, and galleries
# and splits differ: these figures show what the task is like elsewhere; they are not a yardstick for the table above.
# The photos of `sweethome` are synthetic and show exactly the meshes of the gallery, which is easier.

# %%
published = published_table(chapter.root / "data/results/published.json")
names = {"title": "benchmark", "method": "method", "year": "year", "source": "reported by", "mark": "mark"}
published[list(names)].rename(columns=names).join(percent(published, ["top1", "top10"])).set_index("benchmark")

# %%
from cmiclib.book.tables import read_results

stored = read_results(chapter.root / "data/results/published.json")
used = sorted(set(published.mark))
Markdown(" ".join(f"Mark {mark}: {stored['marks'][mark]}." for mark in used) + f" {stored['note']}")

# %% [markdown]
# ## The same answer, counted in other ways
#
# **Macro** is the mean over categories, so a category with few photos counts as much as one with many. With the
# **category given**, only the shapes of that category are searched, which leaves the fine question: which chair?
# **Variants count** also accepts other shapes of the own shape's group, such as the same sofa with another number of
# seats.

# %%
ways = {"": "micro", "macro_": "macro", "given_": "category given", "group_": "variants count"}
lines = table.set_index("method").dropna(subset="macro_top1")
tops = {label: lines[[f"{way}top1", f"{way}top10"]] for way, label in ways.items()}
tops = {label: values.set_axis(["Top-1", "Top-10"], axis=1) for label, values in tops.items()}
(100 * pd.concat(tops, axis=1)).round(1)

# %% [markdown]
# ## How wrong is a wrong shape?
#
# A wrong shape can be almost right. **d_HAU** is the modified Hausdorff distance between the first shape and the own
# shape, each given by 10,000 surface points, with coordinates halved as in the released protocol
# {cite:p}`dubuisson1994hausdorff`; smaller is better, 0 means the same shape. **d_IoU** is the overlap of their solid
# 128³ grids; larger is better, 1 means the same shape.

# %%
lines.filter(["d_hau", "d_iou"]).round(4)

# %% [markdown]
# ## By category
#
# These figures cover seen shapes only. Few shapes make wide intervals: do not call a category good or bad if its
# interval is wide.

# %%
on_seen = scored.part(seen)
categories = by_category(on_seen)
wide = categories.top1_high - categories.top1_low
figures.captioned(
    figures.category_bars(categories), "7.2",
    "Top-1 and Top-10 by category, seen shapes, in per cent. The widest interval, of "
    f"{categories['of'][wide.idxmax()]}, spans {100 * wide.max():.0f} points: the order of the categories can be "
    "chance.",
    "Horizontal bars of Top-1 with intervals, and a diamond for Top-10, for each category and its number of photos.",
)  # fmt: skip

# %%
categories[["of", "queries"]].join(percent(categories)).sort_values("of").set_index("of")

# %% [markdown]
# ## Whole, truncated and occluded objects
#
# The benchmark flags photos whose object leaves the picture or stands behind another object. The mask covers only what
# is visible, so both change the outline. Seen shapes only.

# %%
flags = {name: judged[name].to_numpy() for name in ("truncated", "occluded", "slightly_occluded")}
parts = {"whole and free": ~np.any(list(flags.values()), axis=0), **flags}
flagged = by_part(on_seen, {name: mask[seen] for name, mask in parts.items()})
flagged[["of", "queries"]].join(percent(flagged)).set_index("of")

# %% [markdown]
# ## How far down is the own shape?
#
# The figure shows, for every k, the share of photos whose own shape is among the first k. The line at 1 is Top-1, the
# line at 10 is Top-10. Trained model and untrained network are compared on the same photos.

# %%
curves = {
    "seen": judged["rank"][seen],
    "unseen": judged["rank"][~seen],
    "untrained network, seen": rivals["untrained"]["rank"][seen],
    "untrained network, unseen": rivals["untrained"]["rank"][~seen],
}
curves = {name: values.to_numpy() for name, values in curves.items() if len(values)}
tens = {name: f"{(values <= 10).mean():.0%}" for name, values in curves.items()}
figures.captioned(
    figures.rank_curves(curves, metrics["gallery_size"]), "7.3",
    "The share of photos whose own shape is among the first k. Among the first ten it is for "
    + ", ".join(f"{share} ({name})" for name, share in tens.items()) + ".",
    "Rising curves over k on a logarithmic axis, one for each part of the photos and each network, and chance below.",
)  # fmt: skip

# %% [markdown]
# ## Which categories are taken for which?
#
# Rows are the photos' categories, columns the categories of the first shape. The last column collects categories that
# no photo has.


# %%
def confused(part, number, shapes):
    wrong = part[part.category != part.found]
    most = wrong.groupby(["category", "found"]).size()
    said = f", most often {most.idxmax()[0]} for {most.idxmax()[1]}, in {most.max()}" if len(wrong) else ""
    return figures.captioned(
        figures.confusion(part.category, part.found), number,
        f"Photos of {shapes} shapes, in per cent of each row. {len(wrong)} of {len(part)} photos get a shape of "
        f"another category{said}.",
        "A square table of percentages, dark on the diagonal: the photo's category against the first shape's.",
    )  # fmt: skip


confused(judged[seen], "7.4", "seen")

# %%
confused(judged[~seen], "7.5", "unseen") if (~seen).any() else None

# %% [markdown]
# ## Margins
#
# The margin is the score of the own shape minus the best other score. A photo right of zero is answered correctly; the
# farther right, the more safely. Another seed could change the answers to photos close to zero.

# %%
margins = {"seen shapes": judged.margin[seen].to_numpy(), "unseen shapes": judged.margin[~seen].to_numpy()}
close = {name: (np.abs(values) < 0.02).mean() for name, values in margins.items() if len(values)}
figures.captioned(
    figures.margins({name: values for name, values in margins.items() if len(values)}), "7.6",
    "How safely photos are answered; scores have no unit. Within 0.02 of zero, where little would change the answer, "
    "are "
    + " and ".join(f"{share:.0%} of the photos of {name}" for name, share in close.items()) + ".",
    "Histograms of margins, one below the other: right answers right of zero, wrong ones left of it.",
)  # fmt: skip

# %% [markdown]
# ## What we learned

# %%
ours = {name: part["rank"] for name, part in (("seen", judged[seen]), ("unseen", judged[~seen])) if len(part)}
Markdown(
    "With exact masks, the own shape comes first for "
    + " and ".join(f"{(rank == 1).mean():.1%} of the photos of {name} shapes" for name, rank in ours.items())
    + ". "
    + " ".join(
        f"Against *{name}* that is {100 * gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
        f"{', which chance alone could give.' if low <= 0 <= high else '.'}"
        for name, (gain, low, high) in gains.items()
        if "cells" in name
    )
    + " The photos are synthetic, and people rarely have exact masks: [A photo and a box](17_photo_and_box.ipynb) says "
    "what remains without them."
)

# %% [markdown]
# ## Try it
#
# Set `SPLIT = "val"` before you compare two ideas: you may do so as often as you like without using up the test photos.
# Then ask whether seen and unseen shapes differ because of the shapes or because of the training: run the chapter with
# `SPLIT = "train"` and see which errors remain.
