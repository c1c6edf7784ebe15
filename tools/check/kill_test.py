"""Kill trainings and preparations at random moments, go on each time, and compare with what was never disturbed.

Run from the repository's root: ``python tools/check/kill_test.py [--short]``. The training is the smoke profile's on a
tiny benchmark, the preparation a small folder of meshes and photos. A process that ends before its moment has come is
compared and a new one begins, so that every kill hits work. The last line is JSON.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from joblib.externals.loky import get_reusable_executor  # noqa: E402
from own_folder import write_meshes, write_photos  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from stored import keep  # noqa: E402
from tinybench import write_tiny_benchmark  # noqa: E402

from cmiclib.benchmark import Benchmark  # noqa: E402
from cmiclib.config import profile  # noqa: E402
from cmiclib.sources import PrepareOptions  # noqa: E402
from cmiclib.sources.own.folder import prepare_folder  # noqa: E402
from cmiclib.training.loop import train  # noqa: E402
from cmiclib.training.state import load_state  # noqa: E402

CONFIG = profile("smoke", ["train.batch=4", "train.steps=40", "train.eval_every=10", "train.log_every=5"])
SAVE_SECONDS = 1.0
KILLS, SHORT = (25, 10), (3, 2)  # of trainings, of preparations


def leaves(value: object, name: str = "") -> dict[str, object]:
    """Return every tensor and number in nested containers by its place."""
    if isinstance(value, dict):
        return {place: leaf for key in value for place, leaf in leaves(value[key], f"{name}/{key}").items()}
    if isinstance(value, list | tuple):
        return {place: leaf for k, item in enumerate(value) for place, leaf in leaves(item, f"{name}/{k}").items()}
    return {name: value}


def same(a: dict, b: dict) -> bool:
    """Tell whether two nested containers of tensors and numbers are equal to the bit."""
    a, b = leaves(a), leaves(b)
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a
    )


def outcome(run: Path) -> dict:
    """Return all that a training leaves behind but for durations: weights, last state, log."""
    state = load_state(run / "checkpoint" / "state.pt")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for entry in (state, *log):
        entry.pop("seconds")
    return {"weights": load_file(run / "model.safetensors"), "state": state, "log": log}


def begin(task: Callable[[], object]) -> multiprocessing.Process:
    """Start a task in a process of its own, quietly."""

    def work() -> None:
        os.setsid()  # so that its workers can be told from others
        with tempfile.TemporaryFile() as said:  # quietly, unless it fails by itself
            before = os.dup(2)
            os.dup2(said.fileno(), 2)
            try:
                task()
            except BaseException:
                os.dup2(before, 2)
                raise

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def disturbed(
    task: Callable[[], object], done: Callable[[], bool], kills: int, usual: float, rng: random.Random
) -> dict:
    """Kill a task so many times; ``done`` compares a finished one and clears it away."""
    count, finished, equal = 0, 0, True
    while True:
        process = begin(task)
        process.join(timeout=rng.uniform(0, usual) if count < kills else None)
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            end_workers(process.pid or 0)
            count += 1
            continue
        if process.exitcode != 0:
            print(f"it ended with status {process.exitcode} after {count} kills", flush=True)
            return {"kills": count, "finished": finished, "equal": False}
        finished, equal = finished + 1, equal and done()
        if count == kills:
            return {"kills": count, "finished": finished, "equal": equal}


def end_workers(group: int) -> None:
    """End the workers of a killed process, which wait for work for minutes and hold whatever pipe it wrote to."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)  # which their resource tracker ignores, and cleans up


def timed(task: Callable[[], object]) -> float:
    """Run a task undisturbed in a process of its own; return its seconds."""
    started, process = time.perf_counter(), begin(task)
    process.join()
    if process.exitcode != 0:
        sys.exit("the undisturbed one failed")
    return time.perf_counter() - started


def kill_trainings(work: Path, kills: int, rng: random.Random) -> dict:
    """Compare trainings that are killed with one that is not."""
    timed(lambda: write_tiny_benchmark(work / "tiny"))  # the renderer's threads must not be in a process that forks
    benchmark = Benchmark.open(work / "tiny")

    def task(run: Path) -> None:
        train(
            CONFIG, benchmark, run, resume=True, progress=False, device=torch.device("cpu"), save_seconds=SAVE_SECONDS
        )

    usual = timed(lambda: task(work / "undisturbed"))
    expected = outcome(work / "undisturbed")
    print(f"an undisturbed training takes {usual:.1f} s", flush=True)

    def done() -> bool:
        equal = same(outcome(work / "run"), expected)
        shutil.rmtree(work / "run")
        return equal

    return disturbed(lambda: task(work / "run"), done, kills, usual, rng)


def kill_preparations(work: Path, kills: int, rng: random.Random) -> dict:
    """Compare preparations that are killed with one that is not."""
    timed(lambda: write_photos(work / "photos", work / "masks", write_meshes(work / "meshes", 4)))

    def task(output: Path) -> None:
        if output.exists():  # it has its final name: the kill came when all was done
            return
        options = PrepareOptions(size=32, jobs=2, progress=False)
        prepare_folder(work / "meshes", output, options, photos=work / "photos", masks=work / "masks")
        get_reusable_executor().shutdown()  # else the process waits for workers that wait for more work

    usual = timed(lambda: task(work / "whole"))
    expected = Benchmark.open(work / "whole").hash
    print(f"an undisturbed preparation takes {usual:.1f} s", flush=True)

    def done() -> bool:
        equal = Benchmark.open(work / "out").hash == expected
        shutil.rmtree(work / "out")
        return equal

    return disturbed(lambda: task(work / "out"), done, kills, usual, rng)


def main() -> int:
    """Kill, compare, report; return 0 where everything is equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="few kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the result into this JSON file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    trainings, preparations = SHORT if given.short else KILLS
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        trained = kill_trainings(Path(folder), trainings, random.Random(given.seed))
        prepared = kill_preparations(Path(folder), preparations, random.Random(given.seed))
    result = {
        "kills": trained["kills"], "bit_equal": trained["equal"], "trainings": trained["finished"],
        "prepare_kills": prepared["kills"], "hashes_equal": prepared["equal"], "preparations": prepared["finished"],
    }  # fmt: skip
    print(json.dumps(result))
    if given.output:
        keep(given.output, "kills", result)
    return 0 if trained["equal"] and prepared["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
