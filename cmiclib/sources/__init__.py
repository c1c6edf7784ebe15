"""Raw data sets on one side, the prepared benchmark format on the other: one module per source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..benchmark import Benchmark


@dataclass(frozen=True)
class PrepareOptions:
    """What every preparation can be told."""

    size: int = 224  # side of photos and views in pixels
    jobs: int = 2  # processes
    allow_missing: bool = False  # leave out what is missing or cannot be used, instead of refusing
    progress: bool = True  # show bars


DEFAULT = PrepareOptions()


class Prepared(NamedTuple):
    """A benchmark, and what was left out of it, each with its reason; `left_out.txt` in its folder holds the same."""

    benchmark: Benchmark
    left_out: list[str]


def listed(problems: Sequence[str], noun: str, rest: str = "", most: int = 12) -> str:
    """Return one sentence that counts problems and names the first ones."""
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return f"{len(problems)} {noun}{'s' * (len(problems) != 1)}{rest}: {'; '.join(problems[:most])}{more}"
