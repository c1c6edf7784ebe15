"""``cmic prepare SOURCE``: convert raw data to a prepared benchmark."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import SourceError
from .common import file_option, flag, folder_option

if TYPE_CHECKING:
    from ..sources import Prepared, PrepareOptions

prepare = typer.Typer(help="Convert raw data to a prepared benchmark.", no_args_is_help=True)

Output = Annotated[Path, folder_option("the folder to write")]
Size = Annotated[int, typer.Option(min=32, help="side of photos and views in pixels")]
Jobs = Annotated[int, typer.Option(min=1, help="number of processes")]
Val = Annotated[float, typer.Option(min=0.0, max=0.9, help="share of the training photos for validation")]
SKIP = "skip what is missing or cannot be used, and list it in left_out.txt"
AllowMissing = Annotated[bool, flag("--allow-missing", SKIP)]
MESHES = "first: the first OBJ of a folder; pose: each OBJ is a shape"
Meshes = Annotated[Literal["first", "pose"], typer.Option(help=MESHES)]
ROOT = "the folder that contains Anno3D, CAD and the photos"
Root = Annotated[Path, typer.Option("--input", metavar="ROOT", help=ROOT)]
Anno = Annotated[Path | None, folder_option("the folder of the pose pickles; default: ROOT/Anno3D")]
Shapes = Annotated[Path | None, folder_option("ShapeNetCore v1, the folder that contains 02958343; default: ROOT/CAD")]
CARS_PHOTOS = "the folder that contains cars_train and cars_test; default: ROOT/StanfordCars"
StanfordPhotos = Annotated[Path | None, folder_option(CARS_PHOTOS)]


def _options(size: int = 224, jobs: int = 2, allow_missing: bool = False) -> "PrepareOptions":
    from ..sources import PrepareOptions

    return PrepareOptions(size, jobs, allow_missing)


def _report(prepared: "Prepared") -> None:
    """Say what was made, and what was left out of it."""
    from ..sources import listed
    from ..sources.own.overview import say_overview

    benchmark, left_out = prepared
    for line in say_overview(benchmark):
        typer.echo(line, err=True)
    if left_out:
        typer.echo(listed(left_out, "item", " left out, see left_out.txt"), err=True)
    if len(benchmark.queries):
        without = sum(bool(image[3].min() == 255) for image in benchmark.images)
        typer.echo(f"{len(benchmark.queries) - without} photos with a mask, {without} without", err=True)
    typer.echo(f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos: {benchmark.path}")


@prepare.command("sweethome")
def prepare_sweethome(
    output: Annotated[Path | None, folder_option("the folder to write; default: inside data/prepared")] = None,
    input: Annotated[Path | None, folder_option("the packed benchmark; default: data/sweethome")] = None,
    size: Annotated[int | None, typer.Option(min=16, help="side of photos and views in pixels; default: 128")] = None,
    shapes: Annotated[int | None, typer.Option(min=12, help="unpack only this many, always the same ones")] = None,
    jobs: Jobs = 2,
) -> None:
    """Unpack the shipped benchmark with models of Sweet Home 3D."""
    from ..sources import Prepared, sweethome

    if output is not None:
        _report(sweethome.prepare_sweethome(output, _options(size or 128, jobs), source=input, shapes=shapes))
    elif input is not None or size is not None:
        raise SourceError("--input and --size need --output", fix="pass --output as well")
    else:
        _report(Prepared(sweethome.open_sweethome(shapes=shapes, jobs=jobs), []))


@prepare.command("release")
def prepare_release(
    input: Annotated[Path, folder_option("a folder of the archive, such as data/pix3d")],
    output: Output, size: Size = 224, val: Val = 0.1, jobs: Jobs = 2, allow_missing: AllowMissing = False,
) -> None:  # fmt: skip
    """Convert the authors' released archive."""
    from ..sources.release import prepare_release

    _report(prepare_release(input, output, _options(size, jobs, allow_missing), val=val))


@prepare.command("pix3d")
def prepare_pix3d(
    input: Annotated[Path, folder_option("the unpacked archive, with pix3d.json and model/")],
    output: Output,
    annotation: Annotated[Path | None, file_option("annotation to read instead of pix3d.json")] = None,
    categories: Annotated[str, typer.Option(help="all, paper (bed, chair, sofa, table), or a list")] = "all",
    clean: Annotated[bool, flag("--clean", "leave out truncated and occluded photos")] = False,
    meshes: Meshes = "first",
    split: Annotated[str, typer.Option(help="photo, shape, or a CSV file with the columns name and split")] = "photo",
    size: Size = 224, jobs: Jobs = 2, allow_missing: AllowMissing = False,
) -> None:  # fmt: skip
    """Prepare Pix3D from its official archive."""
    from ..sources.pix3d import prepare_pix3d

    _report(prepare_pix3d(
        input, output, _options(size, jobs, allow_missing), annotation=annotation,
        categories=categories, clean=clean, meshes=meshes, split=split,
    ))  # fmt: skip


@prepare.command("stanfordcars3d")
def prepare_stanfordcars3d(
    root: Root, output: Output, anno: Anno = None,
    photos: StanfordPhotos = None, shapes: Shapes = None,
    annotation: Annotated[str, typer.Option(help="v1, or v2 for the refined poses")] = "v2",
    size: Size = 224, val: Val = 0.1, jobs: Jobs = 2, allow_missing: AllowMissing = False,
) -> None:  # fmt: skip
    """Join the photos of Stanford Cars, the poses of StanfordCars3D and ShapeNet's models."""
    from ..sources.cars3d import STANFORD, prepare_cars3d

    options, places = _options(size, jobs, allow_missing), {"anno": anno, "photos": photos, "shapes": shapes}
    _report(prepare_cars3d(STANFORD, root, output, options, annotation=annotation, val=val, **places))


