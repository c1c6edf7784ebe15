"""What a chapter begins with."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from toybook import make_book

from cmiclib import book
from cmiclib.book import find_root
from cmiclib.errors import BenchmarkError, BookError, ConfigError


@pytest.mark.parametrize("start", [".", "book"])
def test_a_chapter_finds_its_surroundings_from_root_and_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    root = make_book(tmp_path)
    monkeypatch.chdir(root / start)
    with plt.rc_context():
        chapter = book.open_chapter("smoke", "sweethome")
    assert chapter.root == root.resolve()
    assert chapter.outputs == root.resolve() / "outputs" / "smoke" and chapter.outputs.is_dir()
    assert chapter.config.profile == "smoke"


def test_another_benchmark_is_opened_once_and_from_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_benchmark
) -> None:
    root = make_book(tmp_path)
    (root / "data").mkdir()
    (root / "data" / "mine").symlink_to(tiny_benchmark.path, target_is_directory=True)
    monkeypatch.chdir(root / "book")
    with plt.rc_context():
        chapter = book.open_chapter("smoke", "data/mine")
    assert chapter.benchmark.hash == tiny_benchmark.hash
    assert chapter.benchmark is chapter.benchmark


def test_runs_are_kept_below_the_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_benchmark) -> None:
    from cmiclib.book import trained

    monkeypatch.setattr(trained, "train_or_load", lambda config, data, runs: (config.profile, data.hash, runs))
    root = make_book(tmp_path)
    monkeypatch.chdir(root)
    with plt.rc_context():
        chapter = book.open_chapter("smoke", str(tiny_benchmark.path), "elsewhere")
    assert trained.trained_run(chapter) == (
        "smoke",
        tiny_benchmark.hash,
        root.resolve() / "elsewhere" / "smoke" / "runs",
    )


def test_what_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BookError, match="no _toc"):
        find_root(tmp_path)
    monkeypatch.chdir(make_book(tmp_path))
    with pytest.raises(ConfigError, match="unknown profile 'tiny'"):
        book.open_chapter("tiny", "sweethome")
    with pytest.raises(BenchmarkError, match="missing"):
        book.open_benchmark(tmp_path, "missing", "demo")
