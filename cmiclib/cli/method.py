"""Commands around one model: train, evaluate, index, convert, search."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import ConfigError, ImageError, StorageError
from .common import (
    SHIPPED,
    SHIPPED_INDEX,
    AutoMask,
    Exact,
    Folder,
    IndexPath,
    JsonFile,
    Profile,
    RunFolder,
    RunOutput,
    file_option,
    flag,
    folder_option,
    open_benchmark,
    open_run,
    proof,
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
    changed: Changed = False, json_file: JsonFile = None, index: IndexPath = None,
    untrained: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="instead of a run, a network of timm as it is; repeatable")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="weights of --untrained, as model.init; default: timm for a name with a tag, else imagenet"),
    ] = None,
) -> None:  # fmt: skip
    """Measure a run, or an index made with one, on a benchmark, in its gallery or one that lacks the photos' shapes.

    Under torchrun, each process embeds its share of the gallery; write -r there, because torchrun has its own --run.
    """
    from ..engine.distributed import joined, own_device
    from ..evaluation.released_protocol import TOTAL, check_mode, released_table
    from ..evaluation.report import check_protocols, photo_rows, report, report_untrained, score_index
    from ..evaluation.unseen import evaluate_unseen
    from ..index import ShapeIndex
    from ..training.guard import check_unchanged

    if untrained:
        if gallery or mode or index:
            raise ConfigError("--untrained excludes --gallery, --mode and --index", fix="leave them out")
        measured = report_untrained(open_benchmark(benchmark), untrained, init, split)
        flat = {f"{name}, {kind}": values for name, kinds in measured.items() for kind, values in kinds.items()}
        rows = {metric: [f"{values[metric]:.4g}" for values in flat.values()] for metric in next(iter(flat.values()))}
        show(["metric", *flat], [[metric, *values] for metric, values in rows.items()])
        write_json(json_file, measured)
        return
    opened, trained = open_benchmark(benchmark), None if index else open_run(run)
    if trained and not changed:
        check_unchanged(trained, opened)
    searched = open_benchmark(gallery) if gallery else None
    if searched is not None:  # all this before the gallery is embedded, which can take long
        check_protocols(opened, searched)
    if mode is not None:
        check_mode(mode, searched is not None)
    photo_rows(opened, split)
    device = own_device()
    with joined(device) as processes:
        if trained:
            shapes = ShapeIndex.build(trained.model(device), searched or opened, trained.config, processes=processes)
        else:
            shapes = ShapeIndex.load(str(index))
    if not processes.first:
        return
    if mode is None:
        if searched is None:
            figures = report(score_index(shapes, opened, split)) | {"gallery_size": len(shapes)}
        else:
            figures = evaluate_unseen(shapes, opened, searched, split)
        show(["metric", "value"], [[name, f"{value:.4g}"] for name, value in figures.items()])
        write_json(json_file, figures)
        return
    table = released_table(shapes, opened, mode, split, searched)
    show(["of", *table.columns], [[str(name), *(f"{value:.4g}" for value in row)] for name, *row in table.itertuples()])
    write_json(json_file, {**table.loc[TOTAL].to_dict(), "gallery_size": len(shapes)})


def index(
    benchmark: Folder,
    output: Annotated[str, typer.Option(metavar="INDEX", help="file to write; with --engine lance a folder or s3://…")],
    run: RunFolder = SHIPPED,
    engine: Annotated[Literal["file", "lance"], typer.Option(help="file, or lance: a database that grows")] = "file",
    half: Annotated[bool, flag("--half", "store bfloat16: half the size, slightly different scores")] = False,
    changed: Changed = False,
) -> None:  # fmt: skip
    r"""Embed a benchmark's gallery for `cmic search`; under torchrun, write -r instead of --run.

    A database (LanceDB, pip install 'cmiclib\[scale]') is searched without being loaded, and stores float16. Shapes
    that it has are passed over, others are added; each process writes its share, and what was stopped goes on.
    """
    import torch

    from ..engine.distributed import joined, own_device
    from ..index import ShapeIndex
    from ..training.guard import check_unchanged

    if engine == "file" and "://" in output:
        raise StorageError("a file is written to a folder", path=output, fix="pass --engine lance as well")
    trained, opened, device = open_run(run), open_benchmark(benchmark), own_device()
    if not changed:
        check_unchanged(trained, opened)
    dtype = torch.bfloat16 if half else torch.float32
    with joined(device) as processes:
        if engine == "lance":
            from ..index.lance import LanceIndex

            gallery: ShapeIndex = LanceIndex.grow(output, trained.model(device), opened, trained.config, processes)
        else:
            gallery = ShapeIndex.build(trained.model(device), opened, trained.config, dtype, processes)
            if processes.first:
                gallery.save(output)
        if processes.first:
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
    index: Annotated[
        str,
        typer.Option(
            metavar="INDEX",
            help="what `cmic index` wrote: a file, or a database",
            show_default="the shipped benchmark's",
        ),
    ] = str(SHIPPED_INDEX),
    mask: Annotated[Path | None, file_option("mask image, white on the object")] = None,
    box: Annotated[str | None, typer.Option(metavar="x0,y0,x1,y1", help="box around the object, in pixels")] = None,
    auto_mask: AutoMask = False,
    no_mask: Annotated[bool, flag("--no-mask", "use no mask, not even that of a cut-out, and no silhouette")] = False,
    save_mask: Annotated[Path | None, file_option("write the mask that was used, as PNG")] = None,
    top: Annotated[int, typer.Option(min=1, help="number of shapes to list")] = 10,
    json_file: JsonFile = None,
    exact: Exact = False,
    benchmark: Annotated[Path | None, folder_option("search with this benchmark's own photos and their masks")] = None,
) -> None:
    """List the shapes that match a photo best.

    Without a mask, the photo or its box is searched as it is: for real photos that finds more than a mask that
    GrabCut computes. In a box, the object's learnt silhouette weighs in (the report's chapter *A photo and a box*).
    """
    from ..index import ShapeIndex
    from ..index.query import embed, parse_box, read_query, stored_query, stored_row, with_silhouette
    from ..io.images import write_mask

    if len(photos) > 1 and (mask or box or save_mask):
        raise ImageError("a mask or box belongs to one photo", fix="search for one photo at a time")
    if no_mask and (mask or save_mask or auto_mask):
        problem = "--no-mask excludes --mask, --auto-mask and --save-mask"
        raise ImageError(problem, fix="leave out --no-mask, or the other option")
    if index == str(SHIPPED_INDEX):
        typer.echo("no --index: these are the shapes of the shipped benchmark, found by the shipped model", err=True)
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
        loaded = loaded if no_mask else [with_silhouette(query, gallery) for query in loaded]
    if save_mask:
        if loaded[0].mask is None:
            fix = "pass --auto-mask, or leave out --save-mask"
            raise ImageError("there is no mask to save", path=photos[0], fix=fix)
        write_mask(save_mask, loaded[0].mask)
    found = gallery.search(embed(gallery, loaded), top, exact)
    answers = []
    proofs = zip(found.certified, found.visited, strict=True)
    each = zip(photos, loaded, found.ids, found.scores.tolist(), proofs, strict=True)
    for photo, query, ids, scores, (certified, visited) in each:
        typer.echo(f"{photo} ({query.how})")
        results = [{"shape_id": name, "score": score} for name, score in zip(ids, scores, strict=True)]
        lines = [[str(rank), shape["shape_id"], f"{shape['score']:.3f}"] for rank, shape in enumerate(results, 1)]
        show(["rank", "shape", "score"], lines)
        if said := proof(certified, visited):
            typer.echo(said)
        known = {"certified": certified, "visited": visited}
        answers.append({"photo": str(photo), "object": query.how, **known, "results": results})
    write_json(json_file, answers)
