"""Commands around one model: train, evaluate, index, convert, search."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ImageError
from .common import (
    SHIPPED,
    AutoMask,
    Folder,
    JsonFile,
    Profile,
    RunFolder,
    RunOutput,
    file_option,
    flag,
    folder_option,
    open_benchmark,
    open_run,
    show,
    write_json,
)  # fmt: skip

Changed = Annotated[bool, flag("--changed", "go on even if the benchmark changed since the training")]


def train(
    benchmark: Folder, output: RunOutput,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    profile: Profile = "demo",
    preset: Annotated[str, typer.Option(help="paper, or released for the released code's peculiarities")] = "paper",
    resume: Annotated[bool, flag("--resume", "continue from the folder's last state")] = False,
    other_code: Annotated[bool, flag("--other-code", "resume although the method's code has changed since")] = False,
    until: Annotated[int | None, typer.Option(help="stop after this many steps; --resume continues")] = None,
    fuse: Annotated[bool, flag("--compile", "use torch.compile, for long trainings on a GPU")] = False,
) -> None:  # fmt: skip
    """Train on a prepared benchmark; KEY=VALUE changes the profile, as in loss.tau=0.05."""
    from ..config import profile as profile_config
    from ..engine.distributed import joined, own_device
    from ..training.loop import train

    config, device = profile_config(profile, overrides or [], preset), own_device()
    with joined(device) as processes:
        run = train(
            config, open_benchmark(benchmark), output,
            resume=resume, other_code=other_code, until=until, device=device, processes=processes, fuse=fuse,
        )  # fmt: skip
        if processes.first:
            typer.echo(f"run: {run.path}")


def evaluate(
    benchmark: Folder, run: RunFolder = SHIPPED,
    gallery: Annotated[Path | None, folder_option("search these shapes, which lack the photos' own shapes")] = None,
    split: Annotated[str, typer.Option(help="train, val, test or all")] = "test",
    mode: Annotated[str | None, typer.Option(help="as the released test script does: simple, full or shapenet")] = None,
    changed: Changed = False, json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Measure a run on a prepared benchmark, in its own gallery or in one that lacks the photos' shapes.

    Under torchrun, each process embeds its share of the gallery; write -r there, because torchrun has its own --run.
    """
    from ..engine.distributed import joined, own_device
    from ..evaluation.released_protocol import TOTAL, check_mode, released_table
    from ..evaluation.report import check_protocols, photo_rows, report, score_index
    from ..evaluation.unseen import evaluate_unseen
    from ..index import ShapeIndex
    from ..training.guard import check_unchanged

    opened, trained = open_benchmark(benchmark), open_run(run)
    if not changed:
        check_unchanged(trained, opened)
    searched = open_benchmark(gallery) if gallery else None
    if searched is not None:  # all this before the gallery is embedded, which can take long
        check_protocols(opened, searched)
    if mode is not None:
        check_mode(mode, searched is not None)
    photo_rows(opened, split)
    device = own_device()
    with joined(device) as processes:
        index = ShapeIndex.build(trained.model(device), searched or opened, trained.config, processes=processes)
    if not processes.first:
        return
    if mode is None:
        if searched is None:
            figures = report(score_index(index, opened, split)) | {"gallery_size": len(index)}
        else:
            figures = evaluate_unseen(index, opened, searched, split)
        show(["metric", "value"], [[name, f"{value:.4g}"] for name, value in figures.items()])
        write_json(json_file, figures)
        return
    table = released_table(index, opened, mode, split, searched)
    show(["of", *table.columns], [[str(name), *(f"{value:.4g}" for value in row)] for name, *row in table.itertuples()])
    write_json(json_file, {**table.loc[TOTAL].to_dict(), "gallery_size": len(index)})


