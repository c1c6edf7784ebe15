# ---
# jupyter:
#   cmic:
#     needs: [06_training]
#     inputs: [data/sweethome/photos]
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The model: two encoders, and attention over views
#
# CMIC {cite:p}`lin2021cmic` embeds photos and gray views as vectors in one space, and lets each photo decide how much
# each view of a shape counts. This chapter follows one photo and one shape through the network, checks the formula of
# the score, and then examines the trained attention: which views it picks, and whether they are the right ones.
#
# **What it needs:** the trained run of the chapter on training. If there is none yet, the chapter trains it now. All
# photos in this chapter are validation photos.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
OVERRIDES = []
EXAMPLES = 3  # photos to show

# %%
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from cmiclib import figures
from cmiclib.augment import prepare_queries, prepare_views
from cmiclib.book import open_chapter
from cmiclib.book.trained import trained_run
from cmiclib.config import profile
from cmiclib.evaluation.report import Scored, report
from cmiclib.figures.curves import attention_by_angle, distributions
from cmiclib.index.cache import gallery_index, photo_vectors
from cmiclib.model import attention_scores, attention_weights, build_model, fused_scores
from cmiclib.book.tables import percent
from cmiclib.evaluation.examples import parameter_counts, typical
from cmiclib.sources.sweethome import photo_facts

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)
config, benchmark = chapter.config, chapter.benchmark
run = trained_run(chapter)
model = run.model()
index = gallery_index(run, benchmark)

# %% [markdown]
# ## The method in one picture

# %%
rows = benchmark.rows("val")
own = torch.from_numpy(benchmark.relevant(rows).argmax(axis=1))  # (Q,) gallery row of each photo's shape
figures.method_diagram(
    benchmark.images[rows[0]], benchmark.views[own[0].item()], "4.1",
    "The method. Each photo weighs the views anew, so a shape has no fixed vector; both losses compare the score of "
    "the own shape with those of all shapes of the batch. Training changes W and the encoders, in the demo only their "
    "heads.",
)  # fmt: skip

# %% [markdown]
# ## Two encoders
#
# Both are convolutional networks with the same kind of head: batch normalisation, one linear layer, and division by the
# length, so that every vector lies on the unit sphere. The released code uses a ResNet-50 {cite:p}`he2016resnet` with
# four channels, colour and mask, for photos, and a ResNet-18 with one channel for views. The two share no weights, and
# training changes all of them.
#
# A run on two CPU cores can afford less. The `demo` uses the same EfficientNet with ImageNet weights on both sides and
# keeps its convolutions fixed (`model.frozen`). It receives the photo cut out on white (`model.mask`), pools the last
# feature maps in a grid of cells as well (`model.grid`), and trains what follows: the heads, which share their linear
# layer (`model.shared_head`), and the attention. The table compares this run with the paper's network.


# %%
paper = profile("paper", ["model.init=random"]).model
names = [f"{m.query_backbone} and {m.view_backbone}, {m.image_size} px" for m in (config.model, paper)]
sizes = pd.DataFrame(
    {f"this run: {names[0]}": parameter_counts(model), f"paper: {names[1]}": parameter_counts(build_model(paper))}
)
sizes.style.format("{:,}").set_caption("Parameters")

# %% [markdown]
# ## One photo and one shape, step by step
#
# The code takes a validation photo and its own shape. Each line of the table is one tensor on the way from pixels to
# the score. In evaluation a vector of the `demo` also holds the untrained features (`model.fixed`), and $W$ has a
# second block for them, a multiple of the identity. [Training](06_training.ipynb) says why;
# [Evaluation](07_evaluation.ipynb) shows the learnt numbers alone.

# %%
photo = prepare_queries(torch.from_numpy(benchmark.images[rows[:1]]), config.model.image_size)
views = prepare_views(torch.from_numpy(benchmark.views[own[:1].numpy()]), config.model.image_size)

# %% tags=["lesson"]
with torch.inference_mode():
    maps = model.query_encoder.frozen_forward(model.photo_input(photo))
    features = model.query_encoder.features(maps)
    query, embedded = model.embed_queries(photo), model.embed_views(views)
    weights = attention_weights(query, embedded, model.attention())
    score = attention_scores(query, embedded, model.attention())

# %%
steps = {
    "photo and mask, in [-1, 1]": photo,
    "features of the photo": features,
    "photo as a unit vector": query,
    "views, in [-1, 1]": views,
    "views as unit vectors": embedded,
    "weights of the views": weights,
    "score": score,
}
pd.DataFrame({"shape": [str(tuple(t.shape)) for t in steps.values()]}, index=list(steps))

# %%
assert torch.allclose(query.norm(dim=-1), torch.ones(1)) and torch.allclose(weights.sum(-1), torch.ones(1, 1))
Markdown(f"The vectors have length 1, the weights sum to 1, and the score of this pair is {score.item():.3f}.")

