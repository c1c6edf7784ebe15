"""The HTML in a browser without a network, from a file and from a server's sub-path: it works, and nothing goes out."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import PALE, Watched, chromium
from toybook import REPOSITORY, make_book, write_chapter

from cmiclib.book import publish, runner

pytestmark = pytest.mark.browser

WIDGETS = """
# %% [markdown]
# A score is $q^\\top W v$ {cite:p}`lin2021cmic`, and
#
# $$ L = -\\log \\frac{e^{s_+/\\tau}}{\\sum_j e^{s_j/\\tau}} $$

# %%
import ipywidgets as widgets

choice = widgets.Dropdown(options=["chair", "table"], index=0)
stack = widgets.Stack([widgets.HTML("<b>four legs</b>"), widgets.HTML("<b>flat top</b>")], selected_index=0)
widgets.jslink((choice, "index"), (stack, "selected_index"))
widgets.VBox([choice, stack])

# %%
from cmiclib.figures import captioned
from cmiclib.figures.style import new_figure

with new_figure(2) as figure:
    for ax in figure.subplots(1, 2):
        ax.plot([0, 1, 4, 9])
captioned(figure, "1.1", "Squares grow.", "Two rising lines")

# %% tags=["lesson"]
long = "a string that is so long that a narrow screen could not show the line that holds it, nor could a wide one do"

# %%
import pandas as pd

pd.DataFrame([range(10_000, 10_040)])
"""
VIEWER = """
# %%
import base64

import trimesh
from IPython.display import HTML

