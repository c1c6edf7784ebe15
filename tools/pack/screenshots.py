"""Take the pictures of the query browser for chapter 13: in JupyterLab, as an app, and without a kernel.

    python tools/pack/screenshots.py [lab] [app] [static]

They show whatever `cmic app` shows: run this where nothing has been trained, so that it is the shipped model and the
shipped, synthetic photos. It needs Chromium and the folder vendor/ (`make vendor`).
"""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbformat import v4
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from cmiclib.book.notebooks import KERNEL
from cmiclib.browser import static_page
from cmiclib.browser.app import open_retriever
from cmiclib.sources.sweethome import ROOT

TARGET = ROOT / "book" / "_static"
LIMIT = 300_000  # bytes of a picture
SIZE = {"width": 1360, "height": 1340}  # the 3D viewer loads what is seen
PATIENCE = 600_000  # milliseconds
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
ANSWER = ".cmic-ranking img"
CELL = """from cmiclib.browser import QueryBrowser
from cmiclib.browser.app import open_retriever

found, words = open_retriever()
QueryBrowser(found.index, found.gallery, vectors=found.vectors, atlas=found.known_atlas)"""


def save(page: Page, name: str) -> None:
    """Wait until the model is drawn, and write the picture."""
    drawn = "document.querySelector('model-viewer')?.loaded || document.querySelector('#model canvas')"
    page.wait_for_function(drawn, timeout=60_000)
    page.wait_for_timeout(2000)  # it fades in
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    file = TARGET / f"browser-{name}.webp"
    picture.save(file, quality=80, method=6)
    print(f"book/_static/{file.name}: {file.stat().st_size / 1000:.0f} kB", flush=True)
    if file.stat().st_size > LIMIT:
        raise SystemExit(f"more than {LIMIT / 1000:.0f} kB")


@contextmanager
def served(command: list[str], folder: str) -> Iterator[int]:
    """Run a server on a free port of this machine; ``PORT`` in the command stands for it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [sys.executable, *(part.replace("PORT", str(port)) for part in command)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(arguments, cwd=folder, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        for _ in range(PATIENCE // 1000):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None:
                raise SystemExit("the server did not start")
            time.sleep(1)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def app(browser: Browser) -> None:
    """Take the app."""
    code = "from cmiclib.cli import app; app()"
    with served(["-c", code, "app", "--no-tab", "--port", "PORT"], str(ROOT)) as port:
        page = browser.new_page(viewport=SIZE)
        page.goto(f"http://127.0.0.1:{port}/", timeout=PATIENCE, wait_until="commit")
        page.wait_for_selector("#results img", timeout=PATIENCE)
        save(page, "app")


def lab(browser: Browser) -> None:
    """Take the widget in JupyterLab."""
    options = ["--no-browser", "--port=PORT", "--IdentityProvider.token=", "--ServerApp.password=", "--allow-root"]
    with tempfile.TemporaryDirectory() as folder:
        page = v4.new_notebook(cells=[v4.new_code_cell(CELL)], metadata={"kernelspec": KERNEL})
        (Path(folder) / "query.ipynb").write_text(json.dumps(page))
        with served(["-m", "jupyterlab", *options], folder) as port:
            page = browser.new_page(viewport=SIZE)
            page.goto(f"http://127.0.0.1:{port}/lab/tree/query.ipynb", timeout=PATIENCE, wait_until="commit")
            page.locator(".jp-CodeCell").first.click(timeout=PATIENCE)
            page.keyboard.press("Control+b")  # the list of files makes room
            page.keyboard.press("Shift+Enter")
            page.wait_for_selector(ANSWER, timeout=PATIENCE)
            page.get_by_role("button", name="No", exact=True).click(timeout=PATIENCE)  # no news about Jupyter
            page.locator(".cmic").first.scroll_into_view_if_needed()
            save(page, "lab")


def static(browser: Browser) -> None:
    """Take the page that needs no kernel, from a file."""
    retriever, _ = open_retriever()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "vendor/model-viewer/model-viewer-umd.min.js", f"{folder}/viewer.js")
        head = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><script src="viewer.js"></script>'
        body = f'<body style="font-family: sans-serif">{static_page(retriever, retriever.spread(24).row)}</body>'
        (Path(folder) / "page.html").write_text(head + body, "utf-8")
        page = browser.new_page(viewport=SIZE)
        page.goto(f"{Path(folder).as_uri()}/page.html")
        save(page, "static")


def main(names: list[str]) -> None:
    """Take the pictures of these names, without names all."""
    kinds = {"static": static, "app": app, "lab": lab}
    TARGET.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        own = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=own, args=FLAGS)
        for name in names or kinds:
            kinds[name](browser)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
