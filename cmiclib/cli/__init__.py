"""The command `cmic`: thin commands over the library. An error that a user can cause gives one message, status 2."""

import atexit
import os
import sys
import threading
from multiprocessing import active_children

import typer

from .ablations import ablation, ablations
from .book import app as browser_app
from .book import book, readme, reproduce, vendor, verify
from .common import Commands
from .find import find
from .fit import fit
from .method import convert, evaluate, index, save, search, train
from .prepare import prepare

app = typer.Typer(
    cls=Commands,
    help="Single-image 3D shape retrieval: find, prepare, train, evaluate, index, search; and the book around them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(prepare, name="prepare")
for command in (
    find,
    fit,
    train,
    evaluate,
    index,
    convert,
    save,
    search,
    reproduce,
    ablations,
    ablation,
    book,
    vendor,
    verify,
    readme,
):
    app.command()(command)
app.command("app")(browser_app)


def main() -> None:
    """Run a command, and end at once: to take apart what PyTorch has built would cost half a second."""
    try:
        app()
    except SystemExit as end:
        at_work = [thread for thread in threading.enumerate() if not thread.daemon][1:] or active_children()
        if not isinstance(end.code, int | None) or at_work or sys.getprofile() or sys.gettrace():
            raise
        atexit._run_exitfuncs()
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream:  # not closed from the start
                    stream.flush()
        except OSError:  # nobody reads, or no room: Python says so and ends with a status of its own
            raise end from None
        os._exit(end.code or 0)
