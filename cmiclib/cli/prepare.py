"""``cmic prepare SOURCE``: raw data to a prepared benchmark."""

from pathlib import Path
from typing import Annotated

import typer

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


@prepare.command("shapenet")
def prepare_shapenet(
    input: Annotated[Path, typer.Option(metavar="ROOT", help="ShapeNetCore.v1 or ShapeNetCore.v2, unpacked")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="the folder to write")],
    synsets: Annotated[str, typer.Option(help="names and numbers joined by commas, or all")] = "bed,chair,sofa,table",
    version: Annotated[str, typer.Option(help="auto, v1 or v2")] = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="only the first so many models of each synset")] = None,
    size: Annotated[int, typer.Option(min=32, help="side of the views in pixels")] = 224,
    jobs: Annotated[int, typer.Option(min=1, help="processes")] = 2,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="leave out models whose mesh is missing or broken")
    ] = False,
    up: Annotated[str | None, typer.Option(help="axis that points up; default: +y")] = None,
    front: Annotated[str | None, typer.Option(help="axis of the front; default: +x of v1, -z of v2")] = None,
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
