"""Files that are written whole or not at all."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..errors import StorageError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


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
        raise StorageError(f"could not be written ({error})", path=path, fix=way_out(error)) from None


def way_out(error: Exception) -> str:
    """Say what a user can do about an error in writing."""
    if isinstance(error, IsADirectoryError):
        return "there is a folder of this name: give the name of a file, or remove it"
    if isinstance(error, OSError) and error.errno not in NO_ROOM:
        return "check the path, and whether you may write there"
    return "make room on the disk, then run again"


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
