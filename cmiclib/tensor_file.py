"""Write a safetensors file piece by piece, for tensors that are larger than the memory.

The safetensors library writes only what is in memory, and copies it first; it reads such files without reading them
through. The format: the header's length in 8 bytes, the header as JSON, then the tensors one after another.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8",
}  # fmt: skip
"""What the format calls the types that are written here."""


@dataclass(frozen=True)
class Blocks:
    """A tensor that comes in parts along its first axis; they are asked for once, when they are written."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    parts: Iterable[Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> "Blocks":
        """Take a whole tensor as its only part."""
        return cls(tuple(tensor.shape), tensor.dtype, [tensor])

    @property
    def bytes(self) -> int:
        """Bytes of the whole."""
        return prod(self.shape) * self.dtype.itemsize


def write_tensors(path: Path, tensors: Mapping[str, Blocks], metadata: Mapping[str, str]) -> None:
    """Write tensors and texts into one file.

    Args:
        path: the file; replaced.
        tensors: by name.
        metadata: texts by name.

    Raises:
        ValueError: parts that do not make up the tensor that was announced.
        OSError: the disk is full or read-only.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))  # so all numbers are aligned
    end = 0
    for name in order:
        blocks = tensors[name]
        start, end = end, end + blocks.bytes
        header[name] = {"dtype": NAMES[blocks.dtype], "shape": list(blocks.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            written = 0
            for part in tensors[name].parts:
                if part.dtype != tensors[name].dtype or part.shape[1:] != tensors[name].shape[1:]:
                    raise ValueError(f"a part of {name} is {part.dtype} {tuple(part.shape)}: {tensors[name].shape}")
                data = part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
                written += file.write(data)  # type: ignore[arg-type]
            if written != tensors[name].bytes:
                raise ValueError(f"the parts of {name} have {written} bytes, not {tensors[name].bytes}")