# %% [markdown]
# ## The score
#
# For a query $q$ and the views $r_1, \dots, r_V$ of a shape, a matrix $W$ decides how much each view counts:
#
# $$ w_v = \frac{\exp(W q \cdot r_v)}{\sum_u \exp(W q \cdot r_u)}, $$
#
# $$ s = q \cdot \sum_v w_v r_v. $$
#
# The sum is the shape's descriptor **for this query**: another photo gives another descriptor. As the released code
# shows, there is no temperature and no division by $\sqrt d$, $W$ has no bias, and the sum is not normalised to length
# 1 again.
#
# Computed literally, this needs a vector for every pair of photo and shape. But the product with a sum is the sum of
# the products:
#
# $$ q \cdot \sum_v w_v r_v = \sum_v w_v \, (q \cdot r_v). $$
#
# The right side needs two matrix products and never builds the descriptors. The code computes both sides:

# %% tags=["lesson"]
query = photo_vectors(run, index, benchmark, "val")  # (Q, d)
some, W = query[:16], index.attention
weights = attention_weights(some, index.views, W)  # (16, N, V)
descriptors = torch.einsum("qnv,nvd->qnd", weights, index.views)  # (16, N, d)
literal = torch.einsum("qd,qnd->qn", some, descriptors)

# %%
factorised = attention_scores(some, index.views, W)
assert torch.allclose(literal, factorised, atol=1e-5)
bytes_of_all = len(query) * descriptors[0].numel() * 4
Markdown(
    f"Largest difference over {factorised.numel():,} pairs: {(literal - factorised).abs().max():.0e}. For all "
    f"{len(query)} validation photos the descriptors would take {bytes_of_all / 1e3:,.0f} kB; the scores take "
    f"{len(query) * len(index) * 4 / 1e3:,.0f} kB."
)

# %% [markdown]
# ## A descriptor that is not normalised
#
# The mean of unit vectors is shorter than 1, and the more the views disagree, the shorter it is. So a shape that looks
# the same from all sides has an advantage in length. We do not know whether this is intended; the released code
# computes the score this way in training and in evaluation.

# %%
mine = torch.zeros(literal.shape, dtype=torch.bool).scatter(1, own[:16, None], True)  # (16, N)
length = descriptors.norm(dim=-1)  # (16, N)
sets = {"own shape": length[mine].numpy(), "other shapes": length[~mine].numpy()}
middle = {name: float(np.median(values)) for name, values in sets.items()}
figures.captioned(
    distributions(sets, "length of the descriptor", "How long is the weighted mean of the views?", (0, 1)), "4.2",
    f"The descriptor's length, without a unit, for 16 photos and all shapes. Its median is {middle['own shape']:.2f} "
    f"for the own shape and {middle['other shapes']:.2f} for others, so length alone changes the score by a factor of "
    f"{middle['own shape'] / middle['other shapes']:.2f}.",
    "Two histograms over lengths from 0 to 1, with a line at the median of each.",
)  # fmt: skip

# %%
Markdown(
    f"The median length is {middle['own shape']:.2f} for the own shape and {middle['other shapes']:.2f} for other "
    f"shapes, so the length {'favours' if middle['own shape'] > middle['other shapes'] else 'does not favour'} the "
    "own shape."
)

# %% [markdown]
# ## Which views count?
#
# The code computes, for each validation photo, the weights of its own shape's views and their products with the query.
# The score is the sum of weight times product.

# %%
views = index.views[own]  # (Q, V, d)
weights = attention_weights(query, index.views, W)[torch.arange(len(query)), own]  # (Q, V)
products = torch.einsum("qd,qvd->qv", query, views)  # (Q, V)
scored = Scored(index.scores(query), rows, benchmark)

# %% [markdown]
# The figure shows one photo for each of the most photographed categories: the one with the category's median margin
# (the own shape's score minus the best other score), so neither the best nor the worst. After the few steps of the
# `smoke` profile the figure shows little more than where the attention started.

# %%
picked = typical(scored.table(), EXAMPLES)
at = np.searchsorted(rows, picked.row)  # places of these photos among the validation photos
rank = 1 + (scored.scores[at] > scored.scores[at, own[at]][:, None]).sum(dim=1)
titles = [f"{benchmark.shapes.name[shape]}: rank {r}" for shape, r in zip(own[at].tolist(), rank, strict=True)]
pictures = benchmark.images[rows[at]], benchmark.views[own[at].numpy()]
strongest = weights[at].argmax(1) == products[at].argmax(1)
figures.captioned(
    figures.attention(*pictures, weights[at].numpy(), products[at].numpy(), titles), "4.3",
    f"Photos of the categories' median margin, and the views of their own shapes: weight (bars) and product with the "
    f"photo (line). For {strongest.sum()} of {len(at)} photos the view with the largest weight is also the one that "
    "fits best.",
    "For each photo a strip of twelve gray views, bars with their weights, and a line with their products.",
    cut=False,
)  # fmt: skip

# %% [markdown]
# ## How sharp is it?
#
# The entropy of the weights says how many views effectively count: its exponential is 1 if one view has all the weight,
# and the number of views if all have the same weight. Query and views have length 1, so without a temperature the
# softmax becomes sharp only if $W$ is large.

