"""Servers of the live browser for tests, and what a visitor does with it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chromium import Watched, chromium
from nbformat import v4
from toybook import REPOSITORY

from cmiclib.book.notebooks import KERNEL

PATIENCE = 240_000  # milliseconds: a kernel imports torch first, on a busy machine
RANKING = ".cmic-ranking img"
LAB = ["-m", "jupyterlab", "--no-browser", "--IdentityProvider.token=", "--ServerApp.password=", "--allow-root"]


def start(command: list[str], folder: Path, address: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    for _ in range(PATIENCE // 1000):
        if server.poll() is not None:
            pytest.fail((folder / "server.log").read_text()[-2000:])
        try:
            urllib.request.urlopen(address, timeout=1)
            return server
        except OSError:  # not listening yet, or a page that takes longer because its kernel starts
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(address.split(":")[2].split("/")[0]))) == 0:
                    return server
            time.sleep(1)
    pytest.fail("the server did not start")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def opened(server: subprocess.Popen, folder: Path, port: int, path: str) -> Iterator[Watched]:
    """Open a page of a server in a tab of Chromium; end the server afterwards, and show what it said on failure."""
    try:
        with chromium() as browser:
            tab = Watched(browser, f"http://127.0.0.1:{port}/")
            tab.page.goto(f"http://127.0.0.1:{port}/{path}", timeout=PATIENCE, wait_until="commit")
            yield tab
    except BaseException:
        print((folder / "server.log").read_text()[-4000:])  # pytest shows it beside the failure
        raise
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def notebook(*given: str, before: str = "") -> dict:
    """Return a notebook whose cell shows the widget of `open_retriever(*given)` and says what that is."""
    cell = (
        f"{before}from cmiclib.browser import QueryBrowser\nfrom cmiclib.browser.app import open_retriever\n\n"
        f"found, words = open_retriever(*{given!r})\nprint(words)\n"
        "QueryBrowser(found.index, found.gallery, vectors=found.vectors, atlas=found.known_atlas)"
    )
    return v4.new_notebook(cells=[v4.new_code_cell(cell)], metadata={"kernelspec": KERNEL})


def app_server(run: Path, benchmark: Path, folder: Path) -> tuple[subprocess.Popen, int]:
    """Start `cmic app`; return its process and its port."""
    port = free_port()
    code = "from cmiclib.cli import app; app()"
    options = ["--run", str(run), "--benchmark", str(benchmark), "--port", str(port), "--no-tab"]
    return start(["-c", code, "app", *options], folder, f"http://127.0.0.1:{port}/"), port


@contextmanager
def lab(notebook: dict, folder: Path) -> Iterator[Watched]:
    """Open a notebook in JupyterLab, and run its first cell until the browser in it shows a ranking."""
    (folder / "live.ipynb").write_text(json.dumps(notebook))
    port = free_port()
    server = start([*LAB, f"--port={port}"], folder, f"http://127.0.0.1:{port}/api")
    with opened(server, folder, port, "lab/tree/live.ipynb") as tab:
        run_first_cell(tab.page)
        tab.page.wait_for_selector(RANKING, timeout=PATIENCE)
        yield tab


def run_first_cell(page) -> None:
    """Press Shift+Enter in the first cell until it runs: JupyterLab drops keys while it still builds the page."""
    from playwright.sync_api import TimeoutError as Late

    cell = page.locator(".jp-CodeCell").first
    for _ in range(PATIENCE // 10_000):
        cell.locator(".cm-content").click(timeout=PATIENCE)
        page.keyboard.press("Shift+Enter")
        try:
            return cell.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]+\]")).wait_for(timeout=10_000)
        except Late:
            continue
    pytest.fail(f"the cell does not run; the page says: {page.inner_text('body')[:2000]}")


def send(page, name: str, content: bytes) -> None:
    """Upload a photo as a visitor does: the button opens a dialogue for files."""
    with page.expect_file_chooser() as dialogue:
        page.locator(".jupyter-widget-FileUpload, .widget-upload").first.click()
    dialogue.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def names(page) -> list[str]:
    words = page.locator(RANKING).evaluate_all("images => images.map(image => image.alt)")
    return [text.split(": ")[1].split(",")[0] for text in words]
