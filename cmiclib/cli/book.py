"""Commands around the book: reproduce, book, vendor, verify, readme."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ..book import find_root
from ..errors import BookError, ConfigError
from .common import (
    SHIPPED,
    BenchmarkName,
    IndexPath,
    Outputs,
    Profile,
    ended_by_sigterm,
    flag,
    folder_option,
    open_benchmark,
    open_run,
    show,
    write_json,
)  # fmt: skip

SIDE_BY_SIDE = "chapters that run side by side; one that measures times runs alone"
RUN = "a run folder; default: your newest run, otherwise the shipped model"


def reproduce(
    parameters: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...")] = None,
    profile: Profile = "demo", benchmark: BenchmarkName = "sweethome", outputs: Outputs = "outputs",
    chapter: Annotated[list[str] | None, typer.Option(help="run only this and what it needs; repeatable")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, show_default="2, or 1; see below", help=SIDE_BY_SIDE)
    ] = None,
) -> None:  # fmt: skip
    """Run the chapters whose inputs changed and write the report; NAME=VALUE sets a parameter of the chapters.

    Two chapters run side by side; one for the profile paper, beside a GPU, on one core, or below 12 GB of memory.

    OVERRIDES=[…] is an experiment: results and report get a folder of their own, OUTPUTS/experiments/….
    """
    from ..config import profile as profile_config

    root, given = find_root(Path.cwd()), dict(parse_parameter(text) for text in parameters or [])
    if isinstance(overrides := given.get("OVERRIDES"), list):
        profile_config(profile, map(str, overrides))  # a typo shall not wait for what is imported below

    from ..book import open_benchmark
    from ..book.publish import fetch_vendor
    from ..book.runner import reproduce

    def benchmark_hash() -> str:
        if fetch_vendor(root):  # early, because the report cannot be written without
            typer.echo("fetched the scripts that the report needs offline")
        return open_benchmark(root, benchmark, profile).hash

    with ended_by_sigterm():  # else its kernels stay
        result = reproduce(
            root, profile=profile, benchmark=benchmark, outputs=outputs, benchmark_hash=benchmark_hash,
            chapters=chapter, parameters=given, at_once=jobs,
        )  # fmt: skip
    write_report(root, profile, result.outputs)
    if result.failed:
        notebooks = ", ".join(f"{result.outputs}/{profile}/notebooks/{name}.ipynb" for name in result.failed)
        skipped = f"; {', '.join(result.skipped)} needed them" if result.skipped else ""
        failed = f"these chapters failed: {', '.join(result.failed)}{skipped}"
        raise BookError(failed, fix=f"read the error in {notebooks}")


def parse_parameter(text: str) -> tuple[str, Any]:
    """Split ``NAME=VALUE`` and parse a number, a boolean or a list; anything else stays a string.

    Quotes in a list may be missing, because shells remove them: ``OVERRIDES=[loss.tau=0.05]``.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"'{text}' is not NAME=VALUE", fix="write for example K=5")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, yaml.safe_load(value) if value.startswith("[") else value


def write_report(root: Path, profile: str, outputs: str) -> None:
    """Build the HTML if necessary and say where it is."""
    from ..book.publish import publish

    page, built = publish(root, profile, outputs)
    typer.echo(f"report: {os.path.relpath(page, root)}" + ("" if built else " (unchanged)"))


def book(profile: Profile = "demo", outputs: Outputs = "outputs") -> None:
    """Write the HTML report from the executed notebooks."""
    write_report(find_root(Path.cwd()), profile, outputs)


def vendor() -> None:
    """Fetch the scripts with which the report opens without a network."""
    from ..book.publish import fetch_vendor

    fetched = fetch_vendor(find_root(Path.cwd()))
    typer.echo("fetched into vendor/" if fetched else "vendor/ is complete")


def app(
    run: Annotated[Path | None, folder_option(RUN, "RUN")] = None,
    benchmark: Annotated[Path | None, folder_option("the gallery, or sweethome; default: the run's own")] = None,
    shapes: Annotated[Path | None, folder_option("a folder of meshes as the gallery, as in `cmic find`")] = None,
    port: Annotated[int, typer.Option(help="port on 127.0.0.1")] = 8866,
    tab: Annotated[bool, typer.Option("--tab/--no-tab", help="open the app in the web browser")] = True,
    index: IndexPath = None,
) -> None:
    """Open the query browser as an app on this machine; programs ask it by POST /search, see /openapi.json."""
    from ..browser.app import listen, open_retriever, renderers_end, serve
    from ..index.cache import gallery_index
    from ..sources import PrepareOptions
    from ..sources.own.kept import cache_folder, keep_gallery

    if shapes and benchmark:
        raise ConfigError("--shapes and --benchmark are both galleries", fix="give one of the two")
    with ended_by_sigterm(), renderers_end(), listen(port) as listener:  # before what can take long
        if shapes:
            weights = open_run(run or SHIPPED)
            options = PrepareOptions(size=weights.config.model.image_size)
            kept = keep_gallery(shapes, cache_folder(), options)
            for line in kept.left_out:
                typer.echo(f"not taken: {line}", err=True)
            if not index:
                gallery_index(weights, kept.benchmark, progress=True)
            run, benchmark = weights.path, kept.benchmark.path
        elif benchmark:
            benchmark = open_benchmark(benchmark, verify=False).path
        serve(*open_retriever(str(run) if run else None, str(benchmark) if benchmark else None, index), listener, tab)


def verify(
    store: Annotated[bool, flag("--store", "store the results of outputs/demo instead of comparing them")] = False,
) -> None:
    """Compare outputs/demo with data/results/demo.json, within its tolerances."""
    from ..book.chapters import read_book
    from ..book.tables import compare, read_metrics, read_results, snapshot

    root = find_root(Path.cwd())
    outputs, path = root / "outputs" / "demo", root / "data" / "results" / "demo.json"
    stored = read_results(path)
    if store:
        write_json(path, snapshot(outputs, stored["tolerances"], [chapter.name for chapter in read_book(root)]))
        return
    rows = compare(read_metrics(outputs), stored)
    lines = []
    for row in rows:
        measured = "–" if row.measured is None else f"{row.measured:.4f}"
        lines.append([row.metric, measured, f"{row.stored:.4f}", f"{row.tolerance}", "ok" if row.agrees else "differs"])
    show(["metric", "measured", "stored", "tolerance", ""], lines)
    if differing := [row.metric for row in rows if not row.agrees]:
        raise BookError(f"outside the tolerance: {', '.join(differing)}", fix="see the chapter on provenance")


def readme() -> None:
    """Write the README's sentences and table of results from data/results."""
    from ..book.front import with_table

    root = find_root(Path.cwd())
    page = root / "README.md"
    page.write_text(with_table(page.read_text("utf-8"), root / "data" / "results"), "utf-8")
