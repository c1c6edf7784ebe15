"""A small benchmark of trimesh's primitives, complete in every file."""

from pathlib import Path

import numpy as np
import trimesh

from cmiclib import geometry
from cmiclib.benchmark import Benchmark
from cmiclib.benchmark.writer import BenchmarkWriter
from cmiclib.geometry.render import render_views

SIZE = 32


_PRIMITIVES = {
    "box/flat": ("box", trimesh.creation.box((2, 0.4, 1))),
    "box/tall": ("box", trimesh.creation.box((0.5, 2, 0.8))),
    "box/cube": ("box", trimesh.creation.box((1, 1, 1.2))),
    "round/cone": ("round", trimesh.creation.cone(1, 2, sections=17)),
    "round/tube": ("round", trimesh.creation.cylinder(0.4, 2, sections=17)),
    "round/ring": ("round", trimesh.creation.torus(1, 0.3, 13, 7)),
    "odd/corner": ("odd", trimesh.util.concatenate(
        [trimesh.creation.box((2, 0.3, 0.3)),
         trimesh.creation.box((0.3, 1.5, 0.3)).apply_translation((0.85, 0.7, 0))]
    )),
    "odd/corner-long": ("odd", trimesh.util.concatenate(
        [trimesh.creation.box((2, 0.3, 0.3)),
         trimesh.creation.box((0.3, 2.5, 0.3)).apply_translation((0.85, 1.2, 0))]
    )),
}  # fmt: skip


def write_tiny_benchmark(path: Path, photos: int = 6) -> Benchmark:
    """8 shapes of 3 categories; 7 have photos, "odd/corner" and its variant "odd/corner-long" are unseen.

    Photo k of a seen shape is test (k = 2), val (k = 3) or train; of an unseen one test (even) or val (odd).
    A photo is a coloured view on a coloured background, jittered, with its mask. "round/ring" is a distractor.
    """
    rng = np.random.default_rng(0)
    writer = BenchmarkWriter(path, name="tiny", source="trimesh primitives", licence="CC0-1.0", size=SIZE)
    photographed = []
    for shape_id, (category, primitive) in _PRIMITIVES.items():
        mesh = geometry.normalise(primitive)
        views = render_views(mesh, SIZE)
        group = "odd/corner" if category == "odd" else shape_id
        writer.add_shape(
            shape_id, category, views, name=shape_id, creator="nobody", licence="CC0-1.0", source="trimesh",
            group=group, points=geometry.sample_points(mesh),
            voxels=geometry.pack_voxels(geometry.voxelise(mesh)), mesh=geometry.export_glb(mesh),
        )  # fmt: skip
        if shape_id != "round/ring":
            photographed.append((shape_id, category, views))
    for shape_id, category, views in photographed:
        for k in range(photos):
            view = np.roll(views[rng.integers(12)], rng.integers(-2, 3, 2), axis=(0, 1))
            mask = view < 255
            paint, ground = rng.integers(40, 255, (2, 3, 1, 1))
            image = np.where(mask, view / 255 * paint, ground)
            seen = category != "odd"
            split = {2: "test", 3: "val"}.get(k % 6, "train") if seen else ("test", "val")[k % 2]
            writer.add_query(
                f"{shape_id.replace('/', '__')}__{k:02d}", shape_id, category,
                np.concatenate([image, mask[None] * 255]).astype(np.uint8),
                split=split, truncated=k == 5, occluded=k == 4, photo=f"{shape_id}-{k}.jpg",
                source="drawn", amodal=mask.astype(np.uint8) * 255,
            )  # fmt: skip
    return writer.finish()
