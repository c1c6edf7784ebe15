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
# # Two losses on a matrix that fits on the page
#
# CMIC {cite:p}`lin2021cmic` trains with two contrastive losses. The instance loss ranks the photo's own shape before
# all others; the category loss ranks all shapes of the photo's category before the rest. Both use the same matrix of
# scores. This chapter computes them by hand for four photos and six shapes, checks the library against the result, and
# shows what the temperature does.
#
# **What it needs:** nothing, neither data nor training. It takes seconds.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
TAU = 0.1  # the temperature of the released code

# %%
import math

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from cmiclib import figures
from cmiclib.book import open_chapter
from cmiclib.config import LossConfig
from cmiclib.figures.curves import temperatures
from cmiclib.losses import category_loss, cmic_loss, instance_loss

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS)

# %% [markdown]
# ## Four photos, six shapes
#
# The scores are made up. Photos 1 and 2 show two different chairs, photo 3 a sofa, photo 4 a table. Photo 1 is solved.
# Photo 2 confuses two chairs. Photo 3 takes the sofa for a chair. Photo 4 scores all shapes almost alike. The batch
# holds six distinct shapes: the four that the photos show, and two more that fill it up.

# %%
shapes = ["chair A", "chair B", "chair C", "sofa D", "table E", "table F"]
photos = ["photo of chair A", "photo of chair B", "photo of sofa D", "photo of table E"]
scores = torch.tensor([
    [0.82, 0.41, 0.35, 0.12, 0.05, 0.02],
    [0.58, 0.55, 0.30, 0.10, 0.08, 0.11],
    [0.44, 0.52, 0.20, 0.47, 0.15, 0.09],
    [0.31, 0.28, 0.30, 0.25, 0.33, 0.29],
])  # (Q, N) = (4, 6)  # fmt: skip
target = torch.tensor([0, 1, 3, 4])  # (Q,) the column of each photo's own shape
kind = np.array([name.split()[0] for name in shapes])  # (N,)
same_category = torch.from_numpy(kind[target.numpy()][:, None] == kind[None, :])  # (Q, N)

# %% [markdown]
# ## The instance loss, by hand
#
# Divide the scores by the temperature $\tau$ and turn them into shares with a softmax. The loss of a photo is minus the
# logarithm of its own shape's share {cite:p}`oord2018cpc`:
#
# $$ L_{ins}(q) = -\log \frac{\exp(s_+ / \tau)}{\sum_j \exp(s_j / \tau)}. $$
#
# For the first photo, in plain arithmetic:

# %% tags=["lesson"]
powers = [math.exp(score / TAU) for score in scores[0].tolist()]
own, total = powers[0], sum(powers)
by_hand = -math.log(own / total)
Markdown(
    f"exp({scores[0, 0]:.2f} / {TAU:g}) = {own:,.0f}, and the sum over all six shapes is {total:,.0f}. The own shape "
    f"gets {own / total:.1%}, and the loss is {by_hand:.4f}."
)

# %% [markdown]
# For all four photos; the library returns their mean:

# %% tags=["lesson"]
rows = range(len(photos))
share = torch.softmax(scores / TAU, dim=1)  # (Q, N)
instance = [-math.log(share[q, target[q]].item()) for q in rows]
assert math.isclose(instance[0], by_hand, abs_tol=1e-6)
assert math.isclose(np.mean(instance), instance_loss(scores, target, TAU).item(), abs_tol=1e-6)

# %% [markdown]
# ## The category loss, by hand
#
# The category loss uses the same shares, but every shape of the category is a positive. The loss is the mean over the
# positives {cite:p}`khosla2020supcon`; $C$ is the set of the batch's shapes that have the photo's category:
#
# $$ L_{cat}(q) = -\frac{1}{|C|} \sum_{c \in C} \log \frac{\exp(s_c / \tau)}{\sum_j \exp(s_j / \tau)}. $$

# %% tags=["lesson"]
category = [np.mean([-math.log(p) for p in share[q][same_category[q]].tolist()]) for q in rows]
assert math.isclose(np.mean(category), category_loss(scores, same_category, TAU).item(), abs_tol=1e-6)
matrices = (scores.numpy(), target.numpy(), same_category.numpy())

