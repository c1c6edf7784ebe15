"""A run's index of a gallery: loaded if present, else made and kept.

The file's name holds a hash of all that its content depends on, so other data, weights, options or code, another device
or another precision make another file.
"""

import hashlib

import torch

from ..benchmark import Benchmark, file_sha256
from ..embed import default_device, precision_on
from ..io.code import code_digest
from ..training.features import FOLDER, FrozenFeatures
from ..training.run import Run
from . import ShapeIndex

ENCODING = ("augment", "crops", "embed", "encoders", "engine", "index", "model", "weights")
"""The modules and rooms that decide what a picture's vector is, and how it is kept."""


def gallery_index(run: Run, benchmark: Benchmark, device: torch.device | None = None) -> ShapeIndex:
    """Return a finished run's index of its own benchmark's whole gallery, or of another one, kept in the run's folder.

    Pictures are embedded on ``device``, by default the first GPU, else the CPU. BenchmarkError where the kept index
    does not belong to the gallery, CheckpointError where weights or index cannot be read.
    """
    device = device or default_device()
    parts = (
        file_sha256(run.path / "model.safetensors"), benchmark.hash, code_digest(ENCODING), run.config.digest(),
        run.config.model.model_dump_json(), device.type, precision_on(device, run.config),
    )  # fmt: skip
    path = run.path / f"index-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:10]}.safetensors"
    if path.is_file():
        index = ShapeIndex.load(path, device)
        index.check_gallery(benchmark)
        return index
    model = run.model(device)
    maps = FrozenFeatures(model, benchmark, run.config, run.path.parent / FOLDER).gallery(keep=False)
    index = ShapeIndex.build(model, benchmark, run.config, maps=maps)
    index.save(path)
    return index
