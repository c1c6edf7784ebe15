# ---
# jupyter:
#   cmic:
#     needs: []
#     inputs: [data/sweethome/photos]
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Data: shapes, photos, splits
#
# Single-image shape retrieval needs three things: a **gallery** of CAD models, **photos** that each show one of these
# models, and rules that say which photo may be used for what. This chapter shows all three as this project stores them,
# and then checks for leaks between training and test.
#
# **What it needs:** only the benchmark. The default, `sweethome`, is part of the repository and is unpacked on first
# use.
#
# ```{admonition} Synthetic photos
# :class: important
# The photos of `sweethome` are path-traced, not taken with a camera, and they show exactly the meshes of the gallery.
# In Pix3D {cite:p}`sun2018pix3d` the photos are real and the CAD model only resembles the object. So expect higher
# numbers on `sweethome` than the same method reaches on Pix3D, and do not compare the two.
# ```

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
PHOTOS = 4  # photos per category in the first figure

# %%
import hashlib

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from cmiclib import figures
from cmiclib.benchmark import file_sha256
from cmiclib.book import open_chapter
from cmiclib.figures.grids import grid
from cmiclib.sources.sweethome import photo_facts
from cmiclib.book.tables import searchable

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS)
benchmark = chapter.benchmark
shapes, queries = benchmark.shapes, benchmark.queries

# %% [markdown]
# ## What is in it
#
# Row *i* of `queries` describes row *i* of the photos; row *j* of `shapes` describes row *j* of the views. `own` is the
# gallery row of each photo's shape. Where several shapes count as right, `own` is the first of them.

# %%
own = benchmark.relevant(benchmark.rows()).argmax(axis=1)  # (Q,)
photographed = np.isin(np.arange(len(shapes)), own)  # (N,)
Markdown(
    f"`{benchmark.name}` at {benchmark.size} px: **{len(shapes)} shapes** in {shapes.category.nunique()} categories, "
    f"and **{len(queries)} photos**, which show {photographed.sum()} of them. The other {(~photographed).sum()} shapes "
    f"are distractors. Source: {benchmark.meta['source']}. Licence: {benchmark.meta['licence']}."
)

# %% [markdown]
# For each category, the figure shows one shape as a gray view, and then photos of it. The orange line is the outline of
# the mask, which tells the photo encoder where the object is: the paper adds the mask as a fourth channel, the `demo`
# cuts the object out and puts it on white. Each photo is cropped to a square around the mask; where the square would
# leave the picture, it is shifted inwards.

# %%
most = pd.Series(own).groupby([queries.category, own]).size()  # photos of each shape
shown = min(PHOTOS, most.groupby(level=0).max().min())
examples = {}
for category, shape in most.groupby(level=0).idxmax():
    examples[category] = benchmark.views[shape, 1], benchmark.images[np.flatnonzero(own == shape)[:shown]]
figures.captioned(
    figures.samples(examples, across=2), "1.1",
    f"One shape of each of {len(examples)} categories as a gray view, and {shown} photos of it. The photos differ from "
    "the view in colour, background, light and camera; the outline is what both have in common.",
    "Rows of small pictures: first a gray rendering of a piece of furniture, then photos of it with its mask outlined.",
)  # fmt: skip

# %% [markdown]
# ## How many shapes and photos
#
# The categories differ in size, as they do in Pix3D. That is why the evaluation reports both the mean over photos
# (micro) and the mean over categories (macro). We do not know which of the two the published figures are.

# %%
of_category = queries.category.value_counts(normalize=True)
figures.captioned(
    figures.counts(shapes, queries), "1.2",
    f"Shapes and photos of each category. The three categories with most photos, {', '.join(of_category.index[:3])}, "
    f"hold {of_category[:3].sum():.0%} of the photos, so they decide a mean over photos.",
    "Two bar charts by category: shapes that training saw, did not see or that have no photos; photos by split.",
)  # fmt: skip

# %% [markdown]
# ## Distractors
#
# A distractor is a gallery shape that no photo shows. It is never the right answer, so it can only make retrieval
# harder. Real repositories are like that: most of what they hold is not what you are looking for. In brackets: the
# number of distractors in the category.

# %%
distractors = shapes[~photographed]
picked = distractors.drop_duplicates("category").index[:12]
counts = distractors.category.value_counts()
titles = [f"{category} ({counts[category]})" for category in shapes.category[picked]]
figures.captioned(
    grid(list(benchmark.views[picked][:, 1]), titles), "1.3",
    f"One distractor of each of {len(picked)} categories. {distractors.category.isin(queries.category).mean():.0%} of "
    "the distractors belong to categories that have photos; only these can be taken for a right answer easily.",
    "Gray renderings of pieces of furniture, each with its category and the number of distractors in it.",
) if len(picked) else Markdown("This benchmark has no distractors.")  # fmt: skip

