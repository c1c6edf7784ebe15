"""A folder of meshes, ready to be searched: views of :mod:`cmiclib.sources.own.kept`, and their vectors, kept as well.

Vectors are kept by what the views were made of, and by what embeds them; so a new file costs its own embedding only.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from ..benchmark import Benchmark, file_sha256
from ..embed import default_device, embed_gallery, precision_on
from ..io.atomic import write_atomically
from ..io.code import code_digest
from ..sources.own.kept import digest_of
from ..training.run import Run
from . import ShapeIndex
from .cache import ENCODING

AT_ONCE = 8
"""Shapes that are embedded between two writings."""


def kept_index(
    run: Run, benchmark: Benchmark, digests: dict[str, str], cache: Path, progress: bool = True
) -> ShapeIndex:
    """Return the index of a gallery; only shapes that this run's encoder never saw are embedded.

    Args:
        run: its encoders embed views and photos.
        benchmark: the gallery.
        digests: shape id → what its views depend on.
        cache: a folder that this function may fill.
        progress: show a bar.

    Raises:
        CheckpointError: weights or index cannot be read.
        StorageError: the disk is full.
    """
    device = default_device()
    precision = precision_on(device, run.config)
    weights, options = file_sha256(run.path / "model.safetensors"), run.config.model.model_dump_json()
    encoder = digest_of([weights, options, code_digest(ENCODING), device.type, precision])
    path = benchmark.path / f"index-{encoder}.safetensors"
    if path.is_file():
        return ShapeIndex.load(path, device)
    model, ids = run.model(device), benchmark.shapes.shape_id.tolist()
    files = [cache / "vectors" / encoder / digests[name] for name in ids]
    todo = [row for row, file in enumerate(files) if not file.is_file()]
    with tqdm(total=len(todo), desc="shapes embedded", disable=not progress or not todo) as bar:
        for start in range(0, len(todo), AT_ONCE):
            rows = todo[start : start + AT_ONCE]
            vectors = embed_gallery(model, benchmark.views[rows], run.config, precision=precision).numpy()
            for row, vector in zip(rows, vectors, strict=True):
                write_atomically(files[row], partial(save_file, {"vectors": vector}))
            bar.update(len(rows))
    views = torch.from_numpy(np.stack([load_file(file)["vectors"] for file in files]))  # (N, V, d)
    attention, sha256 = model.attention_weight.detach().cpu(), benchmark.meta["sha256"]["views.npy"]
    index = ShapeIndex(views, attention, ids, model, run.config, precision, sha256)
    index.save(path)
    return index
