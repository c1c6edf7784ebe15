"""Measure one GPU in seven minutes: rates, tests, training steps, embedding, search, and the paper's recipe.

    make gpu-report PYTHON=.venv/bin/python                     # where the project is set up; writes outputs/gpu.json
    python tools/measure/gpu_report.py --wheels outputs/gpu-wheels      # on a bare machine without a network
    python tools/measure/gpu_report.py --cpu-smoke              # every part at tiny size on the CPU

The wheels of the second line come from ``gpu/wheels.py``. Each part has a time box. What it finds is in the file as
soon as it is known; a part that fails or takes too long says so there, and the next one runs. Chapter 12 shows
``data/results/gpu.json``, which is such a file.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BOXES = {"card": 40, "tests": 90, "step": 170, "embed": 40, "search": 50, "train": 400}
"""Seconds that each part may take; the last one takes what the others leave of the whole."""
GRACE = 10
"""Seconds beyond its box after which a part is ended."""
MINUTES = 7.0


def read(report: Path) -> dict[str, Any]:
    """Return what the report holds so far."""
    return json.loads(report.read_text()) if report.is_file() else {}


def change(report: Path, part: str | None = None, **values: Any) -> None:
    """Put values into the report, or into a part's entry."""
    whole = read(report)
    (whole if part is None else whole.setdefault("parts", {}).setdefault(part, {})).update(values)
    temporary = report.with_name(f".{report.name}.tmp")
    temporary.write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n")
    temporary.replace(report)


def install(wheels: Path, target: Path) -> None:
    """Unpack wheels into a folder of their own, without a network.

    Raises:
        SystemExit: there are none, or pip refuses one.
    """
    files = sorted(str(file) for file in wheels.glob("*.whl"))
    if not files:
        raise SystemExit(f"error: {wheels} holds no wheels\n  How to fix: run tools/measure/gpu/wheels.py first")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-cache-dir"]
    command = [*pip, "--no-index", "--find-links", str(wheels), "--no-deps", "--no-compile", "--target", str(target)]
    if subprocess.run([*command, *files]).returncode:
        raise SystemExit("error: pip could not install the wheels")


def worker(paths: Sequence[Path]) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs parts, and its environment: packages from ``paths``, the library, the tools."""
    before = os.environ.get("PYTHONPATH", "")
    path = [*map(str, paths), str(ROOT), str(ROOT / "tools" / "measure"), *([before] if before else [])]
    return [sys.executable, "-m", "gpu.run"], os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def supervise(
    report: Path, boxes: Mapping[str, float], deadline: float, command: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Let a process run the parts one after another; end it where a part takes too long, and start another one.

    Args:
        report: the file, whose entries say which parts began and which are done.
        boxes: seconds of each part, in order.
        deadline: of all parts together, as :func:`time.time` counts.
        command: of a worker; ``PART=SECONDS`` follow.
        environment: of the worker.
    """
    waiting = list(boxes)
    while waiting and time.time() < deadline:
        asked = [f"{name}={boxes[name]}" for name in waiting]
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen([*command, *asked], env=dict(environment), stderr=said, start_new_session=True)
            late = not ends_in_time(process, report, waiting, boxes, deadline)
            said.seek(0)
            message = f"it took longer than {GRACE} s beyond its box" if late else f"the process ended: {said.read()}"
        begun = [name for name in waiting if name in read(report).get("parts", {})]
        for name in begun or waiting[:1]:  # a process that could not begin any part costs the first one
            if read(report).get("parts", {}).get(name, {}).get("status") in (None, "running"):
                change(report, name, status="out of time" if late else "failed", error=message[-2000:])
        waiting = waiting[max(1, len(begun)) :]
    for name in waiting:
        change(report, name, status="skipped", error="no time was left")


def ends_in_time(
    process: "subprocess.Popen[bytes]", report: Path, parts: Sequence[str], boxes: Mapping[str, float], deadline: float
) -> bool:
    """Wait for a worker; end it, and all that it started, where the part that runs is late."""
    while process.poll() is None:
        entries = read(report).get("parts", {})
        running = next((name for name in reversed(parts) if name in entries), None)
        end = min(deadline, entries[running]["started"] + boxes[running]) if running else deadline
        if time.time() > end + GRACE:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False
        time.sleep(0.2)
    return True


def main() -> None:
    """Measure, and print which parts are done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "gpu.json")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "outputs" / "gpu-work", help="for what is unpacked and trained"
    )
    parser.add_argument("--wheels", type=Path, help="folder of wheels to use beside what is installed")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=BOXES, default=list(BOXES))
    parser.add_argument("--cpu-smoke", action="store_true", help="tiny sizes on the CPU: shows that the parts run")
    arguments = parser.parse_args()
    started, report = time.time(), arguments.output.resolve()
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    change(report, smoke=arguments.cpu_smoke, minutes=arguments.minutes)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.wheels:
            install(arguments.wheels, Path(folder))
        command, environment = worker([Path(folder)])
        deadline = started + 60 * arguments.minutes
        command += ["--output", str(report), "--work", str(arguments.work.resolve()), "--deadline", str(deadline)]
        command += ["--smoke"] * arguments.cpu_smoke
        if arguments.cpu_smoke:
            environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        boxes = {name: BOXES[name] * (4.0 if arguments.cpu_smoke else 1.0) for name in arguments.parts}
        supervise(report, boxes, deadline, command, environment)
    change(report, seconds=round(time.time() - started, 1))
    for name, entry in read(report)["parts"].items():
        print(f"{name}: {entry['status']}, {entry.get('seconds', 0):.0f} s {entry.get('error', '')[-300:]}")


if __name__ == "__main__":
    main()
