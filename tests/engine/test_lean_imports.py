"""timm and torchvision without torch's compiler, each in a process of its own."""

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_compiler_stays_out_until_something_compiles() -> None:
    code = """
import sys, torch
from cmiclib.engine.imports import load_timm, load_torchvision
before = torch.compiler.disable
for load in (load_timm, load_torchvision):
    load()
    assert torch.compiler.disable is before
    print("torch._dynamo" in sys.modules, "torch._dynamo.utils" in sys.modules)
double = torch.compile(lambda x: 2 * x, backend="eager")
print(double(torch.ones(1)).item())
"""
    assert run(code).split() == ["False"] * 4 + ["2.0"]


def test_a_detector_of_torchvision_still_asks_the_compiler() -> None:
    code = """
import torch
from cmiclib.engine.imports import load_torchvision
ops = load_torchvision().ops
image, box = torch.arange(16.0).reshape(1, 1, 4, 4), torch.tensor([[0, 0.0, 0.0, 4.0, 4.0]])
from torchvision.ops import roi_align as function
import sys
print(sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu"))
print(ops.roi_align(image, box, (1, 1), aligned=True).item())
"""
    assert run(code).split()[1:] == ["7.5"]


def test_other_names_of_the_compilers_module_are_the_real_ones() -> None:
    code = """
import sys, torch
from cmiclib.engine import imports
with imports._without_compiler():
    from torch._dynamo.utils import counters
import torch._dynamo.utils as real
print(counters is real.counters)
"""
    assert run(code) == "True"
