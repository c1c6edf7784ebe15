# ---
# jupyter:
#   cmic:
#     needs: [07_evaluation]
#     inputs: [data/weights/silhouette]
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A photo and a box
#
# The paper assumes a good mask of the object, and shapes that training saw. People have a photo, at most a box around
# the object, and a folder of shapes that nobody has trained on. This chapter says what the method is worth then.
#
# It begins with the demo's own synthetic photos, which may be shown. The real photos of Pix3D belong to others and are
# for research only, so the chapter evaluates none of them: it shows results that are stored in the repository, with the
# commands that made them.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
OVERRIDES = []
ROWS = 4  # photos in the first figure
FOUND = 5  # shapes for each of them

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from cmiclib import figures
from cmiclib.book import open_chapter
from cmiclib.book.tables import percent, read_results
from cmiclib.book.trained import trained_run
from cmiclib.evaluation.examples import examples, typical
from cmiclib.evaluation.masks import other_masks
from cmiclib.evaluation.report import score_index
from cmiclib.figures.grids import grid
from cmiclib.index.cache import gallery_index, photo_vectors
from cmiclib.silhouette import boxes_of, cut_softly, silhouettes

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)
benchmark, run = chapter.benchmark, trained_run(chapter)

# %% [markdown]
# ## What a mask is worth, in pictures
#
# The chapter [Evaluation](07_evaluation.ipynb) answered each test photo with its exact mask, and again with the box
# alone. The figure shows photos whose own shape came first with the mask and not with the box alone. A rule
# selects them: it takes the most frequent categories among such photos, and from each the photo with the median margin.
# Photos that gain the first place without a mask are not shown.

# %%
index = gallery_index(run, benchmark)
masked = score_index(index, benchmark, "test", photo_vectors(run, index, benchmark, "test")).table()
marked = other_masks(benchmark, "test", chapter.outputs)
boxed = score_index(index, marked, "test", photo_vectors(run, index, marked, "test")).table()
boxed = boxed[boxed["mask"] == "box"].reset_index(drop=True)  # in the order of the photos with masks
lost = boxed[(masked.top1 == 1) & (boxed.top1 == 0)]
lost = lost.assign(label=lost.category + ", rank " + lost["rank"].astype(str))

# %%
chosen = typical(lost, ROWS)
if len(chosen):
    shown_photos = examples(index, marked, chosen.row.to_numpy(), FOUND)
    rows = figures.retrieval_rows(
        shown_photos.photos, shown_photos.own, shown_photos.found, shown_photos.scores, shown_photos.right,
        chosen.label.tolist(),
    )  # fmt: skip
    alike = (lost.category == lost.found).mean()
    display(
        figures.captioned(
            rows, "17.1",
            f"Without their mask {len(lost)} of {len(boxed)} photos lose the first place; {len(chosen)} of them are "
            f"shown. For {alike:.0%} of the {len(lost)} the first shape still has the right category. What stands "
            "behind the object is part of the photo then.",
            f"Rows of pictures: a photo, its own shape, and the first {FOUND} shapes found with their scores.",
            cut=False,
        )
    )  # fmt: skip

# %% [markdown]
# ## Trained for these shapes, on renderings only
#
# The renderer of this library can photograph Pix3D's shapes (`cmic prepare synthetic`): with random materials and
# light, on surfaces that face upwards, in frames that cut the object off, with cameras as in Pix3D's annotation. A
# model that was trained on such pictures only is tested on real photos, over the whole gallery. The repository contains
# its weights, `data/weights/pix3d-synthetic`, and the commands that reproduce it;
# `tools/measure/measure_real_photos.py` measured them.
#
# A **CAD mask** is an oracle: it is the true model's silhouette in the true pose, and so a part of the answer. An
# **automatic mask** is available to anybody, and **no mask** means the photo as it is. The photos with CAD masks are a
# different and smaller set than the crops of the other two rows, so only those two rows show the effect of a mask. The
# photos were split into two halves by the picture that they were cut from: choices on real photos used one half, and
# the table reports the other. The reported half was read twice with the same weights: once when this library still
# computed in bfloat16 on CPUs that support it, and once in fp32, which the table shows. Intervals are resampled by
# shape; "untrained" is the same network with ImageNet's weights alone: it compares the photo, cut out where there is
# a mask, with the nearest view; with 3 × 3 cells its features are averaged in nine cells.

