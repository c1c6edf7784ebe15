# ---
# jupyter:
#   cmic:
#     needs: []
#     alone: true
#     inputs: [tests/data/parity]
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What the released code really does
#
# Is this CMIC? The authors published their code {cite:p}`lin2021cmic`, so results can be compared number by number.
# This chapter first runs this library on the inputs on which the released code was run, and lists how much the results
# differ. Then it lists where the released code does something other than one would expect, with the corresponding
# option here, if any, and with its effect.
#
# **What it needs:** only the repository. It takes seconds; the effects are loaded, not measured here.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"

# %%
import pandas as pd
from IPython.display import Markdown

from cmiclib import figures
from cmiclib.book import open_chapter
from cmiclib.config import profile
from cmiclib.evaluation.parity import parity_table
from cmiclib.book.tables import read_results

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS)

# %% [markdown]
# ## The same numbers
#
# The unchanged released code computed the arrays in `tests/data/parity` on a CPU. Here every quantity is computed
# again. The table shows the largest difference over all cases, beside the tolerance that the arrays' notes specify: the
# difference that two float32 programs may have.

# %%
table = parity_table(chapter.root / "tests/data/parity")
table.style.format({"absolute": "{:.1e}", "relative": "{:.1e}", "tolerance": "{:.0e}"})

# %%
assert table.agrees.all()
Markdown(f"All {len(table)} quantities ({table.arrays.sum()} arrays) agree.")

# %% [markdown]
# The scores are the same, but they are computed differently. The released code scores photo by photo and builds a
# descriptor for every shape. It also runs a second layer of its attention for every photo and shape, and never uses the
# result. Here two matrix products and a softmax serve a whole batch. The next cells measure both now, on this machine,
# in turns:

# %%
import time

import torch

from cmiclib.model import attention_scores
from cmiclib.evaluation.released_code import released_scores

query, views = torch.nn.functional.normalize(torch.randn(256, 128)), torch.randn(1000, 12, 128)
inputs = query, torch.nn.functional.normalize(views, dim=-1), torch.randn(128, 128) / 4
unused = torch.randn(128, 256) / 16


def milliseconds(score, *more):
    started = time.perf_counter()
    score(*inputs, *more)
    return 1000 * (time.perf_counter() - started) / len(query)


# %%
ways = {
    "as released": (released_scores, unused),
    "without the unused layer": (released_scores,),
    "here": (attention_scores,),
}
taken = pd.DataFrame([{name: milliseconds(*way) for name, way in ways.items()} for _ in range(5)])
difference = (released_scores(*inputs) - attention_scores(*inputs)).abs().max()
times = taken.div(taken.here, axis=0).median()
print(f"{len(query)} photos, 1,000 shapes × 12 views; largest difference of the scores: {difference:.0e}")
pd.DataFrame({"ms a photo": taken.median(), "times the time here": times}).round(3)

# %% [markdown]
# Further arrays are too large for this repository: both encoders with given weights, a whole training step with its
# gradients and weight changes, the augmentation. The tests (`tests/test_encoders.py`,
# `tests/training/test_jittor_optim.py`) compare them where they are available and say so where they are not.
#
# ## Peculiarities that have an option
#
# `cmic train --preset released` repeats those peculiarities that have an option. The table lists what the preset
# changes.

# %%
paper, released = profile("paper"), profile("paper", preset="released")
flat = {
    name: pd.json_normalize(c.model_dump(mode="json")).iloc[0] for name, c in (("here", paper), ("released", released))
}
options = pd.DataFrame(flat)
options[options.here.map(str) != options.released.map(str)]

# %% [markdown]
# - **Colours.** RGB is multiplied by 255 before a conversion to CIELAB that expects [0, 1]. The conversion back
#   reverses this, so the transfer happens in a slightly different space; see the chapter on colour transfer.
# - **Style.** A permutation of the batch assigns the photo that provides the colours, so a photo can get its own
#   colours.
# - **Crops.** The generator is reseeded for each sample with the clock's current second. All samples drawn within one
#   second share their crop and flip, and the configured seed has no effect.
# - **Mask.** The mask channel is 0 and 1 in training, but -1 and 1 in evaluation.
# - **Category loss.** Photos whose loss rounds to exactly 0 do not count in the mean.
# - **Jittor.** Its batch normalisation stores the biased variance of a batch; its Adam adds ε before the correction of
#   the second moment.
#
# Some have no option, because nobody would want them: the weights are chosen by the accuracy on the test photos; with
# fewer shapes than the batch size, training loops forever; test photos are neither converted to RGB nor resized; and
# half of the attention module is computed and discarded. The released test on ShapeNet searches only the photo's true
# category; `cmic evaluate --mode shapenet` repeats this. It is not a fault that the own shape is among the positives of
# the category loss; both the released code and this library count it (`loss.include_instance`).
#
# ## What the peculiarities change
#
# Each peculiarity was switched on in the demo at a smaller scale: the same seeds with and without it, compared photo by
# photo on the validation photos of seen shapes. The interval is over shapes. Marks are single seeds; where they spread
# more than the interval, chance in training matters more than the peculiarity. The mask's range is missing: the demo
# cuts the photo out by its mask, so the range cannot change anything. These rows were measured when this library still
# computed in bfloat16 on CPUs that support it; *all together* was measured in fp32 and with Adam on both sides, so its
# baseline differs.

# %%
stored = chapter.root / "data/results/quirks.json"
quirks = read_results(stored) if stored.exists() else None
rows = pd.DataFrame(quirks["rows"]) if quirks else pd.DataFrame(columns=["quirk"])
Markdown(
    f"{quirks['part']}, {len(quirks['seeds'])} seeds, {', '.join(quirks['overrides'])}; {quirks['about']}"
    if quirks
    else "**Not run:** there is no `data/results/quirks.json`; `tools/measure/measure_quirks.py` writes it."
)

# %%
effects = rows.rename(columns={"quirk": "name"})
if len(rows):
    clear = effects[(effects.low > 0) | (effects.high < 0)].name.tolist()
    shown = figures.captioned(
        figures.effects(effects, "points of Top-1, with minus without"),
        "16.1",
        f"What each peculiarity changes, with intervals. For {len(clear)} of {len(effects)} the interval does not "
        f"contain 0{': ' + ', '.join(clear) if clear else ''}.",
        f"One point with an interval and marks for single seeds for each of {len(effects)} peculiarities, around zero.",
    )
shown if len(rows) else None

# %%
shown = rows.drop(columns=["options", "by_seed"], errors="ignore").set_index("quirk")
(100 * shown).style.format("{:.1f}").set_caption("per cent") if len(rows) else None

# %% [markdown]
# ## What we learned
#
# The released code can be reproduced number by number, its faults included, and each fault has an option here. Where
# the interval above contains 0, a fault changed nothing that these photos could show; that is no proof that it does not
# matter at the paper's scale. The choice of weights by test photos is the one fault without an option, because no
# result may be reported that way.
#
# ## Try it
#
# Break something and see whether the table notices: change `0.2` in `cmiclib.config.LossConfig.category_weight` to
# `0.25`, restart the kernel, and run the first table again. Which rows must differ, and which must not?
