# ---
# jupyter:
#   cmic:
#     needs: [07_evaluation]
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # An unseen repository
#
# So far the gallery held the very shape that a photo shows. Whoever searches a collection of their own cannot count on
# that: the chair in the photo is not there, and the question becomes which chair comes closest. In this chapter the
# exact answer is never in the gallery. You will see how near the first shape is then, between the nearest one that
# could have come first and one drawn at random, and what such answers look like.
#
# It needs the index that the chapter [Evaluation](07_evaluation.ipynb) made of the trained model. The last section is
# about ShapeNet and needs its files.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
OVERRIDES = []
PHOTOS = 100  # photos whose d_HAU is measured, each of another shape
ROWS = 6  # photos in the figure
REPOSITORY = "data/prepared/shapenet4"

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown

from cmiclib.book import open_chapter
from cmiclib.evaluation.report import score_index
from cmiclib.index.cache import gallery_index
from cmiclib.evaluation.unseen import without_own

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)
benchmark = chapter.benchmark
index = gallery_index(chapter.run, benchmark)

# %% [markdown]
# ## A repository without the own shape
#
# Every test photo is searched in the benchmark's gallery, from which the photo's own shape and the variants of its
# group are taken away, for this photo only. The other photos' shapes and the distractors stay. It is a repository
# that lacks every answer, but not one of another origin: its shapes come from the same libraries as the training's, and
# many were in training.

# %%
scored = score_index(index, benchmark, "test")
hidden, there = without_own(scored)
rows, queries = hidden.rows, benchmark.queries.iloc[hidden.rows].reset_index(drop=True)
Markdown(
    f"{len(rows)} photos of {queries.shape_id.nunique()} shapes; between {there.sum(axis=1).min()} and "
    f"{there.sum(axis=1).max()} of {there.shape[1]} shapes are left to find. {len(scored.rows) - len(rows)} photos are "
    f"left out, because nothing else of their category is there."
)

# %% [markdown]
# ## Five answers
#
# No shape is right any more, so Top-1 is 0 by construction. Two answers come from the model: the first shape of **all
# categories**, and the first with the **category given**, where only shapes of the photo's category are searched, as
# the released test does. Three others show what the numbers mean. The **nearest** shape is the one of greatest d_IoU
# with the own shape, of all shapes or of the photo's category; only someone who knows the own shape can find it. A
# shape **drawn** at random from the category is what knowing the category alone is worth.

# %%
from cmiclib.evaluation.unseen import drawn, first_shapes, nearest, overlaps, same_category

same = there & same_category(benchmark, rows, benchmark)  # (Q, N)
shapes, which = np.unique(benchmark.relevant(rows).argmax(axis=1), return_inverse=True)
overlap = overlaps(benchmark, shapes, benchmark)[which]  # (Q, N) d_IoU with the own shape
first, given = first_shapes(hidden.scores, same)
answers = {
    "first of all categories": first,
    "first, category given": given,
    "nearest of the category": nearest(overlap, same),
    "nearest of all": nearest(overlap, there),
    "drawn from the category": drawn(same),
}

# %% [markdown]
# ## How near
#
# **d_IoU** is the overlap of the solid 128³ grids of the answer and the own shape, 1 is the same. **d_HAU** is the
# modified Hausdorff distance of 10,000 surface points with halved coordinates {cite:p}`dubuisson1994hausdorff`, 0 is
# the same. d_HAU takes tens of milliseconds a pair, so it is measured on some photos only, drawn by a fixed seed, each
# of another shape. Nearest means nearest in d_IoU; in d_HAU another shape could be nearer.

# %%
from cmiclib.metrics import summarise
from cmiclib.evaluation.unseen import judge

some = queries.sample(frac=1, random_state=0).drop_duplicates("shape_id").index[:PHOTOS].to_numpy()
photo = np.arange(len(rows))


def line(found):
    category = judge(found, benchmark, rows, benchmark, distances=[])
    every = summarise({"d_iou": overlap[photo, found], **category}, queries.shape_id)
    part = judge(found[some], benchmark, rows[some], benchmark, ["d_hau"])
    return summarise({"d_hau": part["d_hau"]}, queries.shape_id[some]) | every


def cell(row, name):
    return f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"


# %%
table = pd.DataFrame({name: line(found) for name, found in answers.items()}).T
Markdown(f"d_IoU and category: {len(rows)} photos. d_HAU: {len(some)} photos. In brackets: 95 % intervals over shapes.")

# %%
names = {"d_iou": "d_IoU ↑", "d_hau": "d_HAU ↓", "category": "right category"}
pd.DataFrame({title: table.apply(cell, axis=1, name=name) for name, title in names.items()})