def index(
    benchmark: Folder, output: Annotated[Path, file_option("the index file to write")], run: RunFolder = SHIPPED,
    half: Annotated[bool, flag("--half", "store bfloat16: half the size, slightly different scores")] = False,
    changed: Changed = False,
) -> None:  # fmt: skip
    """Embed a benchmark's gallery for `cmic search`; under torchrun, write -r instead of --run."""
    import torch

    from ..engine.distributed import joined, own_device
    from ..index import ShapeIndex
    from ..training.guard import check_unchanged

    trained, opened, device = open_run(run), open_benchmark(benchmark), own_device()
    if not changed:
        check_unchanged(trained, opened)
    dtype = torch.bfloat16 if half else torch.float32
    with joined(device) as processes:
        gallery = ShapeIndex.build(trained.model(device), opened, trained.config, dtype, processes)
        if processes.first:
            gallery.save(output)
            typer.echo(f"{len(gallery)} shapes: {output}")


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE", help="a checkpoint of the released code")],
    output: RunOutput,
) -> None:
    """Turn the authors' checkpoint into a run folder, for evaluate, index and search."""
    from ..training.run import convert_reference_checkpoint

    typer.echo(f"run: {convert_reference_checkpoint(checkpoint, output).path}")


def save(
    output: RunOutput, run: RunFolder = SHIPPED,
    benchmark: Annotated[Path | None, folder_option("the training's, to be counted in the data sheet")] = None,
) -> None:  # fmt: skip
    """Write a folder to pass on: model, model card (README.md) and data sheet, from the run's own figures."""
    from ..evaluation.card import pass_on

    pass_on(open_run(run), output, open_benchmark(benchmark) if benchmark else None)
    typer.echo(f"model, model card and data sheet: {output}")


def search(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="photo files; with --benchmark, query ids")],
    index: Annotated[Path, file_option("an index file that `cmic index` wrote")],
    mask: Annotated[Path | None, file_option("mask image, white on the object")] = None,
    box: Annotated[str | None, typer.Option(metavar="x0,y0,x1,y1", help="box around the object, in pixels")] = None,
    auto_mask: AutoMask = False,
    no_mask: Annotated[bool, flag("--no-mask", "use no mask, not even the opacity of a cut-out")] = False,
    save_mask: Annotated[Path | None, file_option("write the mask that was used, as PNG")] = None,
    top: Annotated[int, typer.Option(min=1, help="number of shapes to list")] = 10,
    json_file: JsonFile = None,
    benchmark: Annotated[Path | None, folder_option("search with this benchmark's own photos and their masks")] = None,
) -> None:
    """List the shapes that match a photo best.

    Without a mask, the box or the whole photo is searched as it is: for real photos that finds more than a mask that
    is computed (the report's chapter on your own folder has the figures).
    """
    import numpy as np

    from ..index import ShapeIndex
    from ..index.query import parse_box, read_query, stored_query, stored_row
    from ..io.images import write_mask

    if len(photos) > 1 and (mask or box or save_mask):
        raise ImageError("a mask or box belongs to one photo", fix="search for one photo at a time")
    if no_mask and (mask or save_mask or auto_mask):
        problem = "--no-mask excludes --mask, --auto-mask and --save-mask"
        raise ImageError(problem, fix="leave out --no-mask, or the other option")
    gallery = ShapeIndex.load(index)
    if benchmark is not None:
        if mask or box or no_mask or auto_mask:
            own = "photos of a benchmark come with their own masks"
            raise ImageError(own, fix="leave out --mask, --box, --auto-mask and --no-mask")
        opened = open_benchmark(benchmark, verify=False)
        loaded = [stored_query(opened, stored_row(opened, str(name))) for name in photos]
    else:
        corners = parse_box(box) if box else None
        loaded = [read_query(photo, mask, corners, auto_mask, not no_mask) for photo in photos]
    if save_mask:
        if loaded[0].mask is None:
            fix = "pass --auto-mask, or leave out --save-mask"
            raise ImageError("there is no mask to save", path=photos[0], fix=fix)
        write_mask(save_mask, loaded[0].mask)
    found = gallery.search(gallery.embed(np.stack([query.image for query in loaded])), top)
    answers = []
    for photo, (_, how, _), ids, scores in zip(photos, loaded, found.ids, found.scores.tolist(), strict=True):
        typer.echo(f"{photo} ({how})")
        results = [{"shape_id": name, "score": score} for name, score in zip(ids, scores, strict=True)]
        lines = [[str(rank), each["shape_id"], f"{each['score']:.3f}"] for rank, each in enumerate(results, 1)]
        show(["rank", "shape", "score"], lines)
        answers.append({"photo": str(photo), "object": how, "results": results})
    write_json(json_file, answers)
