"""The page that needs no kernel: what it holds, and, in Chromium without a network, what it does."""

import functools
import http.server
import json
import re
import threading

import pytest
from chromium import PALE, Watched, chromium
from toybook import REPOSITORY
from typer.testing import CliRunner

from cmiclib.book import publish
from cmiclib.browser import static_page
from cmiclib.cli import app

HEAD = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Test</title><link rel="icon" href="data:,">'


@pytest.fixture(scope="module")
def page(retriever) -> str:
    return static_page(retriever, retriever.spread(24).row, top=5)


@pytest.fixture(scope="module")
def data(page) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def test_it_holds_the_answers_of_search(page, data, retriever):
    for record in data["records"]:
        row = int((retriever.gallery.queries.query_id == record["photo"]).to_numpy().argmax())
        assert record == json.loads(json.dumps(retriever.answer(retriever.stored(row)).record() | {
            "results": retriever.answer(retriever.stored(row)).record()["results"][:5]}))  # fmt: skip
        part = page.split(f'data-answer="{record["photo"]}"')[1].split("data-views=")[0]
        shown = re.findall(r'alt="Rank \d+: (.*?)(?:, the right one)?"', part)
        assert shown == [each["shape_id"] for each in record["results"]]


def test_its_rankings_are_those_of_the_command(data, index, tiny_benchmark, tmp_path):
    index.save(tmp_path / "index.safetensors")
    names = [record["photo"] for record in data["records"]]
    options = ["--index", tmp_path / "index.safetensors", "--benchmark", tiny_benchmark.path, "--top", "5"]
    done = CliRunner().invoke(app, ["search", *names, *map(str, options), "--json", str(tmp_path / "found.json")])
    assert done.exit_code == 0, done.output
    for record, found in zip(data["records"], json.loads((tmp_path / "found.json").read_text()), strict=True):
        shown, expected = record["results"], found["results"]
        assert [each["shape_id"] for each in shown] == [each["shape_id"] for each in expected]
        assert [each["score"] for each in shown] == pytest.approx([each["score"] for each in expected], abs=1e-6)


def test_every_picture_it_names_is_there_and_has_words(page, data):
    named = set(re.findall(r'data-picture="(.*?)"', page))
    assert named == set(data["pictures"])
    assert all('alt="' in image for image in re.findall(r"<img [^>]*>", page))
    assert all(shape["model"] for shape in data["shapes"].values())
    assert "http://" not in page and "https://" not in page


def test_names_cannot_end_the_script(page):
    assert page.count("</script>") == 2


@pytest.fixture(scope="module")
def folder(page, tmp_path_factory):
    publish.fetch_vendor(REPOSITORY)
    folder = tmp_path_factory.mktemp("site") / "some" / "where"
    folder.mkdir(parents=True)
    script = (REPOSITORY / "vendor/model-viewer/model-viewer-umd.min.js").read_text("utf-8")
    (folder / "viewer.js").write_text(script, "utf-8")
    (folder / "page.html").write_text(f'{HEAD}<script src="viewer.js"></script><body>{page}</body></html>', "utf-8")
    return folder


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def server(folder):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder.parents[1]))
    handler.log_message = lambda *arguments: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/some/where/"
        server.shutdown()


@pytest.fixture(params=["file", "server"])
def tab(request, browser, folder):
    home = f"{folder.as_uri()}/" if request.param == "file" else request.getfixturevalue("server")
    tab = Watched(browser, home)
    tab.open("page.html")
    yield tab
    assert tab.problems == []
    tab.page.close()


def ranking(page) -> list[str]:
    return page.locator(".cmic-ranking:visible img").evaluate_all("images => images.map(image => image.alt)")


@pytest.mark.browser
def test_each_photo_shows_its_own_ranking(tab, data):
    page, seen = tab.page, []
    for record in data["records"]:
        page.locator(f'[data-photo="{record["photo"]}"]').click()
        shown = [re.sub(r"^Rank \d+: |, the right one$", "", words) for words in ranking(page)]
        assert shown == [each["shape_id"] for each in record["results"]]
        assert page.locator(".cmic-columns img:visible").evaluate_all("all => all.every(i => i.complete && i.src)")
        scores = page.locator(".cmic-ranking:visible .cmic-score").all_inner_texts()
        seen.append(tuple(scores))
    assert len(set(seen)) == len(seen)


@pytest.mark.browser
def test_each_shape_shows_its_views_and_its_model(tab):
    page = tab.page
    page.wait_for_function("document.querySelector('model-viewer').loaded", timeout=60_000)
    first = page.locator("model-viewer").get_attribute("alt")
    page.locator('[data-rank="2"]:visible').click()
    assert page.locator(".cmic-views:visible li").count() == 12
    assert page.locator("model-viewer").get_attribute("alt") != first
    page.wait_for_function("document.querySelector('model-viewer').loaded", timeout=60_000)


@pytest.mark.browser
def test_it_is_used_with_the_keyboard_and_filters(tab):
    page = tab.page
    page.locator("[data-photo]").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("[data-photo][aria-pressed=true]").count() == 1
    assert page.locator("[data-photo]").nth(1).get_attribute("aria-pressed") == "true"
    page.get_by_label("Category").select_option("box")
    assert set(page.locator("[data-photo]:visible").evaluate_all("all => all.map(b => b.dataset.category)")) == {"box"}
    assert page.locator("[data-photo][aria-pressed=true]:visible").count() == 1


@pytest.mark.browser
def test_it_fits_a_narrow_screen(browser, folder):
    tab = Watched(browser, f"{folder.as_uri()}/", width=320)
    tab.open("page.html")
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.page.locator(".cmic").evaluate(PALE) == []
    assert tab.problems == []
