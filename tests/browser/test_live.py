"""The live widget in JupyterLab, in Chromium."""

import io
import os

import numpy as np
import pytest
from chromium import PALE
from live import lab, names, notebook, send
from PIL import Image
from toybook import REPOSITORY

from cmiclib.book import publish
from cmiclib.browser.retriever import Choice, Question
from cmiclib.browser.upload import read_upload

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def photo(retriever) -> bytes:
    """A photo of a visitor's own: a test photo, four times as large."""
    stored = retriever.stored(int(retriever.rows[1])).photo
    buffer = io.BytesIO()
    Image.fromarray(stored.repeat(4, axis=0).repeat(4, axis=1)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def page(tiny_run, tiny_benchmark, tmp_path_factory):
    """The widget, open and answered."""
    publish.fetch_vendor(REPOSITORY)
    with lab(notebook(str(tiny_run), str(tiny_benchmark.path)), tmp_path_factory.mktemp("lab")) as tab:
        yield tab.page
        if os.environ.get("SCREENSHOTS"):
            tab.page.screenshot(path=f"{os.environ['SCREENSHOTS']}/lab.png", full_page=True)


def test_a_photo_a_visitor_sends_is_answered_as_the_library_answers(page, photo, retriever):
    page.get_by_role("tab", name="Your photo").click()
    send(page, "mine.png", photo)
    page.wait_for_selector("text=mine.png", timeout=60_000)
    expected = retriever.answer(Question("mine.png", read_upload(photo)[0]), Choice("none"))
    assert names(page) == [each.shape_id for each in expected.found]


def test_the_model_is_drawn(page):
    page.locator("model-viewer").scroll_into_view_if_needed()  # it loads what is seen
    page.wait_for_function("document.querySelector('model-viewer')?.loaded", timeout=60_000)
    for _ in range(20):  # it fades in
        picture = page.locator("model-viewer").screenshot()
        if np.asarray(Image.open(io.BytesIO(picture)).convert("L")).std() > 3:
            return
        page.wait_for_timeout(500)
    pytest.fail("the model is loaded, but hardly anything is seen")


def test_a_drawing_is_refused_in_words(page):
    page.get_by_role("tab", name="Your photo").click()
    content = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    send(page, "x.png", content)
    page.wait_for_selector(".cmic-error[role=alert]", timeout=60_000)
    assert "SVG drawing" in page.locator(".cmic-error").inner_text()
    assert "Traceback" not in page.inner_text("body") and str(REPOSITORY) not in page.inner_text("body")


def test_fields_have_labels_and_answer(page):
    page.get_by_role("tab", name="Test photos").click()
    before = page.locator(".cmic-photo img").get_attribute("src")
    page.get_by_label("Photo", exact=True).select_option(index=2)
    page.wait_for_function("old => document.querySelector('.cmic-photo img').src !== old", arg=before, timeout=60_000)
    for label in ("Category", "First shape", "Order", "Mask"):
        assert page.get_by_label(label, exact=True).count() == 1
    assert page.get_by_label("Mirror the photo").count() == 1


def test_it_is_used_with_the_keyboard(page):
    page.get_by_role("tab", name="Test photos").click()
    photos = page.get_by_label("Photo", exact=True)
    before = page.locator(".cmic-photo img").get_attribute("src")
    photos.focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("old => document.querySelector('.cmic-photo img').src !== old", arg=before, timeout=60_000)
    for _ in range(8):  # the way from the list to the mask's field, whatever stands between
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('select')"):
            break
    assert page.evaluate("document.activeElement.closest('.widget-dropdown')?.innerText.startsWith('Mask')")


def test_every_picture_has_words_and_every_text_a_contrast(page):
    pictures = page.locator(".cmic img").evaluate_all("all => all.map(image => image.alt)")
    assert len(pictures) > 20 and all(pictures)
    assert page.locator(".cmic").first.evaluate(PALE) == []