model = base64.b64encode(trimesh.creation.box().export(file_type="glb")).decode()
HTML(f'<model-viewer src="data:model/gltf-binary;base64,{model}" style="height: 200px"></model-viewer>')
"""


# What no page may have, in this theme and at this width: a list of texts.
FAULTS = """() => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    const faults = [];
    const wide = document.documentElement.scrollWidth - window.innerWidth;
    if (wide > 0) faults.push(`the page is ${wide} px too wide`);
    for (const image of all(".cell_output img"))
        if (!image.closest("figure, .jupyter-widgets, [class*=cmic]")) faults.push("a figure without caption");
    for (const figure of all("figure.captioned")) {
        const said = figure.querySelector("figcaption");
        if (!said || said.textContent.length < 12) faults.push("a figure with an empty caption");
        const told = [...figure.querySelectorAll("img")].some((image) => image.alt.trim());
        if (!told && !figure.querySelector("table")) faults.push("a figure without alt");
    }
    for (const code of all("div.highlight pre"))
        if (code.scrollWidth > code.clientWidth + 1) faults.push(`cut: ${code.textContent.slice(0, 60)}`);
    const text = /^<?Figure( size|\\()|^<[\\w.]+ object\\b/;
    for (const output of all(".cell_output pre"))
        if (text.test(output.textContent.trim())) faults.push("an object that is text");
    return faults;
}"""


# Colours change at once, and two frames later all of the page has them.
THEME = """theme => {
    const still = document.createElement("style");
    still.textContent = "* { transition: none !important; animation: none !important }";
    document.head.append(still);
    document.documentElement.dataset.theme = theme;
    return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())));
}"""


def faults(page, theme: str) -> list[str]:
    """Return what is wrong with the open page in this theme, contrast included."""
    page.evaluate(THEME, theme)
    where = "document.querySelector('.bd-article, .bd-search-container') || document.body"
    pale = page.evaluate(f"({PALE})({where})")
    return page.evaluate(FAULTS) + [f"pale: {text}" for text in pale]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The HTML of a toy book with mathematics, a citation, linked widgets, a figure and a 3D viewer."""
    root = make_book(tmp_path_factory.mktemp("book"))
    pictures = shutil.ignore_patterns("*.png")
    shutil.copytree(REPOSITORY / "book" / "_static", root / "book" / "_static", ignore=pictures, dirs_exist_ok=True)
    write_chapter(root, "first", WIDGETS, more="COUNT = 2")
    write_chapter(root, "second", VIEWER)
    publish.fetch_vendor(REPOSITORY)
    (root / "vendor").symlink_to(REPOSITORY / "vendor", target_is_directory=True)
    result = runner.reproduce(root, profile="smoke", benchmark_hash=lambda: "none")
    assert not result.failed
    index, _ = publish.publish(root, "smoke")
    return index.parent


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def server(site: Path, tmp_path: Path) -> Iterator[str]:
    """The site at a sub-path of a local server."""
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "where").symlink_to(site, target_is_directory=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/some/where/"
        server.shutdown()


@pytest.mark.parametrize("place", ["file", "server"])
def test_a_report_works_without_a_network(site: Path, browser, place: str, request: pytest.FixtureRequest) -> None:
    home = f"{site.as_uri()}/" if place == "file" else request.getfixturevalue("server")
    tab = Watched(browser, home)
    tab.open("index.html")
    page = tab.page
    page.wait_for_selector(".widget-dropdown select")
    assert page.locator("mjx-container svg, mjx-container mjx-math").count() == 2
    assert page.locator(".jupyter-widgets b:visible").all_inner_texts() == ["four legs"]
    page.locator(".widget-dropdown select").select_option("table")
    page.wait_for_selector(".jupyter-widgets b:visible")
    assert page.locator(".jupyter-widgets b:visible").all_inner_texts() == ["flat top"]
    assert page.evaluate("[...document.querySelectorAll('.cell_output img')].every(i => i.naturalWidth > 0)")
    # Which fonts a page needs depends on the browser; all that it names must be there.
    assert page.evaluate("Promise.all([...document.fonts].map(f => f.load())).then(fonts => fonts.length)") > 0
    tab.open("second.html")
    page.wait_for_function("document.querySelector('model-viewer').loaded", timeout=60_000)
    tab.open("page.html")
    assert page.locator("text=Contrastive Learning").count() == 1
    tab.open("search.html?q=chapter")
    page.wait_for_selector("#search-results li")
    assert tab.problems == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_a_page_is_readable(site: Path, browser, width: int, theme: str) -> None:
    tab = Watched(browser, f"{site.as_uri()}/", width)
    tab.open("index.html")
    tab.page.wait_for_selector(".widget-dropdown select")
    assert faults(tab.page, theme) == []
    left, right = tab.page.locator("figure.captioned img").all()
    beside = left.bounding_box()["y"] == right.bounding_box()["y"]
    assert beside == (width == 1400), "panels stand below each other on a narrow screen"
    paddings = [panel.evaluate("image => getComputedStyle(image).padding") for panel in (left, right)]
    assert paddings == ["0px"] * 2, "nothing pushes panels out of their row"


def test_code_is_folded_behind_one_switch_that_is_remembered(site: Path, browser) -> None:
    tab = Watched(browser, f"{site.as_uri()}/")
    tab.open("index.html")
    code = tab.page.locator("details.above-input .cell_input")
    assert code.count() >= 3 and not code.first.is_visible()
    assert tab.page.get_by_text("a string that is so long").is_visible(), "a lesson is open"
    tab.page.get_by_role("button", name="Show code").click()
    assert all(block.is_visible() for block in code.all())
    tab.page.reload()
    assert code.first.is_visible()
    tab.page.get_by_role("button", name="Hide code").click()
    assert not code.first.is_visible()


@pytest.mark.parametrize("profile", ["smoke", "demo", "paper"])
def test_every_page_of_the_report_opens_without_a_network_and_is_readable(browser, profile: str) -> None:
    folder = REPOSITORY / "outputs" / profile / "html"
    if not (folder / "index.html").exists():
        pytest.skip(f"no report here; make reproduce PROFILE={profile}")
    tab = Watched(browser, f"{folder.as_uri()}/")
    for page in sorted(folder.glob("*.html")):
        known = len(tab.problems)
        tab.open(page.name)
        if tab.page.locator("script[type*=widget]").count():  # they are drawn later
            tab.page.wait_for_load_state("networkidle")
        for width in (1400, 390):
            tab.page.set_viewport_size({"width": width, "height": 900})
            for theme in ("light", "dark"):
                tab.problems += [f"{width} px, {theme}: {fault}" for fault in faults(tab.page, theme)]
        tab.problems[known:] = [f"{page.name}: {problem}" for problem in tab.problems[known:]]
    assert tab.problems == []
