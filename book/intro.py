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
# # CMIC, reproduced
#
# Given one photo of an object and a gallery of CAD models, find the model that the photo shows. *Single Image 3D Shape
# Retrieval via Cross-Modal Instance and Category Contrastive Learning* {cite:p}`lin2021cmic` trains two encoders, one
# for photos and one for rendered views, so that a photo and the views of its own shape meet in one space. This book
# rebuilds the method, trains it and measures it, on a benchmark of real CAD models that ships with it.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
OVERRIDES = []

# %%
import pandas as pd
from IPython.display import Markdown

from cmiclib import figures
from cmiclib.book import open_chapter
from cmiclib.evaluation.report import score_index
from cmiclib.index.cache import gallery_index
from cmiclib.book.result_tables import measured_table, percent, published_table
from cmiclib.book.results import read_results
from cmiclib.evaluation.examples import examples, typical

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)
benchmark = chapter.benchmark

# %% [markdown]
# ## The task in one figure
#
# Three test photos; the shape each of them shows; and the first five shapes that the trained model finds in the whole
# gallery, with their scores. The right one is framed. The photos are the median cases of their categories, neither the
# best nor the worst; more of them, and the worst failures, are in [What retrieval looks like](10_retrieval.ipynb).

# %%
index = gallery_index(chapter.run, benchmark)
table = score_index(index, benchmark, "test").table()
chosen = typical(table, 3)
e = examples(index, benchmark, chosen.row.to_numpy())
figures.retrieval_rows(e.photos, e.own, e.found, e.scores, e.right, chosen.category.tolist())

# %% [markdown]
# ## Results
#
# Measured here, from `metrics.json`, which the chapter [Evaluation](07_evaluation.ipynb) writes. In brackets: 95 %
# bootstrap intervals over shapes. **Top-1** and **Top-10**: the photo's own shape is the first, or among the first ten.
# **Unseen** shapes are in the gallery, but on no training photo. Every photo is searched in the whole gallery, shapes
# without photos included.

# %%
metrics = read_results((chapter.run.path if OVERRIDES else chapter.outputs) / "metrics.json")
measured = measured_table(metrics)
percent(measured, ["top1", "top10", "category"]).set_index(measured.label.rename("per cent"))

# %%
made = chapter.run.environment
where = f"{made['processor']}, {made['cores']} cores, accelerator: {made['accelerator']}"
current = (metrics["config"], metrics["benchmark_hash"]) == (chapter.config.digest(), benchmark.hash)
Markdown(
    f"Benchmark `{metrics['benchmark']}`, gallery of {metrics['gallery_size']} shapes, profile `{metrics['profile']}`, "
    f"trained in {made['seconds'] / 60:.0f} minutes on {made['date']}: {where}."
    + ("" if current else " **These figures are of other data or settings: run the chapter on evaluation again.**")
)

# %% [markdown]
# ```{admonition} How to read these numbers
# :class: warning
# The photos of `sweethome` are synthetic: path-traced, and rendered from the very meshes of the gallery. That is easier
# than Pix3D {cite:p}`sun2018pix3d`, where photos are real and a model only comes close to the object. A number on
# `sweethome` must not be held against a published one.
# ```

# %%
figures.result_points(measured)

# %% [markdown]
# ## Published, and measured here
#
# What the literature reports, and what was measured here; a benchmark that was not run here says so. The published
# figures are second-hand; [Evaluation](07_evaluation.ipynb) says where they come from.

# %%
published = published_table(chapter.root / "data/results/published.json")
here = measured[measured.method.str.startswith("CMIC")].assign(profile=PROFILE, date=made["date"], machine=where)
titles = dict(zip(published.benchmark, published.title, strict=True))
here["title"] = titles.pop(metrics["benchmark"], metrics["benchmark"])
absent = pd.DataFrame({"title": titles.values(), "method": "CMIC", "kind": "not run here"})

# %%
lines = pd.concat([here.replace({"kind": {"measured": "measured here"}}), published, absent], ignore_index=True)
lines = lines.join(percent(lines, ["top1", "top10"])).set_index("title").loc[lines.title.unique()]
lines[["method", "kind", "Top-1", "Top-10", "profile", "date", "machine"]].fillna("–").rename_axis("benchmark")

# %% [markdown]
# ## How to read this book
#
# Every page is an executed notebook: the numbers and figures come from the cells above them. A chapter opens with what
# it shows and needs, and ends with one change worth making.
#
# - **You want to believe the numbers.** Read what the data are and how leaks were looked for in [Data](01_data.ipynb),
#   then [Evaluation](07_evaluation.ipynb), then the failures in [What retrieval looks like](10_retrieval.ipynb), and
#   where everything comes from in [Provenance](15_provenance.ipynb).
# - **You want to change the method.** It is built up in [Views](02_views.ipynb), [Colour
#   transfer](03_colour_transfer.ipynb), [Model](04_model.ipynb) and [Losses](05_losses.ipynb). `make lab` opens the
#   chapters in JupyterLab; set the same `OVERRIDES` in [Training](06_training.ipynb), [Evaluation](07_evaluation.ipynb)
#   and [The common space](09_embedding.ipynb), and see what it does.
# - **You have photos and CAD models of your own.** `cmic prepare folder`, `cmic index` and `cmic search` answer with a
#   trained model; [Published benchmarks and your own folder](14_published_benchmarks.ipynb) goes through it, and
#   [the library reference](api.md) explains each function.
#
# ## How to run it again
#
# ```
# make reproduce                   # this report; trains if need be, then runs only what changed
# make reproduce PROFILE=smoke     # the same code at the smallest size, in minutes
# make verify                      # compares your numbers with the stored ones
# make lab                         # the chapters, in JupyterLab
# ```
#
# Commands such as `cmic` lie in `.venv/bin`: `source .venv/bin/activate` brings them within reach.
#
# ## Try it
#
# Open [What retrieval looks like](10_retrieval.ipynb) in JupyterLab, and find a failure that you would have answered
# wrongly yourself.
#
