"""Captions: what a reader sees of a figure, and where a figure can be cut for a narrow screen."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from cmiclib.figures import captioned
from cmiclib.figures.grids import grid
from cmiclib.figures.style import new_figure


def pictures(shown: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/png;base64,([^\"]+)", shown)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def two_panels(**options):
    with new_figure(3) as figure:
        for ax in figure.subplots(1, 2, **options):
            ax.plot([0, 1], [2, 5])
            ax.set_ylabel("grams")
    return figure


def test_a_figure_has_a_number_a_caption_and_an_alternative_text() -> None:
    with new_figure(2, width=3) as figure:
        figure.subplots().plot([1, 2])
    shown = captioned(figure, "4.2", "A < B: so B is more.", 'A line, "up"').data
    assert "<b>Figure 4.2.</b> A &lt; B: so B is more.</figcaption>" in shown
    assert 'alt="A line, &quot;up&quot;"' in shown
    assert pictures(shown)[0].shape == (220, 330, 3)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_nothing_may_be_missing(missing: int) -> None:
    texts = ["1.1", "It rises.", "A line"]
    texts[missing] = " "
    with pytest.raises(ValueError, match="needs a number, a caption and an alternative text"):
        captioned(two_panels(), *texts)


def test_panels_become_pictures_that_together_are_the_figure() -> None:
    figure = two_panels()
    shown = captioned(figure, "1.1", "Both rise.", "Two lines").data
    left, right = pictures(shown)
    whole = io.BytesIO()
    figure.savefig(whole, format="png")
    np.testing.assert_array_equal(np.hstack([left, right]), np.asarray(Image.open(whole).convert("RGB")))
    shares = [float(share) for share in re.findall(r"flex:0 0 ([\d.]+)%", shown)]
    assert 99.9 < sum(shares) <= 100
    assert shown.count('alt="Two lines"') == 1 and shown.count('alt=""') == 1


def test_panels_with_common_ticks_stay_together() -> None:
    assert len(pictures(captioned(two_panels(sharey=True), "1.1", "Both rise.", "Two lines").data)) == 1


def test_a_grid_of_photos_is_cut_into_its_columns() -> None:
    photos = list(np.random.default_rng(0).random((8, 20, 20)))
    shown = captioned(grid(photos, across=4), "1.1", "Noise.", "Eight gray squares").data
    assert len(pictures(shown)) == 4
    assert len(pictures(captioned(grid(photos, across=4), "1.1", "Noise.", "Eight squares", cut=False).data)) == 1


def test_a_text_across_panels_is_not_cut() -> None:
    with new_figure(2) as figure:
        for ax in figure.subplots(1, 2):
            ax.plot([0, 1])
        figure.suptitle("A title that reaches from the left panel far into the right one, as titles do")
    assert len(pictures(captioned(figure, "1.1", "Both rise.", "Two lines").data)) == 1
