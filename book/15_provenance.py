# ---
# jupyter:
#   cmic:
#     needs: [intro, 01_data, 02_views, 03_colour_transfer, 04_model, 05_losses, 06_training, 07_evaluation,
#       08_ablations, 09_embedding, 10_retrieval, 11_unseen_repository, 12_scale, 13_query_browser,
#       14_published_benchmarks, 16_released_code, 17_photo_and_box]
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Provenance
#
# This chapter says where this report's numbers come from: which machine, which versions, which data and code (by hash),
# how long each chapter took, and what was random. Then it says how to repeat the report and how to check whether your
# result agrees.
#
# It needs the record that `make reproduce` writes to `outputs/<profile>/provenance.json`.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
OVERRIDES = []

# %%
import pandas as pd
from IPython.display import Markdown

from cmiclib.book import open_chapter
from cmiclib.book.trained import trained_run
from cmiclib.book.runner import read_record

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)
benchmark, run = chapter.benchmark, trained_run(chapter)
record = read_record(chapter.outputs)
Markdown(
    f"Profile `{PROFILE}`, benchmark `{benchmark.name}`."
    + ("" if record else " **There is no record here:** the chapters were opened by hand. Run `make reproduce`.")
)

# %% [markdown]
# ## Time per chapter
#
# The table lists the chapters in the order in which they ended; two can have run side by side, so each took longer than
# alone, and the sum of the seconds is more than the clock showed. A chapter runs again only when something that it
# depends on has changed: its script, the code that it imports, the packages, the configuration, the benchmark, its
# parameters, the files that it reads, or a chapter that it needs. So chapters may have run on different days and at
# different commits. `code` is a hash of the code that a chapter imports, without comments and docstrings. `commit` ends
# in `+` if files differed from the commit. If a chapter loaded a finished run, its time does not include the training;
# the sentence below the table gives the training's own time.

# %%
entries = record.get("chapters", {})
rows = {name: entry | {"code": entry.get("hashes", {}).get("code")} for name, entry in entries.items()}
ran = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=["status", "seconds", "finished", "commit", "code"])
ran = ran.sort_values("finished")
ran.fillna(dict.fromkeys(("finished", "commit", "code"), "–"))

# %%
Markdown(
    f"All chapters but this one, added up: {ran.seconds.sum() / 60:.1f} minutes. The training of `{run.path.name}` "
    f"took {run.environment['seconds'] / 60:.1f} minutes on {run.environment['date']}."
)

# %% [markdown]
# ## Machine and versions
#
# The table compares the machine of the training with that of the last chapter that ended; they differ if the run was
# copied here from elsewhere.

# %%
ended = [name for name in ran.index if "environment" in entries[name]]
machines = {"training": run.environment, "last chapter": entries[ended[-1]]["environment"] if ended else {}}
columns = {name: pd.json_normalize(values).T.squeeze("columns") for name, values in machines.items() if values}
pd.DataFrame(columns).drop("seconds").rename(index=lambda name: name.removeprefix("versions.")).fillna("–")

# %% [markdown]
# `requirements.lock` lists the exact versions of all other packages.
#
# ## Data and code, by hash
#
# The benchmark's hash covers both tables and all arrays. The run's name is a hash of the configuration, of the
# benchmark and of the modules that determine its weights.

# %%
hashes = {
    "benchmark": benchmark.hash,
    "benchmark of the run": run.manifest["hash"],
    "configuration": run.config.digest(),
    "run": run.path.name,
}
pd.set_option("display.max_colwidth", None)
pd.Series(hashes, name="hash").to_frame()

# %%
pd.Series(benchmark.meta["sha256"], name="sha256").rename_axis("file of the benchmark").to_frame()

# %%
Markdown(
    f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos. Source: {benchmark.meta['source']}. "
    f"Licence: {benchmark.meta['licence']}."
)

# %% [markdown]
# ## Seeds
#
# | what is random | what fixes it |
# |---|---|
# | initial weights, batches, views, crops | `train.seed`, with the step's number |
# | bootstrap intervals | seed 0 in `cmiclib.metrics` |
# | surface points of a shape | seed 0, when the benchmark is unpacked |
# | t-SNE map | `SEED` of that chapter |
# | shapes and photos drawn in the chapter on an unseen repository | seed 0 |
#
# On one machine the same seed gives the same `metrics.json`, byte by byte. Another processor sums a convolution's terms
# in another order, so weights differ in their last digits; after hundreds of steps, so do the answers to photos whose
# margin is near zero. `make verify` allows for that.

# %%
Markdown(f"The seed of this run is {run.config.train.seed}.")

# %% [markdown]
# ## Interrupted runs and damaged files
#
# `make kill-test` kills trainings and preparations at random moments, resumes them, and compares their results with
# those of undisturbed ones. `make fuzz` damages files for every reader; each reader must then either succeed or fail
# with one of this library's own messages. These results are loaded from `data/results/robustness.json`:

# %%
from cmiclib.book.tables import compare, read_results

tried = read_results(chapter.root / "data/results/robustness.json")
said = {
    "kills": "{kills} kills of trainings, {trainings} completed, bit-identical: {bit_equal}; {prepare_kills} kills of "
    "preparations, {preparations} completed, equal hashes: {hashes_equal}",
    "fuzz": "{files} damaged files: {crashes} crashes, {hangs} hangs, {executed} executed code, at most {peak_rss_gb} "
    "GB of memory",
}
when = "; {environment[date]}, {environment[cores]} cores ({environment[processor]})"
Markdown("\n".join(f"- {(said[name] + when).format(**tried[name])}" for name in said if name in tried))

# %% [markdown]
# ## Repeat it
#
# ```
# make reproduce                     # the same report again; runs only what changed
# make clean && make reproduce       # from scratch: unpacks, trains, evaluates, writes the report
# make verify                        # compares outputs/demo with the stored results
# ```
#
# `make verify` reads `outputs/demo/metrics.json` and `data/results/demo.json`. The latter holds the metrics of the run
# that the README reports, with its machine, date and hashes, and for each metric the largest difference that counts as
# agreement. The command prints both numbers side by side and fails if a difference is larger. The same comparison for
# this run:

# %%
paths = (run.path if OVERRIDES else chapter.outputs) / "metrics.json", chapter.root / f"data/results/{PROFILE}.json"
here, stored = (read_results(path) if path.exists() else None for path in paths)
fits = here and stored and here["benchmark_hash"] == stored["metrics"]["benchmark_hash"]
rows = compare(here, stored) if fits else []
compared = pd.DataFrame([{**row._asdict(), "agrees": row.agrees} for row in rows])
compared if rows else Markdown(f"No results of the profile `{PROFILE}` on this benchmark are stored.")

# %% [markdown]
# ## What we learned

# %%
agreement = (
    f"{int(compared.agrees.sum())} of its {len(rows)} compared metrics agree with the stored results."
    if rows
    else "There are no stored results to compare it with."
)
Markdown(
    f"This report comes from {len(ran)} chapters, at commit {', '.join(sorted(set(ran.commit.dropna())))}, and the "
    f"training `{run.path.name}`, each named by a hash of all that can change it. {agreement}"
)

# %% [markdown]
# ## Try it
#
# Change `train.seed` with `OVERRIDES = ["train.seed=1"]` in the chapters [Training](06_training.ipynb) and
# [Evaluation](07_evaluation.ipynb), and compare the difference in Top-1 with the interval in the main table. An
# interval over shapes does not cover the seed; how much does the seed add?
