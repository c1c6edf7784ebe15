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
# # What retrieval looks like
#
# Numbers say how often the right shape comes first; this chapter shows what that looks like. It shows the figure that
# opens the paper, made from this benchmark's test photos, then photos of unseen shapes, then the worst failures, and
# which views the attention chose.
#
# The photos were selected by rules that the text states, not by hand. The chapter needs the index that the chapter
# [Evaluation](07_evaluation.ipynb) built with the trained model.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
OVERRIDES = []
ROWS = 8  # photos in a figure
FOUND = 5  # shapes for each photo

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown

from cmiclib import figures
from cmiclib.book import open_chapter
from cmiclib.book.trained import trained_run
from cmiclib.evaluation.report import score_index
from cmiclib.index.cache import gallery_index, photo_vectors
from cmiclib.evaluation.examples import examples, typical, worst

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)
benchmark, run = chapter.benchmark, trained_run(chapter)
index = gallery_index(run, benchmark)
vectors = photo_vectors(run, index, benchmark, "test")
scored = score_index(index, benchmark, "test", vectors)
table = scored.table()
table["label"] = table.category + ", rank " + table["rank"].astype(str)


# %%
def show(chosen, number, caption):
    e = examples(index, benchmark, chosen.row.to_numpy(), FOUND)
    rows = figures.retrieval_rows(e.photos, e.own, e.found, e.scores, e.right, chosen.label.tolist())
    right, among = (chosen["rank"] == 1).sum(), (chosen["rank"] <= FOUND).sum()
    said = f"Of {len(chosen)} photos the own shape comes first for {right}, and is among the first {FOUND} for {among}."
    alt = f"Rows of pictures: a photo with its mask outlined, its own shape, and the first {FOUND} shapes with scores."
    return figures.captioned(rows, number, f"{caption} {said}", alt, cut=False)


# %% [markdown]
# ## The paper's first figure, from our photos
#
# The figure shows one photo of a seen shape for each of the most photographed categories: the photo with the category's
# median margin, so half of the category's photos are answered with more certainty and half with less. Next to it are
# the photo's own shape and then the first five shapes found, with scores; the right one is framed and ticked. Each
# shape is shown by the view that attention weighed most for this photo.

# %%
show(typical(table[table.seen], ROWS), "10.1", "Typical photos of seen shapes; a tick marks the own shape.")

# %% [markdown]
# ## Unseen shapes
#
# Training had no photo of these shapes. The same rule selects the photos.

# %%
unseen = table[~table.seen]
show(typical(unseen, ROWS), "10.2", "Typical photos of shapes that no training photo shows.") if len(
    unseen
) else Markdown("This benchmark has no test photos of unseen shapes.")

# %% [markdown]
# ## The worst failures
#
# These are the test photos that fail by the widest margin: the score of the best wrong shape exceeds that of the own
# shape by most. The figure holds at most one photo of each shape, so one hard shape cannot fill it.

# %%
failures = worst(table, ROWS)
alike = int((failures.category == failures.found).sum())
show(
    failures, "10.3",
    f"The photos that fail by most. For {alike} of {len(failures)} the first shape has the right category.",
) if len(failures) else Markdown("Every test photo is answered correctly.")  # fmt: skip

# %% [markdown]
# What the first shapes found have in common with the own shapes, over all failures:

# %%
lost = table[table.top1 == 0]
kinds = {
    "first shape is a variant of the own shape": lost.variant,
    "first shape has the right category": lost.category == lost.found,
    "first shape has no photos": lost["first"].isin(benchmark.shapes.shape_id[~benchmark.photographed]),
    "own shape is among the first ten": lost.top10 == 1,
    "photo is truncated or partly hidden": lost.truncated | lost.occluded | lost.slightly_occluded,
}
Markdown(f"**{len(lost)} of {len(table)} test photos fail.** Of these:")

# %%
pd.DataFrame({"photos": {name: int(mask.sum()) for name, mask in kinds.items()}}).assign(
    percent=lambda counted: (100 * counted.photos / max(len(lost), 1)).round(1)
)

# %% [markdown]
# ## The views that attention chose
#
# For some of the typical photos, the figure shows the views of the own shape with their weights below; the stronger the
# border, the more a view counts. One could expect a photo from the side to choose views from the side; the chapter on
# the model measures how far this holds. The weights of a shape's twelve views sum to 1; without attention each would be
# 1/12.

# %%
chosen = typical(table, 5)
e = examples(index, benchmark, chosen.row.to_numpy())
strips = figures.attended_views(
    e.photos, e.own_views, e.own_weights, chosen.shape_id.tolist(), benchmark.protocol.azimuths
)
figures.captioned(
    strips, "10.4",
    f"The views of the own shape, their azimuths, and their weights, which sum to 1. The largest weight here is "
    f"{e.own_weights.max():.2f}, against {1 / e.own_weights.shape[1]:.2f} for equal weights.",
    "For each photo a strip of twelve gray views with angle and weight below; stronger borders have more weight.",
    cut=False,
)  # fmt: skip

# %% [markdown]
# How sharp is the attention over all test photos, on the first shape found? The sentence below gives the weight of the
# strongest view, and the number of equally weighted views that would have the same entropy: 1 means a single view, 12
# means no preference.

# %%
weights = index.search(vectors, k=1).weights[:, 0].numpy()  # (Q, V)
effective = np.exp(-(weights * np.log(weights.clip(1e-12))).sum(axis=1))
Markdown(
    f"The strongest of {weights.shape[1]} views has a mean weight of {weights.max(axis=1).mean():.2f}; on average, the "
    f"weights are spread like {effective.mean():.1f} equal views (middle half of the photos: "
    f"{np.quantile(effective, 0.25):.1f} to {np.quantile(effective, 0.75):.1f})."
)

# %% [markdown]
# ## What we learned

# %%
shares = {name: f"{mask.mean():.0%}" for name, mask in kinds.items()} if len(lost) else {}
Markdown(
    f"{len(lost)} of {len(table)} test photos fail. "
    + "".join(f"For {share} of the failures the {name}. " for name, share in list(shares.items())[:2])
    + f"The strongest view has a mean weight of {weights.max(axis=1).mean():.2f}, and "
    f"{effective.mean():.1f} of {weights.shape[1]} views count."
)

# %% [markdown]
# ## Try it
#
# Replace `typical(table[table.seen], ROWS)` by `table[table.margin.abs() < 0.01].head(ROWS)`, which selects photos that
# are almost undecided. Would you have decided otherwise?
