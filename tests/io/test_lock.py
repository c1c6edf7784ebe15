"""Locks between processes: one waits, one is told who is at work, and a killed process holds nothing."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cmiclib.errors import BookError
from cmiclib.io.lock import alone, in_turn


@contextmanager
def holding(statement: str, path: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds a lock until it is killed."""
    code = (
        "import sys; from pathlib import Path; from cmiclib.errors import BookError; "
        f"from cmiclib.io.lock import alone, in_turn\nwith {statement}:\n print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


ALONE, IN_TURN = "alone(Path(sys.argv[1]), BookError)", "in_turn(Path(sys.argv[1]))"


def test_in_turn_waits_until_the_other_process_is_done(tmp_path: Path) -> None:
    entered = threading.Event()

    def enter() -> None:
        with in_turn(tmp_path / "folder" / "x.lock"):
            entered.set()

    with holding(IN_TURN, tmp_path / "folder" / "x.lock") as other:
        waiting = threading.Thread(target=enter, daemon=True)
        waiting.start()
        assert not entered.wait(0.5)
        other.kill()
        assert entered.wait(30)
        waiting.join(30)


def test_alone_says_who_holds_it(tmp_path: Path) -> None:
    with (
        holding(ALONE, tmp_path) as other,
        pytest.raises(BookError, match=rf"another run is at work here: process {other.pid} on .* since 20\d\d-"),
        alone(tmp_path, BookError),
    ):
        pass


def test_alone_works_where_the_note_is_missing(tmp_path: Path) -> None:
    with holding(ALONE, tmp_path):
        (tmp_path / ".lock-holder").unlink()
        with pytest.raises(BookError, match="another process"), alone(tmp_path, BookError):
            pass
    with alone(tmp_path, BookError):
        (tmp_path / ".lock-holder").unlink()


@pytest.mark.parametrize("statement", [ALONE, IN_TURN], ids=["alone", "in turn"])
def test_a_killed_process_holds_nothing(tmp_path: Path, statement: str) -> None:
    path = tmp_path if statement == ALONE else tmp_path / "x.lock"
    with holding(statement, path) as other:
        other.kill()
        other.wait(30)
        started = time.monotonic()
        with alone(path, BookError) if statement == ALONE else in_turn(path):
            assert time.monotonic() - started < 10
    if statement == ALONE:
        with alone(tmp_path, BookError):
            assert f"process {os.getpid()} " in (tmp_path / ".lock-holder").read_text("utf-8")
        assert not (tmp_path / ".lock-holder").exists()
