"""``cmic prepare SOURCE``: raw data to a prepared benchmark."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Meshes = Literal["first", "pose"]

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


@prepare.command("pix3d")
def prepare_pix3d(
    input: Annotated[Path, typer.Option(metavar="DIR", help="the unpacked archive, with pix3d.json and model/")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="the folder to write")],
    annotation: Annotated[Path | None, typer.Option(metavar="FILE", help="another file than pix3d.json")] = None,
    categories: Annotated[str, typer.Option(help="all, paper (bed, chair, sofa, table), or a list")] = "all",
    clean: Annotated[bool, typer.Option("--clean", help="leave out truncated and occluded photos")] = False,
    meshes: Annotated[Meshes, typer.Option(help="first OBJ of a folder, or pose: each a shape of its own")] = "first",
    split: Annotated[str, typer.Option(help="photo, shape, or a CSV file with the columns name and split")] = "photo",
    size: Annotated[int, typer.Option(min=32, help="side of photos and views in pixels")] = 224,
    jobs: Annotated[int, typer.Option(min=1, help="processes")] = 2,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="leave out what is missing")] = False,
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
