"""Work on many files in parallel, in order, where one bad file costs that file only.

The workers are processes of this machine or, where the environment names a Dask scheduler, those of a cluster:

    CMIC_SCHEDULER=tcp://10.0.0.1:8786 cmic prepare shapenet …      # pip install cmiclib[cluster]

They read the files by the same paths, so a cluster needs a shared disk; what they make comes back and is written here.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from ..errors import CMICError, SourceError

SCHEDULER = "CMIC_SCHEDULER"
"""The environment variable that names a Dask scheduler, such as ``tcp://10.0.0.1:8786``."""

AT_ONCE = 512
"""Items that a cluster gets together; what it makes of them is in memory at once, about 1 MB of a shape."""

T = TypeVar("T")
R = TypeVar("R")


@contextlib.contextmanager
def results(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    jobs: int,
    what: str,
    progress: bool = True,
    threads: bool = False,
) -> Iterator[Iterator[tuple[T, R | CMICError]]]:
    """Call ``function`` with each item; gives pairs of item and result, in the items' order, as they come.

    Where the call raises an error of this library, the error is the result; any other one is a defect and ends
    everything. Leaving the block, also by an error of the caller's, stops the workers.

    Args:
        function: can be pickled, unless ``threads``.
        items: what it is called with.
        jobs: processes; on a cluster, all that it has.
        what: the items in words, for the bar.
        progress: show a bar.
        threads: threads of this process instead.

    Raises:
        SourceError: a scheduler is named and cannot be reached, or Dask is not installed.
    """
    waiting, call = list(items), partial(attempt, function)
    made: Generator[Any, None, None]
    if os.environ.get(SCHEDULER) and not threads:
        made = _on_cluster(call, waiting)
    else:
        made = Parallel(jobs, prefer="threads" if threads else None, return_as="generator")(
            delayed(call)(item) for item in waiting
        )
    with warnings.catch_warnings(), contextlib.closing(made):
        warnings.filterwarnings("ignore", r"\d+ tasks ")  # joblib's, where the caller leaves early
        yield zip(waiting, tqdm(made, what, len(waiting), disable=not progress), strict=True)


def _on_cluster(call: Callable[[T], Any], items: list[T]) -> Generator[Any, None, None]:
    """Call with each item on the cluster's processes; gives the results in order."""
    address = os.environ[SCHEDULER]
    try:
        from distributed import Client
    except ImportError:
        raise SourceError(
            f"{SCHEDULER} asks for a Dask cluster, but Dask is not installed", fix="pip install 'cmiclib[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"no Dask scheduler answers at {address} ({error})", fix=f"start one, or unset {SCHEDULER}"
        ) from None
    with client, parallel_config(backend="dask"):
        for start in range(0, len(items), AT_ONCE):  # this backend returns nothing before all is done
            yield from Parallel()(delayed(call)(item) for item in items[start : start + AT_ONCE])


def attempt(function: Callable[[T], R], item: T) -> R | CMICError:
    """Return ``function(item)``, or the library's error that it raised."""
    try:
        return function(item)
    except CMICError as error:
        return error
