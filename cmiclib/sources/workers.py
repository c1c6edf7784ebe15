"""Work on many files in parallel, in order, where one bad file costs that file only."""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from joblib import Parallel, delayed
from tqdm import tqdm

from ..errors import CMICError

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
        jobs: processes.
        what: the items in words, for the bar.
        progress: show a bar.
        threads: threads instead of processes.
    """
    waiting = list(items)
    made = Parallel(jobs, prefer="threads" if threads else None, return_as="generator")(
        delayed(partial(attempt, function))(item) for item in waiting
    )
    with warnings.catch_warnings(), contextlib.closing(made):
        warnings.filterwarnings("ignore", r"\d+ tasks ")  # joblib's, where the caller leaves early
        yield zip(waiting, tqdm(made, what, len(waiting), disable=not progress), strict=True)


def attempt(function: Callable[[T], R], item: T) -> R | CMICError:
    """Return ``function(item)``, or the library's error that it raised."""
    try:
        return function(item)
    except CMICError as error:
        return error
