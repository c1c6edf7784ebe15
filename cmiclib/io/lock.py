"""Locks between processes; the system releases them even when a process is killed."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import CMICError, StorageError


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; wait while another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


@contextmanager
def alone(folder: Path, error: type[CMICError]) -> Iterator[None]:
    """Hold ``folder/.lock``, or raise ``error``, which says who does; StorageError: the folder cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise StorageError(f"the folder could not be made ({fault})", path=folder, fix="give another folder") from None
    lock, note = FileLock(folder / ".lock"), folder / ".lock-holder"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = note.read_text("utf-8").strip() if note.is_file() else "another process"
        raise error(f"another run is at work here: {holder}", path=folder, fix="wait for it, or stop it") from None
    try:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(OSError):  # a full disk
            note.write_text(f"process {os.getpid()} on {platform.node()} since {now}\n", "utf-8")
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()
