"""The browser as an app on this machine: Voilà shows each visitor a notebook of one cell, with a kernel of its own.

The app searches with the user's newest run, else with the model that the repository ships, and says which.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import torch
from IPython.display import display
from nbformat import v4
from torch.nn import functional as F

from ..benchmark import Benchmark
from ..book.notebooks import KERNEL
from ..errors import BenchmarkError, CheckpointError, CMICError, ConfigError
from ..evaluation.projection import build_map
from ..evaluation.report import check_protocols
from ..index import ShapeIndex
from ..index.cache import gallery_index
from ..sources.sweethome import PREPARED, ROOT, open_sweethome
from ..training.guard import check_unchanged
from ..training.run import Run
from .page import STYLE, message
from .retriever import Retriever
from .upload import MAX_BYTES
from .widget import QueryBrowser

SHIPPED = ROOT / "data" / "browser" / "sweethome.safetensors"
OUTPUTS = ROOT / "outputs"
# JupyterLab's extensions that Voilà loads; the others fail without JupyterLab.
EXTENSIONS = ["@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8"]
TEMPLATES = Path(__file__).parent  # holds voila/templates/cmic
PORT = 8866
# The page may ask no other server, whatever a template or an upload contains.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' ws://127.0.0.1:* ws://localhost:* data: blob:"
)


def newest_run(shipped: Benchmark, outputs: Path, prepared: Path) -> tuple[Run, Benchmark] | None:
    """Return the newest finished run in ``outputs/*/runs`` whose benchmark is shipped or in ``prepared``, with that.

    It skips runs whose benchmark is not here, such as a variant with fewer views, and folders that cannot be read.
    """
    for path in sorted(outputs.glob("*/runs/*/environment.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        with suppress(CMICError, KeyError, TypeError):
            run = Run.open(path.parent)
            found = benchmark_of(run, shipped, prepared)
            if found is not None and run.environment["date"]:
                return run, found
    return None


def benchmark_of(run: Run, shipped: Benchmark, prepared: Path) -> Benchmark | None:
    """Return the benchmark that a run was trained on, if it is the shipped one or in ``prepared``."""
    wanted = run.manifest.get("hash") if isinstance(run.manifest, dict) else None
    if shipped.hash == wanted:
        return shipped
    for folder in sorted(path.parent for path in prepared.glob("*/benchmark.json")):
        with suppress(CMICError):
            benchmark = Benchmark.open(folder, verify=False)
            if benchmark.hash == wanted:
                return benchmark
    return None


def open_browser(
    run: str | None = None, benchmark: str | None = None, index: str | None = None
) -> tuple[QueryBrowser, str]:
    """Return a browser, and a phrase that says what it searches with.

    ``run`` is a run folder; default: the user's newest run, else the shipped model. ``benchmark`` is the gallery's
    folder; default: the benchmark that the run was trained on. A converted checkpoint was trained on none, and searches
    the shipped one. An ``index`` that is there replaces the run; its gallery is the benchmark, by default the shipped
    one. BenchmarkError or CheckpointError: something is missing or damaged, or the run's benchmark is not
    here; ConfigError: a benchmark without a run.
    """
    if index is not None:
        gallery = Benchmark.open(benchmark) if benchmark else open_sweethome()
        return QueryBrowser(ShapeIndex.load(index), gallery), f"The index {index}"
    if benchmark is not None and run is None:
        raise ConfigError("--benchmark needs a run that searches it", fix="pass --run as well")
    shipped = open_sweethome()
    if run is not None:
        chosen = Run.open(run)
        trained = (chosen.path / "data.json").is_file()  # a converted checkpoint names no benchmark
        own = benchmark_of(chosen, shipped, PREPARED) if trained else None
        if benchmark is None and not trained:
            words = f"The converted checkpoint {chosen.path.name}, which names no benchmark, in the shipped gallery"
            return _of_run(chosen, shipped), words
        searched = own if benchmark is None else Benchmark.open(benchmark)
        if searched is None:
            fix = "pass --benchmark DIR with the gallery to search"
            raise BenchmarkError("the benchmark of this run is not here", path=chosen.path, fix=fix)
        return _of_run(chosen, searched, own), f"The run {chosen.path.name}"
    if newest := newest_run(shipped, OUTPUTS, PREPARED):
        return _of_run(*newest), f"Your newest run, {newest[0].path.name} of {newest[0].environment['date']}"
    retriever = shipped_retriever(SHIPPED, shipped)
    date = retriever.index.about["trained"]["date"]
    browser = QueryBrowser(retriever.index, shipped, vectors=retriever.vectors, atlas=retriever.atlas)
    return browser, f"The repository's own model of {date}, since you have not trained yet"


