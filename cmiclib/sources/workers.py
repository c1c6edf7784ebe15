"""Work on many files in parallel, in order, where one bad file costs that file only.

The workers are processes of this machine or, where the environment names a Dask scheduler, those of a cluster:

    CMIC_SCHEDULER=tcp://10.0.0.1:8786 cmic prepare shapenet …      # pip install cmiclib[cluster]

They read the files by the same paths, so a cluster needs a shared disk; this process writes what they return.
"""

import contextlib
import os
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import groupby
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from ..errors import CMICError, SourceError
from . import PrepareOptions

SCHEDULER = "CMIC_SCHEDULER"
AT_ONCE = 512  # calls that a cluster gets together; their results are in memory at once, about 1 MB for a shape
T = TypeVar("T")
R = TypeVar("R")


class Defect(SourceError):
    """An exception that no reader expects; ``trace`` is its traceback, for a log file."""

    def __init__(self, trace: str):
        super().__init__("working on it failed unexpectedly", fix="leave the file out, and report the traceback")
        self.trace = trace


@contextlib.contextmanager
def results(
    function: Callable[[T], R],
    items: Iterable[T],
    what: str,
    options: PrepareOptions,
    *,
    threads: bool = False,
    together: Callable[[T], object] | None = None,
) -> Iterator[Iterator[tuple[T, R | CMICError]]]:
    """Call ``function`` with each item; give pairs of item and result, in the items' order, as they come.

    Where the call raises an error of this library, the error is the result; of any other exception it is a `Defect`.
    Leaving the block, also by an error of the caller's, stops the workers. ``function`` must be picklable
    unless ``threads``; ``what`` names the items on the bar; a cluster ignores the number of jobs. Neighbours for which
    ``together`` returns the same go to one worker, one after the other.
    """
    groups = [list(group) for _, group in groupby(items, together or id)]
    made: Generator[Any, None, None]
    if os.environ.get(SCHEDULER) and not threads:
        made = _on_cluster(function, groups)
    else:
        made = Parallel(options.jobs, prefer="threads" if threads else None, return_as="generator")(
            delayed(attempt_all)(function, group) for group in groups
        )
    pairs = (pair for group, part in zip(groups, made, strict=True) for pair in zip(group, part, strict=True))
    with warnings.catch_warnings(), contextlib.closing(made):
        warnings.filterwarnings("ignore", r"\d+ tasks ")  # joblib's, where the caller leaves early
        yield iter(tqdm(pairs, what, sum(map(len, groups)), disable=not options.progress or not groups))


def _on_cluster(function: Callable[[T], R], groups: list[list[T]]) -> Generator[Any, None, None]:
    """Call with each item on the cluster's processes; gives the results of each group in order."""
    address = os.environ[SCHEDULER]
    try:
        from distributed import Client

        client = Client(address, timeout=10)
    except ImportError:
        problem, fix = (
            f"{SCHEDULER} asks for a Dask cluster, but Dask is not installed",
            "pip install 'cmiclib[cluster]'",
        )
        raise SourceError(problem, fix=fix) from None
    except (OSError, ValueError) as error:
        problem, fix = f"no Dask scheduler answers at {address} ({error})", f"start one, or unset {SCHEDULER}"
        raise SourceError(problem, fix=fix) from None
    with client, parallel_config(backend="dask"):
        for start in range(0, len(groups), AT_ONCE):  # this backend returns nothing before all is done
            yield from Parallel()(delayed(attempt_all)(function, group) for group in groups[start : start + AT_ONCE])


def attempt_all(function: Callable[[T], R], items: Iterable[T]) -> list[R | CMICError]:
    """Return ``function(item)`` for each item, or the library's error that it raised."""
    made: list[R | CMICError] = []
    for item in items:
        try:
            made.append(function(item))
        except CMICError as error:
            made.append(error)
        except Exception:  # whatever one file does, the others are worked on; a person finds the traceback in a log
            made.append(Defect(traceback.format_exc()))
    return made
