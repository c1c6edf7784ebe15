"""``cmic prepare SOURCE``: convert raw data to a prepared benchmark."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import SourceError

if TYPE_CHECKING:
    from ..sources.cars3d import CarSet

Meshes = Literal["first", "pose"]

prepare = typer.Typer(help="Convert raw data to a prepared benchmark.", no_args_is_help=True)


@prepare.command("sweethome")
def prepare_sweethome(
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="the folder to write; default: inside data/prepared")
    ] = None,
    input: Annotated[
        Path | None, typer.Option(metavar="DIR", help="the packed benchmark; default: data/sweethome")
    ] = None,
    size: Annotated[int | None, typer.Option(min=16, help="side of photos and views in pixels; default: 128")] = None,
    shapes: Annotated[
        int | None, typer.Option(min=12, help="unpack only this many shapes, always the same ones")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="number of processes")] = 2,
) -> None:
    """Unpack the shipped benchmark with models of Sweet Home 3D."""
    from ..sources import sweethome

    if output is None:
        if input is not None or size is not None:
            raise SourceError("--input and --size need --output", fix="pass --output as well")
        benchmark = sweethome.open_sweethome(shapes=shapes, jobs=jobs)
    else:
        benchmark = sweethome.prepare_sweethome(output, input, size or 128, shapes, jobs)
    typer.echo(f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos: {benchmark.path}")


@prepare.command("release")
def prepare_release(
    input: Annotated[Path, typer.Option(metavar="DIR", help="a folder of the archive, such as data/pix3d")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="the folder to write")],
    size: Annotated[int, typer.Option(min=32, help="side of photos and views in pixels")] = 224,
    val: Annotated[float, typer.Option(min=0.0, max=0.9, help="share of the training photos for validation")] = 0.1,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="skip what is missing")] = False,
) -> None:
    """Convert the authors' released archive."""
    from ..sources.release import prepare_release

    benchmark = prepare_release(input, output, size=size, val=val, allow_missing=allow_missing)
    typer.echo(f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos: {benchmark.path}")


@prepare.command("pix3d")
def prepare_pix3d(
    input: Annotated[Path, typer.Option(metavar="DIR", help="the unpacked archive, with pix3d.json and model/")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="the folder to write")],
    annotation: Annotated[
        Path | None, typer.Option(metavar="FILE", help="annotation to read instead of pix3d.json")
    ] = None,
    categories: Annotated[str, typer.Option(help="all, paper (bed, chair, sofa, table), or a list")] = "all",
    clean: Annotated[bool, typer.Option("--clean", help="leave out truncated and occluded photos")] = False,
    meshes: Annotated[
        Meshes, typer.Option(help="first: the first OBJ of a folder; pose: each OBJ is a shape")
    ] = "first",
    split: Annotated[str, typer.Option(help="photo, shape, or a CSV file with the columns name and split")] = "photo",
    size: Annotated[int, typer.Option(min=32, help="side of photos and views in pixels")] = 224,
    jobs: Annotated[int, typer.Option(min=1, help="number of processes")] = 2,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="skip what is missing")] = False,
) -> None:
    """Prepare Pix3D from its official archive."""
    from ..sources.pix3d import prepare_pix3d

    benchmark, left_out = prepare_pix3d(
        input, output, annotation=annotation, categories=categories, clean=clean, meshes=meshes, split=split,
        size=size, jobs=jobs, allow_missing=allow_missing,
    )  # fmt: skip
    typer.echo(f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos: {benchmark.path}")
    for reason, count in left_out.items():
        typer.echo(f"left out: {count} photos, {reason}")


Root = Annotated[
    Path, typer.Option("--input", metavar="ROOT", help="the folder that contains Anno3D, CAD and the photos")
]
Output = Annotated[Path, typer.Option(metavar="DIR", help="the folder to write")]
Anno = Annotated[Path | None, typer.Option(metavar="DIR", help="the folder of the pose pickles; default: ROOT/Anno3D")]
Shapes = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="ShapeNetCore v1, the folder that contains 02958343; default: ROOT/CAD"),
]
Size = Annotated[int, typer.Option(min=32, help="side of photos and views in pixels")]
Jobs = Annotated[int, typer.Option(min=1, help="number of processes")]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="skip what is missing, and count it")]
Val = Annotated[float, typer.Option(min=0.0, max=0.9, help="share of the training photos for validation")]


