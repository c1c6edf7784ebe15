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
# # Data: shapes, photos, splits
#
# Single-image shape retrieval needs three things: a **gallery** of CAD models, **photos** that each show one of
# them, and rules that say which photo may be used for what. This chapter shows all three as this project stores
# them, and then looks for leaks between training and test.
#
# **What it needs:** only the benchmark. The default, `sweethome`, lies in the repository and is unpacked on first
# use.
#
# ```{admonition} Synthetic photos
# :class: important
# The photos of `sweethome` are path-traced, not taken with a camera, and they show the very meshes of the gallery.
# In Pix3D {cite:p}`sun2018pix3d` photos are real and the CAD model only resembles the object. So numbers on
# `sweethome` are higher than the same method reaches on Pix3D, and the two must not be compared.
# ```

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
PHOTOS = 4  # photos of each category in the first figure

# %%
import hashlib

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from cmiclib import figures
from cmiclib.benchmark import file_sha256
from cmiclib.book import open_chapter
from cmiclib.figures.grids import grid
from cmiclib.sources.sweethome_photos import photo_facts
from cmiclib.book.tables import searchable

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS)
benchmark = chapter.benchmark
shapes, queries = benchmark.shapes, benchmark.queries

# %% [markdown]
# ## What is in it
#
# Row *i* of `queries` belongs to row *i* of the photos, row *j* of `shapes` to row *j* of the views. `own` is the
# gallery row of each photo's shape. Where several shapes would count as right, it is the first of them.

# %%
own = benchmark.relevant(benchmark.rows()).argmax(axis=1)  # (Q,)
photographed = np.isin(np.arange(len(shapes)), own)  # (N,)
Markdown(
    f"`{benchmark.name}` at {benchmark.size} px: **{len(shapes)} shapes** in {shapes.category.nunique()} categories, "
    f"and **{len(queries)} photos** of {photographed.sum()} of them. The other {(~photographed).sum()} shapes are "
    f"distractors. Source: {benchmark.meta['source']}. Licence: {benchmark.meta['licence']}."
)

# %% [markdown]
# For each category, one shape as a gray view, then photos of it. The red line is the outline of the mask, which tells
# the photo encoder where the object is: as a fourth channel in the paper, in the `demo` by cutting the object out on
# white. Photos are cropped to a square around the mask, which is shifted where it would leave the picture.

# %%
most = pd.Series(own).groupby([queries.category, own]).size()  # photos of each shape
shown = min(PHOTOS, most.groupby(level=0).max().min())
examples = {}
for category, shape in most.groupby(level=0).idxmax():
    examples[category] = benchmark.views[shape, 1], benchmark.images[np.flatnonzero(own == shape)[:shown]]
figures.samples(examples, across=2)

# %% [markdown]
# ## How much of it
#
# The categories are unequal, as they are in Pix3D. That is why the evaluation reports both the mean over photos
# (micro) and the mean over categories (macro). Which of the two the published figures are is not known.

# %%
figures.counts(shapes, queries)

# %% [markdown]
# ## Distractors
#
# A distractor is in the gallery but on no photo. It is never right, so it can only make retrieval harder. Real
# repositories are like that: most of what they hold is not what you are looking for.

# %%
distractors = shapes[~photographed]
picked = distractors.drop_duplicates("category").index[:12]
counts = distractors.category.value_counts()
titles = [f"{category} ({counts[category]})" for category in shapes.category[picked]]
grid(list(benchmark.views[picked][:, 1]), titles) if len(picked) else Markdown("This benchmark has none.")

# %% [markdown]
# ## A benchmark is one folder
#
# Every data set of this book is brought into the same format once. After that, nobody asks where it came from.
# Arrays are plain `.npy` files that are memory-mapped, so that opening a benchmark takes no time and no memory.

# %%
MEANING = {
    "views.npy": "gray views (shapes, views, S, S)",
    "queries.npy": "photos: RGB and mask (photos, 4, S, S)",
    "amodal.npy": "masks of whole objects, hidden parts too (photos, S, S)",
    "points.npy": "points on the surface (shapes, points, 3)",
    "voxels.npy": "solid 128³ grids, eight cells a byte (shapes, bytes)",
}
sizes = {name: (benchmark.path / name).stat().st_size / 1e6 for name in benchmark.arrays}
pd.DataFrame(
    [(name, MEANING[name], array.dtype, array.shape, sizes[name]) for name, array in benchmark.arrays.items()],
    columns=["file", "holds", "type", "shape", "MB"],
).style.format({"MB": "{:.1f}"}).hide()

# %% [markdown]
# Beside the arrays lie two tables, the simplified meshes that the viewer shows (`meshes/<shape_id>.glb`), and
# `benchmark.json` with the view protocol, the counts, and a sha256 of each array and table. `shapes.csv`:

# %%
shapes.groupby("category").head(1).head(4).style.hide()

# %% [markdown]
# And `queries.csv`, one photo of each part of the split:

# %%
queries.groupby(["split", "seen"]).head(1).style.hide()

# %% [markdown]
# ## Splits: two questions, not one
#
# The paper splits **photos**: a test photo is new, but its shape was seen in training on other photos. To that,
# this project adds **unseen shapes**, of which no training photo exists. They answer the question that a growing
# repository asks: does the model work for a shape that was added yesterday, without training again? Their `val` and
# `test` photos show the same shapes, so settings and weights are chosen with these shapes in view.
#
# - `train`: photos that the model learns from.
# - `val`: photos by which the checkpoint and every setting is chosen. The released code has none: it keeps the
#   checkpoint that is best on the test photos.
# - `test`: for the figures at the end; nothing is chosen by them.

