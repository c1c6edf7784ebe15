"""Search a million shapes in a LanceDB database: certificates, time and memory, beside the index in memory.

A million trained shapes are not at hand. Each shape is made of two of the shipped model's 519, of their 128 learnt
numbers alone, which are all that the paper has: its views are those of the first, mixed with up to one half of the
second's, plus a step of length 0.3 in a random direction, the same for all its views, plus one of length 0.15 for each
view. The photos are the shipped model's own, evenly chosen.

    python tools/measure/measure_scale.py --result data/results/scale.json --folder /tmp/scale

Each part runs in its own process, so that its peak memory is its own. The folder needs 7 GB for a million shapes.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from cmiclib.index import ShapeIndex
from cmiclib.index.lance import BLOCK, CANDIDATES, LanceIndex
from cmiclib.io.atomic import write_json
from cmiclib.io.provenance import environment

SHIPPED = Path(__file__).parents[2] / "data/browser/sweethome.safetensors"
LEARNT = 128  # numbers of a vector; the untrained ones that follow are left out
TOP, ADDED = 10, 1000
MINUTES = 60  # that a part may ask photos for; the same command goes on
STEP_OF_SHAPE, STEP_OF_VIEW = 0.3, 0.15


@cache
def shipped(queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give photos (Q, d), views (519, V, d) and W of the shipped model."""
    tensors = load_file(SHIPPED)
    photos, views = (normalize(tensors[name][..., :LEARNT].float(), dim=-1) for name in ("extra.photos", "views"))
    rows = torch.linspace(0, len(photos) - 1, queries).round().long()
    return photos[rows], views, tensors["attention"][:LEARNT, :LEARNT].float()


def made(first: int, count: int) -> Tensor:
    """Make the shapes from ``first`` on, (count, V, d) float16; ``first`` is a multiple of the block."""
    generator, views = torch.Generator().manual_seed(first), shipped(1)[1]
    one, other = torch.randint(len(views), (2, count), generator=generator)
    mixed = views[one].lerp(views[other], torch.rand(count, 1, 1, generator=generator) / 2)
    for length, number in ((STEP_OF_SHAPE, 1), (STEP_OF_VIEW, views.shape[1])):
        mixed += length * normalize(torch.randn(count, number, views.shape[2], generator=generator), dim=-1)
    return normalize(mixed, dim=-1).half()


def plain(folder: Path, first: int) -> Tensor:
    """Read a block of the plain array, (n, V, d) float32 of length 1."""
    _, views, _ = shipped(1)
    each = views[0].numel()
    numbers = np.fromfile(folder / "views.f16", np.float16, BLOCK * each, offset=2 * first * each)
    return normalize(torch.from_numpy(numbers.reshape(-1, *views.shape[1:])).float(), dim=-1)


