"""A folder of meshes with photos and masks, as a user would have one, in small."""

from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

from cmiclib import geometry
from cmiclib.geometry.render import render_views

PRIMITIVES = {
    "box/flat.obj": trimesh.creation.box((2, 0.4, 1)),
    "box/tall.PLY": trimesh.creation.box((0.5, 2, 0.8)),
    "box/cube.glb": trimesh.creation.box((1, 1, 1.2)),
    "box/deep/plank.off": trimesh.creation.box((3, 0.2, 0.6)),
    "box/post.stl": trimesh.creation.box((0.3, 3, 0.3)),
    "round/cone.stl": trimesh.creation.cone(1, 2, sections=17),
    "round/tube.Obj": trimesh.creation.cylinder(0.4, 2, sections=17),
    "round/ring.ply": trimesh.creation.torus(1, 0.3, 13, 7),
    "round/disc.obj": trimesh.creation.cylinder(1, 0.3, sections=17),
    "round/ball.glb": trimesh.creation.icosphere(1),
    "round/pill.obj": trimesh.creation.capsule(1.5, 0.5, count=[7, 7]),
    "stick.obj": trimesh.creation.cylinder(0.1, 2, sections=7),
    "sheet.off": trimesh.creation.box((2, 2, 0.1)),
}


def write_meshes(root: Path, count: int = len(PRIMITIVES)) -> list[str]:
    """Write the first primitives below a folder; return their ids."""
    for name, mesh in list(PRIMITIVES.items())[:count]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_bytes(mesh, path.suffix.lower()[1:]))
    return [name.rpartition(".")[0] for name in list(PRIMITIVES)[:count]]


def as_bytes(mesh: trimesh.Trimesh, kind: str) -> bytes:
    data = mesh.export(file_type=kind)
    return data.encode() if isinstance(data, str) else data


def write_photos(photos: Path, masks: Path | None, shape_ids: list[str], each: int = 6, side: int = 64) -> None:
    """Write photos of shapes, each a coloured view on another colour: ``<shape id>/<k>.jpg`` and its mask as PNG."""
    rng = np.random.default_rng(0)
    meshes = {name.rpartition(".")[0]: mesh for name, mesh in PRIMITIVES.items()}
    for shape_id in shape_ids:
        views = render_views(geometry.normalise(meshes[shape_id]), side)
        for k in range(each):
            view = views[rng.integers(12)]
            mask = view < 255
            paint, ground = rng.permutation([(220, 60, 40), (40, 90, 200), (90, 200, 90), (235, 220, 180)])[:2]
            image = np.where(mask[..., None], view[..., None] / 255 * paint, ground).astype(np.uint8)
            save(photos / shape_id / f"{k}.jpg", image)
            if masks is not None:
                save(masks / shape_id / f"{k}.png", mask.astype(np.uint8) * 255)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