# %%
solved = int(np.argmin(instance))
figures.captioned(
    figures.loss_matrix(*matrices, np.array(instance), np.array(category), photos, shapes), "5.1",
    f"Scores of four photos and six shapes, and the losses of each photo in nats. The {photos[solved]} has the "
    f"smallest instance loss, {instance[solved]:.2f}, and a category loss of {category[solved]:.2f}: what solves one "
    "loss does not solve the other.",
    "A table of scores with the own shape in a green frame and its category dashed; beside it two bars for each photo.",
)  # fmt: skip

# %% [markdown]
# Look at the first photo: it is solved and its instance loss is near 0, yet its category loss is large, because the
# other two chairs receive almost none of the softmax. Here the two losses pull in different directions. The sofa is the
# only shape of its category, so its two losses are equal.
#
# ## The total
#
# The category term has a small weight (`loss.category_weight`). So the instance loss dominates; the category loss
# mainly orders the rest.

# %%
config = LossConfig(tau=TAU)
total, ins, cat = cmic_loss(scores, target, same_category, config)
assert math.isclose(total.item(), np.mean(instance) + config.category_weight * np.mean(category), abs_tol=1e-6)
Markdown(f"{ins:.4f} + {config.category_weight:g} · {cat:.4f} = **{total:.4f}** nats.")

# %% [markdown]
# ## Where the gradient pulls
#
# The gradient of a softmax cross-entropy is (predicted − target share) / $\tau$. For the instance loss the target share
# of the own shape is 1; for the category loss that of each shape of the category is $1 / |C|$. Automatic
# differentiation agrees:

# %% tags=["lesson"]
variable = scores.clone().requires_grad_()
cmic_loss(variable, target, same_category, config)[0].backward()
wanted_instance = torch.nn.functional.one_hot(target, len(shapes))  # (Q, N)
wanted_category = same_category / same_category.sum(dim=1, keepdim=True)  # (Q, N)
pull = (share - wanted_instance) + config.category_weight * (share - wanted_category)  # (Q, N)
assert torch.allclose(variable.grad, pull / (TAU * len(photos)), atol=1e-6)

# %%
table = pd.DataFrame(-variable.grad.numpy(), photos, shapes)
table.style.format("{:+.2f}").background_gradient("PiYG", vmin=-3, vmax=3, text_color_threshold=0).set_caption(
    "How each score is pushed"
)

# %% [markdown]
# Green scores are pushed up, red ones down. The push goes where the mistake is: to the wrong chair that leads in the
# second row, and to the chair in the third. In the solved first row the push comes almost entirely from the category
# loss, which would raise the other two chairs at the cost of its own chair.
#
# ## Temperature
#
# Scores lie between -1 and 1. A small $\tau$ turns small differences into large ratios, so the hardest wrong shape
# dominates the loss. With a large $\tau$ all shapes contribute about equally, and even perfect scores cannot make the
# loss small. The right panel shows the second photo, which confuses two chairs.

# %%
taus = np.geomspace(0.02, 2, 60)
curves = np.array([[instance_loss(scores, target, t), category_loss(scores, same_category, t)] for t in taus])
sharpness = {t: torch.softmax(scores[1] / t, dim=0).numpy() for t in (TAU / 4, TAU, TAU * 5)}
sharp, soft = sharpness[TAU / 4].max(), sharpness[TAU * 5].max()
figures.captioned(
    temperatures(taus, *curves.T, TAU, sharpness, shapes, own=int(target[1])), "5.2",
    f"Both losses over the temperature, and one photo's softmax at three of them. Its largest share is {sharp:.0%} at "
    f"τ = {TAU / 4:g} and {soft:.0%} at τ = {TAU * 5:g}: a small τ listens to the hardest wrong shape, a large one to "
    "all alike.",
    "Left: two curves over τ on a logarithmic axis. Right: three groups of bars, one for each temperature.",
)  # fmt: skip

# %% [markdown]
# Move the slider: at a small $\tau$ one or two shapes have nearly all of the softmax, but for photo 4, whose scores are
# almost alike. At a large $\tau$ all shapes have similar shares.

