"""The command `cmic`: thin commands over the library; an error that a user can cause is one message, status 2."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from typer.core import TyperGroup

from . import results
from .chapters import find_root
from .errors import BookError, CMICError, ConfigError, ImageError


class Commands(TyperGroup):
    """Turns expected errors into a message without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CMICError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=Commands,
    help="Single-image 3D shape retrieval: prepare, train, evaluate, index, search; and the book around them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
prepare = typer.Typer(help="Turn raw data into a prepared benchmark.", no_args_is_help=True)
app.add_typer(prepare, name="prepare")

Profile = Annotated[str, typer.Option(help="smoke, demo or paper")]
Outputs = Annotated[str, typer.Option(help="folder for results, below the repository")]
Folder = Annotated[Path, typer.Option(metavar="DIR", help="a prepared benchmark")]
RunFolder = Annotated[Path, typer.Option(metavar="RUN", help="a run folder that `cmic train` wrote")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="also write the result here")]


def show(header: list[str], rows: list[list[str]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def write_json(path: Path | None, values: Any) -> None:
    """Write values to a file, if one is wanted."""
    if path is not None:
        path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", "utf-8")


@prepare.command("sweethome")
def prepare_sweethome(
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="default: below data/prepared")] = None,
    input: Annotated[Path | None, typer.Option(metavar="DIR", help="default: data/sweethome")] = None,
    size: Annotated[int, typer.Option(min=16, help="side of photos and views in pixels")] = 128,
    shapes: Annotated[int | None, typer.Option(min=12, help="only so many shapes, always the same ones")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="processes")] = 2,
) -> None:
    """Unpack the shipped benchmark of Sweet Home 3D's models."""
    from .sources import sweethome

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
    from .sources.release import prepare_release

    benchmark = prepare_release(input, output, size=size, val=val, allow_missing=allow_missing)
    typer.echo(f"{len(benchmark.shapes)} shapes and {len(benchmark.queries)} photos: {benchmark.path}")


