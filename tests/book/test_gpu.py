"""What the chapters say of the GPU report: with it, without it, and with a part of it."""

import json

import pytest

from cmiclib.book.gpu import NOT_RUN, cases, gpu_about, gpu_line, gpu_tables, gpu_training, read_gpu

TIMES = {"median": 0.02, "min": 0.01, "max": 0.03, "repeats": 5}
CARD = {
    "status": "done",
    "environment": {
        "accelerator": "A card", "date": "2026-11-28", "device": "cuda", "versions": {"torch": "2.11.0"},
        "driver_version": "580.1", "convolutions_in_tf32": True,
    },
    "cases": {
        **{name: {"seconds": TIMES, "operations": 2e12} for name in ("bf16", "tf32", "fp32")},
        **{name: {"seconds": TIMES, "bytes": 4e10} for name in ("copy", "sum")},
    },
}  # fmt: skip
STEP = {
    "seconds": TIMES, "learning": TIMES, "input": TIMES, "waiting": 0.05, "photos": 30, "views": 360, "size": 224,
    "operations": 1e12, "peak_memory": 12e9,
}  # fmt: skip
SEARCH = {
    "seconds": TIMES, "queries": 1, "shapes": 1_000_000, "bytes": 4e9, "operations": 6e9, "checked": 16,
    "same_top10": 16, "shared_top10": 1.0, "largest_error": 1e-7,
}  # fmt: skip


@pytest.fixture
def report():
    return {
        "smoke": False,
        "parts": {
            "card": CARD,
            "tests": {"status": "done", "outcome": {"tests": 7, "failures": 1, "errors": 0, "skipped": 1}},
            "step": {"status": "out of time", "error": "it took longer", "cases": {
                "fp32": STEP, "bf16": STEP, "bf16, largest": {"skipped": "3 s were left; 20 s are needed"}}},
            "search": {"status": "done", "cases": {"float32, 1": SEARCH, "bfloat16, 1, one product": SEARCH}},
            "train": {"status": "done", "init": "random", "recipe": ["train.precision=bf16"], "photos": 1872,
                      "shapes": 519, "size": 224, "batch": 30, "validation_photos": 720, "validation": [
                          {"step": 500, "seconds": 20.0, "val.top1": 0.1, "val.top10": 0.4}]},
        },
    }  # fmt: skip


def test_without_a_report_everything_says_not_run(tmp_path):
    assert read_gpu(tmp_path) is None
    assert gpu_line(None) == gpu_about(None) == NOT_RUN
    assert gpu_tables(None) == [] and gpu_training(None) == "" and cases(None, "step") == {}


def test_the_file_is_the_report(tmp_path, report):
    (tmp_path / "data/results").mkdir(parents=True)
    (tmp_path / "data/results/gpu.json").write_text(json.dumps(report))
    assert read_gpu(tmp_path) == report


def test_a_report_is_told_with_its_card_and_with_what_is_missing(report):
    assert gpu_line(report) == (
        "On a GPU (A card, 2026-11-28, PyTorch 2.11.0, driver 580.1): a step of the paper's profile takes 20 ms in "
        "bf16 (30 photos, 360 views of 224 px); one query against 1,000,000 shapes takes 20.0 ms."
    )
    about = gpu_about(report)
    assert "100 · 10¹² operations a second in bf16" in about and "5 passed, 1 failed, 1 skipped" in about
    assert "training steps (out of time: it took longer)" in about
    assert "training steps, bf16, largest (3 s were left; 20 s are needed)" in about
    assert "embedding (not asked for: no reason given)" in about


def test_tables_hold_rates_and_shares_of_the_measured_limits(report):
    (about_steps, steps), (_, search) = gpu_tables(report)
    assert "0.5 hours in fp32, 0.5 hours in bf16" in about_steps and "TF32" in about_steps
    assert steps.index.tolist() == ["fp32", "bf16"]
    assert steps.loc["bf16", "photos/s"] == 1500 and steps.loc["bf16", "views/s"] == 18_000
    assert steps.loc["bf16", "% of the card's products"] == 50 and steps.loc["bf16", "% waiting for input"] == 5
    assert steps.loc["bf16", "ms, median (fastest to slowest)"] == "20 (10 to 30)"
    assert search.loc["float32, 1", "least ms"] == 2 and search.loc["float32, 1", "share of the limit, %"] == 10


def test_training_says_how_far_it_came(report):
    said = gpu_training(report)
    assert "random weights" in said and "500 steps in 20 s" in said and "10.0 %" in said and "40.0 %" in said


def test_an_empty_report_breaks_nothing():
    report = {"smoke": True, "parts": {"card": {"status": "failed", "error": "no driver"}}}
    assert "nothing was measured" in gpu_line(report) and "no driver" in gpu_about(report)
    assert gpu_tables(report) == [] and gpu_training(report) == ""
