"""Read ``.binvox`` files: a header in words, then run lengths.

Format: https://www.patrickmin.com/binvox/binvox.html. The runs fill x slowest, then z, then y; here the result is
indexed x, y, z.
"""

from pathlib import Path

import numpy as np

from ..errors import SourceError
from ..io.files import read_limited

SIDE = 128
LIMIT = 2 * SIDE**3 + 4096
"""Bytes: a grid of single runs, and a header."""


def read_binvox(path: Path) -> np.ndarray:
    """Return the grid as bool (128, 128, 128).

    Raises:
        SourceError: missing, not such a file, of another size, or cut off.
    """
    data = read_limited(path, LIMIT, SourceError)
    head, found, body = data.partition(b"\ndata\n")
    lines = head.split(b"\n")
    dimensions = next((line.split()[1:] for line in lines if line.startswith(b"dim")), [])
    if not found or not lines[0].startswith(b"#binvox") or dimensions != [str(SIDE).encode()] * 3:
        raise SourceError(f"this is no binvox file of {SIDE}³ voxels", path=path, fix=f"voxelise with binvox -d {SIDE}")
    runs = np.frombuffer(body[: len(body) // 2 * 2], np.uint8).reshape(-1, 2)
    if runs[:, 1].sum(dtype=np.int64) != SIDE**3 or (runs[:, 0] > 1).any():
        raise SourceError("the runs do not fill the grid", path=path, fix="the file is damaged: make it again")
    values = np.repeat(runs[:, 0].astype(bool), runs[:, 1])
    return values.reshape(SIDE, SIDE, SIDE).transpose(0, 2, 1)
