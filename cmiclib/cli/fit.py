"""The command `cmic fit`: adapt the general weights to a folder of meshes."""

from pathlib import Path
from typing import Annotated

import typer

from .common import SHIPPED, RunFolder, folder_option, open_run, show


def fit(
    shapes: Annotated[Path, folder_option("a folder of mesh files, searched to any depth")],
    output: Annotated[Path, folder_option("the folder for practice photos and the adapted run")],
    run: RunFolder = SHIPPED,
    minutes: Annotated[float, typer.Option(min=0.1, help="about how long it may take on quiet cores")] = 10,
    up: Annotated[str, typer.Option(help="axis that points up, +x, -x, … -z, or rules: '+y, *.stl=+z'")] = "+y",
    front: Annotated[str, typer.Option(help="axis that the objects' fronts look along, or rules")] = "+z",
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default="~/.cache/cmic", help="where made views are kept")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="processes that render")] = 2,
) -> None:
    """Train heads on photos rendered of a folder's meshes, and say whether they beat the weights of --run.

    A second call goes on where the first one stopped. The figures are of photos rendered anew, not of a camera's.
    """
    from ..sources import PrepareOptions
    from ..sources.own.kept import cache_folder, keep_gallery
    from ..study import fit as study

    general = open_run(run)
    options = PrepareOptions(size=general.config.model.image_size, jobs=jobs)
    gallery = keep_gallery(shapes, cache or cache_folder(), options, up=up, front=front)
    for line in gallery.left_out:
        typer.echo(f"not taken: {line}", err=True)
    made = study.fit(gallery.benchmark, output, general, options, minutes)
    rows = [("before", made.before), ("after", made.after)]
    show(
        ["held-out renderings", "Top-1", "Top-10", "MRR"],
        [[name, *(f"{100 * figures[key]:.1f}" for key in study.FIGURES)] for name, figures in rows],
    )
    gain, low, high = (100 * value for value in (made.after["top1"] - made.before["top1"], *made.gain))
    typer.echo(f"gain in Top-1: {gain:+.1f} points ({low:+.1f} to {high:+.1f})")
    if made.better:
        typer.echo(f"the adapted weights are better: cmic find PHOTO --shapes {shapes} --run {made.run.path}")
    else:
        typer.echo(f"the adapted weights are not better; go on with {general.path}")
