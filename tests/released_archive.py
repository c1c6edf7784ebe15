"""The layout of the authors' archive, in small."""

import json
import pickle

import numpy as np
from PIL import Image

from cmiclib import geometry


def write_binvox(path, grid):
    flat = grid.transpose(0, 2, 1).ravel().astype(np.uint8)
    ends = np.flatnonzero(np.diff(flat, append=2))
    runs = []
    for length, value in zip(np.diff(ends, prepend=-1), flat[ends], strict=True):
        while length > 0:
            runs.append((value, min(length, 255)))
            length -= 255
    head = b"#binvox 1\ndim 128 128 128\ntranslate 0 0 0\nscale 1\ndata\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + np.array(runs, np.uint8).tobytes())


def write_archive(benchmark, root):
    """A `data/pix3d` of the tiny benchmark: names and folders as in the archive, photos already cropped."""
    shapes, queries = benchmark.shapes, benchmark.queries
    renderings: dict = {}
    for row, shape in shapes.iterrows():
        category, _, instance = shape.shape_id.partition("/")
        as_pictures = [Image.fromarray(view) for view in np.array(benchmark.views[row])]
        renderings.setdefault(category, {})[instance] = as_pictures if row % 2 else np.array(benchmark.views[row])
        write_binvox(root / f"model_std_bin128/{shape.shape_id}.binvox", geometry.unpack_voxels(benchmark.voxels[row]))
        (root / f"model_std_ptc10k_npy/{category}").mkdir(parents=True, exist_ok=True)
        np.save(root / f"model_std_ptc10k_npy/{shape.shape_id}.npy", benchmark.points[row])
    (root / "rendering_pix3d.pkl").write_bytes(pickle.dumps(renderings, 4))
    lists: dict = {"train": [], "test": []}
    for row, query in queries.iterrows():
        split = "test" if query.split == "test" else "train"
        mask = "mask_ocrnet" if split == "train" else "mask"
        for folder, pixels in (
            ("img", benchmark.images[row][:3].transpose(1, 2, 0)),
            (mask, benchmark.images[row][3]),
        ):
            (root / folder / query.category).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.array(pixels)).save(root / folder / query.category / f"{row:04}.png")
        lists[split].append({
            "img": f"img/{query.category}/{row:04}.png", "mask": f"mask/{query.category}/{row:04}.png",
            "category": query.category, "model": f"model/{query.shape_id}/model.obj", "truncated": False,
        })  # fmt: skip
    for split, entries in lists.items():
        (root / f"pix3d_{split}.json").write_text(json.dumps(entries))
    return root