@prepare.command("stanfordcars3d")
def prepare_stanfordcars3d(
    root: Root,
    output: Output,
    anno: Anno = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="the folder that contains cars_train and cars_test; default: ROOT/StanfordCars"
        ),
    ] = None,
    shapes: Shapes = None,
    annotation: Annotated[str, typer.Option(help="v1, or v2 for the refined poses")] = "v2",
    size: Size = 224,
    val: Val = 0.1,
    jobs: Jobs = 2,
    allow_missing: AllowMissing = False,
) -> None:
    """Join the photos of Stanford Cars, the poses of StanfordCars3D and ShapeNet's models."""
    from ..sources.cars3d import STANFORD

    _cars3d(
        STANFORD, root, output, anno=anno, photos=photos, shapes=shapes, annotation=annotation, size=size, val=val,
        jobs=jobs, allow_missing=allow_missing,
    )  # fmt: skip


@prepare.command("compcars3d")
def prepare_compcars3d(
    root: Root,
    output: Output,
    anno: Anno = None,
    photos: Annotated[
        Path | None, typer.Option(metavar="DIR", help="the folder that contains image; default: ROOT/CompCars")
    ] = None,
    shapes: Shapes = None,
    size: Size = 224,
    val: Val = 0.1,
    jobs: Jobs = 2,
    allow_missing: AllowMissing = False,
) -> None:
    """Join the photos of CompCars, the poses of CompCars3D and ShapeNet's models."""
    from ..sources.cars3d import COMPCARS

    _cars3d(
        COMPCARS, root, output, anno=anno, photos=photos, shapes=shapes, size=size, val=val, jobs=jobs,
        allow_missing=allow_missing,
    )  # fmt: skip


def _cars3d(cars: "CarSet", root: Path, output: Path, **options: Any) -> None:
    from ..sources.cars3d import prepare_cars3d

    benchmark, left_out = prepare_cars3d(cars, root, output, **options)
    if any(left_out):
        typer.echo(f"left out: {len(left_out.shapes)} shapes and {len(left_out.queries)} photos")
    typer.echo(f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos: {benchmark.path}")


@prepare.command("shapenet")
def prepare_shapenet(
    input: Annotated[Path, typer.Option(metavar="ROOT", help="ShapeNetCore.v1 or ShapeNetCore.v2, unpacked")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="the folder to write")],
    synsets: Annotated[str, typer.Option(help="names and numbers joined by commas, or all")] = "bed,chair,sofa,table",
    version: Annotated[str, typer.Option(help="auto, v1 or v2")] = "auto",
    limit: Annotated[
        int | None, typer.Option(min=1, help="only this many models of each synset, the first ones")
    ] = None,
    size: Annotated[int, typer.Option(min=32, help="side of the views in pixels")] = 224,
    jobs: Annotated[int, typer.Option(min=1, help="number of processes")] = 2,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="skip models whose mesh is missing or broken")
    ] = False,
    up: Annotated[str | None, typer.Option(help="the axis that points up; default: +y")] = None,
    front: Annotated[str | None, typer.Option(help="the axis that fronts face; default: +x in v1, -z in v2")] = None,
) -> None:
    """Render ShapeNetCore as a gallery without photos, for `cmic evaluate --gallery`."""
    from ..sources.shapenet import prepare_shapenet

    benchmark, left_out = prepare_shapenet(
        input, output, synsets=synsets, version=version, limit=limit, size=size, jobs=jobs,
        allow_missing=allow_missing, up=up, front=front,
    )  # fmt: skip
    for line in left_out:
        typer.echo(f"left out: {line}", err=True)
    typer.echo(f"{len(benchmark.shapes)} shapes, {len(left_out)} left out: {benchmark.path}")


