"""Measure search, training, preparation and memory; writes outputs/bench.json, from which chapter 12 is drawn.

    python tools/measure/bench.py                       # everything; some forty minutes on two idle cores
    python tools/measure/bench.py search steps          # only these parts; the others stay in the file as they are

The part ``million`` needs 7 GB on the disk for a while, ``evaluation`` 3. Other work on the machine makes every number
worthless.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import cpu_count
from PIL import Image
from torch.nn import functional as F

from cmiclib.augment import augment_queries, augment_views, draw_crops
from cmiclib.benchmark.writer import BenchmarkWriter
from cmiclib.cli.method import evaluate
from cmiclib.config import AugmentConfig, profile
from cmiclib.embed import default_device
from cmiclib.evaluation.released_code import released_photo, released_scores, released_view
from cmiclib.index import ShapeIndex
from cmiclib.io.atomic import write_json
from cmiclib.io.provenance import environment
from cmiclib.model import CMIC, attention_scores
from cmiclib.sources import PrepareOptions
from cmiclib.sources.building import add_shapes
from cmiclib.sources.meshes import MeshFile
from cmiclib.sources.sweethome import open_sweethome
from cmiclib.study.speed import beside_limits, in_turns, peak_memory, random_gallery, search_work, seconds, step_cost
from cmiclib.training.run import save_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHAPES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
QUERIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
MILLION = 1_000_000
PAPER_BATCH, PAPER_SIZE = 30, 224


def scratch() -> Path:
    """Return a folder for large files: of this disk, as /tmp may lie in memory, and not under version control."""
    path = Path("outputs")
    path.mkdir(exist_ok=True)
    return path


def search() -> dict[str, Any]:
    """Time against shapes and against queries, in both precisions, and the released code's loop."""
    rows = []
    for name, dtype in DTYPES.items():
        query, views, weight = random_gallery(SHAPES[-1], QUERIES[-1], dtype)
        cases = {(n, q) for n in SHAPES for q in (1, 256)} | {(SHAPES[-1], q) for q in QUERIES}
        for shapes, queries in sorted(cases):
            part = query[:queries], views[:shapes], weight
            taken = beside_limits(partial(attention_scores, *part))
            rows.append({
                "dtype": name, "shapes": shapes, "queries": queries, **taken, **search_work(shapes, queries, dtype)
            })  # fmt: skip
    query, views, weight = random_gallery(1_000, 256)
    half, unused = views.bfloat16(), torch.randn(128, 256) / 16
    ways: dict[str, Callable[[], Any]] = {
        "as released": lambda: released_scores(query, views, weight, unused),
        "without the unused layer": lambda: released_scores(query, views, weight),
        "float32": lambda: attention_scores(query, views, weight),
        "bfloat16": lambda: attention_scores(query, half, weight),
    }
    loop = {"shapes": 1_000, "queries": 256, "seconds": in_turns(ways)}
    return {"rows": rows, "loop": loop}


