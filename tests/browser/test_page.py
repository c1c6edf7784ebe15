"""The app's page in Chromium, as a visitor uses it: with mouse and keyboard, on a large screen and a telephone."""

import io
import os
import re

import numpy as np
import pytest
from chromium import PALE
from live import app_server, opened
from PIL import Image

from cmiclib.browser.page import data_uri
from cmiclib.browser.retriever import Choice, Question
from cmiclib.browser.upload import read_upload

pytestmark = pytest.mark.browser
CARD = "#results button img"


@pytest.fixture(scope="module")
def photo(retriever) -> bytes:
    """A photo of a visitor's own: a test photo, ten times as large."""
    stored = retriever.stored(int(retriever.rows[1])).photo
    return png(stored.repeat(10, axis=0).repeat(10, axis=1))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def watched(tiny_run, tiny_benchmark, tmp_path_factory):
    """The app, open and answered."""
    folder = tmp_path_factory.mktemp("app")
    server, port = app_server(tiny_run, tiny_benchmark.path, folder)
    with opened(server, folder, port, "") as tab:
        tab.page.wait_for_selector(CARD)
        yield tab


@pytest.fixture
def page(watched):
    """The page, anew for each test."""
    watched.page.goto("about:blank")  # what was under way is given up, which is no problem
    watched.problems.clear()
    watched.page.set_viewport_size({"width": 1400, "height": 900})
    watched.page.goto(watched.home)
    watched.page.wait_for_selector(CARD)
    return watched.page


def names(page) -> list[str]:
    return page.locator("#results button").evaluate_all("all => all.map(button => button.title)")


def settled(page) -> None:
    page.locator("#verdict", has_text=re.compile(r" s\)$")).wait_for()


def send(page, content: bytes, name: str = "mine.png") -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})
    page.wait_for_function("name => document.getElementById('photo-name').textContent === name", arg=name)


def ask(page, do) -> dict:
    """Do something that asks the server; return the answer once the page shows it."""
    with page.expect_response("**/search") as reply:
        do()
    found = reply.value.json()
    settled(page)
    return found


def drag(page, x0: float, y0: float, x1: float, y1: float) -> None:
    """Drag on the photo, from and to shares of its sides."""
    page.locator("#stage").scroll_into_view_if_needed()
    frame = page.locator("#stage").bounding_box()
    at = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in ((x0, y0), (x1, y1))]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=5)
    page.mouse.up()


def test_it_opens_with_an_answer_that_knows_right_from_wrong(page, watched, retriever):
    sample = page.locator("#samples button[aria-pressed=true]").get_attribute("value")
    row = next(int(row) for row in retriever.rows if retriever.stored(int(row)).name == sample)
    expected = retriever.answer(retriever.stored(row))
    assert names(page) == [each.shape_id for each in expected.found]
    texts = page.locator("#results .score").all_inner_texts()
    assert [("✓" in text) for text in texts] == [each.right for each in expected.found]
    assert ("✓ Right." if expected.rank == 1 else "✗ Wrong.") in page.locator("#verdict").inner_text()
    assert watched.problems == []


def test_a_visitors_photo_is_answered_as_the_library_answers(page, photo, retriever):
    ask(page, lambda: send(page, photo))
    expected = retriever.answer(Question("mine.png", read_upload(photo)[0]), Choice("none"))
    assert names(page) == [each.shape_id for each in expected.found]
    assert "not known here" in page.locator("#verdict").inner_text()


