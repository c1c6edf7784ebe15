"""``cmic prepare SOURCE``: convert raw data to a prepared benchmark."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import SourceError

if TYPE_CHECKING:
    from ..sources import Prepared, PrepareOptions

prepare = typer.Typer(help="Convert raw data to a prepared benchmark.", no_args_is_help=True)


def _dir(help: str) -> Any:
    return typer.Option(metavar="DIR", help=help)


def _file(help: str) -> Any:
    return typer.Option(metavar="FILE", help=help)


Meshes = Literal["first", "pose"]
Output = Annotated[Path, _dir("the folder to write")]
Size = Annotated[int, typer.Option(min=32, help="side of photos and views in pixels")]
Jobs = Annotated[int, typer.Option(min=1, help="number of processes")]
Val = Annotated[float, typer.Option(min=0.0, max=0.9, help="share of the training photos for validation")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="skip what is missing or cannot be used, and list it in left_out.txt")
]


def _options(**values: Any) -> "PrepareOptions":
    from ..sources import PrepareOptions

    return PrepareOptions(**values)


def _report(prepared: "Prepared") -> None:
    """Say what was made, and what was left out of it."""
    from ..sources import listed

    benchmark, left_out = prepared
    if left_out:
        typer.echo(listed(left_out, "item", " left out, see left_out.txt"), err=True)
    typer.echo(f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos: {benchmark.path}")


@prepare.command("sweethome")
def prepare_sweethome(
    output: Annotated[Path | None, _dir("the folder to write; default: inside data/prepared")] = None,
    input: Annotated[Path | None, _dir("the packed benchmark; default: data/sweethome")] = None,
    size: Annotated[int | None, typer.Option(min=16, help="side of photos and views in pixels; default: 128")] = None,
    shapes: Annotated[
        int | None, typer.Option(min=12, help="unpack only this many shapes, always the same ones")
    ] = None,
    jobs: Jobs = 2,
) -> None:
    """Unpack the shipped benchmark with models of Sweet Home 3D."""
    from ..sources import Prepared, sweethome

    if output is not None:
        options = _options(size=size or 128, jobs=jobs)
        _report(sweethome.prepare_sweethome(output, options, source=input, shapes=shapes))
    elif input is not None or size is not None:
        raise SourceError("--input and --size need --output", fix="pass --output as well")
    else:
        _report(Prepared(sweethome.open_sweethome(shapes=shapes, jobs=jobs), []))


@prepare.command("release")
def prepare_release(
    input: Annotated[Path, _dir("a folder of the archive, such as data/pix3d")],
    output: Output,
    size: Size = 224,
    val: Val = 0.1,
    jobs: Jobs = 2,
    allow_missing: AllowMissing = False,
) -> None:
    """Convert the authors' released archive."""
    from ..sources.release import prepare_release

    _report(prepare_release(input, output, _options(size=size, jobs=jobs, allow_missing=allow_missing), val=val))


@prepare.command("pix3d")
def prepare_pix3d(
    input: Annotated[Path, _dir("the unpacked archive, with pix3d.json and model/")],
    output: Output,
    annotation: Annotated[Path | None, _file("annotation to read instead of pix3d.json")] = None,
    categories: Annotated[str, typer.Option(help="all, paper (bed, chair, sofa, table), or a list")] = "all",
    clean: Annotated[bool, typer.Option("--clean", help="leave out truncated and occluded photos")] = False,
    meshes: Annotated[
        Meshes, typer.Option(help="first: the first OBJ of a folder; pose: each OBJ is a shape")
    ] = "first",
    split: Annotated[str, typer.Option(help="photo, shape, or a CSV file with the columns name and split")] = "photo",
    size: Size = 224,
    jobs: Jobs = 2,
    allow_missing: AllowMissing = False,
) -> None:
    """Prepare Pix3D from its official archive."""
    from ..sources.pix3d import prepare_pix3d

    prepared = prepare_pix3d(
        input, output, _options(size=size, jobs=jobs, allow_missing=allow_missing), annotation=annotation,
        categories=categories, clean=clean, meshes=meshes, split=split,
    )  # fmt: skip
    _report(prepared)


Root = Annotated[
    Path, typer.Option("--input", metavar="ROOT", help="the folder that contains Anno3D, CAD and the photos")
]
Anno = Annotated[Path | None, _dir("the folder of the pose pickles; default: ROOT/Anno3D")]
Shapes = Annotated[Path | None, _dir("ShapeNetCore v1, the folder that contains 02958343; default: ROOT/CAD")]


@prepare.command("stanfordcars3d")
def prepare_stanfordcars3d(
    root: Root,
    output: Output,
    anno: Anno = None,
    photos: Annotated[
        Path | None, _dir("the folder that contains cars_train and cars_test; default: ROOT/StanfordCars")
    ] = None,
    shapes: Shapes = None,
    annotation: Annotated[str, typer.Option(help="v1, or v2 for the refined poses")] = "v2",
    size: Size = 224,
    val: Val = 0.1,
    jobs: Jobs = 2,
    allow_missing: AllowMissing = False,
) -> None:
    """Join the photos of Stanford Cars, the poses of StanfordCars3D and ShapeNet's models."""
    from ..sources.cars3d import STANFORD, prepare_cars3d

    options = _options(size=size, jobs=jobs, allow_missing=allow_missing)
    places = {"anno": anno, "photos": photos, "shapes": shapes}
    _report(prepare_cars3d(STANFORD, root, output, options, annotation=annotation, val=val, **places))