def build(folder: Path, shapes: int, queries: int) -> dict[str, Any]:
    """Write the shapes into a plain array, and into the database block by block."""
    _, views, weight = shipped(queries)
    database = LanceIndex.create(folder / "database", ShapeIndex(views[:0], weight, []))
    taken, started = 0.0, time.perf_counter()
    (folder / "views.f16").unlink(missing_ok=True)
    for first in range(0, shapes, BLOCK):
        block = made(first, min(BLOCK, shapes - first))
        with (folder / "views.f16").open("ab") as file:
            block.numpy().tofile(file)
        before = time.perf_counter()
        database.append([f"shape/{first + i}" for i in range(len(block))], block, range(first, first + len(block)))
        taken += time.perf_counter() - before
    size = sum(file.stat().st_size for file in (folder / "database").rglob("*") if file.is_file())
    return {"bytes": size, "writes": -(-shapes // BLOCK), "append_seconds": taken,
            "seconds": time.perf_counter() - started}  # fmt: skip


def brute(folder: Path, shapes: int, queries: int) -> dict[str, Any]:
    """Score everything from the plain array with matrix products; count the bounds above the tenth score."""
    query, _, weight = shipped(queries)
    turned = query @ weight.T
    scores, bounds = np.empty((queries, shapes), np.float32), np.empty((queries, shapes), np.float32)
    for first in range(0, shapes, BLOCK):
        views = plain(folder, first)
        products, logits = ((q @ views.flatten(0, 1).T).unflatten(1, views.shape[:2]) for q in (query, turned))
        part = slice(first, first + len(views))
        scores[:, part] = (logits.softmax(dim=-1) * products).sum(dim=-1)
        bounds[:, part] = products.amax(dim=-1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    order.astype(np.int64).tofile(folder / "truth")
    sizes = [size for size in (1_000, 10_000, 100_000, 1_000_000) if size < shapes] + [shapes]
    grown = {}
    for size in sizes:
        tenth = -np.partition(-scores[:, :size], TOP - 1, axis=1)[:, TOP - 1]
        grown[size] = [int(n) for n in (bounds[:, :size] >= tenth[:, None]).sum(axis=1)]
    return {
        "needed": grown,
    }  # the shapes that any order of the bound must visit, for each photo


def asked(folder: Path, part: str, queries: int, answer: Callable[[Tensor], dict[str, Any]]) -> dict[str, Any]:
    """Ask photo by photo, in a random order; what was answered is kept, and an interrupted part goes on."""
    query, truth = shipped(queries)[0], np.fromfile(folder / "truth", np.int64).reshape(queries, TOP)
    file, end = folder / f"{part}.jsonl", time.monotonic() + 60 * MINUTES
    records = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
    for row in torch.randperm(queries, generator=torch.Generator().manual_seed(0)).tolist()[len(records) :]:
        if time.monotonic() > end:
            break
        wall, cpu = time.perf_counter(), time.process_time()
        record = answer(query[row : row + 1])
        record |= {"photo": row, "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        rows = record.pop("rows")
        record |= {"recall": len({*rows} & {*truth[row].tolist()}) / TOP, "same": rows == truth[row].tolist()}
        records.append(record | {"peak_memory": memory()})
        with file.open("a", encoding="utf-8") as kept:
            kept.write(json.dumps(records[-1]) + "\n")
    known = {name: [record[name] for record in records] for name in records[0]}
    return known | {"recall": float(np.mean(known["recall"])), "peak_memory": max(known["peak_memory"])}


def search(folder: Path, shapes: int, queries: int) -> dict[str, Any]:
    """Search the database at the default."""
    opened = time.perf_counter()
    index = ShapeIndex.load(folder / "database")
    opened = time.perf_counter() - opened
    index.search(torch.eye(LEARNT)[:1], TOP, candidates=TOP)  # compiles

    def answer(photo: Tensor) -> dict[str, Any]:
        found = index.search(photo, TOP)
        rows = [int(name.removeprefix("shape/")) for name in found.ids[0]]
        return {"rows": rows, "certified": found.certified[0], "visited": found.visited[0]}

    return {"open_seconds": opened, "candidates": CANDIDATES, **asked(folder, "search", queries, answer)}


def exact(folder: Path, shapes: int, queries: int) -> dict[str, Any]:
    """Go on where the default gave no certificate, or for two photos."""
    index, known = ShapeIndex.load(folder / "database"), (folder / "search.jsonl").read_text("utf-8").splitlines()
    truth = np.fromfile(folder / "truth", np.int64).reshape(queries, TOP)
    left = [record["photo"] for line in known if not (record := json.loads(line))["certified"]] or [0, queries // 2]
    wall, cpu = time.perf_counter(), time.process_time()
    rows = index.rank(shipped(queries)[0][left], TOP)[0]
    return {"photos": len(left), "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu,
            "same": int((rows.numpy() == truth[left]).all(axis=1).sum()), "peak_memory": memory()}  # fmt: skip


def added(folder: Path, shapes: int, queries: int) -> dict[str, Any]:
    """Add shapes and find them; add them again; read the version before; delete them."""
    index = ShapeIndex.load(folder / "database")
    assert isinstance(index, LanceIndex)
    new, names = made(-(-shapes // BLOCK) * BLOCK, ADDED), [f"new/{i}" for i in range(ADDED)]
    before, started = index.versions()[-1], time.perf_counter()
    index.append(names, new)
    taken = time.perf_counter() - started
    wanted = range(0, ADDED, ADDED // 3)
    photos = normalize(new[list(wanted)].float().mean(dim=1), dim=-1)  # as photos of them would be
    there = sum(names[i] in ids for i, ids in zip(wanted, index.search(photos, TOP).ids, strict=True))
    again = time.perf_counter()
    twice = index.append(names, new)
    again = time.perf_counter() - again
    earlier = len(LanceIndex.load(folder / "database", version=before))
    index.delete(names)
    return {"shapes": ADDED, "seconds": taken, "asked": len(wanted), "found": there, "again_seconds": again,
            "again_written": twice, "earlier_version": earlier, "left": len(index)}  # fmt: skip


def in_memory(folder: Path, shapes: int, queries: int) -> dict[str, Any]:
    """Search the same gallery, all of it in memory in bfloat16."""
    query, views, weight = shipped(queries)
    whole = torch.empty(shapes, *views.shape[1:], dtype=torch.bfloat16)
    for first in range(0, shapes, BLOCK):
        whole[first : first + BLOCK] = plain(folder, first)
    index = ShapeIndex(whole, weight, [""] * shapes)
    index.rank(query[:1], TOP)  # compiles
    return asked(folder, "in_memory", queries, lambda photo: {"rows": index.rank(photo, TOP)[0][0].tolist()})


def memory() -> int:
    """Return the most bytes that this process had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


PARTS = {part.__name__: part for part in (build, brute, search, exact, added, in_memory)}


def main() -> None:
    """Measure the asked parts, each in its own process, and store each as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--result", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--folder", type=Path, required=True, help="where the million lies for a while")
    parser.add_argument("--shapes", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(PARTS[given.parts[0]](given.folder, given.shapes, given.queries)))
        return
    stored = json.loads(given.result.read_text("utf-8")) if given.result.is_file() else {}
    given.folder.mkdir(parents=True, exist_ok=True)
    for part in given.parts or PARTS:
        if part == "build":
            shutil.rmtree(given.folder)
            given.folder.mkdir()
        command = [sys.executable, __file__, part, "--inside", f"--result={given.result}", f"--folder={given.folder}",
                   f"--shapes={given.shapes}", f"--queries={given.queries}"]  # fmt: skip
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        about = {"environment": environment(), "threads": torch.get_num_threads()}
        stored |= {"shapes": given.shapes, "photos": given.queries, part: json.loads(done.stdout) | about}
        write_json(given.result, stored)


if __name__ == "__main__":
    main()
