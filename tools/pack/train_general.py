"""Train `data/weights/general`, for galleries that nobody trained on: one head, on photos of Sweet Home and Pix3D.

    python tools/pack/train_general.py --pix3d ROOT --work DIR [--without sweethome|pix3d] [KEY=VALUE …]

Sweet Home's photos lie in the repository; those of Pix3D's shapes are rendered, from cameras as in its annotation.
Validation photos choose the step, and no photo of a shape that Sweet Home holds out as unseen is used. ``--without``
leaves one library out, to measure on it what the weights are worth for foreign shapes. Everything goes on where it
stopped; `tools/pack/pack_run.py` packs the run. ``ROOT`` holds Pix3D in its official layout.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cmiclib.benchmark import Benchmark
from cmiclib.benchmark.writer import BenchmarkWriter
from cmiclib.config import profile
from cmiclib.sources import PrepareOptions
from cmiclib.sources.building import build
from cmiclib.sources.meshes import prepare_mesh
from cmiclib.sources.pix3d import LICENCE, find_shapes
from cmiclib.sources.pix3d.frames import load_whole
from cmiclib.sources.pix3d.records import chosen_categories
from cmiclib.sources.rendered import prepare_synthetic
from cmiclib.sources.sweethome import open_sweethome
from cmiclib.training.loop import train

OPTIONS = PrepareOptions(size=128, allow_missing=True)
PHOTOS = 6  # rendered of each of Pix3D's shapes; the last one validates
CHANGES = ("model.fixed=256", "augment.mask_drop=0.35", "train.steps=1000", "train.eval_every=250")


def rendered(root: Path, work: Path, poses: Path) -> Benchmark:
    """Return photos rendered of Pix3D's shapes, made now or before."""
    gallery, made = work / "pix3d", work / f"pix3d-{PHOTOS}"
    if not gallery.exists():
        shapes, empty = find_shapes(root, chosen_categories("all"))
        make = partial(prepare_mesh, load=load_whole, measured=False)  # training reads no points and no voxels
        meshes = [replace(shape, make=make) for shape in shapes.values()]
        writer = BenchmarkWriter(gallery, name="pix3d", source="Pix3D", licence=LICENCE, size=OPTIONS.size)
        build(writer, meshes, [], OPTIONS, empty)
    if not made.exists():
        prepare_synthetic(gallery, made, OPTIONS, photos=PHOTOS, poses=poses)
    return Benchmark.open(made)


def join(output: Path, parts: Sequence[Benchmark]) -> Benchmark:
    """Put benchmarks together, without test photos and without photos of unseen shapes; ids get a name in front."""
    if output.exists():
        return Benchmark.open(output)
    source, licence = ("; ".join(dict.fromkeys(str(part.meta[key]) for part in parts)) for key in ("source", "licence"))
    writer = BenchmarkWriter(
        output, name="+".join(part.name for part in parts), source=source, licence=licence, size=parts[0].size,
        extra={"parts": [part.hash for part in parts]},
    )  # fmt: skip
    with writer:
        for part in parts:
            for row, shape in enumerate(part.shapes.to_dict("records")):
                texts = {str(name): str(text) for name, text in shape.items()}
                texts |= {name: f"{part.name}/{texts[name]}" for name in ("shape_id", "group")}
                if writer.needs_shape(texts["shape_id"]):
                    writer.add_shape(**texts, views=part.views[row])
            for row, query in enumerate(part.queries.to_dict("records")):
                name, seen = f"{part.name}/{query.pop('query_id')}", query.pop("seen")
                if query["split"] != "test" and seen and writer.needs_query(name):
                    query["shape_id"] = "|".join(f"{part.name}/{shape}" for shape in query["shape_id"].split("|"))
                    whole = part.amodal[row] if "amodal.npy" in part.arrays else None
                    writer.add_query(name, **query | {"image": part.images[row], "photo": "", "amodal": whole})
        return writer.finish()


def main() -> None:
    """Make the photos, join the libraries, train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pix3d", type=Path, required=True, metavar="ROOT")
    parser.add_argument("--poses", type=Path, help="an annotation with cameras; default: ROOT/pix3d.json")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--without", choices=("sweethome", "pix3d"))
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="of the configuration")
    given = parser.parse_args()
    parts = [] if given.without == "sweethome" else [open_sweethome()]
    parts += (
        []
        if given.without == "pix3d"
        else [rendered(given.pix3d, given.work, given.poses or given.pix3d / "pix3d.json")]
    )
    name = f"without-{given.without}" if given.without else "all"
    joined = join(given.work / f"photos-{name}", parts)
    config = profile("fit", [*CHANGES, *given.changes])
    output = given.work / "-".join([f"run-{name}", *given.changes])
    run = train(config, joined, output, resume=True, features=given.work / "features", progress=True)
    print(f"{len(joined.shapes)} shapes, {len(joined.queries)} photos: {run.path}")


if __name__ == "__main__":
    main()
