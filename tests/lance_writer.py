"""A process of the kill test: it appends so many blocks of shapes, then goes on while a file is there."""

import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from cmiclib.index import ShapeIndex

EACH, VIEWS, DIM = 20, 4, 16


def block(writer: int, number: int) -> tuple[list[str], torch.Tensor, range]:
    """Give the names, vectors and places of a block; blocks overlap by half, and the two writers share every third."""
    first = number * EACH // 2 + (0 if number % 3 == 0 else 10_000 * (writer + 1))
    names = [f"shape/{row}" for row in range(first, first + EACH)]
    drawn = [np.random.default_rng(row).standard_normal((VIEWS, DIM)) for row in range(first, first + EACH)]
    return names, F.normalize(torch.tensor(np.stack(drawn)).float(), dim=-1), range(first, first + EACH)


if __name__ == "__main__":
    path, writer, blocks, going = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    index = ShapeIndex.load(path)
    for number in count():
        if number >= blocks and not going.exists():
            break
        names, views, rows = block(writer, number)
        index.append(names, views, rows)
        print(number, flush=True)
        time.sleep(0.02)
