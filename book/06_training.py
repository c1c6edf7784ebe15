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
# # Training
#
# This chapter trains the model that all later chapters use, or loads it if it was trained before with the same
# settings, data and code. It shows the settings beside the paper's, the curves of the losses, the cost of a step, and
# which weights were kept and why.
#
# It needs the benchmark, which is unpacked on first use, and time: in a first run of the `demo` profile it is the
# longest chapter ([Provenance](15_provenance.ipynb) has the times).

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
OVERRIDES = []

# %%
from cmiclib.book import open_chapter

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)
config, benchmark = chapter.config, chapter.benchmark

# %% [markdown]
# ## What the model learns from
#
# Training uses the `train` photos of the seen shapes, and the views of those shapes. A batch with too few distinct
# shapes is topped up with random others, which can be distractors (`train.distractors`), because in a known repository
# their views are known as well. So training also sees the distractors as negatives, which makes them easier to reject
# than new ones would be. Unseen shapes take no part in training, not even with their views. The `val` photos, which
# include photos of unseen shapes, choose the weights. This chapter does not read the `test` photos.

# %%
import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display

photos = benchmark.queries.groupby(["split", "seen"]).agg(photos=("query_id", "size"), shapes=("shape_id", "nunique"))
photos

# %% [markdown]
# ## The settings beside the paper's
#
# A configuration is typed and frozen; an unknown key is an error. The `paper` profile is the recipe of the released
# code {cite:p}`lin2021cmic`. The table lists the settings in which this run differs from it.

# %%
from cmiclib.config import profile

both = {"here": config, "paper": profile("paper")}
settings = pd.DataFrame({name: pd.json_normalize(c.model_dump(mode="json")).iloc[0] for name, c in both.items()})
differs = settings.here.map(str) != settings.paper.map(str)
settings[differs]

# %% [markdown]
# The `demo` differs for six reasons.
#
# - **Time.** The paper trains a whole ResNet-50 and a whole ResNet-18, with twelve views of each shape in every step;
#   that needs a GPU ([Speed and scale](12_scale.ipynb) estimates the hours). Here the convolutions keep their ImageNet
#   weights (`model.frozen`); the heads and the attention learn. What never changes is computed once: before training, a
#   few augmented copies of each picture pass through the frozen stages (`train.copies`), and each step draws from these
#   copies.
# - **Frozen features.** A frozen network cannot use a fourth channel that it has never seen, so the mask cuts the photo
#   out on white, which also makes it look more like a view (`model.mask`). A grid of cells keeps some of the layout
#   that the mean over the picture loses (`model.grid`); dropout counters overfitting to few photos with many features.
#   Both sides have the same convolutions, so they can share the linear layer (`model.shared_head`): the candidates
#   below that do best on unseen shapes share it. At the start the attention prefers views that resemble the photo
#   (`model.attention_start`). The paper has none of these.
# - **Shapes that nobody trained on.** Heads that learn from few shapes forget what ImageNet's features know about all
#   others. So evaluation puts some fixed numbers beside the learnt ones in each vector (`model.fixed`): the untrained
#   features of the cells, projected on the principal directions of the training views. A score is then a weighted mean
#   of two cosines (`model.fixed_share`). The loss does not see the fixed numbers; they cost no training.
# - **No downloads.** Like the released code, this run starts from ImageNet weights, but from those of a network whose
#   weights are installed as a package. Where weights are missing, training stops with a message and never starts from
#   other weights.
# - **A short run.** A run this short needs AdamW with weight decay, a larger learning rate that warms up and falls to
#   zero, larger batches and, for views, milder crops, which keep training and evaluation at nearly the same scale.
# - **A GPU, if there is one.** A GPU computes the encoders in bfloat16 (`train.precision`). A CPU always computes in
#   fp32, as the released code does: most CPUs have no instructions for bfloat16 and would be many times slower, and
#   results should not depend on which CPUs have them.
#
# These choices were made on validation photos. [Ablations](08_ablations.ipynb) measures the paper's own choices one by
# one, not these.
#
# All other settings are equal:

# %%
settings[~differs].drop(columns="paper")

