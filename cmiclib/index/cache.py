"""Results that several chapters use and that take a while: loaded if present, else computed and kept.

A file's name holds a hash of all that its content depends on, so a change of data, weights or code makes a new file.
"""

import hashlib

from ..benchmark import Benchmark, file_sha256
from ..embed import default_device, head_vectors
from ..io.provenance import code_digest
from ..training.features import FOLDER, FrozenFeatures
from ..training.run import Run
from . import ShapeIndex

ENCODING = ("augment", "embed", "encoders", "engine", "model", "weights")
"""The modules and rooms that decide what a picture's vector is."""


def gallery_index(run: Run, benchmark: Benchmark) -> ShapeIndex:
    """Return a run's index of a benchmark's whole gallery, kept in the run's folder.

    Args:
        run: a finished run.
        benchmark: its own benchmark, or another gallery.

    Raises:
        CheckpointError: weights or index cannot be read.
        StorageError: the disk is full.
    """
    key = _key(file_sha256(run.path / "model.safetensors"), benchmark.hash, code_digest(ENCODING))
    path = run.path / f"index-{key}.safetensors"
    if path.is_file():
        return ShapeIndex.load(path)
    model = run.model(default_device())
    maps = FrozenFeatures(model, benchmark, run.config, run.path.parent / FOLDER).gallery(keep=False)
    views = head_vectors(model.view_encoder, maps, run.config).unflatten(0, benchmark.views.shape[:2])
    attention = model.attention_weight.detach().cpu()
    index = ShapeIndex(views, attention, benchmark.shapes.shape_id.tolist(), model, run.config)
    index.save(path)
    return index


def _key(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:10]
