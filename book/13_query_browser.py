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
# # The query browser
#
# Here you choose a photo and see which shapes the model finds, with which scores;
# which of their views counted; the shapes themselves in three dimensions; and where the photo lies on the map of the
# chapter [The common space](09_embedding.ipynb).
#
# The first browser below was computed beforehand, so it works in the report without a kernel and without a network. The
# second one is live: it accepts your own photos, boxes and masks. Both need the index that the chapter
# [Evaluation](07_evaluation.ipynb) built with the trained model.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
OVERRIDES = []
PHOTOS = 24  # in the browser that needs no kernel
FOUND = 5  # shapes for each of them

# %%
import os

import pandas as pd
from IPython.display import HTML, Markdown

from cmiclib.book import open_chapter
from cmiclib.book.trained import trained_run
from cmiclib.browser import QueryBrowser, static_page
from cmiclib.browser.doubt import Doubt
from cmiclib.browser.retriever import Retriever
from cmiclib.evaluation.projection import kept_map
from cmiclib.index.cache import gallery_index, photo_vectors
from cmiclib.book.tables import read_results

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)
run = trained_run(chapter)
index = gallery_index(run, chapter.benchmark)
vectors = photo_vectors(run, index, chapter.benchmark, "test")
retriever = Retriever(index, chapter.benchmark, vectors=vectors, atlas=kept_map(run, index, chapter.benchmark))

# %% [markdown]
# ## Some test photos
#
# The photos were selected by a rule, not by hand: one photo of each shape (the first by name; the second as well if
# there are too few shapes), sorted by the margin between the own shape and the best other one; from that order the rule
# takes evenly spaced photos, from the surest success to the worst failure. Each shape counts once, so photos of unseen
# shapes are rarer here than among all test photos, and fewer fail.
#
# Choose a photo, then a shape of its ranking. A tick and a frame mark the right shape; the bar below a view shows how
# much that view counted.

# %%
chosen = retriever.spread(PHOTOS)
HTML(static_page(retriever, chosen.row, top=FOUND))

# %%
share = {"these photos": chosen, "all test photos": retriever.table}
right = {name: f"{(table.outcome == 'right').mean():.0%}" for name, table in share.items()}
Markdown(f"The first shape is right for {right['these photos']} of these and {right['all test photos']} of all.")

# %% [markdown]
# ## The same ranking on the command line
#
# The browser shows what `cmic search` prints, because both query the same index with the same stored crop:

# %%
example = retriever.answer(retriever.stored(int(chosen.row.iloc[0])))
place = os.path.relpath(chapter.benchmark.path, chapter.root)
command = f"cmic index --run {OUTPUTS}/{PROFILE}/runs/{run.path.name} --benchmark {place} --output own.index"
Markdown(f"```\n{command}\ncmic search --index own.index --benchmark {place} {example.question.name}\n```")

# %%
pd.DataFrame(example.record()["results"])[["rank", "shape_id", "category", "score", "right"]].round(3)

# %% [markdown]
# ## Live, with your own photos
#
# Under "Your photo" upload a photo and, if you have one, its mask. Without a mask the box counts, in which a learnt
# silhouette weighs in, or the whole photo where there is no box. You can also choose GrabCut, a classical method that
# finds a mask; [A photo and a box](17_photo_and_box.ipynb) says why it is not the default. Photos are decoded within
# limits and never kept.
#
# `make app` opens a page of its own, without a notebook, over the same retriever: with your newest run or, before any
# training, with the model that comes with the repository. There you draw the box on the photo itself and correct
# the mask with a brush. Programs can send photos to `POST /search`.

# %%
browser = QueryBrowser(index, chapter.benchmark, vectors=vectors, atlas=retriever.atlas)
browser if chapter.live else Markdown("Open this chapter with `make lab` to see the live browser here.")

# %% [markdown]
# ## When nothing fits
#
# The app shows a notice when the best score is below a limit, for the kinds of photos whose scores tell enough. The
# limit is chosen on validation photos, so that one in ten of those whose shape is in the gallery lies below it; the
# rates below are those of test photos.

# %%
doubt = Doubt(retriever)
for _ in doubt.steps():
    pass
Markdown(doubt.words())

# %% [markdown]
# The live browser in JupyterLab:
#
# ![The live browser in JupyterLab: fields at the left, the photo with its mask's outline below them; at the right eight
# shapes with scores, the twelve views of the first with their weights, and its 3D model](_static/browser-lab.webp)
#
# The app, `make app`:
#
# ![The app's page: at the left a field to drop a photo on and test photos; beside it the chosen photo with its mask's
# outline and the 3D model of the first shape; below them the shapes found, with their
# scores](_static/browser-app.webp)
#
# The browser of this page, which needs no kernel:
#
# ![Twenty-four small photos to choose from; below them the chosen photo, the five shapes found for it, and the views of
# the first](_static/browser-static.webp)
#
# The pictures show the shipped, synthetic photos and models; their authors and licences are listed in
# `data/sweethome/ATTRIBUTION.csv`.

# %% [markdown]
# ## How long an answer takes
#
# The table gives a limit for each kind of photo, on two cores and at the demo's scale. The times are those of the live
# browser, from the choice of a photo until ranking, views, 3D model and map are in the widget. An uploaded photo is
# decoded and made smaller first.

# %%
times = read_results(chapter.root / "data/results/browser.json")  # written by tools/measure/measure_browser.py
kinds = pd.DataFrame({"a stored photo": times["stored"], "an uploaded photo": times["upload"]}).T
kinds = kinds.assign(slowest=kinds.seconds.map(max), answers=kinds.seconds.map(len))
kinds[["median", "slowest", "limit", "answers"]].rename_axis("seconds to an answer")

# %%
made, about = times["environment"], times["measured"]
Markdown(
    f"Gallery of {about['shapes']} shapes, {made['date']}, {made['processor']}, {made['cores']} cores, "
    f"{about['threads']} threads, accelerator: {made['accelerator']}. The uploaded photos had "
    f"{times['upload']['pixels'][0]} × {times['upload']['pixels'][1]} pixels."
)

# %% [markdown]
# ## What we learned

# %%
Markdown(
    f"The first shape is right for {right['these photos']} of these photos and for {right['all test photos']} of all "
    "test photos. On the machine above, an answer to a "
    f"stored photo takes {times['stored']['median']:.2f} s in the median, to an uploaded one "
    f"{times['upload']['median']:.2f} s."
)

# %% [markdown]
# ## Try it
#
# Mirror a photo, or remove its mask, and watch the margin: how much of the model's certainty comes from the outline?
