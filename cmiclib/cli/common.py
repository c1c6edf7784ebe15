"""What the commands share: errors as messages, tables, JSON files, the types of options."""

import atexit
import gc
import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..engine.memory import keep_memory
from ..errors import CMICError
from ..io.atomic import NO_ROOM, way_out
from ..io.code import WEIGHTS

if TYPE_CHECKING:
    from ..benchmark import Benchmark
    from ..training.run import Run


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the process as Ctrl-C does, so that processes which it has started end as well."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Commands(TyperGroup):
    """Turns expected errors into a message without a traceback."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Read the command line; what a terminal cannot show is replaced."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # also under UTF-8, for names of files that are not
                stream.reconfigure(errors="replace")
        gc.set_threshold(100_000)  # else Python looks many times through what the imports make
        atexit.register(gc.freeze)  # and for a second before it ends
        return super().main(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        keep_memory()
        try:
            return super().invoke(ctx)
        except CMICError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except OSError as error:
            if error.errno not in NO_ROOM and not error.filename:
                raise
            where = f"{error.filename}: " if error.filename else ""
            typer.echo(f"error: {where}{error.strerror}\n  How to fix: {way_out(error)}", err=True)
            raise typer.Exit(2) from None


def folder_option(help: str, metavar: str = "DIR") -> Any:
    """Return an option whose value is a folder."""
    return typer.Option(metavar=metavar, help=help)


def file_option(help: str) -> Any:
    """Return an option whose value is a file."""
    return typer.Option(metavar="FILE", help=help)


def flag(name: str, help: str) -> Any:
    """Return an option that is given or not, without ``--no-…``."""
    return typer.Option(name, help=help)


AutoMask = Annotated[bool, typer.Option("--auto-mask", help="compute a mask where none is given; most photos do worse")]
Profile = Annotated[str, typer.Option(help="smoke, demo, photos, fit or paper")]
BenchmarkName = Annotated[str, typer.Option(help="sweethome, or the folder of a prepared benchmark")]
Outputs = Annotated[str, typer.Option(help="folder for results, inside the repository")]
Folder = Annotated[Path, folder_option("a prepared benchmark, or sweethome")]
SHIPPED = WEIGHTS / "general"
SHIPPED_INDEX = WEIGHTS.parent / "browser" / "sweethome.safetensors"
RunFolder = Annotated[
    Path, typer.Option("--run", "-r", metavar="RUN", show_default="the shipped weights", help="a run of `cmic train`")
]
RunOutput = Annotated[Path, folder_option("the run folder to write", "RUN")]
IndexPath = Annotated[
    str | None,
    typer.Option(metavar="INDEX", help="what `cmic index` made of this gallery: a file, a database or its address"),
]
Exact = Annotated[bool, typer.Option("--exact", help="go on until the answer is proven; matters to a database")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="also write the result here")]


def open_benchmark(folder: Path, verify: bool = True) -> "Benchmark":
    """Open a prepared benchmark, or the shipped one by its name."""
    from ..benchmark import Benchmark
    from ..sources.sweethome import open_sweethome

    return open_sweethome() if str(folder) == "sweethome" and not folder.exists() else Benchmark.open(folder, verify)


def open_run(folder: Path) -> "Run":
    """Open a run; the shipped one is named, because nobody asked for it."""
    from ..training.run import Run

    if folder == SHIPPED:
        typer.echo(f"weights: {folder}", err=True)
    return Run.open(folder)


def proof(certified: bool, visited: int) -> str:
    """Say it where an answer is not proven to be that of a full search."""
    return "" if certified else f"the best of {visited:,} candidates, not proven; --exact goes on"


def show(header: list[str], rows: list[list[str]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for name in header:
        table.add_column(name, overflow="fold")  # a path that is cut off names no file
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)


def write_json(path: Path | None, values: Any) -> None:
    """Write values to a file, if ``path`` is given; StorageError if that fails."""
    if path is not None:
        from ..io import atomic

        atomic.write_json(path, values)
