"""The same photos with less said about the object: a box around it, with or without an automatic mask.

The benchmark's photos are squares around the object, as a box gives them. So without a mask they are what a box alone
gives, and with :func:`cmiclib.io.foreground.automatic_mask`, what it gives where that mask is asked for.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from torch import Tensor

from ..benchmark import Benchmark
from ..io.code import code_digest
from ..io.foreground import automatic_mask
from ..metrics import summarise
from ..training.features import kept_file
from .report import Scored, gain, photo_rows

KINDS = ("automatic", "box")
UNTRAINED = "untrained_cells"
"""The better of the two untrained networks, with which each kind is compared."""


def other_masks(benchmark: Benchmark, split: str, folder: Path) -> Benchmark:
    """Return the benchmark with each photo of a split twice: first all with automatic masks, then without a mask.

    An automatic mask starts from the box of the exact one; ``folder`` keeps them. A photo without a known mask gets
    none. The column ``mask`` of the queries names the kind, one of `KINDS`. BenchmarkError for a split without photos.
    """
    rows = photo_rows(benchmark, split)
    digests = {**benchmark.meta["sha256"]}
    made_from = (
        f"{digests['queries.csv']} {digests['queries.npy']} {code_digest(['evaluation/masks', 'io/foreground'])}"
    )
    key = hashlib.sha256(f"{made_from} {split}".encode()).hexdigest()
    images = np.concatenate([benchmark.images[rows]] * len(KINDS))  # (2·Q, 4, S, S)
    half, size = len(rows), benchmark.size

    def make() -> dict[str, Tensor]:
        found = Parallel(n_jobs=-1, prefer="threads")(delayed(from_box)(image) for image in images[:half])
        return {"bits": torch.from_numpy(np.packbits(np.stack(found).reshape(half, -1), axis=1))}

    bits = kept_file(folder / f"boxes-{split}-{key[:10]}.safetensors", make)["bits"].numpy()
    images[:half, 3] = 255 * np.unpackbits(bits, axis=1, count=size * size).reshape(half, size, size)
    images[half:, 3] = 255
    photos = benchmark.queries.iloc[rows]
    queries = [photos.assign(query_id=photos.query_id + f" {kind}", mask=kind) for kind in KINDS]
    arrays = {name: array for name, array in benchmark.arrays.items() if name != "amodal.npy"}
    meta = benchmark.meta | {"sha256": digests | {"queries.npy": key, "queries.csv": key}, "queries": len(images)}
    return replace(
        benchmark, meta=meta, queries=pd.concat(queries, ignore_index=True), arrays=arrays | {"queries.npy": images},
        all_categories=benchmark.categories, all_photographed=benchmark.photographed,
    )  # fmt: skip


def from_box(image: np.ndarray) -> np.ndarray:
    """Return the automatic mask, bool (S, S), of a photo (4, S, S) uint8, from the box of its mask."""
    known = image[3] >= 128
    if known.all() or not known.any():
        return np.ones_like(known)
    x, y, width, height = cv2.boundingRect(known.astype(np.uint8))
    rgb = np.ascontiguousarray(image[:3].transpose(1, 2, 0))
    return automatic_mask(rgb, (x, y, x + width, y + height)).mask


def by_mask(also: Scored, untrained: Mapping[str, Tensor]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the figures of each kind of mask, on photos of seen and unseen shapes.

    ``also`` and ``untrained`` are scores of the photos of :func:`other_masks`. By kind and part: ``trained`` and
    ``untrained``, each with Top-1 and Top-10 and their intervals, and ``gain``, as `gain` returns it.
    """
    photos = also.benchmark.queries.iloc[also.rows]
    rival = Scored(untrained[UNTRAINED], also.rows, also.benchmark)
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in KINDS:
        for part, seen in (("seen", True), ("unseen", False)):
            mask = ((photos["mask"] == kind) & (photos.seen == seen)).to_numpy()
            if mask.any():
                figures.setdefault(kind, {})[part] = beside(also.part(mask), rival.part(mask))
    return figures


def beside(trained: Scored, untrained: Scored) -> dict[str, Any]:
    """Return ``trained`` and ``untrained``, each with Top-1, Top-10 and intervals, and ``gain``, on the same photos."""
    return {"trained": _tops(trained), "untrained": _tops(untrained), "gain": gain(trained, untrained)}


def _tops(scored: Scored) -> dict[str, float]:
    shapes, values = scored.benchmark.queries.shape_id.to_numpy()[scored.rows], scored.metrics()
    return summarise({name: values[name] for name in ("top1", "top10")}, shapes)