# %% [markdown]
# ## A benchmark is one folder
#
# Every data set in this book is converted to the same format once. After that, no code needs to know where it came
# from. Arrays are plain `.npy` files that are memory-mapped, so opening a benchmark takes almost no time or memory.

# %%
MEANING = {
    "views.npy": "gray views (shapes, views, S, S)",
    "queries.npy": "photos: RGB and mask (photos, 4, S, S)",
    "amodal.npy": "masks of whole objects, hidden parts included (photos, S, S)",
    "points.npy": "points on the surface (shapes, points, 3)",
    "voxels.npy": "solid 128³ grids, eight cells per byte (shapes, bytes)",
}
sizes = {name: (benchmark.path / name).stat().st_size / 1e6 for name in benchmark.arrays}
pd.DataFrame(
    [(name, MEANING[name], array.dtype, array.shape, sizes[name]) for name, array in benchmark.arrays.items()],
    columns=["file", "holds", "type", "shape", "MB"],
).style.format({"MB": "{:.1f}"}).hide()

# %% [markdown]
# The folder also holds two tables, the simplified meshes that the viewer shows (`meshes/<shape_id>.glb`), and
# `benchmark.json` with the view protocol, the counts, and a sha256 of each array and table. The first table is
# `shapes.csv`:

# %%
shapes.groupby("category").head(1).head(4).style.hide()

# %% [markdown]
# The second is `queries.csv`; here is one photo from each part of the split:

# %%
queries.groupby(["split", "seen"]).head(1).style.hide()

# %% [markdown]
# ## Splits: two questions, not one
#
# The paper splits **photos**: a test photo is new, but training saw its shape on other photos. This project adds
# **unseen shapes**, of which there is no training photo. They answer the question that a growing repository asks: does
# the model work, without retraining, for a shape that was added yesterday? The `val` and `test` photos of unseen shapes
# show the same shapes, so the settings and weights were chosen with these shapes in view.
#
# - `train`: photos that the model learns from.
# - `val`: photos on which the checkpoint and every setting are chosen. The released code has no such part: it keeps the
#   checkpoint that is best on the test photos.
# - `test`: photos for the final figures; nothing is chosen on them.

# %%
parts = queries.assign(own=own).groupby(["seen", "split"]).agg(photos=("query_id", "size"), shapes=("own", "nunique"))
parts.rename(index={True: "seen shapes", False: "unseen shapes"})

# %% [markdown]
# ## Variants
#
# Some models differ only in colour, in size, or in one part. Such variants share a `group`. A variant retrieved instead
# of the shape itself counts as wrong; the evaluation reports the accuracy by group beside it. The figure shows the
# first shapes that have variants, ordered by group:

# %%
members = shapes.group.map(shapes.group.value_counts())  # (N,)
variants = shapes[members > 1].sort_values("group", kind="stable")
first = list(benchmark.views[variants.index[:12], 1])
figures.captioned(
    grid(first, variants.name[:12].tolist()), "1.4",
    "Shapes that have variants, ordered by group. A gray view hides colour, so some variants look the same in it: an "
    "answer that names the other variant counts as wrong, though nobody could know better.",
    "Gray renderings of pieces of furniture; neighbours differ in colour, size or one part.",
) if first else Markdown("This benchmark has no variants.")  # fmt: skip

# %%
Markdown(
    f"{variants.group.nunique()} groups hold more than one shape; {len(variants)} of the {len(shapes)} shapes have a "
    f"variant. The largest group has {members.max()} members."
)

# %% [markdown]
# ## Truncated and occluded objects
#
# As in Pix3D, flags say whether the border of the photo cuts the object off (`truncated`) or something hides a part of
# it (`occluded`, or `slightly_occluded`). The mask covers what is visible. `amodal.npy` holds the mask of the whole
# object; no encoder in this book receives it.

# %%
flags = ["truncated", "occluded", "slightly_occluded"]
pd.DataFrame({"photos": queries[flags].sum(), "share": queries[flags].mean()}).style.format({"share": "{:.1%}"})

# %% [markdown]
# Some photos with something in front of the object. Above: the photo with the mask of what is visible. Below: the mask
# of the whole object.

# %%
hidden = queries[queries.occluded].drop_duplicates("category").index[:4]
whole = [benchmark.amodal[i] for i in hidden] if "amodal.npy" in benchmark.arrays else []
titles = queries.category[hidden].tolist()
figures.captioned(
    grid([*benchmark.images[hidden], *whole], titles, len(titles)), "1.5",
    f"Photos with something in front of the object, which {queries.occluded.mean():.0%} of all photos have. The "
    "outline of what is visible differs from the object's own, and the encoder receives only the former.",
    "Above: photos with the outline of the visible part. Below: the white silhouette of the whole object.",
) if titles else Markdown("No photo is occluded.")  # fmt: skip

