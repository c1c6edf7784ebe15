"""Read files of Jittor, the library of the released code: its checkpoints and ImageNet weights.

Jittor has had three kinds of files:

===========================  =====================================================================
releases to 1.3.8            a pickle of ``{name: array}``, its SHA-1 (20 bytes), then ``HCAJSLHD``
1.3.11, ``.pkl``             the same envelope; each array is wrapped in ``jittor_core.Var``
1.3.11, ``.pt``              PyTorch's zip file
===========================  =====================================================================
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError
from .files import check_stored, read_limited
from .pickles import load_pickle, sha1

MAGIC = b"HCAJSLHD"
VARIABLE = dict.fromkeys([("jittor", "jittor_core.Var"), ("jittor.jittor_core", "Var")], lambda value: value)
AGAIN = "download it again"
LIMIT = 4 << 30
"""Bytes; the released model has 0.14 GB."""


def read_jittor(path: str | Path) -> dict[str, Tensor]:
    """Return the arrays of a file that Jittor saved; anything else is a CheckpointError."""
    path = Path(path)
    data = read_limited(path, LIMIT, CheckpointError)
    if data[:4] == b"PK\x03\x04":
        try:
            check_stored(path)
            values = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 (after check_stored)
        except Exception as problem:  # torch raises many kinds of errors for damaged and for forged files
            reason = str(problem).split("\n")[0]
            raise CheckpointError(f"cannot be read as weights ({reason})", path=path, fix=AGAIN) from None
    elif data.endswith(MAGIC):
        body, digest = data[:-28], data[-28:-8]
        if sha1(body) != digest:
            raise CheckpointError("damaged: its SHA-1 is not the one that it carries", path=path, fix=AGAIN)
        values = load_pickle(body, path, CheckpointError, VARIABLE)
    else:
        fix = "check the path, or download it again"
        raise CheckpointError("not a file of Jittor, or its end is missing", path=path, fix=fix)
    return _tensors(values, path)


def _tensors(values: Any, path: Path) -> dict[str, Tensor]:
    wrong, fix = "it does not hold a table of named arrays", "give the file of a trained model"
    if not isinstance(values, dict) or not values or not all(isinstance(name, str) for name in values):
        raise CheckpointError(wrong, path=path, fix=fix)
    tensors, size = {}, 0
    for name, value in values.items():
        size += value.nbytes if isinstance(value, np.ndarray) else 0
        if size > LIMIT:  # a file can hold one array under many names
            raise CheckpointError("it unpacks to more than it can hold", path=path, fix=AGAIN)
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{wrong}: '{name}' is a {type(value).__name__}", path=path, fix=fix)
        tensors[name] = value
    return tensors
