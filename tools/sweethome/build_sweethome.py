"""Build the shapes of the shipped benchmark: views, simplified meshes and solid voxels of every CAD model.

    python tools/sweethome/build_sweethome.py --libraries LIBS [--jobs 2]

LIBS is a folder that holds each unzipped furniture library under its name (README of data/sweethome). One file
a shape and kind is kept below data/raw/sweethome-shapes, so that an interrupted run goes on; delete that folder
to build everything anew. At the end the files are packed into data/sweethome/shapes. Archives that are there
already are never rewritten: what they lack goes into archives with the next number.
"""

import argparse
import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import trimesh
from catalogue import DISTRACTORS, MODELS, ROOT, Model, read_models
from joblib import Parallel, delayed
from PIL import Image
from tqdm import tqdm

from cmiclib import geometry
from cmiclib.benchmark.checks import check_views
from cmiclib.errors import CMICError
from cmiclib.geometry.render import render_views
from cmiclib.io.atomic import write_atomically

SIZE = 128
CACHE = ROOT / "data" / "raw" / "sweethome-shapes"
SHAPES = ROOT / "data" / "sweethome" / "shapes"
KINDS = {"views": ".png", "meshes": ".glb", "voxels": ".bits"}
FACES = (400, 800, 1600, 3200)
CELLS = (1 / 128, 1 / 64, 1 / 32)
TOLERANCE = 0.001  # of modified Hausdorff distance beyond that of two samples of one surface, radius 1
CHANGES = "normalised, simplified, textures replaced by their mean colour; rendered as views and photos"
LICENCE_PAGES = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-3.0-US": "https://creativecommons.org/licenses/by/3.0/us/",
}


def smallest_mesh(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with as few faces as keep its surface within TOLERANCE; else the closest one tried."""
    surface, again = geometry.sample_points(mesh, 20_000, seed=0), geometry.sample_points(mesh, 20_000, seed=1)
    bound = geometry.modified_hausdorff(surface, again) + TOLERANCE
    tried = []
    for faces in FACES:
        for cell in CELLS:
            small = geometry.simplify(mesh, faces, cell)
            distance = geometry.modified_hausdorff(surface, geometry.sample_points(small, 20_000, seed=1))
            if len(small.faces) <= 1.1 * faces:
                if distance <= bound:
                    return small
                tried.append((distance, len(tried), small))
    return min(tried)[2]


def build(model: Model, libraries: Path) -> str:
    """Write those of a shape's three files that are not there yet; return what is wrong with it, if anything."""
    files = {kind: CACHE / kind / f"{model.shape_id}{suffix}" for kind, suffix in KINDS.items()}
    missing = [kind for kind, file in files.items() if not file.is_file()]
    if not missing:
        return ""
    try:
        mesh = geometry.load_mesh(libraries / model.obj_path)
        if model.model_rotation:
            turn = np.eye(4)
            turn[:3, :3] = np.array(model.model_rotation.split(), float).reshape(3, 3)
            mesh.apply_transform(turn)
        mesh = geometry.normalise(mesh)
        views = render_views(mesh, SIZE)
        check_views(views, model.shape_id)
    except CMICError as error:
        return f"{model.shape_id}: {error}"
    if (views < 255).mean(axis=(1, 2)).min() < 0.002:
        return f"{model.shape_id}: a view is almost empty"
    make = {
        "views": lambda: png_strip(views),
        "meshes": lambda: geometry.export_glb(smallest_mesh(mesh)),
        "voxels": lambda: geometry.pack_voxels(geometry.voxelise(mesh)).tobytes(),
    }
    for kind in missing:
        content = make[kind]()
        write_atomically(files[kind], lambda temporary, content=content: temporary.write_bytes(content))
    return ""


def png_strip(views: np.ndarray) -> bytes:
    """Views (12, S, S) one below the other, losslessly."""
    file = io.BytesIO()
    Image.fromarray(views.reshape(-1, views.shape[2])).save(file, "PNG", optimize=True)
    return file.getvalue()


def pack(shape_ids: list[str]) -> None:
    """Append what the archives lack as new archives; the same files always give the same bytes."""
    SHAPES.mkdir(parents=True, exist_ok=True)
    for kind, suffix in KINDS.items():
        archives = sorted(SHAPES.glob(f"{kind}-*.zip"))
        packed = {name for archive in archives for name in zipfile.ZipFile(archive).namelist()}
        names = sorted({f"{shape_id}{suffix}" for shape_id in shape_ids} - packed)
        if not names:
            continue
        method = zipfile.ZIP_STORED if kind == "views" else zipfile.ZIP_LZMA
        with zipfile.ZipFile(SHAPES / f"{kind}-{len(archives):02d}.zip", "w", method) as archive:
            for name in tqdm(names, desc=f"packing {kind}"):
                archive.writestr(zipfile.ZipInfo(name), (CACHE / kind / name).read_bytes(), method)


def write_tables(models: list[Model], distractors: set[str]) -> None:
    """Write `shapes.csv` and `ATTRIBUTION.csv`."""
    with (SHAPES.parent / "shapes.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["shape_id", "category", "name", "creator", "licence", "source", "group", "distractor"])
        for m in models:
            values = (m.shape_id, m.category, m.name, m.creator, m.licence, m.source, m.group)
            rows.writerow([*values, m.shape_id in distractors])
    with (SHAPES.parent / "ATTRIBUTION.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["shape_id", "model", "creator", "licence", "licence_page", "source", "changes"])
        for m in models:
            page = LICENCE_PAGES[m.licence.split(" ")[0]]
            source = f"Sweet Home 3D furniture library {m.source}"
            rows.writerow([m.shape_id, m.name, m.creator, m.licence, page, source, CHANGES])


def main() -> None:
    """Build, pack, and list what had to be left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--libraries", type=Path, required=True, help="folder that holds the unzipped libraries")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    distractors = read_models(DISTRACTORS)
    models = sorted([*read_models(MODELS), *distractors], key=lambda m: m.shape_id)
    jobs = (delayed(build)(m, args.libraries) for m in models)
    done = tqdm(Parallel(args.jobs, return_as="generator")(jobs), total=len(models), desc="shapes")
    problems = dict(zip((m.shape_id for m in models), done, strict=True))
    models = [m for m in models if not problems[m.shape_id]]
    pack([m.shape_id for m in models])
    write_tables(models, {m.shape_id for m in distractors})
    print("\n".join(p for p in problems.values() if p))
    print(f"{len(models)} shapes in {SHAPES}, {len(problems) - len(models)} left out")


if __name__ == "__main__":
    main()
