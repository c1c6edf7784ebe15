"""A gallery in a LanceDB database: a folder or a bucket that many processes write into, searched without loading it.

The database holds two tables. ``head`` has one row, an index file without shapes: photo encoder, W, configuration.
``shapes`` has one row a shape: its name, its place in the gallery, a digest of what its views were made of, and their
vectors in float16.

A score is a mixture of the products q·r_v, so max_v q·r_v bounds it from above; the engine orders shapes by this bound
(MaxSim with one query vector). A search scores the first candidates exactly. If the k-th score reaches the bound of the
last candidate, no other shape can be better, and the answer is *certified*: it is that of a full search.

Every write is one new version: what is interrupted leaves the last one. The name is the table's primary key, so a shape
that two processes write at once, or one process twice, is kept once.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..benchmark import Benchmark
from ..config import Config
from ..embed import embed_gallery
from ..engine.distributed import ALONE, Processes
from ..errors import CheckpointError
from ..metrics import top_k
from ..model import CMIC, fused_scores, fused_weights
from . import SearchResult, ShapeIndex, views_sha256
from .database import COLUMNS, Shapes, among, best_of, connect, parts, table_of, writing
from .file import Contents, read_index

CANDIDATES = 1 << 13
"""Shapes that a search scores exactly before it stops without a certificate."""
ROUNDING = 1e-5
"""How far the engine's bound may lie from one's own: both sum 128 products in float32."""
SHORT = 1e-6
"""Queries of less length are not given to the engine, whose float16 ends there."""
BLOCK = 4096
"""Shapes of one read of the whole gallery: 12 MB on the disk."""
AT_ONCE = 512
"""Shapes that are embedded between two writings."""


class LanceIndex(ShapeIndex):
    """A gallery in a LanceDB database, with the face of :class:`ShapeIndex`; every read sees the latest version.

    ``views`` and ``shape_ids`` read the whole gallery's; a search does not.
    """

    def __init__(self, head: Contents, table: Any):
        vars(self).update(vars(head))
        self.table, self.empty = table, head.views  # (0, V, d)
        self._known: tuple[int, dict[str, str]] = -1, {}

    @classmethod
    def create(cls, address: str | Path, head: Contents) -> "LanceIndex":
        """Make a database for shapes like those of ``head``, whose own are left out, or open the one that is there.

        CheckpointError where the one that is there has another encoder; ConfigError without LanceDB.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "head"
            empty = {"views": head.views[:0].float(), "shape_ids": [], "gallery": "", "extra": {}}
            ShapeIndex(**vars(head) | empty).save(file)
            written = file.read_bytes()
        base, shapes = connect(address), table_of([], [], [], head.views[:0])
        import pyarrow as pa  # LanceDB brings it

        content = pa.table({"file": pa.array([written], pa.large_binary())})
        with writing(address):
            base.create_table("shapes", schema=shapes.schema, exist_ok=True)
            base.create_table("head", content, exist_ok=True)
        if parts(base.open_table("head").to_arrow()["file"][0].as_py()) != parts(written):
            fix = "write to another place, or use the run and the device that it was made with"
            raise CheckpointError("the index there belongs to another encoder", path=str(address), fix=fix)
        return cls.load(address, head.device)

    @classmethod
    def load(
        cls, path: str | Path, device: torch.device | str | None = None, version: int | None = None
    ) -> "LanceIndex":
        """Open a database as :meth:`ShapeIndex.load` opens a file, by default in its latest version."""
        base = connect(path)
        try:
            file, table = base.open_table("head").to_arrow()["file"][0].as_py(), base.open_table("shapes")
            if version is not None:
                table.checkout(version)
        except (ValueError, OSError, RuntimeError, KeyError, IndexError) as error:
            problem = f"this is not a complete index ({str(error).splitlines()[0]:.200})"
            fix = "make it, or make it again, with `cmic index --engine lance`"
            raise CheckpointError(problem, path=str(path), fix=fix) from None
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "head").write_bytes(file)
            return cls(read_index(Path(folder) / "head", device), table)

    @classmethod
    def grow(
        cls, address: str | Path, model: CMIC, benchmark: Benchmark, config: Config, processes: Processes = ALONE
    ) -> "LanceIndex":
        """Make or continue a database: each process embeds and writes its share of a benchmark's shapes."""
        none = torch.empty(0, benchmark.views.shape[1], model.config.length)
        if processes.first:
            cls.create(address, ShapeIndex(none, model.eval().attention().detach().cpu(), [], model, config))
        processes.barrier()
        index = cls.load(address, "cpu")
        index.embed_share(model, benchmark, config, processes)
        processes.barrier()
        return index

    def embed_share(self, model: CMIC, benchmark: Benchmark, config: Config, processes: Processes = ALONE) -> int:
        """Embed and write this process's share of a benchmark's shapes; return how many it wrote.

        Shapes whose views are there already are passed over, and each block is written as soon as it is embedded: what
        was killed goes on where it stopped.
        """
        share, ids = processes.shard(len(benchmark.shapes)), benchmark.shapes.shape_id.tolist()
        digests, there = _digests(benchmark), self._digests()
        todo = [row for row in range(share.start, share.stop) if there.get(ids[row]) != digests[ids[row]]]
        written = 0
        for start in range(0, len(todo), AT_ONCE):
            rows = todo[start : start + AT_ONCE]
            names, vectors = [ids[row] for row in rows], embed_gallery(model.eval(), benchmark.views[rows], config)
            written += self.append(names, vectors, rows, [digests[name] for name in names])
        return written

    def append(
        self, shape_ids: Sequence[str], views: Tensor | np.ndarray,
        rows: Sequence[int] | None = None, digests: Sequence[str] | None = None,
    ) -> int:  # fmt: skip
        """Write shapes with their views' vectors (n, V, d), length 1: all or none, as one version.

        A shape that is there with the same digest stays, one with another digest is replaced; returns how many were
        written. ``rows`` are places in the gallery, by default behind what is there; ``digests`` tell what the views
        were made of, by default the vectors.
        """
        vectors = torch.as_tensor(views).float()
        if vectors.shape != (len(shape_ids), *self.empty.shape[1:]) or len(set(shape_ids)) != len(shape_ids):
            raise ValueError(f"{len(set(shape_ids))} names and views {tuple(vectors.shape)} do not fit this index")
        if not ((vectors.norm(dim=-1) - 1).abs() < 1e-2).all():
            raise ValueError("views must be vectors of length 1, without NaN")
        vectors = vectors.half()
        if rows is None:
            rows = range(self.table.version << 32, (self.table.version << 32) + len(vectors))
        if digests is None:
            digests = [hashlib.sha256(shape.numpy().tobytes()).hexdigest() for shape in vectors]
        content = table_of(shape_ids, rows, digests, vectors)
        merge = self.table.merge_insert("shape_id").when_matched_update_all(where="target.digest != source.digest")
        with writing(self.table.name):
            done = merge.when_not_matched_insert_all().execute(content)
        return int(done.num_inserted_rows + done.num_updated_rows)

    def delete(self, shape_ids: Sequence[str]) -> None:
        """Remove shapes; earlier versions keep them."""
        with writing(self.table.name):
            self.table.delete(among(shape_ids))

    def versions(self) -> list[int]:
        """Return the versions that :meth:`load` opens, oldest first."""
        return sorted(version["version"] for version in self.table.list_versions())

    def __len__(self) -> int:
        return int(self.table.count_rows())

    @property
    def shape_ids(self) -> list[str]:  # type: ignore[override]
        """All names, in the order of the gallery."""
        return list(self._digests())

    def _digests(self) -> dict[str, str]:
        version = self.table.version
        if self._known[0] != version:
            table = self.table.search().select(["shape_id", "row", "digest"]).to_arrow()
            table = table.sort_by([("row", "ascending"), ("shape_id", "ascending")])
            pairs = zip(table["shape_id"].to_pylist(), table["digest"].to_pylist(), strict=True)
            self._known = version, dict(pairs)
        return self._known[1]

    @property
    def views(self) -> Tensor:  # type: ignore[override]
        """All vectors (N, V, d) float32, in the order of the gallery."""
        return self._views_of(self.shape_ids)

    @property
    def view_count(self) -> int:
        """V, the views of a shape."""
        return self.empty.shape[1]

    def _made_from(self, benchmark: Benchmark) -> bool:
        return self._digests() == _digests(benchmark)

    def _views_of(self, names: Sequence[str]) -> Tensor:
        vectors, places = torch.empty(len(names), *self.empty.shape[1:]), {name: i for i, name in enumerate(names)}
        for block in self._blocks_of("" if len(names) == len(self) else among(names)):
            known = [i for i, name in enumerate(block.names) if name in places]
            vectors[[places[block.names[i]] for i in known]] = block.views[known]
        return vectors

    def _blocks_of(self, where: str = "") -> Iterator[Shapes]:
        """Read the gallery, or some of it, block by block."""
        wanted = self.table.search().select(COLUMNS)
        for batch in (wanted.where(where) if where else wanted).to_batches(BLOCK):
            yield Shapes.of(batch.sort_by("row"), self.empty)  # of equal scores the lower row comes first

    def _score(self, query: Tensor, shapes: Shapes) -> Tensor:
        return fused_scores(query, shapes.views, self.attention, self.fusion)

    @torch.no_grad()
    def scores(self, query: Tensor | np.ndarray) -> Tensor:
        """Return all scores (Q, N), as :meth:`ShapeIndex.scores` does; the gallery is read once."""
        vectors, places = self._vectors(query), self._places()
        scores = torch.full((len(vectors), len(places)), -torch.inf)
        for shapes in self._blocks_of():
            scores[:, [places[name] for name in shapes.names]] = self._score(vectors, shapes)
        return scores

    @torch.no_grad()
    def rank(self, query: Tensor | np.ndarray, k: int = 10) -> tuple[Tensor, Tensor]:
        """Return rows and scores, both (Q, k), as :meth:`ShapeIndex.rank` does; the gallery is read once."""
        vectors, places = self._vectors(query), self._places()
        best = self._scan(vectors, k)
        rows = torch.tensor([[places[name] for name in shapes.names] for shapes, _ in best], dtype=torch.int64)
        size = min(k, len(places))
        return rows.view(len(best), size), torch.stack([scores for _, scores in best]) if best else torch.zeros(0, size)

    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self._digests())}

    @torch.no_grad()
    def search(self, query: Tensor | np.ndarray, k: int = 10, exact: bool = False, candidates: int = 0) -> SearchResult:
        """Return ids, scores and view weights of the k best shapes of each query (Q, d), N at most.

        ``candidates`` shapes are scored, by default `CANDIDATES`; where that gives no certificate, ``exact`` goes on
        through the whole gallery.
        """
        vectors, width = self._vectors(query), max(k, candidates or CANDIDATES)
        if not len(vectors):
            return SearchResult([], torch.zeros(0, k), torch.zeros(0, k, self.view_count), [], [])
        some = range(len(vectors) if len(self) else 0)
        answers = {i: self._first(vectors[i], k, width) for i in some if vectors[i].norm() > SHORT}
        left = [i for i in range(len(vectors)) if i not in answers or (exact and not answers[i][2])]
        for i, best in zip(left, self._scan(vectors[left], k) if left else [], strict=True):
            answers[i] = *best, True, len(self)
        found, scores, certified, visited = zip(*(answers[i] for i in range(len(vectors))), strict=True)
        weights = [fused_weights(vector[None], shapes.views, self.attention, self.fusion)[0]
                   for vector, shapes in zip(vectors, found, strict=True)]  # fmt: skip
        return SearchResult(
            [shapes.names for shapes in found], torch.stack(scores), torch.stack(weights), [*certified], [*visited]
        )

    def _first(self, vector: Tensor, k: int, width: int) -> tuple[Shapes, Tensor, bool, int]:
        """Score the ``width`` shapes of highest bounds; return the k best, whether that is proven, and how many."""
        length = vector.norm()
        asked = (vector / length).half().float()  # what the engine makes of it
        wanted = self.table.search([asked.tolist()], vector_column_name="views").distance_type("cosine")
        found = wanted.bypass_vector_index().select([*COLUMNS, "_distance"]).limit(width).to_arrow()
        batch = found.combine_chunks().to_batches()[0]
        shapes, bounds = Shapes.of(batch, self.empty), 1 - torch.from_numpy(batch["_distance"].to_numpy().copy())
        best, scores = best_of([(shapes, self._score(vector[None], shapes)[0])], k)
        own = (shapes.views @ F.normalize(asked, dim=0)).amax(dim=1)
        sound = bool(((own - bounds).abs() <= ROUNDING).all())
        # Other shapes: q·r = asked·r + (q - asked)·r, and the last is at most the length of the difference.
        beyond = length * ((bounds.min() + 2 * ROUNDING) * asked.norm() + (vector / length - asked).norm())
        proven = sound and (len(shapes.names) < width or bool(scores[-1] >= beyond))
        return best, scores, proven, len(shapes.names)

    def _scan(self, vectors: Tensor, k: int) -> list[tuple[Shapes, Tensor]]:
        """Score the whole gallery, block by block; return the k best shapes of each query."""
        nothing = Shapes([], np.zeros(0, np.int64), self.empty), torch.zeros(0)
        best = [nothing] * len(vectors)
        for shapes in self._blocks_of():
            values, columns = top_k(self._score(vectors, shapes), k)
            news = zip(best, columns, values, strict=True)
            best = [best_of([old, (shapes.part(some), new)], k) for old, some, new in news]
        return best

    @torch.no_grad()
    def view_weights(self, query: Tensor | np.ndarray, rows: Tensor) -> Tensor:
        """Return how much each view of some shapes counts, as :meth:`ShapeIndex.view_weights` does."""
        names, known = self.shape_ids, rows.unique()
        views = self._views_of([names[row] for row in known.tolist()])[torch.searchsorted(known, rows)]
        pairs = zip(self._vectors(query), views, strict=True)
        return torch.stack([fused_weights(q[None], some, self.attention, self.fusion)[0] for q, some in pairs])


def _digests(benchmark: Benchmark) -> dict[str, str]:
    """Return what each shape's views depend on: of a folder of meshes the shape's own digest, else that of all."""
    own, whole = benchmark.meta.get("digests", {}), views_sha256(benchmark)
    return {name: own.get(name, whole) for name in benchmark.shapes.shape_id}
