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
# # Colour transfer
#
# The views of a shape are gray, so colour cannot help to find it. Yet a photo encoder that is free to use colour will
# use it wherever it separates the training shapes. CMIC {cite:p}`lin2021cmic` blocks this shortcut: in training, every
# photo receives the colours of another photo of the batch, by the method of Reinhard et al.
# {cite:p}`reinhard2001color`. This chapter shows the method, measures how the released code's variant of it differs,
# and tests whether the data contain the shortcut.
#
# **What it needs:** only the benchmark.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
PAIRS = 4  # photos to show
MEASURED = 128  # photos to measure on
SEED = 0

# %%
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from kornia.color import rgb_to_lab

from cmiclib import figures
from cmiclib.augment import augment_queries
from cmiclib.book import open_chapter
from cmiclib.color import transfer_color
from cmiclib.figures.grids import grid

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS)
benchmark = chapter.benchmark

# %% [markdown]
# The code draws some training photos and, for each of them, another photo that provides the colours:

# %%
generator = np.random.default_rng(SEED)
rows = generator.permutation(benchmark.rows("train"))[:MEASURED]
photos = torch.from_numpy(benchmark.images[rows])  # (B, 4, S, S) uint8
content = photos[:, :3] / 255  # (B, 3, S, S) in [0, 1]
style = content.roll(1, dims=0)

# %% [markdown]
# ## Source, style, result
#
# Both photos are converted to CIELAB, whose axes are close to independent: lightness, green to red, blue to yellow.
# (Reinhard et al. used a related space; the released code uses CIELAB.) There each channel of the content is shifted
# and scaled to the mean and the standard deviation of the style,
#
# $$ x' = \frac{\sigma_{style}}{\sigma_{content}} \, (x - \mu_{content}) + \mu_{style}, $$
#
# and the result is converted back. Nothing else happens: every pixel stays where it is.

# %%
lab = transfer_color(style, content, "lab")
released = transfer_color(style, content, "reference")
figures.captioned(
    figures.color_transfer(*(x[:PAIRS].numpy() for x in (content, style, lab, released))), "3.1",
    f"{min(PAIRS, len(content))} photos take the colours of others. Form and shading stay, colours go; the two "
    f"variants of the method differ by {255 * (lab - released)[:PAIRS].abs().mean():.1f} of 255 levels here.",
    "Rows of five pictures: a photo, the photo that lends its colours, two results, and a map of their difference.",
    cut=False,
)  # fmt: skip

# %% [markdown]
# The statistics of the first pair, before and after. The result has the style's statistics, except for what clipping to
# the range of RGB removes.


# %%
def moments(rgb):
    return [f"{channel.mean():.1f} ± {channel.std():.1f}" for channel in rgb_to_lab(rgb)]


pd.DataFrame({"photo": moments(content[0]), "source of colours": moments(style[0]), "result": moments(lab[0])},
             index=["L (lightness)", "a (green to red)", "b (blue to yellow)"])  # fmt: skip

# %% [markdown]
# ## What changes, and what does not
#
# The map is affine in each channel and has a positive slope. So if one pixel of the photo was lighter than another, it
# still is: edges and shading survive, and with them the shape.

# %%
before, after = (rgb_to_lab(x)[:, 0].flatten(1) for x in (content, lab))  # (B, S·S) lightness
correlation = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(before, after, strict=True)])
change = 255 * (lab - content).abs().mean()
Markdown(
    f"On {len(rows)} training photos, a colour value changes by {change:.0f} of 255 levels on average, while the "
    f"correlation of lightness before and after is {correlation.median():.3f} in the median photo (lowest: "
    f"{correlation.min():.3f}). It is not exactly 1 because results are clipped: "
    f"{((lab <= 0) | (lab >= 1)).float().mean():.1%} of the values lie at a border of the range."
)

# %% [markdown]
# The statistics are computed over the **whole** picture, background included, as in the released code. So the object
# does not receive the colours of the other object: its new colours depend on both backgrounds.
#
# There is a weak spot. Where a photo has almost no colour and its source has much, the slope is large, and the transfer
# amplifies the noise of the picture or of the JPEG file.

# %%
deviation = rgb_to_lab(content).std(dim=(2, 3))  # (B, 3)
slope = (deviation.roll(1, dims=0) / deviation)[:, 1:].amax(dim=1)  # the larger of a and b
steep = int(slope.argmax())
titles = ["photo", "source of colours", f"result (slope {slope[steep]:.0f})"]
figures.captioned(
    grid([x[steep].numpy() for x in (content, style, lab)], titles), "3.2",
    f"The pair with the largest slope, {slope[steep]:.0f}: the photo has almost no colour, so the transfer stretches "
    "its noise as well.",
    "A photo, a colourful photo that lends its colours, and a result with coloured noise.",
)  # fmt: skip

# %%
Markdown(f"In {(slope > 10).float().mean():.0%} of these pairs a colour channel is stretched more than tenfold.")

# %% [markdown]
#
# ## The textbook and the released code
#
# The released code multiplies RGB by 255 and then applies a conversion from RGB to Lab that expects the range 0 to 1.
# That looks like a grave bug, but it has little effect. All Lab values come out too large by a common factor, but
# matching mean and deviation is unaffected by a common scale, and the conversion back divides by 255 again. What
# remains is a slightly different curve: the offset and the straight piece by which sRGB departs from a power law vanish
# at that scale. Measured on the same photos:

