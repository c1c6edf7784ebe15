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
# # CMIC, reproduced at small scale
#
# Given one photo of an object and a gallery of CAD models, find the model that the photo shows. *Single Image 3D Shape
# Retrieval via Cross-Modal Instance and Category Contrastive Learning* {cite:p}`lin2021cmic` trains two encoders, one
# for photos and one for rendered views, so that a photo is embedded close to the views of its own shape. This book
# rebuilds the method, trains it and measures it at the scale of two CPU cores, on a benchmark of real CAD models that
# ships with it.

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
from cmiclib.book.gpu import gpu_line, read_gpu
from cmiclib.book.trained import trained_run
from cmiclib.evaluation.report import score_index
from cmiclib.index.cache import gallery_index, photo_vectors
from cmiclib.book.front import chosen, mask_table, summary
from cmiclib.book.tables import measured_table, percent, published_table, read_results
from cmiclib.evaluation.examples import examples, typical

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)
benchmark, run = chapter.benchmark, trained_run(chapter)
pd.set_option("display.max_colwidth", None)

# %% [markdown]
# ## What holds, and what does not

# %%
metrics = read_results((run.path if OVERRIDES else chapter.outputs) / "metrics.json")
Markdown("\n".join(f"{i}. {told}" for i, told in enumerate(summary(metrics, chapter.root / "data/results"), 1)))

# %% [markdown]
# ## The task in one figure
#
# The figure shows three test photos, the shape that each of them shows, and the first five shapes that the trained
# model finds in the whole gallery, with their scores. The right one is framed. Each photo is the median case of its
# category, neither the best nor the worst; [What retrieval looks like](10_retrieval.ipynb) shows more of them, and the
# worst failures.

# %%
index = gallery_index(run, benchmark)
table = score_index(index, benchmark, "test", photo_vectors(run, index, benchmark, "test")).table()
shown = typical(table, 3)
e = examples(index, benchmark, shown.row.to_numpy())
figures.captioned(
    figures.retrieval_rows(e.photos, e.own, e.found, e.scores, e.right, shown.category.tolist()),
    "0.1",
    f"Photos, their own shapes, and the first five found among {len(index)}: for {int(e.right[:, 0].sum())} of these "
    f"{len(shown)} photos the own shape comes first.",
    "Three rows, each with a photo, a view of its own shape, and views of the first five shapes found, the right one "
    "framed green.",
    cut=False,
)

# %% [markdown]
# ## Results
#
# These results were measured here; the chapter [Evaluation](07_evaluation.ipynb) writes them to `metrics.json`.
# Brackets hold 95 % bootstrap intervals over shapes. **Top-1** and **Top-10**: share of photos whose own shape is the
# first, or among the first ten. **Unseen** shapes are in the gallery, but no training photo shows them. Every photo
# comes with its exact mask and is searched in the whole gallery, shapes without photos included.

# %%
measured = measured_table(metrics)
percent(measured, ["top1", "top10", "category"]).set_index(measured.label.rename("per cent"))

# %% [markdown]
# What is known about the object matters as well. **Box alone**: the square around the object, without a mask.
# *Untrained* is the same network with ImageNet's weights alone, averaged in 3 × 3 cells. *Seeds*: how many trainings,
# the mean of their Top-1, the lowest and the highest.

# %%
mask_table(metrics, chapter.root / "data/results")

# %%
Markdown(chosen(metrics, chapter.root / "data/results")) if PROFILE == "demo" and not OVERRIDES else None

# %%
made = run.environment
where = f"{made['processor']}, {made['cores']} cores, accelerator: {made['accelerator']}"
current = (metrics["config"], metrics["benchmark_hash"]) == (chapter.config.digest(), benchmark.hash)
Markdown(
    f"Benchmark `{metrics['benchmark']}`, gallery of {metrics['gallery_size']} shapes, profile `{metrics['profile']}`, "
    f"trained in {made['seconds'] / 60:.0f} minutes on {made['date']}: {where}."
    + ("" if current else " **These figures belong to other data or settings: run the chapter on evaluation again.**")
)

# %%
Markdown(gpu_line(read_gpu(chapter.root)))

# %% [markdown]
# ```{admonition} How to read these numbers
# :class: warning
# The photos of `sweethome` are synthetic: path-traced, and rendered from exactly the meshes of the gallery. That is
# easier than Pix3D {cite:p}`sun2018pix3d`, where photos are real and a model only resembles the object. Do not compare
# these numbers with published ones.
# ```

# %%
figures.captioned(
    figures.result_points(measured),
    "0.2",
    "The results as points with their intervals: how far training lies above the untrained networks on seen and on "
    "unseen shapes. Chance and the category prior are far below all networks.",
    "Three panels, for Top-1, Top-10 and category: a row for each method, with a point and its 95 % interval.",
)

# %% [markdown]
# ## Published, and measured here
#
# The table lists what the literature reports and what was measured here; it says so where a benchmark was not run here.
# The published figures are second-hand; [Evaluation](07_evaluation.ipynb) says where they come from.

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
# Every page is an executed notebook: the numbers and figures come from the cells above them. Each chapter opens with
# what it shows and needs, and ends with an experiment for you to try.
#
# - **You want to know whether to believe the numbers.** Read in [Data](01_data.ipynb) what the data are and how they
#   were checked for leaks; then [Evaluation](07_evaluation.ipynb); then the failures in [What retrieval looks
#   like](10_retrieval.ipynb); and in [Provenance](15_provenance.ipynb) where everything comes from.
# - **You want to change the method.** [Views](02_views.ipynb), [Colour transfer](03_colour_transfer.ipynb),
#   [Model](04_model.ipynb) and [Losses](05_losses.ipynb) build it up. `make lab` opens the chapters in JupyterLab; set
#   the same `OVERRIDES` in [Training](06_training.ipynb), [Evaluation](07_evaluation.ipynb) and [The common
#   space](09_embedding.ipynb), and see the effect.
# - **You have photos and CAD models of your own.** `cmic prepare folder`, `cmic index` and `cmic search` search them
#   with a trained model; [Published benchmarks and your own folder](14_published_benchmarks.ipynb) explains the steps,
#   and [the library reference](api.md) each function.
#
# ## How to run it again
#
# ```
# make reproduce                   # this report; trains if necessary, then runs only what changed
# make reproduce PROFILE=smoke     # the same code at the smallest size, in minutes
# make verify                      # compares your numbers with the stored ones
# make lab                         # the chapters, in JupyterLab
# ```
#
# The command `cmic` is in `.venv/bin`; after `source .venv/bin/activate` you can call it by its name.
#
# ## Try it
#
# Open [What retrieval looks like](10_retrieval.ipynb) in JupyterLab, and find a failure where you would have given the
# wrong answer yourself.
#
