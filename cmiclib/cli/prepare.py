"""``cmic prepare SOURCE``: raw data to a prepared benchmark."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SourceError

prepare = typer.Typer(help="Turn raw data into a prepared benchmark.", no_args_is_help=True)


@prepare.command("sweethome")
def prepare_sweethome(
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="default: below data/prepared")] = None,
    input: Annotated[Path | None, typer.Option(metavar="DIR", help="default: data/sweethome")] = None,
    size: Annotated[int, typer.Option(min=16, help="side of photos and views in pixels")] = 128,
    shapes: Annotated[int | None, typer.Option(min=12, help="only so many shapes, always the same ones")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="processes")] = 2,
) -> None:
    """Unpack the shipped benchmark of Sweet Home 3D's models."""
    from ..sources import sweethome

    if output is None:
        benchmark = sweethome.open_sweethome(shapes=shapes, jobs=jobs)
    else:
        benchmark = sweethome.prepare_sweethome(output, input, size, shapes, jobs)
    typer.echo(f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos: {benchmark.path}")


@prepare.command("release")
def prepare_release(
    input: Annotated[Path, typer.Option(metavar="DIR", help="one folder of the archive, such as data/pix3d")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="the folder to write")],
    size: Annotated[int, typer.Option(min=32, help="side of photos and views in pixels")] = 224,
    val: Annotated[float, typer.Option(min=0.0, max=0.9, help="share of the training photos for validation")] = 0.1,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="leave out what is missing")] = False,
) -> None:
    """Convert the authors' released archive."""
    from ..sources.release import prepare_release

    benchmark = prepare_release(input, output, size=size, val=val, allow_missing=allow_missing)
    typer.echo(f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos: {benchmark.path}")


@prepare.command("folder")
def prepare_folder(
    output: Annotated[Path, typer.Option(metavar="DIR", help="the folder to write")],
    input: Annotated[Path | None, typer.Option(metavar="DIR", help="meshes, to any depth")] = None,
    categories: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV: shape_id,category and facts")] = None,
    up: Annotated[str, typer.Option(help="the axis that points up in the meshes")] = "+y",
    front: Annotated[str, typer.Option(help="the axis that fronts look along")] = "+z",
    photos: Annotated[Path | None, typer.Option(metavar="DIR", help="<shape id>/*.jpg, or a photos.csv")] = None,
    masks: Annotated[Path | None, typer.Option(metavar="DIR", help="a PNG for each photo, of the same path")] = None,
    queries: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON list of photos, for --gallery")] = None,
    gallery: Annotated[Path | None, typer.Option(metavar="DIR", help="a prepared benchmark, for --queries")] = None,
    size: Annotated[int | None, typer.Option(min=16, help="side in pixels; default: 224, or the gallery's")] = None,
    val: Annotated[float, typer.Option(min=0.0, max=1.0, help="share of the photos for validation")] = 0.1,
    test: Annotated[float, typer.Option(min=0.0, max=1.0, help="share of the photos for the test")] = 0.2,
    auto_mask: Annotated[bool, typer.Option("--auto-mask", help="find masks for photos without one")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="processes")] = 2,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="leave out what cannot be used")] = False,
) -> None:
    """Prepare your own meshes and photos, or your photos against a prepared gallery."""
    from ..sources import crops, folder
    from ..sources.meshes import listed

    if queries is not None and gallery is not None:
        if categories or photos or masks or size:
            raise SourceError(
                "--queries takes shapes and size from --gallery",
                fix="leave out --categories, --photos, --masks, --size",
            )
        benchmark, left_out = crops.prepare_crops(
            queries, gallery, output, root=input, automatic=auto_mask, jobs=jobs, allow_missing=allow_missing
        )
    elif queries is None and gallery is None and input is not None:
        benchmark, left_out = folder.prepare_folder(
            input, output, categories=categories, up=up, front=front, photos=photos, masks=masks, size=size or 224,
            val=val, test=test, automatic=auto_mask, jobs=jobs, allow_missing=allow_missing,
        )  # fmt: skip
    else:
        raise SourceError("it is not said what to prepare", fix="give --input, or --queries and --gallery together")
    if left_out:
        typer.echo(f"left out {listed(left_out, 'files')}", err=True)
    typer.echo(f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos: {benchmark.path}")