# %% [markdown]
# ## What was tried
#
# The table lists candidates for the demo, measured on the validation photos and stored in
# `data/results/candidates.json`. It contains only runs that completed their schedule. Read it with care: each row is
# one seed, the schedules differ in length, and many rows differ in more than one setting, so the difference between two
# rows does not measure the effect of one setting. The settings above were fixed after all these results were known, and
# before any test photo was read. The demo is the candidate with the best Top-1 on unseen shapes, with three copies of
# photos and one of views instead of four and two, and with fixed numbers: see the next table.
#
# `W` is how the attention starts: `5 I` is five times the identity, `Linear` the random start of a linear layer. `head`
# is what follows the convolutions: `two` means one head for photos and one for views, `equal start` two heads with the
# same initial weights. Cells are parts of the picture with features of their own; `widest` stands for the feature maps
# with the most channels. When these candidates ran, the library computed in bfloat16 on CPUs that support it; now it
# computes in fp32 on all CPUs.

# %%
from cmiclib import figures
from cmiclib.book.tables import read_results

candidates = read_results(chapter.root / "data/results/candidates.json")
frozen = pd.DataFrame(candidates["frozen"]["rows"]).sort_values("seen Top-1", ascending=False)
figures_of = ["seen Top-1", "Top-10", "category", "unseen Top-1", "unseen Top-10"]
same = [name for name in frozen.drop(columns=figures_of) if frozen[name].nunique() == 1]


def describe(row):
    return ", ".join(f"{name} {value}" for name, value in row.drop(figures_of + same).items() if value != "–")


# %%
settings_of = frozen.apply(describe, axis=1)
narrow = frozen[figures_of].assign(settings=settings_of).style.hide(axis="index").format(precision=1)
figures.captioned(
    figures.candidates(frozen["seen Top-1"], frozen["unseen Top-1"], "Top-1 of seen shapes", "Top-1 of unseen shapes"),
    "6.1",
    f"{len(frozen)} candidates, one point each, in per cent of the validation photos. Seen Top-1 spreads over "
    f"{np.ptp(frozen['seen Top-1']):.1f} points, unseen Top-1 over {np.ptp(frozen['unseen Top-1']):.1f}, with a "
    f"correlation of {frozen['seen Top-1'].corr(frozen['unseen Top-1']):.2f}; the ring marks the best on unseen "
    "shapes.",
    "A scatter plot: Top-1 of seen shapes along, of unseen shapes upwards; one of the points has a ring.",
)  # fmt: skip

# %% [markdown]
# Each candidate, with what distinguishes it:

# %%
table = narrow.set_properties(subset=["settings"], **{"text-align": "left"}).to_html()
about = f"<summary>All {len(frozen)} candidates</summary>"
display(Markdown(candidates["frozen"]["about"]), HTML(f"<details>{about}{table}</details>"))

# %% [markdown]
# The fixed numbers were chosen on shapes that the demo trains on, so the choice used neither its unseen shapes nor a
# test photo: the heads were trained four times, each time without a quarter of the training shapes, and the table
# counts validation photos of the shapes that were left out and of the others. A share of 0 is the paper's training
# alone, a share of 1 the untrained features alone. `tools/measure/measure_fixed.py` measured them all.

# %%
fixed = read_results(chapter.root / "data/results/fixed.json")
tried = pd.DataFrame(fixed["rows"])
same = ["fixed", "whiten", "attention"]
chosen = tried[(tried.fixed == 128) & (tried.whiten == 0.5) & (tried.attention == 15)].set_index("share")
shares = ["left out Top-1", "left out Top-10", "seen Top-1", "seen Top-10"]
display(Markdown(fixed["about"]), (100 * chosen[shares]).style.format(precision=1))

# %%
others = tried[tried.share == 0.35].set_index(same)[shares]
(100 * others).style.format(precision=1)

# %% [markdown]
# Before these candidates, small networks were trained as a whole, from random weights:

# %%
scratch = pd.DataFrame(candidates["scratch"]["rows"])
display(Markdown(candidates["scratch"]["about"]), scratch.fillna("–"))

# %% [markdown]
# ## Train, or load
#
# A run's folder is named after a hash of its configuration, of the benchmark and of the code that determines its
# weights. If the folder holds a finished run, it is loaded; if it holds an unfinished one, training continues where it
# stopped; otherwise training starts.

# %%
from cmiclib.book.trained import trained_run
from cmiclib.training.loop import run_name

finished = chapter.outputs / "runs" / run_name(config, benchmark) / "environment.json"
how = "loaded; it was trained earlier" if finished.exists() else "trained now"
run = trained_run(chapter)
made = run.environment

# %%
Markdown(
    f"Run `{run.path.name}` was **{how}**: on {made['date']}, {made['processor']}, {made['cores']} cores, "
    f"accelerator: {made['accelerator']}, torch {made['versions']['torch']}, in {made['seconds'] / 60:.1f} minutes, "
    f"with seed {config.train.seed}."
)

