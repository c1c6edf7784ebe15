"""The live widget without a browser: its fields ask, and errors are words."""

import io
import json
from base64 import b64decode
from datetime import UTC, datetime
from re import findall

import numpy as np
import pytest
from PIL import Image

from cmiclib.browser import QueryBrowser, widget
from cmiclib.browser.page import outlined
from cmiclib.browser.retriever import Choice, Question
from cmiclib.browser.upload import LONGEST


@pytest.fixture
def browser(index, tiny_benchmark) -> QueryBrowser:
    return QueryBrowser(index, tiny_benchmark, top=5)


def send(field, content: bytes, name: str = "photo.png") -> None:
    field.value = ({"name": name, "type": "image/png", "size": len(content), "content": memoryview(content),
                    "last_modified": datetime.now(UTC)},)  # fmt: skip


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_it_begins_with_an_answer_and_each_choice_changes_it(browser):
    assert browser.problem.value == "" and browser.answer.question.name in browser.photo_html.value
    assert browser.ranking_html.value.count("<li") == 5 and browser.views_html.value.count("<li") == 12
    before = browser.answer.found[0].score
    browser.photo.value = browser.photo.options[-1][1]
    assert browser.answer.found[0].score != before
    views = browser.views_html.value
    browser.shape.value = 2
    assert browser.views_html.value != views and browser.answer.found[1].shape_id in browser.views_html.value
    for field, value in ((browser.mirror, True), (browser.mask, "automatic"), (browser.use_box, True)):
        before = browser.answer
        field.value = value
        assert browser.answer is not before and browser.problem.value == ""
    assert browser.box.layout.display is None


def test_a_shape_whose_mesh_cannot_be_read_is_said_in_words(browser, tiny_benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(type(tiny_benchmark), "mesh_path", lambda self, shape_id: tmp_path / "secret" / shape_id)
    browser.shape.value = 2
    assert "cannot be read" in browser.problem.value and "secret" not in browser.problem.value
    monkeypatch.undo()
    browser.shape.value = 3
    assert browser.problem.value == "" and browser.answer.found[2].shape_id in browser.views_html.value


def test_box_sliders_and_numbers_agree(browser):
    browser.use_box.value = True
    browser.sides[0].value = 5
    assert browser.across.value == (5, 32) and browser.answer.choice.box == (5, 0, 32, 32)
    browser.down.value = (2, 30)
    assert [side.value for side in browser.sides] == [5, 2, 32, 30] and browser.answer.choice.box == (5, 2, 32, 30)
    browser.sides[0].value = 32
    assert "has no area inside the photo" in browser.problem.value


def test_sorting_embeds_with_progress(browser):
    assert browser.retriever.vectors is None
    browser.order.value = "worst first"
    assert browser.retriever.vectors is not None and browser.progress.layout.display == "none"
    assert browser.progress.value == browser.progress.max == len(browser.retriever.rows)
    margins = [float(label.split()[1]) for label, _ in browser.photo.options]
    assert margins == sorted(margins)
    browser.category.value = "box"
    assert all("box__" in label for label, _ in browser.photo.options)


def test_uploads_are_searched_with_their_mask(browser):
    stored = browser.retriever.stored(int(browser.retriever.rows[0]))
    send(browser.upload, png(stored.photo), "<b>mine</b>.png")
    assert browser.answer.choice.mask == "none" and browser.answer.rank is None
    assert "&lt;b&gt;mine" in browser.photo_html.value and "<b>mine" not in browser.photo_html.value
    send(browser.mask_upload, png(stored.mask.astype(np.uint8) * 255))
    assert browser.answer.choice.mask == "given" and browser.answer.query.how == "given mask"


def test_the_box_of_a_photo_that_was_made_smaller_is_in_the_photos_own_pixels(browser, retriever):
    stored = retriever.stored(int(retriever.rows[0])).photo
    large = np.asarray(Image.fromarray(stored).resize((2 * LONGEST, LONGEST)))
    send(browser.upload, png(large))
    assert browser.question.photo.shape == (LONGEST // 2, LONGEST, 3)
    assert browser.across.max == browser.sides[2].max == 2 * LONGEST and browser.down.max == LONGEST
    browser.mask.value = "none"
    browser.use_box.value = True
    browser.across.value = (1000, 4000)
    browser.down.value = (500, 2500)
    assert browser.problem.value == ""
    assert browser.answer.record()["box"] == [1000, 500, 4000, 2500]
    small = Question("photo.png", browser.question.photo)
    expected = retriever.answer(small, Choice("none", (500, 250, 2000, 1250)))
    np.testing.assert_array_equal(browser.answer.query.image, expected.query.image)
    np.testing.assert_array_equal(outlined(browser.answer), outlined(expected))
    browser.export.click()
    record = json.loads(b64decode(findall(r"base64,([^\"]+)", browser.links.value)[0]))
    assert record["box"] == [1000, 500, 4000, 2500]


def test_a_mask_without_a_photo_and_a_bad_photo_are_words(browser):
    send(browser.mask_upload, png(np.full((32, 32), 255, np.uint8)))
    assert "choose the photo first" in browser.problem.value
    before = browser.answer
    send(browser.upload, b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert "SVG" in browser.problem.value and 'role="alert"' in browser.problem.value and browser.answer is before
    assert browser.status.value == ""


def test_what_nobody_foresaw_is_neither_a_crash_nor_a_traceback(browser, monkeypatch, caplog):
    def fail(*arguments):
        raise RuntimeError("secret /path/of/the/machine")

    monkeypatch.setattr(browser.retriever, "answer", fail)
    browser.mirror.value = True
    assert "unexpectedly" in browser.problem.value and "secret" not in browser.problem.value
    assert "secret" in caplog.text


def test_map_and_export(browser):
    browser.map_button.click()
    assert "cmic-here" in browser.map_html.value and browser.problem.value == ""
    browser.export.click()
    record, picture = (b64decode(text) for text in findall(r"base64,([^\"]+)", browser.links.value))
    assert json.loads(record)["photo"] == browser.answer.question.name
    assert Image.open(io.BytesIO(picture)).width > 500


def test_without_the_viewers_script_it_says_what_helps(index, tiny_benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(widget, "VIEWER", tmp_path / "missing.js")
    assert "make vendor" in QueryBrowser(index, tiny_benchmark).model_html.value
