"""Results that several chapters use and that take a while: loaded if present, else computed and kept.

A file's name holds a hash of all that its content depends on, so a change of data, weights or code makes a new file.
"""

import hashlib
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..benchmark import Benchmark, file_sha256
from ..embed import default_device
from ..evaluation.baselines import untrained_scores
from ..io.provenance import code_digest
from ..training.run import Run, write_atomically
from . import ShapeIndex

ENCODING = ("augment", "embed", "encoders", "folded", "model", "weights")
"""The modules that decide what a picture's vector is."""


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
    index = ShapeIndex.build(run.model(default_device()), benchmark, run.config)
    index.save(path)
    return index


def kept_untrained_scores(benchmark: Benchmark, split: str, folder: Path) -> dict[str, Tensor]:
    """Return the untrained scores of a split's photos over the gallery, each (Q, N) float32.

    Args:
        benchmark: photos and gallery.
        split: train, val, test or all.
        folder: where the scores are kept.

    Raises:
        CheckpointError: the weights of the untrained network are missing.
        StorageError: the disk is full.
    """
    path = folder / f"untrained-{split}-{_key(benchmark.hash, code_digest(['baselines', 'weights']))}.safetensors"
    if path.is_file():
        with suppress(OSError, SafetensorError):  # a damaged one is made again
            return load_file(path)
    scores = untrained_scores(benchmark.images[benchmark.rows(split)], benchmark.views)  # type: ignore[arg-type]
    write_atomically(path, lambda temporary: save_file(scores, temporary))
    return scores


def _key(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:10]
