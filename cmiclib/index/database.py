"""What lies in a LanceDB database, and how it is opened and written to; see :mod:`cmiclib.index.lance`."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError, StorageError

COLUMNS = ["shape_id", "row", "views"]
LAYOUT = "2.0"
"""Of Lance's files; to read the later ones takes 1.7 times as long."""
KEY = {"lance-schema:unenforced-primary-key": "true"}


class Shapes(NamedTuple):
    """Some shapes: names, places in the gallery (n,) and vectors (n, V, d)."""

    names: list[str]
    rows: np.ndarray
    views: Tensor

    @classmethod
    def of(cls, batch: Any, kind: Tensor) -> "Shapes":
        """Read them from a batch of the table; ``kind`` is (…, V, d)."""
        numbers = torch.from_numpy(batch["views"].flatten().flatten().to_numpy().copy())
        vectors = F.normalize(numbers.view(-1, *kind.shape[1:]).float(), dim=-1)
        return cls(batch["shape_id"].to_pylist(), batch["row"].to_numpy(), vectors)

    def part(self, some: Tensor) -> "Shapes":
        """Return the shapes ``some`` (m,) of these."""
        return Shapes([self.names[i] for i in some.tolist()], self.rows[some.numpy()], self.views[some])


def best_of(scored: list[tuple[Shapes, Tensor]], k: int) -> tuple[Shapes, Tensor]:
    """Return the k best of some shapes with their scores (n,), of equal scores the lower row first."""
    names, rows = [name for shapes, _ in scored for name in shapes.names], np.concatenate([s.rows for s, _ in scored])
    whole = Shapes(names, rows, torch.cat([shapes.views for shapes, _ in scored]))
    scores = torch.cat([values for _, values in scored])
    order = torch.from_numpy(np.lexsort((rows, -scores.numpy()))[:k])
    return whole.part(order), scores[order]


def table_of(shape_ids: Sequence[str], rows: Sequence[int], digests: Sequence[str], vectors: Tensor) -> Any:
    """Return shapes with vectors (n, V, d) as the table stores them."""
    import pyarrow as pa  # LanceDB brings it

    n, views, d = vectors.shape
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.half().numpy().reshape(-1)), d)
    column = pa.ListArray.from_arrays(pa.array(np.arange(0, n * views + 1, views, dtype=np.int32)), flat)
    schema = pa.schema([
        pa.field("shape_id", pa.string(), nullable=False, metadata=KEY), pa.field("row", pa.int64()),
        pa.field("digest", pa.string()), pa.field("views", pa.list_(pa.list_(pa.float16(), d))),
    ])  # fmt: skip
    columns = pa.array(shape_ids, pa.string()), pa.array(rows, pa.int64()), pa.array(digests, pa.string()), column
    return pa.table([*columns], schema=schema)


def parts(file: bytes) -> tuple[Any, bytes]:
    """Split a safetensors file into its header, whose order changes from one writing to the next, and its numbers."""
    end = 8 + int.from_bytes(file[:8], "little")
    return json.loads(file[8:end]), file[end:]


def among(names: Sequence[str]) -> str:
    """Return the condition that a shape has one of these names."""
    quoted = ("'" + name.replace("'", "''") + "'" for name in names)
    return f"shape_id IN ({', '.join(quoted)})"


def connect(address: str | Path) -> Any:
    """Open a database whose every read sees the latest version.

    ConfigError without LanceDB, StorageError where the address cannot be reached.
    """
    try:
        import lancedb
    except ImportError:
        raise ConfigError("this needs LanceDB", path=str(address), fix="pip install 'cmiclib[scale]'") from None
    options = {"new_table_data_storage_version": LAYOUT}
    try:
        return lancedb.connect(str(address), read_consistency_interval=timedelta(0), storage_options=options)
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"the database cannot be reached ({str(error).splitlines()[0]:.200})"
        fix = "check the address, and for a bucket its region and credentials"
        raise StorageError(problem, path=str(address), fix=fix) from None


@contextmanager
def writing(address: str | Path) -> Iterator[None]:
    """Turn the engine's errors into one StorageError; what is there stays as it was."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"writing failed ({str(error).splitlines()[0]:.200})"
        raise StorageError(problem, path=str(address), fix="make room, or check the address, then run again") from None