# %%
stored = chapter.root / "data/results/real_photos.json"
on_photos = read_results(stored) if stored.exists() else {"rows": [], "failures": []}
models = {"trained": "trained on renderings", "untrained_cells": "untrained, 3 × 3 cells"}
real = pd.DataFrame(on_photos["rows"]).assign(kind="measured") if on_photos["rows"] else None
if real is not None:
    real["method"] = real.photos + ": " + real.model.replace(models)
means = ["top1", "top10", "category", "macro_top1", "shape_top1"]
titles = {"macro_top1": "Top-1, mean of categories", "shape_top1": "Top-1, mean of shapes"}
shown = None if real is None else percent(real, means).rename(columns=titles).set_index(real.method)
Markdown("**Not run.**") if real is None else shown

# %%
if real is not None:
    ours, plain = (real[real.model == kind].set_index("photos") for kind in ("trained", "untrained_cells"))
    display(
        figures.captioned(
            figures.result_points(real), "17.2",
            "Top-1, Top-10 and category of real photos with intervals, by what marks the object and by the weights. "
            f"With a CAD mask Top-1 is {100 * ours.top1['CAD mask']:.0f} per cent after training on renderings, and "
            f"{100 * plain.top1['CAD mask']:.0f} with the untrained cells. On the crops, which are other photos, it is "
            f"{100 * ours.top1['no mask']:.0f} per cent without a mask and {100 * ours.top1['automatic mask']:.0f} "
            "with an automatic one.",
            "Points with intervals for three measures; a row for each combination of mask and weights. The trained "
            "weights lie to the right of the untrained ones in every group.",
        )
    )  # fmt: skip

# %% [markdown]
# On these crops an automatic mask, GrabCut's, does worse than none. A likely reason is that it cuts off too much or too
# little; this was not measured here. So `cmic search` and the browser use GrabCut only when they are asked to
# (`--auto-mask`). Two kinds of photos bring their mask along: a cut-out, by its opacity, and an object that stands
# alone before a plain ground, as in a catalogue.

# %%
if real is not None:
    own = real[real.model == "trained"].set_index("photos")
    change = 100 * (own.top10["automatic mask"] - own.top10["no mask"])
    counts = ", ".join(f"{count} photos ({photos})" for photos, count in own.queries.items())
    display(Markdown(f"{counts}. On the same crops an automatic mask changes Top-10 by {change:+.0f} points."))

# %% [markdown]
# ### Where it fails
#
# The table lists the photos with a CAD mask whose own shape did not come first. Many shapes have siblings with another
# width or another number of seats, and some tables of different series look alike from most sides.

# %%
names = {"photo_id": "photo", "shape_id": "own shape", "first": "found first", "rank": "rank"}
failures = pd.DataFrame(on_photos["failures"], columns=[*names, "photos"])
wrong = failures[failures.photos == "CAD mask"].rename(columns=names)[list(names.values())]
wrong = wrong.sort_values("rank", kind="stable")
Markdown("**Not run.**") if real is None else wrong.set_index("photo")

# %%
own, found = (wrong[name].str.split("/").str[0] for name in ("own shape", "found first"))
close = f"for {(wrong['rank'] == 2).sum()} the own shape is second"
Markdown("" if real is None else f"{len(wrong)} photos: {close}, for {(own == found).sum()} the category is right.")

# %% [markdown]
# ### What each ingredient contributed
#
# These are short trainings with one thing changed, evaluated on the half that was used for choices. They use smaller
# pictures and far fewer steps than the weights above, so they show what helps at the beginning. If an interval contains
# 0, this number of photos cannot decide; the interval is over shapes, and another seed could give a result outside it.

# %%
file = chapter.root / "data/results/ingredients.json"
stored = read_results(file) if file.exists() else None
ingredients = pd.DataFrame(stored["rows"]).rename(columns={"ingredient": "name"}) if stored else None
Markdown(
    f"{stored['about']}; seeds: {', '.join(map(str, stored['seeds']))}; {', '.join(stored['overrides'])}."
    if stored
    else "**Not run.**"
)

