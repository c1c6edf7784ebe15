"""Files that are written whole or not at all."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..errors import StorageError


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file, then sync it and rename it to ``path``.

    When the disk is full or read-only, the error is a StorageError, and a file that was at ``path`` stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # of this process alone
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, SafetensorError, RuntimeError) as error:
        with suppress(OSError):
            temporary.unlink()
        fix = "make room on the disk, then run again"
        raise StorageError(f"could not be written ({error})", path=path, fix=fix) from None


def write_json(path: Path, values: Any) -> None:
    """Write indented JSON in UTF-8, keys in their order, with :func:`write_atomically`."""
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8", "backslashreplace"))


def sync_folder(path: Path) -> None:
    """Make a renaming in this folder survive a loss of power, where the system can."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