def shipped_retriever(path: Path, shipped: Benchmark) -> Retriever:
    """Read an index that brings its test photos' vectors and their map; ``tools/pack/pack_model.py`` makes it.

    CheckpointError: it is missing, damaged, of another state of the benchmark, or the package with the backbone's
    weights is missing.
    """
    index = ShapeIndex.load(path)
    if index.about.get("benchmark") != shipped.hash:
        problem = f"the repository's own model belongs to another state of the benchmark '{shipped.name}'"
        fix = "train on this one with `make reproduce`, or check both out together"
        raise CheckpointError(problem, path=path, fix=fix)
    index.check_gallery(shipped)
    try:
        photos = F.normalize(index.extra["photos"].float(), dim=1)
        if photos.shape != (len(shipped.rows("test")), index.views.shape[2]) or not index.about["trained"]["date"]:
            raise ValueError(f"photos are {tuple(photos.shape)}")
        category = shipped.queries.category.to_numpy()[shipped.rows("test")]
        places = index.extra["places"].to(torch.float32).numpy()
        atlas = build_map(photos, category, index.views, shipped.shapes.category.to_numpy(), places=places)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        problem = f"this is not a complete model ({type(error).__name__}: {error!s:.300})"
        raise CheckpointError(problem, path=path, fix="check it out again") from None
    return Retriever(index, shipped, vectors=photos, atlas=atlas)


def _of_run(run: Run, gallery: Benchmark, own: Benchmark | None = None) -> QueryBrowser:
    """Return the browser of a run; ``own`` is what it was trained on, where that is here."""
    check_unchanged(run, gallery)
    if own is not None:
        check_protocols(own, gallery)
    return QueryBrowser(gallery_index(run, gallery), gallery)


def show(run: str | None = None, benchmark: str | None = None, index: str | None = None) -> None:
    """Display the app, or the error that prevents it; the app's notebook calls this."""
    head = "<h1>Find the shape in the photo</h1>"
    try:
        browser, words = open_browser(run, benchmark, index)
        name = f"{words}; gallery {browser.retriever.gallery.name}, {len(browser.retriever.index)} shapes."
        display(widgets.VBox([widgets.HTML(f"{head}<p>{name}</p>"), browser]))
    except CMICError as error:
        display(widgets.HTML(f"{STYLE}{head}{message(error)}"))


def serve(
    run: str | None = None, benchmark: str | None = None, port: int = PORT, tab: bool = True, index: str | None = None
) -> int:
    """Run the app until it is stopped; return Voilà's exit status.

    :func:`open_browser` is called first with run, benchmark and index, and may raise. The port is one of 127.0.0.1; no
    other machine can connect. ``tab`` opens the app in a web browser.
    """
    run, benchmark = (str(Path(path).resolve()) if path else None for path in (run, benchmark))
    if index and "://" not in index:
        index = str(Path(index).resolve())
    open_browser(run, benchmark, index)  # errors come here, and slow work is done once
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "browser.ipynb").write_text(json.dumps(notebook(run, benchmark, index)), "utf-8")
        (Path(folder) / "voila.json").write_text(json.dumps(settings(port, tab)), "utf-8")
        print(f"http://127.0.0.1:{port}/ (stop it with Ctrl+C)", flush=True)
        command = [sys.executable, "-m", "voila", "--template=cmic", "browser.ipynb"]
        paths = os.pathsep.join(filter(None, [str(TEMPLATES), os.environ.get("JUPYTER_PATH")]))
        environment = {**os.environ, "PYTHONWARNINGS": "ignore", "JUPYTER_PATH": paths}
        try:
            return subprocess.run(command, cwd=folder, env=environment).returncode
        except KeyboardInterrupt:
            return 0


def notebook(run: str | None, benchmark: str | None, index: str | None = None) -> dict[str, Any]:
    """Return the app's notebook."""
    more = f", {index!r}" if index else ""
    cell = v4.new_code_cell(f"from cmiclib.browser.app import show\n\nshow({run!r}, {benchmark!r}{more})")
    return v4.new_notebook(cells=[cell], metadata={"kernelspec": KERNEL, "title": "Find the shape in the photo"})


def settings(port: int, tab: bool) -> dict[str, Any]:
    """Return Voilà's configuration: this machine only, no files, few kernels, limited messages, no tracebacks.

    Voilà hands a kernel only messages of widgets, so a visitor cannot send it code.
    """
    tornado = {
        "headers": {"Content-Security-Policy": POLICY},
        "websocket_max_message_size": 2 * MAX_BYTES,  # the widget refuses in words what is larger than MAX_BYTES
        # Voilà's page sends no token when its tab is closed, so with this check its kernel would stay for half an hour.
        # Every other request that the check guards needs a kernel's id, which other pages cannot know.
        "disable_check_xsrf": True,
        "allow_remote_access": False,  # else a page from elsewhere could ask under another name
    }
    voila = {
        "show_tracebacks": False, "theme": "light", "allow_template_override": "NO", "allow_theme_override": "NO",
        "file_allowlist": [], "extension_allowlist": EXTENSIONS,
        "multi_kernel_manager_class": "cmiclib.browser.visitors.FewKernels",
    }  # fmt: skip
    return {
        "Voila": {"ip": "127.0.0.1", "port": port, "port_retries": 0, "open_browser": tab, "tornado_settings": tornado},
        "VoilaConfiguration": voila,
        "MappingKernelManager": {"cull_idle_timeout": 1800, "cull_interval": 60},
    }
