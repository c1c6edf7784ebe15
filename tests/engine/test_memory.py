"""Memory of large tensors is kept, in processes of their own."""

import os
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
from cmiclib.engine.memory import keep_memory
print(keep_memory())
import numpy as np
def make():
    for _ in range(10):
        [np.ones(100_000) for _ in range(64)]  # 51 MB; numpy asks for huge pages from 4 MB on
make()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
make()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_") and name != "CMIC_MALLOC"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc only")


def faults(**environment: str) -> tuple[bool, int]:
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env={**CLEAN, **environment}, capture_output=True, text=True, check=True
    )
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@linux
def test_large_arrays_are_not_asked_of_the_kernel_again() -> None:
    kept, few = faults()
    left, many = faults(CMIC_MALLOC="default")
    assert (kept, left) == (True, False)
    assert few < 5_000 < 50_000 < many  # 51 MB are 12,500 pages


@linux
def test_a_users_own_setting_stays() -> None:
    assert not faults(MALLOC_TOP_PAD_="1000000")[0]


@linux
def test_processes_started_later_keep_memory_too() -> None:
    code = f"""
import subprocess, sys
from cmiclib.engine.memory import keep_memory
keep_memory()
print(subprocess.run([sys.executable, "-c", {COUNT!r}], capture_output=True, text=True).stdout)
"""
    done = subprocess.run([sys.executable, "-c", code], env=CLEAN, capture_output=True, text=True, check=True)
    said, count = done.stdout.split()
    assert said == "False"  # the environment says it already
    assert int(count) < 5_000
