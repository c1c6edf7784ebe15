"""Figures that answer to a hand, read as text and used in Chromium."""

import json
import re

import numpy as np
import pytest
from chromium import chromium

from cmiclib import figures

FRAMES = "<style>img { padding: 30px; border: 9px solid }</style>"  # as dark themes frame pictures
TAUS = [0.1, 1.0]
SCORES = np.array([[0.8, 0.2, 0.1], [0.3, 0.4, 0.2]])
PLACES = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 5.0]])


def softmax(tau):
    powers = np.exp(SCORES / tau)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def slider():
    shares = np.stack([softmax(tau) for tau in TAUS])  # (T, Q, N) = (2, 2, 3)
    losses = -np.log(shares[:, [0, 1], [0, 1]])[..., None].repeat(2, axis=2) * [1, 2]
    shapes = ["chair <A>", "chair B", "sofa"]
    return figures.temperature_slider(
        TAUS, shares, losses, ["one", "two"], shapes, np.array([0, 1]), "1.1", "Shares.", start=1
    ).data


@pytest.fixture(scope="module")
def hover():
    category = ["chair", "chair", "sofa"]
    pictures = [np.full((4, 64, 64), 250, np.uint8), np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)]
    figure = figures.embedding_map(PLACES, category, np.array([True, False, False]))
    return figures.hover_map(figure, PLACES, ["photo", "first", "</script>"], pictures, "1.2", "A map.", "points").data


def cells(shown):
    return [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", shown)]


def test_the_slider_begins_with_the_temperature_that_is_asked_for(slider):
    first, second = softmax(1.0)
    expected = [f"{100 * share:.0f} %" for share in first] + [
        f"{-np.log(first[0]):.2f}",
        f"{-2 * np.log(first[0]):.2f}",
    ]
    assert cells(slider)[:5] == expected
    assert cells(slider)[5] == f"{100 * second[0]:.0f} %"
    assert "<output>1</output>" in slider and 'value="1"' in slider and "chair &lt;A&gt;" in slider


def test_places_on_a_map_are_where_they_are_drawn():
    figure = figures.embedding_map(PLACES, ["chair", "chair", "sofa"], np.zeros(3, bool))
    pixels = np.asarray(figures.drawn(figure)).astype(int)
    colour = np.array([int(figures.category_colors(["chair", "sofa"])["sofa"][i : i + 2], 16) for i in (1, 3, 5)])
    corners = figures.map_corners(figure)
    left, top = figures.on_picture(corners, PLACES[2]) / 100 * pixels.shape[1::-1]
    near = pixels[round(top) - 4 : round(top) + 9, round(left) - 6 : round(left) + 7]  # its name stands above it
    assert np.abs(near - colour).max(axis=2).min() < 30, "the only sofa lies there"
    low, high = figures.on_picture(corners, PLACES[:2])
    assert low[1] == high[1] and low[0] < high[0]


def test_a_name_cannot_end_the_script(hover):
    assert hover.count("</script>") == 1
    data = json.loads(re.search(r"= (\{\"places\".*\});\n", hover)[1])
    assert data["names"][2] == "</script>" and len(data["places"]) == 3


@pytest.mark.browser
def test_slider_and_map_answer_to_hand_and_keys(slider, hover, tmp_path):
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{FRAMES}{slider}{hover}")
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1300, "height": 1300})
        page.goto((tmp_path / "page.html").as_uri())
        page.locator("input").fill("0")
        assert page.locator("output").inner_text() == "0.1"
        assert page.locator("td").first.inner_text() == f"{100 * softmax(0.1)[0, 0]:.0f} %"
        card = page.locator("[role=status]")
        assert not card.is_visible()
        frame = page.locator("[tabindex]").bounding_box()
        assert page.locator("[tabindex] img").evaluate("image => image.clientWidth") == round(frame["width"])
        [left, top] = json.loads(re.search(r"places\": (\[\[.*?\]\])", hover)[1])[1]
        page.mouse.move(frame["x"] + left / 100 * frame["width"] + 4, frame["y"] + top / 100 * frame["height"] + 4)
        assert card.inner_text() == "first"
        page.locator("[tabindex]").focus()
        page.keyboard.press("ArrowRight")
        assert card.inner_text() == "</script>"
        page.keyboard.press("ArrowRight")
        assert card.inner_text() == "photo"
        page.mouse.move(frame["x"] + frame["width"] + 50, 5)
        assert not card.is_visible()
