"""Damaged files and kills, in full: `make fuzz` and `make kill-test`."""

import json
import subprocess
import sys

import pytest
from toybook import REPOSITORY


def last_line(tool: str) -> dict:
    command = [sys.executable, str(REPOSITORY / "tools" / "check" / tool)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_damaged_files_are_one_error_each() -> None:
    found = last_line("fuzz.py")
    assert found["files"] >= 2000 and found["peak_rss_gb"] < 2
    assert (found["crashes"], found["hangs"], found["executed"]) == (0, 0, 0)


@pytest.mark.slow
def test_killed_work_ends_as_if_it_had_not_been() -> None:
    found = last_line("kill_test.py")
    assert (found["kills"], found["prepare_kills"]) == (25, 10)
    assert found["bit_equal"] and found["hashes_equal"]
