"""The GPU report on a CPU: parts at tiny size, time boxes that hold, and no import that a bare machine lacks."""

import json
import subprocess
import sys
import time
from importlib.metadata import distributions, packages_distributions

import pytest
import torch
from gpu.machine import marked
from gpu.part import Part
from gpu.run import run
from gpu.vectors import exact_scores, one_product, random_vectors
from gpu.wheels import IMAGE, ROOT, WHEELS, command, pins
from gpu_report import BOXES, read, supervise, worker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cmiclib.book.gpu import gpu_about, gpu_line, gpu_tables, gpu_training
from cmiclib.model import attention_scores

INSTALLED = {canonicalize_name(found.name): found for found in distributions()}
WORKER = """
import json, os, pathlib, sys, time
path = pathlib.Path(sys.argv[1])
def write(name, **values):
    report = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    report["parts"].setdefault(name, {}).update(values)
    other = path.with_suffix(".new")
    other.write_text(json.dumps(report))
    other.replace(path)
for part in sys.argv[2:]:
    name = part.partition("=")[0]
    if name == "never":
        sys.exit("no such module")
    write(name, status="running", started=time.time())
    if name == "hangs":
        time.sleep(60)
    if name == "dies":
        print("illegal memory access", file=sys.stderr, flush=True)
        os._exit(1)
    write(name, status="done")
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Supervise a worker of the standard library; returns the report's parts."""
    monkeypatch.setattr("gpu_report.GRACE", 0.3)
    script, report = tmp_path / "worker.py", tmp_path / "gpu.json"
    script.write_text(WORKER)

    def supervised(*names, seconds=30.0, box=2.0):
        ways = [sys.executable, str(script), str(report)]
        supervise(report, dict.fromkeys(names, box), time.time() + seconds, ways, {})
        return read(report)["parts"]

    return supervised


def test_a_part_that_hangs_or_dies_says_so_and_the_others_run(fake):
    parts = fake("first", "hangs", "second", "dies", "third")
    assert {name: entry["status"] for name, entry in parts.items()} == {
        "first": "done", "hangs": "out of time", "second": "done", "dies": "failed", "third": "done"
    }  # fmt: skip
    assert "illegal memory access" in parts["dies"]["error"]


def test_a_worker_that_does_not_start_costs_one_part_after_the_other(fake):
    parts = fake("never", "first")
    assert parts["never"]["status"] == "failed" and "no such module" in parts["never"]["error"]
    assert parts["first"]["status"] == "done"


def test_what_no_time_is_left_for_is_skipped(fake):
    parts = fake("first", "second", seconds=-1)
    assert {entry["status"] for entry in parts.values()} == {"skipped"}


def test_a_case_that_fails_says_why_and_the_next_one_is_measured(tmp_path):
    part = Part(tmp_path / "gpu.json", "step", 100, smoke=False)
    part.case("wrong", lambda: {"found": torch.ones(2) @ torch.ones(3)})
    part.case("right", lambda: {"found": 1})
    part.case("late", lambda: {"found": 2}, least=1000)
    cases = read(part.path)["parts"]["step"]["cases"]
    assert cases["wrong"]["error"].startswith("RuntimeError") and cases["right"] == {"found": 1}
    assert "1000 s are needed" in cases["late"]["skipped"]


def test_a_broken_card_ends_the_process(tmp_path):
    part = Part(tmp_path / "gpu.json", "step", 100, smoke=True)

    def broken():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="CUDA error"):
        part.case("broken", broken)


def test_one_product_scores_as_the_library_does():
    query, views, weight = random_vectors(50, 7, torch.device("cpu"))
    for found in (one_product(query, views, weight, numbers=500), exact_scores(query, views, weight)):
        torch.testing.assert_close(found.float(), attention_scores(query, views, weight), atol=1e-6, rtol=0)


def test_the_rates_the_search_and_the_gallery_are_measured_on_a_cpu(tmp_path):
    report = tmp_path / "gpu.json"
    run(report, dict.fromkeys(("card", "embed", "search"), 60.0), smoke=True)
    parts = read(report)["parts"]
    assert {entry["status"] for entry in parts.values()} == {"done"}
    for entry in parts.values():
        for case in entry["cases"].values():
            times = case["seconds"]
            assert 0 < times["min"] <= times["median"] <= times["max"] and times["repeats"] >= 5
    for name, case in parts["search"]["cases"].items():
        assert case["largest_error"] < (0.02 if "bfloat16" in name else 1e-5), name
        assert "bfloat16" in name or case["same_top10"] == case["checked"]


def test_wheels_are_pinned_and_nothing_is_built(tmp_path):
    assert [Requirement(pin).name.replace("_", "-") for pin in pins()] == list(WHEELS)
    words = command(tmp_path, "3.12")
    assert {"--no-deps", "--only-binary=:all:"} <= set(words) and words[-len(WHEELS) :] == pins()


def required(names):
    """Follow what distributions need; returns the names of all that are installed."""
    found, waiting = set(), [Requirement(name) for name in names]
    while waiting:
        asked = waiting.pop()
        key = (canonicalize_name(asked.name), *sorted(asked.extras))
        if key not in found and key[0] in INSTALLED:
            found.add(key)
            needs = [Requirement(text) for text in INSTALLED[key[0]].requires or []]
            for extra in ("", *asked.extras):
                waiting += [need for need in needs if not need.marker or need.marker.evaluate({"extra": extra})]
    return {name for name, *_ in found}


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Hide from every new process what neither a GPU machine's image nor the wheels bring."""
    brought = required([*IMAGE, *WHEELS, "pip", "setuptools"]) | {"cmiclib"}
    modules = [
        name for name, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & brought
    ]  # fmt: skip
    assert {"embreex", "ipywidgets", "jupyterlab", "papermill", "grimp"} <= set(modules)
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nfrom importlib.machinery import PathFinder\nHIDDEN = {sorted(modules)!r}\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        return None if name.partition('.')[0] in HIDDEN else PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path[:] = [Finder() if finder is PathFinder else finder for finder in sys.meta_path]\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_what_a_bare_machine_lacks_is_imported_neither_by_the_report_nor_by_the_tests_that_it_runs(bare):
    _, environment = worker([bare])
    code = f"import gpu.run, pytest; pytest.main(['-q', '--collect-only', '-m', 'gpu', *{marked()!r}])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert "tests collected" in done.stdout and "ERROR" not in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_all_parts_run_on_the_cpu_of_a_bare_machine_and_the_chapter_shows_them(bare, tmp_path):
    report = tmp_path / "gpu.json"
    script = [sys.executable, str(ROOT / "tools" / "measure" / "gpu_report.py"), "--cpu-smoke", "--minutes", "20"]
    done = subprocess.run(
        [*script, "--output", str(report), "--work", str(tmp_path / "work")], capture_output=True, text=True
    )
    found = json.loads(report.read_text())
    assert {name: entry["status"] for name, entry in found["parts"].items()} == dict.fromkeys(BOXES, "done"), done
    assert found["parts"]["tests"]["returned"] == 0 and found["parts"]["tests"]["outcome"]["skipped"] > 0
    assert set(found["parts"]["step"]["cases"]) >= {"fp32", "bf16", "bf16, compiled"}
    assert "Not measured" not in gpu_about(found) and "no GPU" in gpu_line(found)
    assert len(gpu_tables(found)) == 3 and "validation photos" in gpu_training(found)