@app.command()
def train(
    benchmark: Folder,
    output: Annotated[Path, typer.Option(metavar="RUN", help="the run folder to write")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    profile: Profile = "demo",
    preset: Annotated[str, typer.Option(help="paper, or released: with the released code's peculiarities")] = "paper",
    resume: Annotated[bool, typer.Option("--resume", help="go on from the folder's last state")] = False,
) -> None:
    """Train on a prepared benchmark; KEY=VALUE changes the profile, as in loss.tau=0.05."""
    from .benchmark import Benchmark
    from .config import profile as profile_config
    from .train import train

    config = profile_config(profile, overrides or [], preset)
    run = train(config, Benchmark.open(benchmark), output, resume=resume)
    typer.echo(f"run: {run.path}")


@app.command()
def evaluate(
    run: RunFolder,
    benchmark: Folder,
    gallery: Annotated[
        Path | None, typer.Option(metavar="DIR", help="search this gallery, with --mode shapenet")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val, test or all")] = "test",
    mode: Annotated[str | None, typer.Option(help="as the released test script: simple, full or shapenet")] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure a run on a prepared benchmark."""
    from .benchmark import Benchmark
    from .checkpoint import Run
    from .evaluate import report, score_run
    from .index import ShapeIndex
    from .modes import TOTAL, released_table

    opened, trained = Benchmark.open(benchmark), Run.open(run)
    if mode is None and gallery is None:
        figures = report(score_run(trained, opened, split)) | {"gallery_size": len(opened.shapes)}
        show(["metric", "value"], [[name, f"{value:.4g}"] for name, value in figures.items()])
        write_json(json_file, figures)
        return
    searched = Benchmark.open(gallery) if gallery else None
    index = ShapeIndex.build(trained.model(), searched or opened, trained.config)
    table = released_table(index, opened, mode or "shapenet", split, searched)
    lines = [
        [str(name), *(f"{value:.4g}" for value in row)] for name, row in zip(table.index, table.values, strict=True)
    ]
    show(["of", *table.columns], lines)
    write_json(json_file, {**table.loc[TOTAL].to_dict(), "gallery_size": len(index)})


@app.command()
def index(
    run: RunFolder,
    benchmark: Folder,
    output: Annotated[Path, typer.Option(metavar="FILE", help="the index file to write")],
) -> None:
    """Embed a benchmark's gallery once, for `cmic search`."""
    from .benchmark import Benchmark
    from .checkpoint import Run
    from .index import ShapeIndex

    opened = Run.open(run)
    gallery = ShapeIndex.build(opened.model(), Benchmark.open(benchmark), opened.config)
    gallery.save(output)
    typer.echo(f"{len(gallery)} shapes: {output}")


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE", help="a checkpoint of the released code")],
    output: Annotated[Path, typer.Option(metavar="RUN", help="the run folder to write")],
) -> None:
    """Turn the authors' checkpoint into a run folder, for evaluate, index and search."""
    from .checkpoint import convert_reference_checkpoint

    run = convert_reference_checkpoint(checkpoint, output)
    typer.echo(f"run: {run.path}")


@app.command()
def search(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...")],
    index: Annotated[Path, typer.Option(metavar="FILE", help="made by `cmic index`")],
    mask: Annotated[Path | None, typer.Option(metavar="FILE", help="white where the object is")] = None,
    box: Annotated[str | None, typer.Option(metavar="x0,y0,x1,y1", help="the object, in pixels")] = None,
    top: Annotated[int, typer.Option(min=1, help="how many shapes")] = 10,
    json_file: JsonFile = None,
) -> None:
    """Find the shapes that a photo shows, best first."""
    import numpy as np

    from .index import ShapeIndex
    from .query import load_query, parse_box

    if len(photos) > 1 and (mask or box):
        raise ImageError("a mask or box belongs to one photo", fix="search for one photo at a time")
    gallery = ShapeIndex.load(index)
    loaded = [load_query(photo, mask, parse_box(box) if box else None) for photo in photos]
    found = gallery.search(gallery.embed(np.stack([image for image, _ in loaded])), top)
    answers = []
    for photo, (_, how), ids, scores in zip(photos, loaded, found.ids, found.scores.tolist(), strict=True):
        typer.echo(f"{photo} ({how})")
        show(
            ["rank", "shape", "score"],
            [[str(k), name, f"{score:.3f}"] for k, (name, score) in enumerate(zip(ids, scores, strict=True), 1)],
        )
        results = [{"shape_id": name, "score": score} for name, score in zip(ids, scores, strict=True)]
        answers.append({"photo": str(photo), "object": how, "results": results})
    write_json(json_file, answers)


@app.command()
def reproduce(
    parameters: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...")] = None,
    profile: Profile = "demo",
    benchmark: Annotated[str, typer.Option(help="sweethome, or the folder of a prepared benchmark")] = "sweethome",
    outputs: Outputs = "outputs",
    chapter: Annotated[list[str] | None, typer.Option(help="only this chapter and what it needs; repeatable")] = None,
) -> None:
    """Run the chapters whose inputs changed and write the report; NAME=VALUE sets a chapter's parameter."""
    from .book import open_benchmark
    from .publish import fetch_vendor
    from .runner import reproduce

    root = find_root(Path.cwd())
    if fetch_vendor(root):
        typer.echo("fetched the scripts that the report needs offline")
    result = reproduce(
        root,
        profile=profile,
        benchmark=benchmark,
        outputs=outputs,
        benchmark_hash=lambda: open_benchmark(root, benchmark, profile).hash,
        chapters=chapter,
        parameters=dict(parse_parameter(text) for text in parameters or []),
    )
    write_report(root, profile, outputs)
    if result.failed:
        notebooks = ", ".join(f"{outputs}/{profile}/notebooks/{name}.ipynb" for name in result.failed)
        skipped = f"; {', '.join(result.skipped)} needed them" if result.skipped else ""
        raise BookError(
            f"these chapters failed: {', '.join(result.failed)}{skipped}", fix=f"the error stands in {notebooks}"
        )


def parse_parameter(text: str) -> tuple[str, Any]:
    """Split ``NAME=VALUE``; a number, a truth value and a list are taken as such, anything else as a string.

    In a list quotes may be missing, because shells take them away: ``OVERRIDES=[loss.tau=0.05]``.

    Raises:
        ConfigError: there is no ``=``.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"'{text}' is not NAME=VALUE", fix="write for example K=5")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, yaml.safe_load(value) if value.startswith("[") else value


def write_report(root: Path, profile: str, outputs: str) -> None:
    """Build the HTML if need be and say where it is."""
    from .publish import publish

    page, built = publish(root, profile, outputs)
    typer.echo(f"report: {page.relative_to(root)}" + ("" if built else " (unchanged)"))


@app.command()
def book(profile: Profile = "demo", outputs: Outputs = "outputs") -> None:
    """Write the HTML from the notebooks that ran."""
    write_report(find_root(Path.cwd()), profile, outputs)


@app.command()
def vendor() -> None:
    """Fetch the scripts that let the report open without a network."""
    from .publish import fetch_vendor

    fetched = fetch_vendor(find_root(Path.cwd()))
    typer.echo("fetched into vendor/" if fetched else "vendor/ is complete")


@app.command()
def verify(
    store: Annotated[bool, typer.Option("--store", help="store this reproduction's results instead")] = False,
) -> None:
    """Compare outputs/demo with data/results/demo.json, within the tolerances that stand there."""
    root = find_root(Path.cwd())
    path = root / "data" / "results" / "demo.json"
    stored = results.read_results(path)
    if store:
        new = results.snapshot(root / "outputs" / "demo", stored["tolerances"])
        path.write_text(json.dumps(new, indent=1, ensure_ascii=False) + "\n", "utf-8")
        return
    rows = results.compare(results.read_results(root / "outputs" / "demo" / "metrics.json"), stored)
    lines = []
    for row in rows:
        measured = "–" if row.measured is None else f"{row.measured:.4f}"
        lines.append([row.metric, measured, f"{row.stored:.4f}", f"{row.tolerance}", "ok" if row.agrees else "differs"])
    show(["metric", "measured", "stored", "tolerance", ""], lines)
    if differing := [row.metric for row in rows if not row.agrees]:
        raise BookError(f"outside the tolerance: {', '.join(differing)}", fix="see the chapter on provenance")


@app.command()
def readme() -> None:
    """Write README's table of results from data/results/demo.json."""
    root = find_root(Path.cwd())
    text = (root / "README.md").read_text("utf-8")
    stored = results.read_results(root / "data" / "results" / "demo.json")
    (root / "README.md").write_text(results.with_table(text, stored), "utf-8")


if __name__ == "__main__":
    app()