# %%
by_photos = {} if ingredients is None else dict(iter(ingredients.groupby("photos", sort=False)))
for number, (photos, rows) in enumerate(by_photos.items(), 3):
    clear = int((rows.low > 0).sum() + (rows.high < 0).sum())
    display(
        figures.captioned(
            figures.effects(rows, f"points of Top-1, {photos}, with minus without"), f"17.{number}",
            f"{photos[0].upper()}{photos[1:]}: the difference in Top-1 that each ingredient makes, with its interval. "
            f"For {clear} of {len(rows)} the interval does not contain 0.",
            f"One point with an interval for each of {len(rows)} ingredients, beside a line at 0.",
        )
    )  # fmt: skip

# %%
sides = {photos: 100 * rows.set_index("name")[["without", "with"]] for photos, rows in by_photos.items()}
pd.concat(sides, axis=1).round(1).rename_axis("Top-1, per cent") if sides else None

# %% [markdown]
# ## Weights for a gallery that nobody trained on
#
# Nobody wants to train before the first search. `data/weights/general` is the default of `cmic find`, `index`,
# `evaluate`, `fit`, `save` and `app --shapes`. It has one head, which learnt on renderings of Pix3D's shapes and of
# Sweet Home's, except those that Sweet Home holds out. Beside the numbers of this head stand the untrained features of
# the same pass (`model.fixed`, as in *Training*). What such weights find among shapes of *another* library is measured
# by leaving one out: trained without Pix3D and asked for Pix3D's real photos, trained without Sweet Home and asked for
# its photos.
#
# All rows count validation photos, on which settings were chosen, so the figures are somewhat too good; no test photo
# was read for them. The weights that trained on Sweet Home also chose their step on its validation photos of seen
# shapes. The real photos are those with CAD masks in *What each ingredient contributed*.
# `tools/measure/measure_general.py` measured all of them. A **box** is that of the true mask; everything inside counts.

# %%
file = chapter.root / "data/results/general.json"
general = read_results(file) if file.exists() else None
table = None
if general is not None:
    rows = pd.DataFrame(general["rows"])
    rows["value"] = [f"{100 * one:.1f} / {100 * ten:.1f}" for one, ten in zip(rows.top1, rows.top10, strict=True)]
    table = rows.pivot_table(
        index="weights", columns=["gallery", "marked by"], values="value", aggfunc="first", sort=False
    )
Markdown("**Not run.**") if table is None else table.fillna("not run")

# %% [markdown]
# For Sweet Home the row *without Sweet Home* is the foreign one, for Pix3D the row *without Pix3D*.

# %%
if general is not None:
    foreign = rows[rows.foreign].set_index(["gallery", "marked by"])
    said = [
        f"{gallery}, {marked}: {100 * (row.top1 - row.untrained_top1):+.1f} points "
        f"({100 * row.gain_low:+.1f} to {100 * row.gain_high:+.1f})"
        for (gallery, marked), row in foreign.iterrows()
    ]
    display(
        Markdown(
            f"Top-1 / Top-10, per cent of {' and '.join(map(str, rows.photos.unique()))} photos. Against the untrained "
            "cells, on libraries that the training left out: " + "; ".join(said) + "."
        )
    )

# %% [markdown]
# ## A learnt silhouette in the box
#
# A mask is worth much, and people draw boxes. `cmiclib.silhouette` guesses the mask: the maps of a frozen
# EfficientNet-Lite0 with ImageNet's weights, and the box, pass a light decoder. It returns for each pixel how sure it
# is that the object covers it. It learnt on pictures that are composed while it trains: a rendered object of Sweet Home
# or Pix3D stands before other photos and objects and behind further ones, in other colours, in a frame that can cut it
# off (`tools/pack/train_silhouette.py`). Hidden parts belong to the mask, so the network learns the whole object. It
# saw no photo taken with a camera, no test photo, and no shape that Sweet Home holds out.
#
# A silhouette is uncertain, so it does not decide: the photo is embedded as it is, and again softly cut out, and the
# mean of both vectors is the query. That is what a box means to `cmic find`, `cmic search` and the app, where the
# weights cut objects out (`model.mask=cutout`). The rows with a box in the other chapters are without it.

