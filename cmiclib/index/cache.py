"""A run's index of a gallery: loaded if present, else made and kept.

The file's name holds a hash of all that its content depends on, so other data, weights, options or code, another device
or another precision make another file. It lies in the run's folder; the index of a folder of meshes, and that of a run
which cannot be written to or came with the repository, lies in the user's cache.
"""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ..benchmark import Benchmark, file_sha256
from ..embed import default_device, embed_gallery, precision_on
from ..io.atomic import write_atomically
from ..io.code import WEIGHTS, code_digest
from ..model import CMIC
from ..sources.own.kept import cache_folder
from ..training.features import FOLDER, FrozenFeatures, kept_file
from ..training.run import Run
from . import ShapeIndex

ENCODING = ("augment", "crops", "embed", "encoders", "engine", "index", "model", "weights")
"""The modules and rooms that decide what a picture's vector is, and how it is kept."""
AT_ONCE = 8
"""Shapes of a folder that are embedded between two writings."""


def gallery_index(
    run: Run, benchmark: Benchmark, device: torch.device | None = None, progress: bool = False
) -> ShapeIndex:
    """Return a finished run's index of its own benchmark's whole gallery, or of another one.

    Pictures are embedded on ``device``, by default the first GPU, else the CPU; ``progress`` shows a bar for a folder
    of meshes. BenchmarkError where the kept index does not belong to the gallery, CheckpointError where weights or
    index cannot be read.
    """
    device = device or default_device()
    encoder = _encoder(run, device)
    path = _folder(run, benchmark) / f"index-{_digest(encoder, benchmark.hash)[:10]}.safetensors"
    if path.is_file():
        index = ShapeIndex.load(path, device)
        index.check_gallery(benchmark)
        return index
    model = run.model(device)
    if "digests" in benchmark.meta:
        index = ShapeIndex.build(model, benchmark, run.config, vectors=_kept(encoder, model, benchmark, run, progress))
    else:
        maps = FrozenFeatures(model, benchmark, run.config, run.path.parent / FOLDER).gallery(keep=False)
        index = ShapeIndex.build(model, benchmark, run.config, maps=maps)
    index.save(path)
    return index


def photo_vectors(run: Run, index: ShapeIndex, benchmark: Benchmark, split: str) -> Tensor:
    """Return the vectors (Q, d) of a split's photos, in the order of ``benchmark.rows``: embedded once and kept.

    ``index`` is what `gallery_index` returned for the run.
    """
    rows = benchmark.rows(split)  # type: ignore[arg-type]
    made = kept_file(
        _photo_file(run, index, benchmark, split), lambda: {"vectors": index.embed(benchmark.images[rows])}
    )
    return made["vectors"]


def has_photo_vectors(run: Run, index: ShapeIndex, benchmark: Benchmark, split: str) -> bool:
    """Whether `photo_vectors` need embed nothing."""
    return _photo_file(run, index, benchmark, split).is_file()


def kept_for(
    run: Run, index: ShapeIndex, benchmark: Benchmark, name: str, make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return tensors that follow from the run's vectors of a benchmark: made once and kept beside them as ``name``."""
    key = _digest(_encoder(run, index.device), benchmark.hash)
    return kept_file(_folder(run, benchmark) / f"{name}-{key[:10]}.safetensors", make)


def _photo_file(run: Run, index: ShapeIndex, benchmark: Benchmark, split: str) -> Path:
    sha256 = benchmark.meta["sha256"]
    key = _digest(_encoder(run, index.device), sha256["queries.csv"], sha256["queries.npy"], split)
    return _folder(run, benchmark) / f"photos-{split}-{key[:10]}.safetensors"


def _encoder(run: Run, device: torch.device) -> str:
    return _digest(
        file_sha256(run.path / "model.safetensors"), code_digest(ENCODING), run.config.digest(),
        run.config.model.model_dump_json(), device.type, precision_on(device, run.config),
    )  # fmt: skip


def _digest(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:24]


def _folder(run: Run, benchmark: Benchmark) -> Path:
    if "digests" in benchmark.meta:
        return benchmark.path
    if run.path.resolve().is_relative_to(WEIGHTS) or not os.access(run.path, os.W_OK):
        return cache_folder() / "indexes"
    return run.path


def _kept(encoder: str, model: CMIC, benchmark: Benchmark, run: Run, progress: bool) -> Tensor:
    """Return the vectors (N, V, d) of a folder of meshes; each shape is embedded once, whatever folder it lies in."""
    folder, digests = benchmark.path.parents[1] / "vectors" / encoder, benchmark.meta["digests"]
    files = [folder / digests[name] for name in benchmark.shapes.shape_id]
    todo = [row for row, file in enumerate(files) if not file.is_file()]
    with tqdm(total=len(todo), desc="shapes embedded", disable=not progress or not todo) as bar:
        for start in range(0, len(todo), AT_ONCE):
            rows = todo[start : start + AT_ONCE]
            vectors = embed_gallery(model, benchmark.views[rows], run.config).numpy()
            for row, vector in zip(rows, vectors, strict=True):
                write_atomically(files[row], partial(save_file, {"vectors": vector}))
            bar.update(len(rows))
    return torch.from_numpy(np.stack([load_file(file)["vectors"] for file in files]))
