"""The browser as an app on loopback: Voilà shows a notebook of one cell, to each visitor with a kernel of its own.

It shows the reader's own run of the shipped benchmark where there is one, else the packed model of the repository.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from ..benchmark import Benchmark
from ..checkpoint import Run
from ..errors import CMICError, ConfigError
from ..kept import gallery_index
from ..sources.sweethome import ROOT, open_sweethome
from .packed import unpack
from .page import STYLE, message
from .upload import MAX_BYTES
from .widget import QueryBrowser

PACKED = ROOT / "data" / "browser" / "sweethome.safetensors"
RUNS = ROOT / "outputs" / "demo" / "runs"
PORT = 8866
# Nothing but this server is asked for anything, whatever a template or an upload would like.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' ws://127.0.0.1:* ws://localhost:* data: blob:"
)


def own_run(benchmark: Benchmark, runs: Path = RUNS) -> Run | None:
    """Return the newest finished run of this very benchmark, if there is one."""
    finished = sorted(runs.glob("*/environment.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    opened = (Run.open(path.parent) for path in finished if (path.parent / "model.safetensors").is_file())
    return next((run for run in opened if run.manifest["hash"] == benchmark.hash), None)


def open_browser(run: str | None = None, benchmark: str | None = None) -> tuple[QueryBrowser, str]:
    """Return the browser of a run, and in words what it searches with.

    Args:
        run: a run folder; default: the reader's own run of the demo, else the packed model.
        benchmark: the gallery's folder; default: the shipped benchmark.

    Raises:
        BenchmarkError, CheckpointError: something is missing or damaged.
        ConfigError: a benchmark without a run, for which there is no model.
    """
    gallery = Benchmark.open(benchmark) if benchmark else open_sweethome()
    chosen = Run.open(run) if run else None
    if benchmark is None:
        chosen = chosen or own_run(gallery)
    elif chosen is None:
        raise ConfigError("a benchmark of your own needs a run", fix="give --run, too")
    if chosen is not None:
        return QueryBrowser(gallery_index(chosen, gallery), gallery), f"Your run {chosen.path.name}"
    retriever, origin = unpack(PACKED, gallery)
    browser = QueryBrowser(retriever.index, gallery, vectors=retriever.vectors, atlas=retriever.atlas)
    return browser, f"The repository's own model of {origin['trained']['date']}, since you have not trained yet"


def show(run: str | None = None, benchmark: str | None = None) -> None:
    """Display the app, or in words what is missing: the one cell of its notebook."""
    head = "<h1>Find the shape in the photo</h1>"
    try:
        browser, words = open_browser(run, benchmark)
        name = f"{words}; gallery {browser.retriever.gallery.name}, {len(browser.retriever.index)} shapes."
        display(widgets.VBox([widgets.HTML(f"{head}<p>{name}</p>"), browser]))
    except CMICError as error:
        display(widgets.HTML(f"{STYLE}{head}{message(error)}"))


def serve(run: str | None = None, benchmark: str | None = None, port: int = PORT, tab: bool = True) -> int:
    """Run the app until it is stopped; return Voilà's exit status.

    Args:
        run: see :func:`open_browser`.
        benchmark: see :func:`open_browser`.
        port: of 127.0.0.1; no other machine can connect.
        tab: open it in the machine's web browser.

    Raises:
        BenchmarkError, CheckpointError, ConfigError: see :func:`open_browser`, which is tried first.
    """
    run, benchmark = (str(Path(path).resolve()) if path else None for path in (run, benchmark))
    open_browser(run, benchmark)  # what takes long is done once, and what fails fails here
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "browser.ipynb").write_text(json.dumps(notebook(run, benchmark)), "utf-8")
        (Path(folder) / "voila.json").write_text(json.dumps(settings(port, tab)), "utf-8")
        print(f"http://127.0.0.1:{port}/ (stop it with Ctrl+C)", flush=True)
        command = [sys.executable, "-m", "voila", "browser.ipynb"]
        try:
            return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONWARNINGS": "ignore"}).returncode
        except KeyboardInterrupt:
            return 0


def notebook(run: str | None, benchmark: str | None) -> dict[str, Any]:
    """Return the app's notebook."""
    code = f"from cmiclib.browser.app import show\n\nshow({run!r}, {benchmark!r})"
    cell: dict[str, Any] = {"cell_type": "code", "id": "app", "source": code, "metadata": {}, "outputs": []}
    cell["execution_count"] = None
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def settings(port: int, tab: bool) -> dict[str, Any]:
    """Return Voilà's configuration: this machine only, no files, few kernels, limited messages, no tracebacks.

    Voilà hands a kernel nothing but the messages of widgets: a visitor cannot send it code.
    """
    tornado = {
        "headers": {"Content-Security-Policy": POLICY},
        "websocket_max_message_size": 2 * MAX_BYTES,  # the widget refuses in words what is larger than MAX_BYTES
        # Voilà's page has no token to send when its tab is closed, so its kernel would stay for half an hour. What else
        # the check protects needs a kernel's id, which pages from elsewhere cannot know.
        "disable_check_xsrf": True,
        "allow_remote_access": False,  # under another name than localhost, a page from elsewhere could ask
    }
    voila = {
        "show_tracebacks": False, "theme": "light", "allow_template_override": "NO", "allow_theme_override": "NO",
        "file_allowlist": [], "multi_kernel_manager_class": "cmiclib.visitors.FewKernels",
    }  # fmt: skip
    return {
        "Voila": {"ip": "127.0.0.1", "port": port, "port_retries": 0, "open_browser": tab, "tornado_settings": tornado},
        "VoilaConfiguration": voila,
        "MappingKernelManager": {"cull_idle_timeout": 1800, "cull_interval": 60},
    }