# %%
marks = np.geomspace(0.02, 2, 41)
softmaxes = np.stack([torch.softmax(scores / t, dim=1).numpy() for t in marks])  # (T, Q, N)
of_own = [[instance_loss(scores[q : q + 1], target[q : q + 1], t).item() for q in rows] for t in marks]
of_category = [[category_loss(scores[q : q + 1], same_category[q : q + 1], t).item() for q in rows] for t in marks]
figures.temperature_slider(
    marks, softmaxes, np.stack([of_own, of_category], axis=2), photos, shapes, target.numpy(), "5.3",
    "The softmax of each photo, in per cent, and its two losses, in nats, at the chosen temperature. The own shape "
    "stands in bold. Where it has the highest score, the instance loss approaches 0 as τ does; where another shape has "
    "it, the loss grows without limit.",
    start=int(np.abs(marks - TAU).argmin()),
)  # fmt: skip

# %% [markdown]
# How small can the losses become? Scores lie between -1 and 1, so the best matrix has 1 at the own shape and -1
# everywhere else. Then the instance loss is $\log(1 + (N - 1)\, e^{-2/\tau})$. The category loss with $k$ positives is
# at least $\log k$ for any scores; it reaches this value when all positives share the softmax evenly, and then the
# instance loss is $\log k$ as well.

# %%
n = 30  # distinct shapes in a batch of the released code
floor = {f"{tau:g}": math.log1p((n - 1) * math.exp(-2 / tau)) for tau in (0.05, TAU, 0.5, 1.0)}
ideal = torch.where(wanted_instance.bool(), 1.0, -1.0)
assert math.isclose(instance_loss(ideal, target, 0.5).item(), math.log1p(5 * math.exp(-2 / 0.5)), abs_tol=1e-6)
pd.Series(floor, name="smallest possible instance loss").rename_axis("τ").to_frame().style.format("{:.1e}")

# %% [markdown]
# ## Is the instance among the positives of its category?
#
# In the released code it is, so the category loss also raises the score of the own shape. `include_instance=False`
# leaves the own shape out; then the sofa, which is alone in its category, has no positives and does not count.

# %% tags=["lesson"]
without = category_loss(scores, same_category, TAU, include_instance=False, target=target)
others = same_category & ~wanted_instance.bool()  # (Q, N)
means = [np.mean([-math.log(p) for p in share[q][others[q]].tolist()]) for q in rows if others[q].any()]
assert math.isclose(np.mean(means), without.item(), abs_tol=1e-6)

# %%
Markdown(
    f"Category loss with the own shape among the positives: {cat:.4f}, mean over {len(photos)} photos. Without it: "
    f"{without:.4f}, mean over {len(means)} photos."
)

# %% [markdown]
# ## Batches of one category
#
# If all shapes of a batch belong to one category, the category loss only pushes all scores of a photo to be equal. The
# released code then leaves the term out. So on the two car benchmarks the category loss never acts: there, the instance
# loss alone trains CMIC.

# %%
cars = torch.ones_like(same_category)
with_cars = cmic_loss(scores, target, cars, config)
assert with_cars[0] == with_cars[1] and with_cars[2] == 0
Markdown(
    f"Total {with_cars[0]:.4f}, of which category {with_cars[2]:.4f}. Computed literally, the category loss would be "
    f"{category_loss(scores, cars, TAU):.4f}. It is lowest when all six scores are equal: log 6 = {math.log(6):.4f}."
)

# %% [markdown]
# ## What we learned

# %%
Markdown(
    "Both losses read one softmax over the batch's shapes, and the library's values equal those by hand. With τ = "
    f"{TAU:g} the instance loss can fall to {floor.get(f'{TAU:g}', float('nan')):.1e} nats, the category loss with "
    f"three positives never below {math.log(3):.2f}. At the weight of {config.category_weight:g} the instance loss "
    "gives the direction; the category loss orders what is left, and where all shapes are of one category it is left "
    "out."
)

# %% [markdown]
# ## Try it
#
# Make the fourth photo confident and wrong: set its score of `table F` to 0.9 and run the chapter again. By how
# much does the total grow? Then halve `TAU`, and look at the gradient of that row again.