@prepare.command("compcars3d")
def prepare_compcars3d(
    root: Root, output: Output, anno: Anno = None,
    photos: Annotated[Path | None, folder_option("the folder that contains image; default: ROOT/CompCars")] = None,
    shapes: Shapes = None, size: Size = 224, val: Val = 0.1, jobs: Jobs = 2, allow_missing: AllowMissing = False,
) -> None:  # fmt: skip
    """Join the photos of CompCars, the poses of CompCars3D and ShapeNet's models."""
    from ..sources.cars3d import COMPCARS, prepare_cars3d

    options = _options(size, jobs, allow_missing)
    _report(prepare_cars3d(COMPCARS, root, output, options, anno=anno, photos=photos, shapes=shapes, val=val))


@prepare.command("shapenet")
def prepare_shapenet(
    input: Annotated[Path, folder_option("ShapeNetCore.v1 or ShapeNetCore.v2, unpacked", "ROOT")],
    output: Output,
    synsets: Annotated[str, typer.Option(help="names and numbers joined by commas, or all")] = "bed,chair,sofa,table",
    version: Annotated[str, typer.Option(help="auto, v1 or v2")] = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="only the first models of each synset, this many")] = None,
    size: Size = 224, jobs: Jobs = 2, allow_missing: AllowMissing = False,
    up: Annotated[str | None, typer.Option(help="the axis that points up; default: +y")] = None,
    front: Annotated[str | None, typer.Option(help="the axis that fronts face; default: +x in v1, -z in v2")] = None,
) -> None:  # fmt: skip
    """Render ShapeNetCore as a gallery without photos, for `cmic evaluate --gallery`."""
    from ..sources.shapenet import prepare_shapenet

    options, axes = _options(size, jobs, allow_missing), {"up": up, "front": front}
    _report(prepare_shapenet(input, output, options, synsets=synsets, version=version, limit=limit, **axes))


@prepare.command("folder")
def prepare_folder(
    output: Output,
    input: Annotated[
        Path | None,
        folder_option(
            "folder of meshes, in subfolders of any depth: OBJ, GLB, glTF, PLY, STL, OFF, 3MF, DAE, each with at most "
            "3 million faces; STEP and IGES with pip install cmiclib\\[cad]"
        ),
    ] = None,
    categories: Annotated[Path | None, file_option("CSV with shape_id, category and optional facts")] = None,
    up: Annotated[str | None, typer.Option(help="axis that points up, or rules: '*.stl=+z'; default: +y")] = None,
    front: Annotated[str | None, typer.Option(help="axis that fronts face, or rules; default: +z")] = None,
    photos: Annotated[Path | None, folder_option("folder with <shape id>/*.jpg or a photos.csv")] = None,
    masks: Annotated[Path | None, folder_option("folder with a PNG for each photo, under the same path")] = None,
    queries: Annotated[Path | None, file_option("JSON list of photos, for --gallery")] = None,
    gallery: Annotated[Path | None, folder_option("a prepared benchmark, for --queries")] = None,
    size: Annotated[int | None, typer.Option(min=16, help="in pixels; default: 224, or that of the gallery")] = None,
    val: Annotated[float | None, typer.Option(min=0, max=1, help="share for validation; default: 0.1")] = None,
    test: Annotated[float | None, typer.Option(min=0, max=1, help="share for the test; default: 0.2")] = None,
    auto_mask: Annotated[bool, flag("--auto-mask", "compute a mask for photos without one")] = False,
    jobs: Jobs = 2,
    allow_missing: AllowMissing = False,
) -> None:
    """Prepare your own meshes and photos, or your photos for a prepared gallery."""
    from ..sources.own.crops import prepare_crops
    from ..sources.own.folder import prepare_folder

    options = _options(size or 224, jobs, allow_missing)
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
        _report(prepare_folder(
            input, output, options, categories=categories, up=up or "+y", front=front or "+z", photos=photos,
            masks=masks, val=0.1 if val is None else val, test=0.2 if test is None else test, automatic=auto_mask,
        ))  # fmt: skip
    else:
        raise SourceError("nothing to prepare", fix="pass --input, or --queries with --gallery")


def _refuse(options: dict[str, Any], why: str) -> None:
    """Refuse options that would have no effect, if any of them is given."""
    if given := [name for name, value in options.items() if value is not None]:
        raise SourceError(why, fix=f"leave out {', '.join(given)}")


@prepare.command("synthetic")
def prepare_synthetic(
    gallery: Annotated[Path, folder_option("a prepared benchmark with meshes")],
    output: Output,
    photos: Annotated[int, typer.Option(min=2, help="photos per shape; the last one is for validation")] = 12,
    poses: Annotated[Path | None, file_option("Pix3D's annotation; draws cameras like those of its photos")] = None,
    seed: Annotated[int, typer.Option(help="seed; another number gives other photos")] = 0,
    jobs: Jobs = 2,
) -> None:
    """Render practice photos of a gallery of which there are no photos."""
    from ..sources.rendered import prepare_synthetic

    _report(prepare_synthetic(gallery, output, _options(jobs=jobs), photos=photos, poses=poses, seed=seed))
