"""What every chapter begins with: the repository's root, the configuration, the benchmark, the folder for results."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.memory import keep_memory
from ..errors import BookError

if TYPE_CHECKING:
    from ..benchmark import Benchmark
    from ..config import Config

CHECKOUT = Path(__file__).resolve().parents[2]
SMOKE_SHAPES = 24  # the smallest profile takes this many of sweethome's shapes


@dataclass(frozen=True)
class OpenChapter:
    """Where a chapter reads and writes; for the trained model it asks :func:`cmiclib.book.trained.trained_run`."""

    root: Path  # the folder that holds _toc.yml
    config: "Config"  # the profile's, with the chapter's overrides
    benchmark_name: str  # sweethome, or the folder of a prepared benchmark
    outputs: Path  # the profile's folder of results; it exists

    @cached_property
    def benchmark(self) -> "Benchmark":
        """The prepared benchmark; ``sweethome`` is unpacked on first use, for ``smoke`` a part of it."""
        return open_benchmark(self.root, self.benchmark_name, self.config.profile)

    @property
    def live(self) -> bool:
        """Whether somebody opened this chapter; False while it runs for the report, where no kernel will answer."""
        return "CMIC_REPORT" not in os.environ


def open_chapter(profile: str, benchmark: str, outputs: str = "outputs", overrides: Sequence[str] = ()) -> OpenChapter:
    """Return a chapter's surroundings and set the figures' style.

    The root is the nearest folder at or above the working folder that holds a book. Elsewhere, as in Colab or where an
    editor starts the kernel in another folder, it is the checkout that this library belongs to; BookError without one.

    ``benchmark`` is ``sweethome``, or the folder of a prepared one; ``outputs`` is relative to the root. ``overrides``
    change the profile (smoke, demo, photos or paper), as in ``loss.tau=0.05``: another configuration is another run.
    ConfigError: no such profile, or an override that does not fit.
    """
    from ..config import profile as profile_config
    from ..figures.style import use_style

    keep_memory()
    try:
        root = find_root(Path.cwd())
    except BookError:
        if not (CHECKOUT / "_toc.yml").is_file():
            raise
        root = CHECKOUT
    config = profile_config(profile, overrides)
    folder = root / outputs / profile
    folder.mkdir(parents=True, exist_ok=True)
    use_style()
    return OpenChapter(root, config, benchmark, folder)


def find_root(start: Path) -> Path:
    """Return the nearest folder at or above ``start`` that holds a book; BookError if there is none."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "_toc.yml").exists():
            return folder
    fix = "change to the repository's root or to its book/ folder"
    raise BookError("no _toc.yml here or above", path=start, fix=fix)


def open_benchmark(root: Path, name: str, profile: str) -> "Benchmark":
    """Open ``sweethome``, or the prepared benchmark in the folder ``name``."""
    from ..benchmark import Benchmark
    from ..sources.sweethome import open_sweethome

    if name == "sweethome":
        return open_sweethome(shapes=SMOKE_SHAPES if profile == "smoke" else None)
    return Benchmark.open(root / Path(name).expanduser())