@prepare.command("compcars3d")
def prepare_compcars3d(
    root: Root,
    output: Output,
    anno: Anno = None,
    photos: Annotated[Path | None, _dir("the folder that contains image; default: ROOT/CompCars")] = None,
    shapes: Shapes = None,
    size: Size = 224,
    val: Val = 0.1,
    jobs: Jobs = 2,
    allow_missing: AllowMissing = False,
) -> None:
    """Join the photos of CompCars, the poses of CompCars3D and ShapeNet's models."""
    from ..sources.cars3d import COMPCARS, prepare_cars3d

    options = _options(size=size, jobs=jobs, allow_missing=allow_missing)
    _report(prepare_cars3d(COMPCARS, root, output, options, anno=anno, photos=photos, shapes=shapes, val=val))


@prepare.command("shapenet")
def prepare_shapenet(
    input: Annotated[Path, typer.Option(metavar="ROOT", help="ShapeNetCore.v1 or ShapeNetCore.v2, unpacked")],
    output: Output,
    synsets: Annotated[str, typer.Option(help="names and numbers joined by commas, or all")] = "bed,chair,sofa,table",
    version: Annotated[str, typer.Option(help="auto, v1 or v2")] = "auto",
    limit: Annotated[
        int | None, typer.Option(min=1, help="only this many models of each synset, the first ones")
    ] = None,
    size: Size = 224,
    jobs: Jobs = 2,
    allow_missing: AllowMissing = False,
    up: Annotated[str | None, typer.Option(help="the axis that points up; default: +y")] = None,
    front: Annotated[str | None, typer.Option(help="the axis that fronts face; default: +x in v1, -z in v2")] = None,
) -> None:
    """Render ShapeNetCore as a gallery without photos, for `cmic evaluate --gallery`."""
    from ..sources.shapenet import prepare_shapenet

    options = _options(size=size, jobs=jobs, allow_missing=allow_missing)
    prepared = prepare_shapenet(
        input, output, options, synsets=synsets, version=version, limit=limit, up=up, front=front
    )
    _report(prepared)


@prepare.command("folder")
def prepare_folder(
    output: Output,
    input: Annotated[Path | None, _dir("folder of meshes, in subfolders of any depth")] = None,
    categories: Annotated[Path | None, _file("CSV with shape_id, category and optional facts")] = None,
    up: Annotated[str | None, typer.Option(help="the axis that points up in the meshes; default: +y")] = None,
    front: Annotated[str | None, typer.Option(help="the axis that fronts face; default: +z")] = None,
    photos: Annotated[Path | None, _dir("folder with <shape id>/*.jpg or a photos.csv")] = None,
    masks: Annotated[Path | None, _dir("folder with a PNG for each photo, under the same path")] = None,
    queries: Annotated[Path | None, _file("JSON list of photos, for --gallery")] = None,
    gallery: Annotated[Path | None, _dir("a prepared benchmark, for --queries")] = None,
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
    jobs: Jobs = 2,
    allow_missing: AllowMissing = False,
) -> None:
    """Prepare your own meshes and photos, or your photos for a prepared gallery."""
    from ..sources.own.crops import prepare_crops
    from ..sources.own.folder import prepare_folder

    options = _options(size=size or 224, jobs=jobs, allow_missing=allow_missing)
    if queries is not None and gallery is not None:
        given = {
            "--categories": categories, "--photos": photos, "--masks": masks, "--size": size, "--up": up,
            "--front": front, "--val": val, "--test": test,
        }  # fmt: skip
        _refuse(given, "--queries takes shapes and size from --gallery, and uses all photos for the test")
        _report(prepare_crops(queries, gallery, output, options, root=input, automatic=auto_mask))
    elif queries is None and gallery is None and input is not None:
        if photos is None:
            given = {"--masks": masks, "--auto-mask": auto_mask or None, "--val": val, "--test": test}
            _refuse(given, "without --photos there is nothing to mask or to split")
        prepared = prepare_folder(
            input, output, options, categories=categories, up=up or "+y", front=front or "+z", photos=photos,
            masks=masks, val=0.1 if val is None else val, test=0.2 if test is None else test, automatic=auto_mask,
        )  # fmt: skip
        _report(prepared)
    else:
        raise SourceError("nothing to prepare", fix="pass --input, or --queries with --gallery")


def _refuse(options: dict[str, Any], why: str) -> None:
    """Refuse options that would have no effect, if any of them is given."""
    if given := [name for name, value in options.items() if value is not None]:
        raise SourceError(why, fix=f"leave out {', '.join(given)}")


@prepare.command("synthetic")
def prepare_synthetic(
    gallery: Annotated[Path, _dir("a prepared benchmark with meshes")],
    output: Output,
    photos: Annotated[int, typer.Option(min=2, help="photos per shape; the last one is for validation")] = 12,
    poses: Annotated[Path | None, _file("Pix3D's annotation; draws cameras like those of its photos")] = None,
    seed: Annotated[int, typer.Option(help="seed; another number gives other photos")] = 0,
    jobs: Jobs = 2,
) -> None:
    """Render practice photos of a gallery of which there are no photos."""
    from ..sources.rendered import prepare_synthetic

    _report(prepare_synthetic(gallery, output, _options(jobs=jobs), photos=photos, poses=poses, seed=seed))