@prepare.command("folder")
def prepare_folder(
    output: Annotated[Path, typer.Option(metavar="DIR", help="the folder to write")],
    input: Annotated[
        Path | None, typer.Option(metavar="DIR", help="folder of meshes, in subfolders of any depth")
    ] = None,
    categories: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV with shape_id, category and optional facts")
    ] = None,
    up: Annotated[str | None, typer.Option(help="the axis that points up in the meshes; default: +y")] = None,
    front: Annotated[str | None, typer.Option(help="the axis that fronts face; default: +z")] = None,
    photos: Annotated[
        Path | None, typer.Option(metavar="DIR", help="folder with <shape id>/*.jpg or a photos.csv")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="folder with a PNG for each photo, under the same path")
    ] = None,
    queries: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON list of photos, for --gallery")] = None,
    gallery: Annotated[Path | None, typer.Option(metavar="DIR", help="a prepared benchmark, for --queries")] = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="side in pixels; default: 224, or that of the gallery")
    ] = None,
    val: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="share of photos for validation; default: 0.1")
    ] = None,
    test: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="share of photos for the test; default: 0.2")
    ] = None,
    auto_mask: Annotated[bool, typer.Option("--auto-mask", help="compute a mask for photos without one")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="number of processes")] = 2,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="skip what cannot be used")] = False,
) -> None:
    """Prepare your own meshes and photos, or your photos for a prepared gallery."""
    from ..sources.meshes import listed
    from ..sources.own import crops, folder

    if queries is not None and gallery is not None:
        given = {
            "--categories": categories, "--photos": photos, "--masks": masks, "--size": size, "--up": up,
            "--front": front, "--val": val, "--test": test,
        }  # fmt: skip
        _refuse(given, "--queries takes shapes and size from --gallery, and uses all photos for the test")
        benchmark, left_out = crops.prepare_crops(
            queries, gallery, output, root=input, automatic=auto_mask, jobs=jobs, allow_missing=allow_missing
        )
    elif queries is None and gallery is None and input is not None:
        if photos is None:
            given = {"--masks": masks, "--auto-mask": auto_mask or None, "--val": val, "--test": test}
            _refuse(given, "without --photos there is nothing to mask or to split")
        benchmark, left_out = folder.prepare_folder(
            input, output, categories=categories, up=up or "+y", front=front or "+z", photos=photos, masks=masks,
            size=size or 224, val=0.1 if val is None else val, test=0.2 if test is None else test,
            automatic=auto_mask, jobs=jobs, allow_missing=allow_missing,
        )  # fmt: skip
    else:
        raise SourceError("nothing to prepare", fix="pass --input, or --queries with --gallery")
    if left_out:
        typer.echo(f"left out {listed(left_out, 'files')}", err=True)
    typer.echo(f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos: {benchmark.path}")


def _refuse(options: dict[str, Any], why: str) -> None:
    """Refuse options that would have no effect, if any of them is given."""
    if given := [name for name, value in options.items() if value is not None]:
        raise SourceError(why, fix=f"leave out {', '.join(given)}")


@prepare.command("synthetic")
def prepare_synthetic(
    gallery: Annotated[Path, typer.Option(metavar="DIR", help="a prepared benchmark with meshes")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="the folder to write")],
    photos: Annotated[int, typer.Option(min=2, help="photos per shape; the last one is for validation")] = 12,
    poses: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pix3D's annotation; draws cameras like those of its photos")
    ] = None,
    seed: Annotated[int, typer.Option(help="seed; another number gives other photos")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="number of processes")] = 2,
) -> None:
    """Render practice photos of a gallery of which there are no photos."""
    from ..sources.rendered import prepare_synthetic

    benchmark = prepare_synthetic(gallery, output, photos=photos, poses=poses, seed=seed, jobs=jobs)
    typer.echo(f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos: {benchmark.path}")