def million() -> dict[str, Any]:
    """One million shapes in a memory-mapped index: time, memory, and whether the answers are exact."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        path = Path(folder) / "million.index"
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(128, 128, generator=torch.Generator().manual_seed(1)) / 4
        written = time.perf_counter()
        gallery = np.lib.format.open_memmap(Path(folder) / "views.npy", "w+", np.float32, (MILLION, 12, 128))
        for start in range(0, MILLION, 10_000):
            block = F.normalize(torch.randn(10_000, 12, 128, generator=generator), dim=-1)
            gallery[start : start + 10_000] = F.normalize(block, dim=-1).numpy()
        ShapeIndex(torch.from_numpy(gallery), weight, [str(i) for i in range(MILLION)]).save(path)
        written = time.perf_counter() - written
        command = [sys.executable, __file__, "--million", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # its peak memory is its own
        return {"shapes": MILLION, "bytes": path.stat().st_size, "write_seconds": written, **json.loads(done.stdout)}


def search_million(path: Path) -> dict[str, Any]:
    """Search the file; called in a process of its own."""
    opened = time.perf_counter()
    index = ShapeIndex.load(path)
    opened = time.perf_counter() - opened
    query = F.normalize(torch.randn(256, 128, generator=torch.Generator().manual_seed(2)), dim=-1)
    rows, scores = index.rank(query, 10)  # also brings the file into the system's cache, as far as there is room
    batch = seconds(lambda: index.rank(query, 10))
    single = seconds(lambda: index.rank(query[:1], 10))
    memory = peak_memory()
    sample = query[:16]
    best = torch.empty(len(sample), 0, dtype=torch.float64)
    for views in index.views.split(50_000):  # brute force: every product in double precision, torch's own softmax
        products = [
            torch.einsum("qd,nvd->qnv", q.double(), views.double()) for q in (sample @ index.attention.T, sample)
        ]
        best = torch.cat([best, (products[0].softmax(dim=-1) * products[1]).sum(dim=-1)], dim=1)
    order = best.argsort(dim=1, descending=True, stable=True)[:, :10]
    same = (order == rows[: len(sample)]).all(dim=1)
    off = (best.gather(1, rows[: len(sample)]) - scores[: len(sample)]).abs().max()
    return {
        "open_seconds": opened, "batch": 256, "batch_seconds": batch,
        "single_seconds": single, "peak_memory": memory, "checked": len(sample), "same_top10": int(same.sum()),
        "largest_error": float(off),
    }  # fmt: skip


def precision() -> dict[str, Any]:
    """What a gallery in bfloat16 changes, on the vectors of trained models."""
    from measure_bounds import trained_vectors

    found = []
    for name, query, views, weight in trained_vectors():
        exact = attention_scores(query.double(), views.double(), weight.double())
        best = exact.topk(10, dim=1).indices
        row: dict[str, Any] = {"vectors": name, "queries": len(query), "shapes": len(views)}
        for way, size in (("one by one", 4), ("in batches", 256)):
            index = ShapeIndex(views.bfloat16(), weight, [str(i) for i in range(len(views))])
            scores = torch.cat([scan_now(part, index) for part in query.split(size)])
            top = scores.topk(10, dim=1).indices
            row[way] = {
                "largest_error": float((scores - exact).abs().max()),
                "same_first": float((top[:, 0] == best[:, 0]).double().mean()),
                "shared_top10": float((top[:, :, None] == best[:, None, :]).any(dim=2).double().mean()),
            }
        found.append(row)
    return {"rows": found}


def scan_now(query: torch.Tensor, index: ShapeIndex) -> torch.Tensor:
    """Score by the compiled pass, however small the gallery."""
    from cmiclib.scan import scan_compiled

    turned = (query.double() @ index.attention.double().T).float()
    return scan_compiled(query, turned, index.views, "attention")


def pipelines() -> dict[str, Any]:
    """One batch of the paper's training input: this library's and, one picture after the other, the released code's."""
    rng = np.random.default_rng(0)
    photos = torch.from_numpy(rng.integers(0, 256, (PAPER_BATCH, 4, PAPER_SIZE, PAPER_SIZE), np.uint8))
    views = torch.from_numpy(rng.integers(0, 256, (PAPER_BATCH, 12, PAPER_SIZE, PAPER_SIZE), np.uint8))
    device = default_device()
    there = (photos.to(device), views.to(device))  # as in training, where all pictures are on the device
    settings = AugmentConfig(color="none")  # the transfer of colours is not the pipeline's
    pictures = [Image.fromarray(np.ascontiguousarray(p[:3].permute(1, 2, 0).numpy())) for p in photos]
    masks = [Image.fromarray(p[3].numpy()) for p in photos]
    drawn = [Image.fromarray(v.numpy()) for v in views.flatten(0, 1)]

    def ours() -> None:
        generator = torch.Generator().manual_seed(0)
        augment_queries(there[0], settings, PAPER_SIZE, generator)
        augment_views(there[1], settings, PAPER_SIZE, generator)
        if device.type == "cuda":
            torch.cuda.synchronize()

    def released() -> None:
        generator = torch.Generator().manual_seed(0)
        crop = (10, 10, 190, 190)
        draw_crops(PAPER_BATCH, settings.query_scale, settings.translate, generator)
        torch.stack([
            released_photo(photo, mask, (3.0, 2.0), crop, i % 2 == 0, PAPER_SIZE)
            for i, (photo, mask) in enumerate(zip(pictures, masks, strict=True))
        ])  # fmt: skip
        torch.stack([released_view(view, crop, i % 2 == 0, PAPER_SIZE) for i, view in enumerate(drawn)])

    taken = in_turns({"here": ours, "released": released})
    counts = {"photos": PAPER_BATCH, "views": PAPER_BATCH * 12, "size": PAPER_SIZE}
    return {**counts, "device": device.type, "seconds": taken}