# %% [markdown]
# ## Camera positions
#
# The views of every shape are taken from the same twelve positions on a circle. The photos are less orderly: they are
# taken from all sides, from different heights, and with lenses from wide to long. A photo's camera need not coincide
# with that of any view; that is why the model must weigh the views, as the chapter on the model shows. Training
# receives no information about the cameras.

# %%
facts = queries.join(photo_facts(), on="query_id").dropna(subset="azimuth")
protocol = benchmark.protocol
steep = (facts.elevation - protocol.elevation).abs() > 10
figures.captioned(
    figures.cameras(facts.azimuth, facts.elevation, protocol.azimuths, protocol.elevation), "1.6",
    f"Where the cameras stood. The twelve views form one ring at an elevation of {protocol.elevation:.0f}°; "
    f"{steep.mean():.0%} of the photos were taken more than 10° above or below it, where no view is.",
    "A scatter plot of elevation over azimuth: photos as a cloud, the twelve views as diamonds in one row.",
) if len(facts) else None  # fmt: skip

# %%
Markdown(
    f"The camera is known for {len(facts)} photos; focal lengths range from {facts.focal.min():.0f} to "
    f"{facts.focal.max():.0f} mm. On {facts.restyled.mean():.0%} of these photos the object's colours were drawn "
    "anew, so colour says nothing about which shape they show."
) if len(facts) else Markdown("The cameras of these photos are not known.")

# %% [markdown]
# ## Leak checks
#
# A leak makes a number look good without anybody noticing. Four checks follow, written out so that you can judge them.
# A failed `assert` stops the build; the other checks report a count.
#
# **The files are the ones that were prepared.** Each array and table has the sha256 that `benchmark.json` records.

# %%
for name, digest in benchmark.meta["sha256"].items():
    assert file_sha256(benchmark.path / name) == digest, f"{name} is damaged or was edited"

# %% [markdown]
# **No photo is on both sides.** The check compares file names and, because a file can be copied, pixels.

# %%
trained = queries.split == "train"
assert not set(queries.photo[trained]) & set(queries.photo[~trained]) - {""}
pixels = np.array([hashlib.sha256(image[:3].tobytes()).hexdigest() for image in benchmark.images])
twins = np.isin(pixels[~trained], pixels[trained]).sum()
Markdown(f"{twins} of the {(~trained).sum()} photos in `val` and `test` equal a training photo pixel for pixel.")

# %% [markdown]
# **No group of variants straddles seen and unseen.** If a chair is unseen, then so is the same chair in another colour.

# %%
group = shapes.group.to_numpy()[own]  # (Q,)
assert not set(group[trained]) & set(group[~queries.seen]), "a training photo shows a variant of an unseen shape"
assert queries.seen[trained].all(), "a training photo shows an unseen shape"

# %% [markdown]
# **Do any two shapes have identical views?** If two gallery entries had the same views, no method could tell them
# apart, and the best possible Top-1 would be below 100 %. The check compares the views byte by byte, so it does not
# find shapes that merely look almost alike.

# %%
looks = pd.Series([hashlib.sha256(views.tobytes()).hexdigest() for views in benchmark.views])
alike = looks.duplicated(keep=False)
ambiguous = alike.to_numpy()[own].mean()
Markdown(f"{alike.sum()} shapes share all views with another shape; {ambiguous:.1%} of the photos show such a shape.")

# %% [markdown]
# ## Where the shapes come from
#
# The benchmark records every model's creator, licence and source. For `sweethome` the file
# `data/sweethome/ATTRIBUTION.csv` holds the same facts. Anybody may use the models under CC BY, but must name the
# creators; the table below names them for this report.

# %%
shapes.groupby("licence").agg(shapes=("shape_id", "size"), creators=("creator", "nunique")).style

# %%
credits = shapes[["shape_id", "name", "creator", "licence", "source"]]
HTML(searchable(credits, f"All {len(shapes)} shapes with creator, licence and source"))

# %% [markdown]
# ## What we learned

# %%
test = queries[queries.split == "test"]
Markdown(
    f"The benchmark asks two questions: {test.seen.sum()} test photos show shapes that training saw on other photos, "
    f"{(~test.seen).sum()} show shapes that no training photo shows. {(~photographed).mean():.0%} of the gallery are "
    f"distractors. The checks found {twins} evaluation photos that equal a training photo, and {alike.sum()} shapes "
    "that no method could tell apart by their views. All photos are synthetic and show exactly the gallery's meshes, "
    "so the numbers of this book do not carry over to real photographs."
)

# %% [markdown]
# ## Try it
#
# Break something and see what happens: copy the prepared folder (`benchmark.path`), change one letter in the copy's
# `queries.csv`, and call `Benchmark.open` of `cmiclib.benchmark` on the copy. The error says which file is wrong and
# what to do about it. Then open it with `verify=False`: which changes are still noticed, and which are not?