GIVE = """([kind, bytes]) => {
    const files = new DataTransfer(), how = { bubbles: true, cancelable: true };
    files.items.add(new File([new Uint8Array(bytes)], `${kind}.png`, { type: "image/png" }));
    const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: files, ...how })
                                  : new ClipboardEvent("paste", { clipboardData: files, ...how });
    document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_photo_is_dropped_and_pasted(page, photo, kind):
    found = ask(page, lambda: page.evaluate(GIVE, [kind, list(photo)]))
    assert found["photo"] == f"{kind}.png" and page.locator("#photo-name").inner_text() == f"{kind}.png"


def test_a_box_is_dragged_typed_and_drawn_with_the_keyboard(page, photo):
    whole = ask(page, lambda: send(page, photo))
    found = ask(page, lambda: drag(page, 0.25, 0.125, 0.75, 0.875))
    assert found["box"] == pytest.approx([80, 40, 240, 280], abs=3)
    assert [each["score"] for each in found["results"]] != [each["score"] for each in whole["results"]]
    sides = page.locator(".side")
    assert [float(side.input_value()) for side in sides.all()] == found["box"]
    page.locator("#options summary").click()
    sides.nth(0).fill("100")
    assert ask(page, lambda: sides.nth(0).press("Tab"))["box"] == [100, *found["box"][1:]]
    assert ask(page, page.locator("#no-box").click)["box"] is None

    page.locator("#stage").focus()
    for key in ("Shift+ArrowLeft", "Shift+ArrowUp", "Enter", *["Shift+ArrowRight"] * 3, *["Shift+ArrowDown"] * 2):
        page.keyboard.press(key)
    assert ask(page, lambda: page.keyboard.press("Enter"))["box"] == [128, 128, 224, 192]
    assert ask(page, lambda: page.keyboard.press("Escape"))["box"] is None


def test_a_guess_is_drawn_and_goes_with_its_box(page, photo):
    guess = data_uri(np.indices((64, 64))[1].astype(np.uint8) // 32 * 255, 64, lossless=True)  # the right half

    def with_guess(route):
        reply = route.fetch()
        found = reply.json()
        route.fulfill(response=reply, json=found | {"guessed": guess if found["box"] else None})

    def blue() -> int:
        return page.evaluate("""() => {
            const marks = document.getElementById("marks");
            const { data } = marks.getContext("2d").getImageData(0, 0, marks.width, marks.height);
            const colours = Array.from({ length: data.length / 4 }, (_, i) => data.slice(4 * i, 4 * i + 3).join());
            return colours.filter((colour) => colour === "86,180,233").length;
        }""")

    page.route("**/search", with_guess)
    ask(page, lambda: send(page, photo))
    assert blue() == 0 and "blue line" not in page.locator("#marked").inner_text()
    ask(page, lambda: drag(page, 0.25, 0.125, 0.75, 0.875))
    assert blue() > 100 and "blue line" in page.locator("#marked").inner_text()
    ask(page, page.locator("#no-box").click)
    assert blue() == 0 and "blue line" not in page.locator("#marked").inner_text()
    page.unroute("**/search")


def test_a_brush_adds_mask_and_takes_it_away(page, photo):
    ask(page, lambda: send(page, photo))
    assert page.locator("#marking").input_value() == "none"
    page.get_by_label("add mask").check()
    page.locator("#brush").fill("20")
    added = ask(page, lambda: drag(page, 0.2, 0.5, 0.8, 0.5))
    assert added["mask"] == "given" and page.locator("#marking").input_value() == "given"

    def marked(found: dict) -> np.ndarray:
        share = page.evaluate("""async (source) => {
            const image = new Image();
            image.src = source;
            await image.decode();
            const pen = Object.assign(document.createElement("canvas"), { width: 64, height: 64 }).getContext("2d");
            pen.drawImage(image, 0, 0, 64, 64);
            return [...pen.getImageData(0, 0, 64, 64).data].filter((_, i) => i % 4 === 0);
        }""", found["marked"])  # fmt: skip
        return np.reshape(share, (64, 64)) >= 128

    mask = marked(added)
    assert mask[32, 13:51].all() and not mask[:20].any() and not mask[44:].any()
    page.get_by_label("take mask away").check()
    less = marked(ask(page, lambda: drag(page, 0.5, 0.3, 0.5, 0.7)))
    assert not less[32, 30:34].any() and less[32, 14] and less[32, 50]
    page.get_by_label("add mask").check()
    page.locator("#stage").focus()
    page.keyboard.press("Shift+ArrowUp")
    with_key = marked(ask(page, lambda: page.keyboard.press("Enter")))
    assert with_key[26, 32] and with_key.sum() > less.sum()
    assert ask(page, page.locator("#undo").click)["mask"] == "none"


def test_a_given_mask_is_changed_from_where_it_is(page):
    before = page.locator("#results .score").all_inner_texts()
    page.get_by_label("take mask away").check()
    found = ask(page, lambda: drag(page, 0.1, 0.5, 0.9, 0.5))
    assert found["mask"] == "given" and found["own"] and page.locator("#results .score").all_inner_texts() != before


def test_a_bad_upload_removes_the_old_answer_and_says_what_helps(page, photo):
    ask(page, lambda: send(page, photo))
    send(page, b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "x.png")
    page.wait_for_selector("#problem .bad")
    assert "SVG drawing" in page.locator("#problem").inner_text()
    for gone in ("#results li", "#question:not([hidden])", "#shape:not([hidden])", "#why:not([hidden])"):
        assert page.locator(gone).count() == 0, gone
    assert page.locator("#verdict").inner_text() == ""
    ask(page, lambda: send(page, photo))
    assert page.locator("#problem").inner_text() == "" and page.locator("#question").is_visible()


def test_a_photo_that_this_browser_cannot_show_is_shown_by_the_server(page, retriever):
    from pillow_heif import from_pillow

    buffer = io.BytesIO()
    from_pillow(Image.fromarray(retriever.stored(int(retriever.rows[0])).photo.repeat(8, 0).repeat(8, 1))).save(buffer)
    ask(page, lambda: send(page, buffer.getvalue(), "mine.heic"))
    page.wait_for_function("document.getElementById('photo').naturalWidth > 0")
    assert page.locator("#question").is_visible()
    assert ask(page, lambda: drag(page, 0.125, 0.125, 0.5, 0.5))["box"] == pytest.approx([32, 32, 128, 128], abs=3)


def test_a_white_picture_is_warned_of(page):
    ask(page, lambda: send(page, png(np.full((200, 200, 3), 255, np.uint8))))
    assert "almost one colour" in page.locator("#notices").inner_text()


def test_a_card_shows_its_shape_its_views_and_its_model(page):
    second = page.locator("#results button").nth(1)
    second.click()
    assert second.get_attribute("aria-pressed") == "true"
    assert second.get_attribute("title") in page.locator("#shape-name").inner_text()
    assert not page.locator("#views li").first.is_visible()
    page.locator("#why summary").click()
    assert page.locator("#views li").count() == 12 and page.locator("#views li").first.is_visible()
    canvas = page.locator("#model canvas")
    canvas.wait_for()
    page.wait_for_timeout(300)
    first = canvas.screenshot()
    assert np.asarray(Image.open(io.BytesIO(first)).convert("L")).std() > 3
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert canvas.screenshot() != first


def test_the_wheel_over_the_model_scrolls_the_page(page):
    page.set_viewport_size({"width": 390, "height": 700})
    page.locator("#model canvas").scroll_into_view_if_needed()
    page.locator("#model canvas").hover()
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, 200)
    page.wait_for_function("before => scrollY > before", arg=before)


def test_the_right_shape_is_shown_even_far_down(page):
    page.locator("#options summary").click()
    page.locator("#top").fill("1")
    ask(page, lambda: page.locator("#top").press("Tab"))
    seen = set()
    for button in page.locator("#samples button").all():
        found = ask(page, button.click)
        cards = page.locator("#results button").all_inner_texts()
        assert len(cards) == (1 if found["rank"] == 1 else 2) and "✓" in cards[-1]
        assert cards[-1].startswith(f"{found['rank']}. ")
        seen.add(found["rank"] == 1)
    assert False in seen, "some shape must lie further down"


def test_it_is_used_with_the_keyboard_alone(page):
    def press_until(test: str, most: int = 80) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({test!r})"):
                style = "(s => s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2)"
                inside = "(document.activeElement.closest('label.button') ?? document.activeElement)"
                assert page.evaluate(f"{style}(getComputedStyle({inside}))"), "the focus is not seen"
                return
        pytest.fail(f"{test} is not reached")

    page.evaluate("document.activeElement.blur()")
    press_until("#file")
    press_until("#samples button[aria-pressed=false]")
    before = page.locator("#photo-name").inner_text()
    ask(page, lambda: page.keyboard.press("Enter"))
    assert page.locator("#photo-name").inner_text() != before
    press_until("#stage")
    press_until("#results button[aria-pressed=false]")
    page.keyboard.press("Enter")
    assert page.locator("#results button").nth(1).get_attribute("aria-pressed") == "true"
    press_until("#why summary")
    page.keyboard.press("Enter")
    assert page.locator("#views li").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_it_is_read_wide_and_narrow_light_and_dark(page, photo, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    for details in page.locator("details:visible > summary").all():
        details.click()
    for content in (None, png(np.full((64, 64, 3), 255, np.uint8)), b"<svg/>"):
        if content:
            send(page, content)
            page.wait_for_selector("#problem .bad" if content == b"<svg/>" else "#notices p")
        page.evaluate("document.getElementById('lost').hidden = false")
        assert page.locator("body").evaluate(PALE) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        outside = """() => [...document.querySelectorAll('img, select, button, input:not([type=file]), p, li, canvas')]
            .filter(e => e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1)
            .map(e => `${e.tagName} ${e.id} ${e.textContent.slice(0, 30)}`)"""
        assert page.evaluate(outside) == []
    assert all(page.locator("img:visible").evaluate_all("all => all.map(image => image.alt)"))
    if os.environ.get("SCREENSHOTS"):
        page.reload()
        page.wait_for_selector(CARD)
        page.wait_for_timeout(500)
        page.screenshot(path=f"{os.environ['SCREENSHOTS']}/app-{scheme}-{width}.png", full_page=True)
    page.emulate_media(color_scheme="light")