# %%
low, mid, high = table.d_iou[["drawn from the category", "first, category given", "nearest of the category"]]
Markdown(
    f"With the category given, the first shape covers **{100 * (mid - low) / (high - low):.0f} %** of the way from a "
    f"drawn shape to the nearest one of the category, in d_IoU. That one has a mean d_IoU of {high:.2f}: what is "
    f"missing to 1 is not the search's fault, the category holds nothing nearer. For "
    f"{100 * (1 - table.category['nearest of all']):.0f} % of the photos the nearest shape of all is of another "
    f"category: d_IoU compares solids and knows nothing of what they are for."
)

# %% [markdown]
# ## By category
#
# Mean d_IoU of each answer, and how often the first shape of all is of the right category. Where even the nearest shape
# is far, the repository has too few shapes of that kind, or they differ in thin parts: a table's legs fill few cells,
# and two thin legs that stand side by side share none.

# %%
reached = pd.DataFrame({name: overlap[photo, found] for name, found in answers.items()})
reached["right category"] = same[photo, first]
by_category = reached.groupby(queries.category).mean()
by_category.insert(0, "photos", queries.category.value_counts())
by_category.sort_values("nearest of the category", ascending=False).round(2)

# %% [markdown]
# ## What comes first
#
# One photo of each of the most photographed categories: the one whose first shape has the category's median d_IoU. Then
# the own shape, which is not in this repository; the first three of all categories, and the nearest shape of the
# category and of all, each with its d_IoU. Shapes are shown by the view that attention weighed most for the photo.

# %%
from cmiclib.figures.grids import grid
from cmiclib.metrics import top_k
from cmiclib.evaluation.examples import typical, view_weights

judged = queries.assign(margin=overlap[photo, first])
chosen = np.array(typical(judged, ROWS).index)
three = top_k(hidden.scores[chosen], 3)[1].numpy()
near = [answers[name][chosen] for name in ("nearest of the category", "nearest of all")]
shown = np.column_stack([shapes[which[chosen]], three, *near])  # (R, 6)
weights = view_weights(index, index.embed(benchmark.images[rows[chosen]]), shown)  # (R, 6, V)

# %%
pictures, titles = [], []
for number, row, views in zip(chosen, shown, weights.argmax(axis=2), strict=True):
    pictures += [benchmark.images[rows[number]], *benchmark.views[row, views]]
    places = zip(("1", "2", "3", "of category", "nearest"), row[1:], strict=True)
    titles += [queries.category[number], "own, hidden", *(f"{k}: {overlap[number, n]:.2f}" for k, n in places)]
grid(pictures, titles, across=7, mask=True)

# %% [markdown]
# ## ShapeNet
#
# A repository of another origin is the harder case. The released code has a test for it: a model that was trained on
# Pix3D searches ShapeNet's beds, chairs, sofas and tables. ShapeNet asks for a registration, so nothing of it is here.
# With it, a prepared Pix3D and a model trained on that, two commands do it; the first renders every mesh, goes on after
# an interruption, and names what it left out:
#
# ```
# cmic prepare shapenet --input ShapeNetCore.v2 --output data/prepared/shapenet4 --allow-missing --jobs 8
# cmic evaluate --run RUN --benchmark data/prepared/pix3d --gallery data/prepared/shapenet4
# ```
#
# `--synsets` chooses other categories, `--limit 200` makes a small repository to try it out. Without `--mode`, the
# evaluation is the one of this chapter: all categories, then the category given, intervals over shapes. Photos of
# categories that the repository lacks are left out and counted. `--mode shapenet` gives the released script's table
# instead. Views must be made alike on both sides; the command refuses others.
#
# If `data/prepared/shapenet4` is there, this benchmark's test photos are searched in it now. A finished chapter does
# not notice a new folder: remove `outputs/<profile>/notebooks/11_unseen_repository.ipynb`, then `make reproduce`.

# %%
from cmiclib.benchmark import Benchmark
from cmiclib.evaluation.unseen import evaluate_unseen

repository = chapter.root / REPOSITORY
figures = None
if (repository / "benchmark.json").is_file():
    gallery = Benchmark.open(repository)
    figures = evaluate_unseen(gallery_index(chapter.run, gallery), benchmark, gallery)
Markdown(
    f"**Run:** {figures['queries']} photos in {figures['gallery_size']} shapes of {gallery.meta['source']}; "
    f"{figures['left_out']} photos are of categories that it lacks."
    if figures
    else f"**Not run:** there is no prepared repository in `{REPOSITORY}`."
)

# %%
measures = ["category", "d_iou", "d_hau", "given_d_iou", "given_d_hau"]
pd.Series({name: cell(figures, name) for name in measures}, name="mean").to_frame() if figures else None

# %% [markdown]
# ## Try it
#
# Is it the nearest shape that training teaches, or the same one? Replace `hidden.scores` in `first_shapes` by the
# scores of the untrained network, `cmiclib.evaluation.baselines.kept_untrained_scores(benchmark, "test",
# chapter.outputs)["untrained"]`, with the same shapes hidden, and compare the first two rows of the table.