# %%
if len(chosen):
    photos, tested = np.array(shown_photos.photos), benchmark.rows("test")[chosen.index]
    exact = benchmark.images[tested][:, 3]
    outlines = silhouettes(photos, boxes_of(exact >= 128))
    pictures = [
        picture
        for photo, mask, outline, cut in zip(photos, exact, outlines, cut_softly(photos, outlines), strict=True)
        for picture in (photo[:3], mask, np.rint(255 * outline).astype(np.uint8), cut[:3])
    ]
    found, true = outlines >= 0.5, exact >= 128
    overlap = (found & true).sum((1, 2)) / (found | true).sum((1, 2))
    display(
        figures.captioned(
            grid(pictures, ["photo", "exact mask", "learnt silhouette", "softly cut out"], across=4),
            f"17.{3 + len(by_photos)}",
            "The photos of the first figure with their learnt silhouettes. Cut at a half, these share "
            f"{overlap.min():.0%} to {overlap.max():.0%} of the area that they or the exact masks cover.",
            "Rows of four pictures: a photo, the exact mask, a gray silhouette, and the photo with white in place of "
            "what is probably not the object.",
            cut=False,
        )
    )  # fmt: skip

# %% [markdown]
# Except for the rows *other categories*, the table counts validation photos. These also decided that the mean of both
# vectors is used, so their figures are somewhat too good. The box is that of the exact mask; the gain is the difference
# to the box alone, on the same photos. `demo, shipped` are the weights of the query browser, of a demo as this book
# runs it. `tools/measure/measure_silhouette.py` measured it.

# %%
file = chapter.root / "data/results/silhouette.json"
outlined = read_results(file) if file.exists() else None
marks = None
if outlined is not None:
    marks = pd.DataFrame(outlined["rows"])
    marks["Top-1 / Top-10"] = [f"{100 * a:.1f} / {100 * b:.1f}" for a, b in zip(marks.top1, marks.top10, strict=True)]
    for name, title in (("top1", "gain in Top-1"), ("mrr", "gain in MRR")):
        gains = (100 * np.array(row[name]) for row in marks.gains)
        words = [f"{gain:+.1f} ({low:+.1f} to {high:+.1f})" for gain, low, high in gains]
        marks[title] = np.where(marks["marked by"] == "box alone", "–", words)
    marks = marks.set_index(["gallery", "weights", "marked by"])[["Top-1 / Top-10", "gain in Top-1", "gain in MRR"]]
Markdown("**Not run.**") if marks is None else marks

# %% [markdown]
# The silhouette learnt on shapes of both libraries, and so did `general`. The rows *other categories* come nearest to a
# user's own shapes: two photos of each of Sweet Home's shapes that has none in the benchmark, rendered for this table
# by the program that also made the training photos of Pix3D's shapes. They show, for example, lamps, sinks, plants and
# bicycles; the silhouette learnt no shape of their categories, and to `general` they were only wrong answers. How well
# it does on camera photos of such things was not measured.

# %% [markdown]
# ## What we learned

# %%
if general is not None:
    ups = [
        f"{100 * (row.top1 - row.untrained_top1):+.1f} ({where[0]} with a {where[1]})"
        for where, row in foreign.iterrows()
    ]
    above, below = int((foreign.gain_low > 0).sum()), int((foreign.gain_high < 0).sum())
    display(
        Markdown(
            "- On a library that training left out, Top-1 differs from that of the untrained cells by "
            f"{'; '.join(ups)} points. Intervals above 0: {above} of {len(ups)}; below 0: {below}. `cmic fit` adapts "
            "the weights to your own shapes and says whether it helped."
        )
    )
if outlined is not None:
    raised = [
        "{:+.1f} points ({:+.1f} to {:+.1f})".format(*(100 * value for value in row["gains"]["mrr"]))
        + f" for {row['gallery']} with `{row['weights']}`"
        for row in outlined["rows"]
        if row["marked by"] == "box, learnt silhouette"
    ]
    display(
        Markdown(
            "- With a learnt silhouette the mean reciprocal rank differs from that of the box alone by "
            f"{'; '.join(raised)}."
        )
    )
if real is not None:
    display(
        Markdown(
            f"- Renderings alone teach enough to find {100 * ours.top1['CAD mask']:.0f} per cent of real objects "
            "first, if a perfect mask marks them.\n"
            "- People have no such mask. On crops without one, which are other photos, it is "
            f"{100 * ours.top1['no mask']:.0f} per cent. A library that training never saw costs as well: see the "
            "table above.\n"
            "- On these crops GrabCut, an automatic mask that needs no training, lowers Top-1 to "
            f"{100 * ours.top1['automatic mask']:.0f} per cent; on the demo's synthetic photos it raises it "
            "([Evaluation](07_evaluation.ipynb))."
        )
    )
