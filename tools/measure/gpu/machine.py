"""The machine: what it is, how fast its device multiplies and reads, and whether the tests that need a GPU pass."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import partial
from typing import Any

import torch

from cmiclib.io.provenance import environment
from gpu.part import ROOT, Part


def card(part: Part) -> None:
    """Describe the machine and measure matrix products, copying and reading on its device."""
    part.write(environment=environment() | {"device": part.device.type, "threads": torch.get_num_threads()})
    if part.on_gpu:
        part.write(environment=about_gpu())
    side, inner = (256, 1) if part.smoke else (8192, 10)
    tf32 = torch.backends.cuda.matmul.allow_tf32
    for name, dtype, allow in (
        ("bf16", torch.bfloat16, tf32), ("tf32", torch.float32, True), ("fp32", torch.float32, False)
    ):  # fmt: skip
        torch.backends.cuda.matmul.allow_tf32 = allow
        a, b = (torch.randn(side, side, device=part.device).to(dtype) for _ in range(2))
        part.case(
            name, lambda a=a, b=b: {"seconds": part.timed(partial(torch.mm, a, b), inner), "operations": 2 * side**3}
        )
    torch.backends.cuda.matmul.allow_tf32 = tf32
    source = torch.ones(1 << 20 if part.smoke else 1 << 30, device=part.device)
    target = torch.empty_like(source)
    part.case("copy", lambda: {"seconds": part.timed(lambda: target.copy_(source), inner), "bytes": 2 * source.nbytes})
    part.case("sum", lambda: {"seconds": part.timed(source.sum, inner), "bytes": source.nbytes})


def about_gpu() -> dict[str, Any]:
    """Return what torch and the driver say of the GPU."""
    asked = ("driver_version", "power.limit", "clocks.max.sm", "clocks.max.memory")
    try:
        command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.splitlines()[0]
        driver = dict(zip(asked, (word.strip() for word in answer.split(",")), strict=False))
    except (OSError, IndexError, subprocess.TimeoutExpired) as error:
        driver = {"driver_version": f"unknown ({error})"}
    whole = torch.cuda.get_device_properties(0)
    return {
        **driver, "memory": whole.total_memory, "multiprocessors": whole.multi_processor_count,
        "capability": f"{whole.major}.{whole.minor}", "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(), "convolutions_in_tf32": torch.backends.cudnn.allow_tf32,
        "products_in_tf32": torch.backends.cuda.matmul.allow_tf32,
    }  # fmt: skip


def marked() -> list[str]:
    """Return the files that hold a test for a GPU."""
    return [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "pytest.mark.gpu" in file.read_text()]


def tests(part: Part) -> None:
    """Run the tests that need a GPU; other cores meanwhile unpack the shipped benchmark for the part that trains."""
    places = ["--output", str(part.path), "--work", str(part.work), *["--smoke"] * part.smoke]
    prepare = subprocess.Popen([sys.executable, "-m", "gpu.run", "--prepare", *places])
    outcome = part.path.with_suffix(".tests.xml")
    options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "--continue-on-collection-errors", f"--junitxml={outcome}"]
    command = ["-m", "pytest", *options, *marked()]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=max(10, part.left)
    )
    if outcome.is_file():
        suites = [suite.attrib for suite in ElementTree.parse(outcome).iter("testsuite")]
        outcome.unlink()
        names = ("tests", "failures", "errors", "skipped")
        part.write(outcome={name: sum(int(suite[name]) for suite in suites) for name in names})
    if done.returncode:
        part.write(output=(done.stdout + done.stderr)[-4000:])
    part.write(returned=done.returncode, prepared=prepare.wait(max(1, part.left)) == 0)