# %%
gap = 255 * (lab - released).abs()  # (B, 3, S, S) in levels
pd.Series({
    "mean": gap.mean().item(),
    "largest of 99 % of the values": gap.flatten()[:: max(1, gap.numel() // 2**22)].quantile(0.99).item(),
    "largest": gap.max().item(),
}, name="difference in levels of 255").to_frame().style.format("{:.2f}")  # fmt: skip

# %%
apart = gap.flatten(1).mean(1)  # (B,)
Markdown(
    f"The choice of variant changes a value by {gap.mean():.2f} levels on average, the transfer itself by "
    f"{change:.0f}. In the photo where the variants differ most, the mean difference is {apart.max():.1f} levels. The "
    f"library has both; this profile trains with `augment.color={chapter.config.augment.color}`."
)

# %% [markdown]
# This is the photo in which the variants differ most.

# %%
worst = int(apart.argmax())
titles = ["photo", "source of colours", "textbook", "released code"]
figures.captioned(
    grid([x[worst].numpy() for x in (content, style, lab, released)], titles, across=4), "3.3",
    f"The photo in which textbook and released code differ most, by {apart.max():.1f} of 255 levels on average. Even "
    "here both results serve the purpose: they take the photo's own colours away.",
    "A photo, the photo that lends its colours, and the results of the textbook's and of the released formula.",
)  # fmt: skip

# %% [markdown]
# ## Why it should help
#
# To know whether the augmentation helps, one must train with and without it, with several seeds;
# [Ablations](08_ablations.ipynb) does so. This chapter checks its premise.
#
# **Hypothesis: colour alone identifies training shapes.** Test: describe each object by six numbers, the mean and the
# standard deviation of its Lab channels inside the mask. These numbers contain neither form nor position. Then find,
# for each validation photo of a seen shape, the training photo with the nearest six numbers. How often does it show the
# same shape?


# %%
def signature(rgb, mask):
    lab, weight = rgb_to_lab(rgb).flatten(2), mask.flatten(2) / mask.flatten(2).sum(-1, keepdim=True).clamp(min=1)
    mean = (lab * weight).sum(-1, keepdim=True)
    return torch.cat([mean, ((lab - mean).square() * weight).sum(-1, keepdim=True).sqrt()], 1)[..., 0]  # (B, 6)


def own_shape(rows):
    return torch.from_numpy(benchmark.relevant(rows).argmax(axis=1))


# %%
known, asked = benchmark.rows("train"), benchmark.rows("val", seen=True)
train, val = (torch.from_numpy(benchmark.images[r][..., ::2, ::2]) for r in (known, asked))  # enough for statistics
recoloured = transfer_color((train[:, :3] / 255).roll(1, dims=0), train[:, :3] / 255)
gallery = {"as they are": train[:, :3] / 255, "after colour transfer": recoloured}
colours = signature(val[:, :3] / 255, val[:, 3:])

# %%
hit = {}
for name, rgb in gallery.items():
    nearest = torch.cdist(colours, signature(rgb, train[:, 3:])).argmin(dim=1)
    hit[name] = (own_shape(known)[nearest] == own_shape(asked)).float().mean().item()
chance = (own_shape(asked)[:, None] == own_shape(known)[None]).float().mean().item()

# %%
shares = hit | {"a training photo at random": chance}
pd.Series(shares, name="same shape").to_frame().style.format("{:.1%}").set_caption("Nearest colours")

# %% [markdown]
# The difference between the first row and the last is the shortcut: what an encoder could gain in training from colour
# alone. The second row is what the transfer leaves of it; something remains, because the transfer recolours the object
# and its surroundings together. On `sweethome` many photos have redrawn colours, so the shortcut is weaker than in a
# catalogue, where a chair has one colour.
#
# ## In a training batch
#
# Colour transfer is the last of four steps. Crop, shift and mirror come first, and the photo and its mask are cropped,
# shifted and mirrored alike. The upper row shows photos as a training batch contains them, the lower row the same
# photos as an evaluation uses them. Where the mask cuts the object out, the encoder sees only what is inside the mask.

# %%
config, shown = chapter.config, 6
batch = augment_queries(photos[:shown], config.augment, config.model.image_size, torch.Generator().manual_seed(SEED))
upright = batch.add(1).div(2).clamp(0, 1)  # from [-1, 1] to [0, 1]
figures.captioned(
    grid([*upright.numpy(), *photos[:shown].numpy()], across=shown), "3.4",
    f"{shown} photos as a training batch holds them (above) and as an evaluation uses them (below). Training sees each "
    "photo in other colours, from another crop and sometimes mirrored, so it cannot learn them by heart.",
    "Two rows of photos: above with changed colours and crops, below unchanged with the mask's outline.",
)  # fmt: skip

# %% [markdown]
# ## What we learned

# %%
Markdown(
    f"Colour transfer changes a colour value by {change:.0f} of 255 levels on average and leaves lightness correlated "
    f"at {correlation.median():.3f}: colours go, form stays. Colours alone name the shape of {hit['as they are']:.0%} "
    f"of these validation photos; with transferred colours they name {hit['after colour transfer']:.0%}, by chance "
    f"{chance:.0%}. Which variant of the method is used matters less: {gap.mean():.2f} levels on average."
)

# %% [markdown]
# ## Try it
#
# Train without colour transfer: run the chapter on training with `OVERRIDES = ["augment.color=none"]`, or with `jitter`
# for the usual random changes of brightness, contrast, saturation and hue. Compare the validation curves, each with a
# second seed (`train.seed=1`), so that you see how large a difference has to be to mean anything.
