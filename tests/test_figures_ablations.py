"""Figures about ablations on made-up numbers: what is drawn is what was given, and nothing written overlaps.

With ``CMIC_FIGURES`` set to a folder, they are also written there as PNG, to look at.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from test_figures import assert_apart, photos, pictures, written

from cmiclib import figures
from cmiclib.study.ablations import VARIANTS


def draw(figure: Figure, name: str) -> Figure:
    figure.draw_without_rendering()
    if folder := os.environ.get("CMIC_FIGURES"):
        figure.text(0.5, 0.5, "TEST DATA", fontsize=50, color="red", alpha=0.25, ha="center", rotation=20)
        figure.savefig(Path(folder) / f"{name}.png")
    return figure


def table(count: int, shift: float = 0.0) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    titles = [variant.title for name, variant in VARIANTS.items() if name != "full"][:count]
    difference = generator.normal(0.02 + shift, 0.03, count)
    by_seed = [list(d + generator.normal(0, 0.01, 5)) for d in difference]
    return pd.DataFrame({
        "name": titles, "difference": difference, "low": difference - 0.015, "high": difference + 0.015,
        "by_seed": by_seed,
    })  # fmt: skip


def of(ax, kind):
    return [line for line in ax.lines if line.get_gid() == kind]


def test_forest_shows_every_effect_in_every_panel() -> None:
    seen, unseen = table(21), table(19, -0.03)
    unseen.loc[0, ["low", "high"]] = np.nan
    figure = draw(figures.forest([seen, unseen], ["Seen shapes", "Unseen shapes"], 0.01), "forest")
    left, right = figure.axes
    assert [line.get_xdata()[0] for line in of(left, "point")] == (100 * seen.difference).tolist()
    assert len(of(right, "point")) == 19 and len(of(right, "interval")) == 18
    assert [len(line.get_xdata()) for line in of(left, "seed")] == [5] * 21
    assert [label.get_text() for label in left.get_yticklabels()] == seen.name.tolist()
    (band,) = [patch for patch in left.patches if patch.get_gid() == "band"]
    assert (band.get_x(), band.get_x() + band.get_width()) == (-1, 1)
    assert_apart(figure, [*left.get_yticklabels(), left.title, right.title, left.xaxis.label, right.xaxis.label])


def test_forest_colours_say_where_zero_is_left_out() -> None:
    rows = pd.DataFrame({
        "name": ["helps", "harms", "unclear"], "difference": [0.03, -0.03, 0.0], "low": [0.01, -0.05, -0.02],
        "high": [0.05, -0.01, 0.02], "by_seed": [[0.03], [-0.03], [0.0]],
    })  # fmt: skip
    (ax,) = figures.forest([rows], ["one"], 0.01).axes
    assert len({line.get_color() for line in of(ax, "point")}) == 3


def test_forest_of_nothing_can_be_drawn() -> None:
    draw(figures.forest([table(0)], ["nothing"], 0.01), "forest-of-nothing")


def test_accuracy_along_scales_says_what_was_not_run() -> None:
    scales = [
        figures.Scale("Views", "views of each shape", ["1", "3", "12"], [[0.4, 0.42], [], [0.7]], [[0.2], [], [0.4]]),
        figures.Scale(
            "Masks", "the photo's mask", ["none", "corrupted", "slightly\nwrong", "exact"], [[0.5]] * 4, [[]] * 4, False
        ),
    ]
    figure = draw(figures.accuracy_along(scales), "accuracy")
    first, second = figure.axes
    assert [text.get_text() for text in first.texts] == ["not run"] and not second.texts
    assert [list(line.get_xdata()) for line in of(first, "mean")] == [[0, 2], [0, 2]]
    assert list(of(first, "mean")[0].get_ydata()) == [41.0, 70.0]
    assert {line.get_linestyle() for line in of(first, "mean")} == {"-"}
    assert {line.get_linestyle() for line in of(second, "mean")} == {"None"}  # its steps have no order
    assert len(of(first, "seed")) == 4
    assert_apart(figure, [*written(figure)])


def test_what_is_wrong_without_shows_photo_own_and_found() -> None:
    titles = [
        "no mask",
        "silhouettes as views",
        "triplets, without category loss",
        "1 view, the front",
        "best view only",
    ]
    names = ["chair/a-long-name-01"] * 5
    figure = draw(figures.wrong_without(photos(5), pictures(5), pictures(5), titles, names), "wrong")
    above, below = figure.subfigs
    assert [text.get_text() for text in above.legends[0].get_texts()][1:] == [
        "the photo's own shape",
        "the shape that the variant found",
    ]
    assert len(below.subfigs) == 6
    drawn = [ax for block in below.subfigs for ax in block.axes]
    assert len(drawn) == 15
    assert sum(patch.get_gid() == "frame" for ax in drawn for patch in ax.patches) == 10
    assert [block.get_suptitle() for block in below.subfigs[:5]] == titles
