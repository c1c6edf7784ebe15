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
# # The common space
#
# Training embeds photos and views as unit vectors in one space, in which a photo should be close to the views of its
# own shape. This chapter shows a map of that space, and then numbers from the space itself, because a two-dimensional
# map shows neighbourhoods but neither distances nor sizes.
#
# It needs the index that the chapter [Evaluation](07_evaluation.ipynb) built with the trained model.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
OVERRIDES = []
PHOTOS = 600  # largest number of test photos on the map
NEIGHBOURS = 10
SEED = 0

# %%
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from cmiclib import figures
from cmiclib.book import open_chapter
from cmiclib.book.trained import trained_run
from cmiclib.evaluation.projection import kept_map, neighbour_purity, shape_points
from cmiclib.index.cache import gallery_index, photo_vectors

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)
benchmark, run = chapter.benchmark, trained_run(chapter)
index = gallery_index(run, benchmark)

# %% [markdown]
# ## One point for each photo and each shape
#
# A photo is one vector. A shape has twelve, one for each view, and its descriptor depends on the query, because
# attention weighs the views anew for every photo. For the map a shape needs one point of its own: the mean of its
# twelve vectors, scaled to length 1. This is the direction of the descriptor that attention would give if it preferred
# no view.

# %%
rows = benchmark.rows("test")
photos = photo_vectors(run, index, benchmark, "test")  # (Q, d)
shapes = shape_points(index.views)  # (N, d)
photo_category = benchmark.queries.category.to_numpy()[rows]
shape_category = benchmark.shapes.category.to_numpy()

# %% [markdown]
# ## The map
#
# The map is t-SNE {cite:p}`maaten2008tsne`, started from the first two principal components, with a fixed seed. Dots
# are test photos (at most `PHOTOS` of them); triangles are the shapes of the categories that have photos. Shapes of
# other categories are left out, so that the colours can be told apart. The pointer, or an arrow key, shows a point's
# picture. No choice depends on this map, so it may show test photos.

# %%
atlas = kept_map(run, index, benchmark, PHOTOS, SEED)
known = atlas.rows[~atlas.is_photo]
pictures = [benchmark.images[row] for row in rows[atlas.rows[atlas.is_photo]]]
names = [
    f"{'photo of ' if photo else ''}{category}" for category, photo in zip(atlas.category, atlas.is_photo, strict=True)
]
figures.hover_map(
    figures.embedding_map(atlas.places, atlas.category, atlas.is_photo), atlas.places, names,
    [*pictures, *(benchmark.views[row, 1] for row in known)], "9.1",
    f"{atlas.is_photo.sum()} test photos and {len(known)} shapes of {len(set(photo_category))} categories. The axes of "
    f"t-SNE have no unit. Of the {NEIGHBOURS} shapes nearest to a photo, in the space itself, "
    f"{neighbour_purity(photos, photo_category, shapes, shape_category, k=NEIGHBOURS).mean():.0%} have its category.",
    "A map with islands of coloured marks, dots for photos and triangles for shapes, each with a category's name.",
)  # fmt: skip

# %% [markdown]
# How to read it: an island of one colour is a category that the model separates from others. Triangles among dots of
# their colour mean that the model brings photos and views together although they look different; dots without triangles
# nearby are photos that the model does not bring close to any shape. The size of an island and the distance between two
# islands mean nothing.

# %% [markdown]
# ## The same in numbers
#
# The table is computed in the space itself, with cosine similarity: which share of each point's nearest neighbours has
# its category? A point is not its own neighbour. "By chance" is the purity with random neighbours.

# %%
of_photos, of_shapes = (photos, photo_category), (shapes, shape_category)
of_known = shapes[known], shape_category[known]
pairs = {  # the points, the candidates for their neighbours, each point's own row among these
    "photo → photos": (*of_photos, *of_photos, np.arange(len(photos))),
    "photo → shapes": (*of_photos, *of_shapes, None),
    "shape → shapes": (*of_known, *of_shapes, known),
    "shape → photos": (*of_known, *of_photos, None),
}


def purity(*pair, k):
    return neighbour_purity(*pair[:4], k=k, own=pair[4]).mean()


measured = {name: purity(*pair, k=NEIGHBOURS) for name, pair in pairs.items()}
chance = {name: purity(*pair, k=len(pair[2])) for name, pair in pairs.items()}  # all are neighbours
summary = pd.DataFrame({"purity": measured, "by chance": chance})
(100 * summary).round(1).rename_axis(f"{NEIGHBOURS} nearest neighbours, per cent")

# %% [markdown]
# The next table lists the purity of a photo's nearest shapes by category. A category with fewer shapes than neighbours
# cannot reach 100 %; "at most" gives the largest value that it can reach.

# %%
found = neighbour_purity(photos, photo_category, shapes, shape_category, k=NEIGHBOURS)
number = pd.Series(shape_category).value_counts()
each = pd.DataFrame({"purity": found, "photos": 1}).groupby(photo_category).agg({"purity": "mean", "photos": "sum"})
each["shapes"], each["at most"] = number[each.index], (number[each.index] / NEIGHBOURS).clip(upper=1)
each.assign(**{name: (100 * each[name]).round(1) for name in ("purity", "at most")}).sort_values("purity")

# %% [markdown]
# ## Do photos and shapes really meet?
#
# Two encoders can produce every ranking correctly and still keep photos and views in two separate regions, because a
# ranking only compares shapes with each other. The cosines to the own shape, to other shapes of the category and to all
# other shapes show how close photos and shapes are.

# %%
cosine = (photos @ shapes.T).numpy()  # (Q, N)
own = benchmark.relevant(rows)
same = (photo_category[:, None] == shape_category[None, :]) & ~own
kinds = {"own shape": own, "others of the category": same, "other categories": ~own & ~same}
between = {name: cosine[mask].mean() for name, mask in kinds.items()}
within = (photos @ photos.T).fill_diagonal_(torch.nan).nanmean().item()
pd.Series(between | {"photo and another photo": within}, name="mean cosine").round(3).to_frame()

# %%
Markdown(
    f"A photo's mean cosine is {between['own shape']:.2f} with its own shape and {between['other categories']:.2f} "
    f"with shapes of other categories; the mean cosine of two photos is {within:.2f}."
)

# %% [markdown]
# ## What we learned

# %%
Markdown(
    f"Of a photo's {NEIGHBOURS} nearest shapes {measured['photo → shapes']:.0%} have its category, by chance "
    f"{chance['photo → shapes']:.0%}. A photo is closer to its own shape (mean cosine {between['own shape']:.2f}) than "
    f"to others of its category ({between['others of the category']:.2f}); two photos have {within:.2f}: photos and "
    "shapes "
    + (
        "share one region of the space."
        if between["own shape"] > within
        else "still keep apart, and ranking works all the same."
    )
)

# %% [markdown]
# ## Try it
#
# Represent the shapes by another point: replace `shape_points(index.views)` by `index.views[:, 0]`, the front view
# alone, and compare the purity of "photo → shapes". The difference is what the other eleven views add.