# %% [markdown]
# ## Curves
#
# Left: the instance loss, which ranks the photo's own shape before the other shapes of the batch, and the category
# loss, which ranks all shapes of its category before the rest; the total is their weighted sum. Right: retrieval of the
# validation photos over the whole gallery, which is the actual task. The batch is smaller than the gallery, so a low
# training loss is necessary for a good ranking, but not sufficient.

# %%
log = run.log
looked = log.dropna(subset="val.mrr")
kept = looked.loc[looked["val.mrr"].idxmax()]
figures.captioned(
    figures.training_curves(log), "6.2",
    f"Losses in nats, learning rate, and validation over the steps. The best MRR, {kept['val.mrr']:.1%}, was reached "
    f"at step {kept.step:.0f} of {log.step.max():.0f}; the losses went on to fall or stayed, so they do not say when "
    "to stop.",
    "Left: falling loss curves, and the learning rate below them. Right: Top-1, Top-10 and MRR with the kept step.",
)  # fmt: skip

# %% [markdown]
# ## What a step costs
#
# The log records the seconds since the start. Between two lines of the log, either steps were trained, or the
# validation photos and the whole gallery were embedded. Before the first step, the copies passed through the frozen
# stages.

# %%
spent, looked = log.seconds.diff(), log["val.mrr"].notna()
step = (spent / log.step.diff())[~looked].median()
before = log.seconds[0] - log.step[0] * step
parts = [f"{before / 60:.1f} minutes before the first step", f"{spent[looked].sum() / 60:.1f} minutes of validation"]
Markdown(
    f"{log.step.max()} steps of {config.train.batch} photos and {config.train.batch} × {config.train.views} views, "
    f"{step:.2f} s each (median); {' and '.join(parts)}."
)

# %% [markdown]
# ## The weights that were kept
#
# The run keeps the weights with the best mean reciprocal rank (MRR) on the validation photos. MRR uses every photo's
# rank, so it is less noisy than Top-1, which only counts first places. The released code chooses by the accuracy on the
# test photos; a number chosen that way is too good, and this library does not do it.

# %%
from cmiclib.book.tables import percent

looks = log.dropna(subset="val.mrr").set_index("step").filter(like="val.")
looks = looks.drop(columns="val.queries").rename(columns=lambda name: name.removeprefix("val."))
percent(looks)

# %%
best, last = looks.loc[looks.mrr.idxmax()], looks.iloc[-1]
Markdown(
    f"Kept: step {looks.mrr.idxmax()}, with MRR {best.mrr:.1%} and Top-1 {best.top1:.1%} on the validation photos of "
    f"seen and unseen shapes together. The last step has MRR {last.mrr:.1%}."
)

# %% [markdown]
# ## What is random, and how a stopped run continues
#
# The seed determines the initial weights. Each step draws its photos, shapes, views and crops from CPU generators that
# are seeded with the seed and the step's number. So a step can be repeated without those before it, and a run that was
# stopped continues as if nothing had happened: run this chapter again, or `cmic train … --resume`.

# %%
from cmiclib.batches import draw_batch
from cmiclib.embed import default_device
from cmiclib.training.loop import TrainingData

data, settings = TrainingData.load(benchmark, default_device(), config.train.distractors), config.train
size = len(data.views), settings.batch
first, again = (draw_batch(data.photo_shape, *size, settings.seed, step=100) for _ in range(2))
print("step 100 draws the photos", first.photos[:8].tolist(), "… and again", again.photos[:8].tolist())

# %% [markdown]
# Later chapters need only the run's folder:

# %%
files = sorted(path for path in run.path.rglob("*") if path.is_file())
pd.DataFrame([{"file": str(path.relative_to(run.path)), "KB": path.stat().st_size // 1000} for path in files])

# %% [markdown]
# ## What we learned

# %%
Markdown(
    f"The kept weights are those of step {looks.mrr.idxmax()}, with an MRR of {best.mrr:.1%} on validation photos; "
    f"training took {made['seconds'] / 60:.1f} minutes on {made['cores']} cores, and a stopped run continues as if "
    "nothing had happened. What does best on seen shapes need not do best on unseen ones, and every candidate is one "
    "seed: the table of candidates shows what was tried, not what works in general."
)

# %% [markdown]
# ## Try it
#
# Remove the category loss: set `OVERRIDES = ["loss.category_weight=0"]` above and run the chapter again. This is
# another configuration, so it becomes another run beside this one. Compare the column `category` of the validation
# table. Nearly all the time goes into the frozen stages, not into the steps: if you want the answer sooner, from a
# smaller model, add `"model.image_size=128"` and `"train.copies=1"` to both runs.
