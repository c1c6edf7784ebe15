"""JupyterLab as `make lab` opens it: the first page, each chapter once, MyST as prose; saving changes nothing."""

import json
import re
import shutil
import subprocess
import sys
import time

import pytest
from live import LAB, PATIENCE, free_port, opened, run_first_cell, start
from toybook import REPOSITORY

from cmiclib.book import notebooks

pytestmark = [pytest.mark.browser]


def git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The book in a repository of its own, with what `make lab` reads."""
    root = tmp_path / "checkout"
    for name in ("book", ".jupyter"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    for name in ("jupytext.toml", ".gitattributes"):
        shutil.copy2(REPOSITORY / name, root)
    notebooks.sync(root / "book")
    git(root, "init", "-q")
    git(root, "config", "filter.notebook.clean", f"'{sys.executable}' '{notebooks.__file__}' clean")
    git(root, "add", ".")
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", ".jupyter")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "user"))  # nothing of the user's, and no old workspace
    return root


def test_it_opens_the_first_page_and_running_and_saving_leave_git_as_it_was(checkout, tmp_path):
    port = free_port()
    server = start([*LAB, f"--port={port}"], checkout, f"http://127.0.0.1:{port}/api")
    with opened(server, checkout, port, "") as tab:
        page = tab.page
        page.wait_for_selector(".jp-Notebook h1", timeout=PATIENCE)
        page.wait_for_selector(".jp-DirListing-itemText >> text=04_model.ipynb", timeout=PATIENCE)
        listed = page.locator(".jp-DirListing-itemText").all_inner_texts()
        assert "intro.ipynb" in listed and not [name for name in listed if name.endswith(".py")]
        assert page.locator("#jp-main-dock-panel .lm-TabBar-tabLabel").all_inner_texts() == ["intro.ipynb"]
        run_first_cell(page)  # it holds the parameters
        ran = page.locator(".jp-CodeCell .jp-InputPrompt", has_text=re.compile(r"\[\d+\]")).first
        number = int(ran.inner_text(timeout=PATIENCE).strip("[]: "))  # while it shows a star there is none to save
        rendered = page.locator(".jp-MarkdownCell").first.locator(".myst").first
        rendered.get_by_text("lin2021cmic").wait_for(timeout=PATIENCE)
        assert "{cite" not in rendered.inner_text()
        before = time.time_ns()
        page.keyboard.press("Control+s")
        saved = checkout / "book" / "intro.ipynb"
        deadline = time.monotonic() + 30
        while saved.stat().st_mtime_ns < before and time.monotonic() < deadline:
            page.wait_for_timeout(200)
        page.wait_for_timeout(1000)  # the script is written after the notebook
        cells = json.loads(saved.read_text())["cells"]
        assert next(cell["execution_count"] for cell in cells if cell["cell_type"] == "code") == number
        assert git(checkout, "diff", "--name-only") == ""
        assert page.locator(".Toastify__toast").count() == 0  # no news, no errors
