"""What every chapter begins with: the repository's root, the configuration, the benchmark, the run, the outputs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Config
from ..config import profile as profile_config
from ..errors import BookError
from .chapters import find_root

if TYPE_CHECKING:
    from ..benchmark import Benchmark
    from ..training.run import Run

CHECKOUT = Path(__file__).resolve().parents[2]
SMOKE_SHAPES = 24  # as many of sweethome's shapes as the smallest profile takes


@dataclass(frozen=True)
class OpenChapter:
    """Where a chapter reads and writes; benchmark and run are opened, or made, when first asked for.

    Attributes:
        root: the folder that holds ``_toc.yml``.
        config: the profile's configuration.
        benchmark_name: ``sweethome``, or the folder of a prepared benchmark.
        outputs: the profile's folder of results; it exists.
    """

    root: Path
    config: Config
    benchmark_name: str
    outputs: Path

    @cached_property
    def benchmark(self) -> "Benchmark":
        """The prepared benchmark; ``sweethome`` is unpacked on first use, for ``smoke`` a part of it."""
        return open_benchmark(self.root, self.benchmark_name, self.config.profile)

    @property
    def live(self) -> bool:
        """Whether somebody opened this chapter; False while it runs for the report, where no kernel will answer."""
        return "CMIC_REPORT" not in os.environ

    @cached_property
    def run(self) -> "Run":
        """The trained model of this configuration on this benchmark: loaded if present, else trained."""
        from ..training.loop import train_or_load

        return train_or_load(self.config, self.benchmark, self.outputs / "runs")


def open_chapter(profile: str, benchmark: str, outputs: str = "outputs", overrides: Sequence[str] = ()) -> OpenChapter:
    """Return a chapter's surroundings and set the figures' style.

    The root is the nearest folder at or above the working folder that holds a book; elsewhere, as in Colab or where an
    editor starts the kernel in another folder, it is the checkout that this library belongs to.

    Args:
        profile: ``smoke``, ``demo`` or ``paper``.
        benchmark: ``sweethome``, or the folder of a prepared benchmark.
        outputs: folder for results; a relative one is below the root.
        overrides: changes of the profile such as ``loss.tau=0.05``; another configuration is another run.

    Raises:
        BookError: no book here or above, and the library is not in a checkout.
        ConfigError: no such profile, or an override that does not fit.
    """
    from ..figures.style import use_style

    root = chapter_root()
    config = profile_config(profile, overrides)
    folder = root / outputs / profile
    folder.mkdir(parents=True, exist_ok=True)
    use_style()
    return OpenChapter(root, config, benchmark, folder)


def chapter_root() -> Path:
    """Return the folder that a chapter's data and outputs are in, see :func:`open_chapter`.

    Raises:
        BookError: there is none.
    """
    try:
        return find_root(Path.cwd())
    except BookError:
        if not (CHECKOUT / "_toc.yml").is_file():
            raise
        return CHECKOUT


def open_benchmark(root: Path, name: str, profile: str) -> "Benchmark":
    """Open ``sweethome``, or the prepared benchmark in the folder ``name``.

    Raises:
        BenchmarkError: the folder is missing or damaged.
    """
    from ..benchmark import Benchmark
    from ..sources.sweethome import open_sweethome

    if name == "sweethome":
        return open_sweethome(shapes=SMOKE_SHAPES if profile == "smoke" else None)
    return Benchmark.open(root / Path(name).expanduser())
