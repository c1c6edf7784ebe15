"""The app on this machine: which run and gallery it searches, and its server from start to end.

It searches with the user's newest run, else with the model that the repository ships, and says which.
"""

import os
import socket
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import uvicorn
from joblib.externals.loky import reusable_executor
from torch.nn import functional as F

from ..benchmark import Benchmark
from ..errors import BenchmarkError, CheckpointError, CMICError, ConfigError
from ..evaluation.projection import build_map, kept_map
from ..evaluation.report import check_protocols
from ..index import ShapeIndex
from ..index.cache import gallery_index, has_photo_vectors, photo_vectors
from ..sources.sweethome import PREPARED, ROOT, open_sweethome
from ..training.guard import check_unchanged
from ..training.run import Run
from .retriever import Retriever
from .server import application

SHIPPED = ROOT / "data" / "browser" / "sweethome.safetensors"
OUTPUTS = ROOT / "outputs"


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


def open_retriever(
    run: str | None = None, benchmark: str | None = None, index: str | None = None
) -> tuple[Retriever, str]:
    """Return what answers, and a phrase that says what it searches with.

    ``run`` is a run folder; default: the user's newest run, else the shipped model. ``benchmark`` is the gallery's
    folder; default: the benchmark that the run was trained on. A converted checkpoint was trained on none, and searches
    the shipped one. An ``index`` that is there replaces the run; its gallery is the benchmark, by default the shipped
    one. BenchmarkError or CheckpointError: something is missing or damaged, or the run's benchmark is not
    here; ConfigError: a benchmark without a run.
    """
    if index is not None:
        gallery = Benchmark.open(benchmark) if benchmark else open_sweethome()
        return Retriever(ShapeIndex.load(index), gallery), f"The index {index}"
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
    return retriever, f"The repository's own model of {date}, since you have not trained yet"


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


def _of_run(run: Run, gallery: Benchmark, own: Benchmark | None = None) -> Retriever:
    """Return the retriever of a run; ``own`` is what it was trained on, where that is here.

    Of a run that chapter 7 has evaluated it knows the test photos, and so their map.
    """
    check_unchanged(run, gallery)
    if own is not None:
        check_protocols(own, gallery)
    index = gallery_index(run, gallery)
    if not has_photo_vectors(run, index, gallery, "test"):  # embedding them would take too long here
        return Retriever(index, gallery)
    vectors = photo_vectors(run, index, gallery, "test")
    return Retriever(index, gallery, vectors=vectors, atlas=kept_map(run, index, gallery))


def listen(port: int) -> socket.socket:
    """Take a port of 127.0.0.1, so that no other machine can connect; 0 takes a free one. ConfigError: it is taken."""
    taken = socket.socket()
    if os.name != "nt":  # there it would share the port with another program
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(("127.0.0.1", port))
        taken.listen(128)
    except (OSError, OverflowError) as error:
        taken.close()
        problem = f"port {port} of 127.0.0.1 cannot be used ({getattr(error, 'strerror', None) or error})"
        raise ConfigError(
            problem, fix="another program has it, perhaps this app; pass another one: --port 8867"
        ) from None
    return taken


@contextmanager
def renderers_end() -> Iterator[None]:
    """End the processes which render meshes with the process itself."""
    try:
        yield
    finally:
        _end_renderers()


def _end_renderers() -> None:
    """End the idle processes that rendered meshes; they would stay for minutes, also without this one."""
    if (pool := reusable_executor._executor) is not None:
        pool.shutdown(wait=False, kill_workers=True)


def serve(retriever: Retriever, words: str, listener: socket.socket, tab: bool = True) -> None:
    """Run the app on a port that :func:`listen` took, until Ctrl-C or SIGTERM; ``tab`` opens it in a web browser."""
    pages, worker = application(retriever, words)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    print(f"{words}\n{address} (stop it with Ctrl+C)", flush=True)
    _end_renderers()
    if tab:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    config = uvicorn.Config(
        pages, log_level="warning", access_log=False, ws="none", lifespan="off", server_header=False,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
    if not worker.stop(seconds=0.5):
        os._exit(0)  # a search that goes on would keep the process