# %%
effective, count = torch.special.entr(weights).sum(dim=1).exp(), weights.shape[1]
seen = benchmark.queries.seen.to_numpy(bool)[rows]
sets = {"seen shapes": effective[seen].numpy(), "unseen shapes": effective[~seen].numpy()}
figures.captioned(
    distributions(sets, "views that count", "Sharpness of the attention to the own shape", (1, count)), "4.4",
    f"How many of {count} views count, for each photo. The median is {effective[seen].median():.1f} for seen shapes; 1 "
    f"would be a choice of one view, {count} the plain mean.",
    f"Two histograms, seen and unseen shapes, over 1 to {count} views, with a line at the median of each.",
)  # fmt: skip

# %%
Markdown(
    f"In the median photo {effective.median():.1f} of {count} views count. The strongest view has a weight of "
    f"{weights.amax(1).median():.2f}; with equal weights it would be {1 / count:.2f}. "
    + (
        "So the attention spreads over most of the views, and the descriptor is close to their mean."
        if effective.median() > 0.75 * count
        else "So the attention selects some of the views, and the descriptor differs from their mean."
    )
)

# %% [markdown]
# ## Does it find the camera?
#
# For the photos of `sweethome` the renderer recorded where the camera stood. Training does not know this. If the
# attention finds the camera, then the view on the camera's side must have the largest weight and the largest product
# with the query. Symmetric objects look alike from opposite sides, so some weight at ±180° is not an error.

# %%
camera = benchmark.queries.iloc[rows].join(photo_facts(), on="query_id").azimuth.to_numpy(float)  # (Q,)
known = np.isfinite(camera)
offset = (np.array(benchmark.protocol.azimuths) - camera[known, None] + 180) % 360 - 180  # (Q, V)
near = np.abs(offset) <= 30
held = (weights[known].numpy() * near).sum(1).mean()
figures.captioned(
    attention_by_angle(offset, weights[known].numpy(), products[known].numpy()), "4.5",
    f"A view's mean weight and its mean product with the photo, by the angle in degrees between the two cameras. The "
    f"views within 30° hold {held:.0%} of the weight, and are {near.mean():.0%} of the views.",
    "Left: bars of the mean weight over the angle from -180 to 150 degrees. Right: a line of the mean product.",
) if known.any() else Markdown("The cameras are not known.")  # fmt: skip

# %%
lift, hits = held / near.mean(), near[np.arange(len(near)), products[known].argmax(1).numpy()].mean()
Markdown(
    f"The views within 30° of the camera hold {held:.0%} of the weight. They are {near.mean():.0%} of the views, so "
    f"they have {lift:.2f} times an even share. The view with the largest product lies within 30° for {hits:.0%} of "
    f"the photos. So the products point to the camera for {'most' if hits > 0.5 else 'less than half'} of the photos, "
    f"and the weights favour the views near it {'clearly' if lift > 1.5 else 'only a little' if lift > 1 else 'not'}."
) if known.any() else None

# %% [markdown]
# ## What if all views counted the same?
#
# The same network, scored in three ways on the validation photos: by attention, by the mean over views, and by the best
# view; in per cent, with 95 % intervals. This is not an ablation: the network was trained with attention, and training
# with the mean would have produced another network.

# %%
scores = {fusion: fused_scores(query, index.views, W, fusion) for fusion in ("attention", "mean", "max")}
reports = {fusion: report(Scored(s, rows, benchmark), distances=False) for fusion, s in scores.items()}
table = pd.DataFrame(reports).T
percent(table, ["top1", "top10", "category", "mrr"])

# %%
columns = ["top1", "top10", "category", "mrr"]
won = (table[columns].astype(float).idxmax() == "attention").sum()
others = [100 * (table.top1["attention"] - table.top1[fusion]) for fusion in ("mean", "max")]
inside = all(table.top1_low["attention"] <= table.top1[f] <= table.top1_high["attention"] for f in ("mean", "max"))
Markdown(
    f"Attention has the highest value in {won} of {len(columns)} columns. Its Top-1 differs by {others[0]:+.1f} points "
    f"from that of the mean and by {others[1]:+.1f} points from that of the best view. "
    + (
        "Both lie within its interval: for this network, these photos do not show that attention is the better score."
        if inside
        else "At least one of them lies outside its interval: for this network, the way of scoring matters."
    )
)

# %% [markdown]
# ## What we learned

# %%
Markdown(
    f"One query decides how much each view counts, and two matrix products are enough to compute it. In this run "
    f"{effective.median():.1f} of {count} views count in the median photo. On these photos attention has the highest "
    f"value in {won} of {len(columns)} measures, and its Top-1 differs from that of the mean by {others[0]:+.1f} "
    f"points and from that of the best view by {others[1]:+.1f}: "
    + (
        "these photos do not show that attention is the better score."
        if inside
        else "how views are joined matters here."
    )
    + " Whether *training* with attention helps is another question; [Ablations](08_ablations.ipynb) asks it."
)

# %% [markdown]
# ## Try it
#
# Train with the mean instead of taking it afterwards: set `OVERRIDES = ["model.fusion=mean"]` above. This is another
# configuration and so becomes another run beside this one. Does the Top-1 of the row `mean` reach that of `attention`?
