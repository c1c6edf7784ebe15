"""Chromium for tests: how it is started, and a tab that notes what should not happen."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-gpu-compositing",  # software draws pages a fifth faster than software that stands in for a GPU
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip

# Run on an element: the texts in it whose contrast to what lies behind them is below 4.5, as WCAG 2.2 computes it.
PALE = """root => {
    const parse = (color) => (color.match(/[\\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const color = parse(getComputedStyle(e).backgroundColor);
            if (color.length === 3 || color[3] > 0.99) return color;
        }
        return [255, 255, 255];
    };
    const own = (e) => [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    return [...root.querySelectorAll("*")]
        .filter((e) => e.getClientRects().length && own(e) && !e.closest("style, script, option, :disabled"))
        .map((e) => [e, light(parse(getComputedStyle(e).color)), light(ground(e))])
        .map(([e, a, b]) => [e, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)])
        .filter(([e, contrast]) => contrast < 4.5)
        .map(([e, contrast]) => `${e.textContent.slice(0, 40)}: ${contrast.toFixed(2)}`);
}"""


@contextmanager
def chromium() -> Iterator:
    """Start the machine's Chromium, or the one that Playwright fetched; skip the test where there is none."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        except Error:
            if CHROMIUM or os.environ.get("REQUIRE_BROWSER"):
                raise
            pytest.skip("Chromium is not installed; make test-browser fetches one")
        yield browser
        browser.close()


class Watched:
    """A tab that notes what should not happen: requests elsewhere, failed requests, errors on the console."""

    def __init__(self, browser, home: str, width: int = 1280):
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.problems: list[str] = []
        self.home = home
        note = self.problems.append
        self.page.on("pageerror", lambda error: note(f"error: {str(error)[:200]}"))
        self.page.on("console", lambda m: note(f"console: {m.text[:200]}") if m.type == "error" else None)
        self.page.on("requestfailed", lambda request: note(f"failed: {request.url[:200]}"))
        self.page.on("request", self._request)
        self.page.on("response", lambda r: note(f"{r.status}: {r.url[:200]}") if r.status >= 400 else None)

    def _request(self, request) -> None:
        if not request.url.startswith((self.home, "data:", "blob:")):
            self.problems.append(f"left: {request.url[:200]}")

    def open(self, name: str) -> None:
        self.page.goto(self.home + name)  # until all that the page names is loaded
        if name == "index.html":  # it can lead on to another page
            self.page.wait_for_load_state("networkidle")
        self.page.evaluate("document.fonts.ready.then(() => {})")
