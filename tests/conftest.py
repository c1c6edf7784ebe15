"""Fixtures that several test modules share.

What is heavy is imported where it is used: xdist's coordinator reads this file before it starts its workers.
"""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmiclib.book.notebooks import without_iri_grammar
from cmiclib.engine.memory import keep_memory

if TYPE_CHECKING:
    from cmiclib.benchmark import Benchmark
    from cmiclib.browser.retriever import Retriever
    from cmiclib.index import ShapeIndex
    from cmiclib.training.run import Run

# As the commands do; Python looks seldom through the many objects that the imports make.
keep_memory()
without_iri_grammar()
gc.set_threshold(100_000, 20, 100)


@pytest.fixture(scope="session")
def tiny_benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """A complete benchmark of 8 shapes and 42 photos at 32 px; do not write into it."""
    from tinybench import write_tiny_benchmark

    return write_tiny_benchmark(tmp_path_factory.mktemp("benchmark") / "tiny")


@pytest.fixture(scope="session")
def shared_root() -> Path:
    """The folder of research data: $CMIC_SHARED, or `shared` next to the repository."""
    root = Path(os.environ.get("CMIC_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (root / "docs").is_dir():
        pytest.skip(f"no research data at {root}; set CMIC_SHARED to its folder")
    return root


UNTRAINED = {
    "profile": "test",
    "model": {"query_backbone": "test_resnet", "view_backbone": "test_resnet", "image_size": 32, "init": "random"},
}


@pytest.fixture(scope="session")
def index(tiny_benchmark: Benchmark) -> ShapeIndex:
    """An index of the tiny benchmark's gallery, of an untrained model."""
    import torch

    from cmiclib.config import Config
    from cmiclib.index import ShapeIndex
    from cmiclib.model import CMIC

    torch.manual_seed(0)
    config = Config.model_validate(UNTRAINED)
    return ShapeIndex.build(CMIC(config.model), tiny_benchmark, config)


@pytest.fixture
def untrained_run(index: ShapeIndex, tmp_path: Path) -> Run:
    """A run folder with the weights of the untrained model."""
    from cmiclib.training.run import Run, save_weights

    folder = tmp_path / "untrained"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(UNTRAINED))
    save_weights(folder / "model.safetensors", index.model)
    return Run.open(folder)


@pytest.fixture(scope="session")
def tiny_run(index: ShapeIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the untrained model, for a server; do not write into it."""
    from cmiclib.io.atomic import write_json
    from cmiclib.training.run import save_weights

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    write_json(folder / "config.json", index.config.model_dump(mode="json"))
    save_weights(folder / "model.safetensors", index.model)
    return folder


@pytest.fixture(scope="session")
def retriever(index: ShapeIndex, tiny_benchmark: Benchmark) -> Retriever:
    """The browser's core over the tiny benchmark."""
    from cmiclib.browser.retriever import Retriever

    return Retriever(index, tiny_benchmark)