# %%
parts = queries.assign(own=own).groupby(["seen", "split"]).agg(photos=("query_id", "size"), shapes=("own", "nunique"))
parts.rename(index={True: "seen shapes", False: "unseen shapes"})

# %% [markdown]
# ## Variants
#
# Some models differ only in colour, in size, or in one part. Such variants share a `group`. Retrieving a variant
# instead of the shape itself counts as wrong; the evaluation reports the accuracy by group beside it. The first
# shapes that have variants, group after group:

# %%
members = shapes.group.map(shapes.group.value_counts())  # (N,)
variants = shapes[members > 1].sort_values("group", kind="stable")
first = list(benchmark.views[variants.index[:12], 1])
grid(first, variants.name[:12].tolist()) if first else Markdown("This benchmark has none.")

# %%
Markdown(
    f"{variants.group.nunique()} groups hold more than one shape; {len(variants)} of the {len(shapes)} shapes have a "
    f"variant. The largest group has {members.max()} members."
)

# %% [markdown]
# ## Cut off and hidden
#
# As in Pix3D, flags say whether the object is cut off by the border of the photo (`truncated`) or hidden in part
# behind something (`occluded`, or `slightly_occluded`). The mask shows what is visible. `amodal.npy` holds the mask
# of the whole object, which no encoder of this book is given.

# %%
flags = ["truncated", "occluded", "slightly_occluded"]
pd.DataFrame({"photos": queries[flags].sum(), "share": queries[flags].mean()}).style.format({"share": "{:.1%}"})

# %% [markdown]
# Some photos with something in front of the object: the photo with the mask of what is visible (above), and the
# mask of the whole object (below).

# %%
hidden = queries[queries.occluded].drop_duplicates("category").index[:4]
whole = [benchmark.amodal[i] for i in hidden] if "amodal.npy" in benchmark.arrays else []
titles = queries.category[hidden].tolist()
grid([*benchmark.images[hidden], *whole], titles, len(titles), mask=True) if titles else Markdown("None is marked so.")

# %% [markdown]
# ## From where the photos look
#
# The views of a shape are taken from twelve places on a circle, always the same. Photos are not so orderly: they
# look from all round and from different heights, with lenses from wide to long. No photo's camera has to agree with
# a view's; that is why the model must weigh the views, as the chapter on the model shows. Training is told nothing
# of cameras.

# %%
facts = queries.join(photo_facts(), on="query_id").dropna(subset="azimuth")
protocol = benchmark.protocol
figures.cameras(facts.azimuth, facts.elevation, protocol.azimuths, protocol.elevation)

# %%
Markdown(
    f"The camera is known of {len(facts)} photos; focal lengths run from {facts.focal.min():.0f} to "
    f"{facts.focal.max():.0f} mm. On {facts.restyled.mean():.0%} of these photos the object's colours were drawn "
    "anew: there, colour says nothing about which shape it is."
) if len(facts) else Markdown("The cameras of these photos are not known.")

# %% [markdown]
# ## Leak checks
#
# A leak makes a number look good without anybody noticing. Four checks follow, written out so that you can judge
# them. Where one says `assert`, the report stops if it fails; the others count.
#
# **The files are the ones that were prepared.** Each array and table has the sha256 that `benchmark.json` states.

# %%
for name, digest in benchmark.meta["sha256"].items():
    assert file_sha256(benchmark.path / name) == digest, f"{name} is damaged or was edited"

# %% [markdown]
# **No photo is on two sides.** Neither by its file name, nor (a file can be copied) by its pixels.

# %%
trained = queries.split == "train"
assert not set(queries.photo[trained]) & set(queries.photo[~trained]) - {""}
pixels = np.array([hashlib.sha256(image[:3].tobytes()).hexdigest() for image in benchmark.images])
twins = np.isin(pixels[~trained], pixels[trained]).sum()
Markdown(f"{twins} of the {(~trained).sum()} photos of `val` and `test` equal a training photo pixel for pixel.")

# %% [markdown]
# **No variant straddles seen and unseen.** If a chair is unseen, then so is the same chair in another colour.

# %%
group = shapes.group.to_numpy()[own]  # (Q,)
assert not set(group[trained]) & set(group[~queries.seen]), "a training photo shows a variant of an unseen shape"
assert queries.seen[trained].all(), "a training photo shows an unseen shape"

# %% [markdown]
# **No two shapes look alike.** If two gallery entries had the same views, no method could tell them apart, and the
# best possible Top-1 would be below 100 %.

# %%
looks = pd.Series([hashlib.sha256(views.tobytes()).hexdigest() for views in benchmark.views])
alike = looks.duplicated(keep=False)
ambiguous = alike.to_numpy()[own].mean()
Markdown(f"{alike.sum()} shapes share all views with another one; {ambiguous:.1%} of the photos show such a shape.")

# %% [markdown]
# ## Where the shapes come from
#
# Every model keeps its creator, its licence and the place where it was found. For `sweethome` the same is written
# in `data/sweethome/ATTRIBUTION.csv`. Models under CC BY may be used by anybody who names the creator; the table
# below does so in this report.

# %%
shapes.groupby("licence").agg(shapes=("shape_id", "size"), creators=("creator", "nunique")).style

# %%
credits = shapes[["shape_id", "name", "creator", "licence", "source"]]
HTML(searchable(credits, f"All {len(shapes)} shapes with creator, licence and source"))

# %% [markdown]
# ## Try it
#
# Break something and see what happens: copy the prepared folder (`benchmark.path`), change one letter in its
# `queries.csv`, and call `Benchmark.open` of
# `cmiclib.benchmark` on the copy. The error says which file is wrong and what to do about it.
# Then open it with `verify=False`: which changes are still noticed, and which are not?