def steps() -> dict[str, Any]:
    """Training steps of the demo and of the paper's profile: how much of each is its input, and what was counted."""
    from profile_step import measure_step

    # A step of the paper's recipe takes most of a minute here, so it is not warmed up.
    rows = [measure_step(profile("demo"), repeats=7), measure_step(profile("paper"), repeats=5, warm=False)]
    return {"rows": rows, "cost": {name: step_cost(profile(name)) for name in ("demo", "photos", "paper")}}


def processes() -> dict[str, Any]:
    """The same global batch by one process with one thread and with two, and by two processes with one thread each."""
    script, rows = Path(__file__).with_name("profile_step.py"), []
    for count, threads in ((1, 1), (1, 2), (2, 1)):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        done = subprocess.run(
            [*launch, str(script), "--small", "--json"], check=True, capture_output=True, text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
        rows.append({"processes": count, "threads": threads, **json.loads(done.stdout.splitlines()[-1])})
    return {"rows": rows}


def preparation(shapes: int = 300) -> dict[str, Any]:
    """Views, points, voxels and viewer's mesh of so many shapes, from mesh files, with a process for each core."""
    benchmark, jobs = open_sweethome(), cpu_count()
    files = [
        MeshFile(row.shape_id, row.category, benchmark.mesh_path(row.shape_id), name=row.name, source="sweethome")
        for row in benchmark.shapes.head(shapes).itertuples(index=False)
    ]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        writer = BenchmarkWriter(Path(folder) / "all", name="bench", source="bench", licence="CC0-1.0", size=PAPER_SIZE)
        left_out = add_shapes(writer, files, PrepareOptions(jobs=jobs, allow_missing=True, progress=False))
        taken = time.perf_counter() - started
    return {"size": PAPER_SIZE, "jobs": jobs, "shapes": len(files), "left_out": len(left_out), "seconds": taken}


def evaluation(shapes: int = 50_000, photos: int = 2_000, size: int = 64) -> dict[str, Any]:
    """Memory of `cmic evaluate` on a benchmark of random pictures, by a small untrained model."""
    rng = np.random.default_rng(0)
    small = ["model.query_backbone=resnet10t", "model.view_backbone=resnet10t", "model.image_size=32"]
    config = profile("paper", [*small, "model.init=random"])
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        path, run = Path(folder) / "large", Path(folder) / "run"
        writer = BenchmarkWriter(path, name="large", source="random numbers", licence="CC0-1.0", size=size)
        for i in range(shapes):
            writer.add_shape(f"s{i}", f"c{i % 9}", rng.integers(0, 256, (12, size, size), np.uint8))
        for i in range(photos):
            picture = rng.integers(0, 256, (4, size, size), np.uint8)
            writer.add_query(f"q{i}", f"s{i}", f"c{i % 9}", picture, split="test")
        views = writer.finish().path / "views.npy"
        run.mkdir()
        write_json(run / "config.json", config.model_dump(mode="json"))
        torch.manual_seed(0)
        save_weights(run / "model.safetensors", CMIC(config.model))
        started = time.perf_counter()
        command = [sys.executable, __file__, "--evaluate", str(run), str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # its peak memory is its own
        taken = time.perf_counter() - started
        return {
            "shapes": shapes, "photos": photos, "size": size, "bytes": views.stat().st_size, "seconds": taken,
            "peak_memory": int(done.stdout.splitlines()[-1]),
        }  # fmt: skip


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    part.__name__: part for part in (search, precision, pipelines, steps, processes, preparation, evaluation, million)
}


def main() -> None:
    """Measure the asked parts one after another, and store each as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--output", type=Path, default=Path("outputs/bench.json"))
    parser.add_argument("--million", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--evaluate", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.evaluate:
        evaluate(arguments.evaluate[0], arguments.evaluate[1], changed=True)
        print(peak_memory())
        return
    if arguments.million:
        print(json.dumps(search_million(arguments.million)))
        return
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    stored = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    for name in arguments.parts or PARTS:
        started = time.perf_counter()
        result = PARTS[name]()
        about = environment() | {"threads": torch.get_num_threads()}
        stored[name] = {**result, "environment": about}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output, stored)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
