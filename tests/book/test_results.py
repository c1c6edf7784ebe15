"""Stored results: agreement within tolerances, and the first page: its sentences and its table."""

import copy
import json

import pytest
from toybook import REPOSITORY

from cmiclib.book import front
from cmiclib.book import tables as results
from cmiclib.errors import BookError

STORED = {
    "metrics": {
        "benchmark": "sweethome", "profile": "demo", "gallery_size": 520,
        "seen": {"top1": 0.7, "top10": 0.95, "category": 0.9, "map10": 0.8, "mrr": 0.81, "queries": 400},
        "unseen": {"top1": 0.25, "queries": 90},
        "chance": {"top1": 1 / 520},
    },
    "tolerances": {"seen.top1": 0.03, "unseen.top1": 0.05},
    "seconds": {"01_data": 30.0, "07_evaluation": 1250.0},
    "environment": {"date": "2026-11-22", "processor": "A CPU", "cores": 2, "accelerator": "none"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("top1", "agrees"), [(0.7, True), (0.671, True), (0.729, True), (0.669, False), (0.731, False)]
)
def test_agreement_is_within_the_tolerance_on_both_sides(top1: float, agrees: bool) -> None:
    measured = copy.deepcopy(STORED["metrics"])
    measured["seen"]["top1"] = top1
    assert [row.agrees for row in results.compare(measured, STORED)] == [agrees, True]


def test_what_was_not_measured_does_not_agree() -> None:
    measured = copy.deepcopy(STORED["metrics"])
    del measured["unseen"]
    assert [(row.metric, row.measured, row.agrees) for row in results.compare(measured, STORED)] == [
        ("seen.top1", 0.7, True),
        ("unseen.top1", None, False),
    ]


def test_a_tolerance_without_a_stored_value_is_an_error() -> None:
    with pytest.raises(BookError, match=r"'seen\.topp'"):
        results.compare(STORED["metrics"], STORED | {"tolerances": {"seen.topp": 0.1}})


def test_missing_and_broken_files_say_what_to_do(tmp_path) -> None:
    with pytest.raises(BookError, match="make reproduce"):
        results.read_results(tmp_path / "metrics.json")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(BookError, match="cannot be read as JSON"):
        results.read_results(tmp_path / "metrics.json")


LESS = {
    "seen": {"trained": {"top1": 0.4, "top10": 0.8, "top1_low": 0.35, "top1_high": 0.45},
             "untrained": {"top1": 0.3, "top10": 0.7}, "gain": [0.1, 0.05, 0.15]},
    "unseen": {"trained": {"top1": 0.2, "top10": 0.6}, "untrained": {"top1": 0.25, "top10": 0.5}, "gain": [-0.05]},
}  # fmt: skip


def test_the_table_has_a_row_for_each_mask_and_says_what_was_not_run(tmp_path) -> None:
    metrics = STORED["metrics"] | {
        "untrained_cells": {"top1": 0.5, "top10": 0.75}, "masks": {"box": LESS},
        "gains": {"untrained_cells": [0.2, 0.15, 0.25]},
    }  # fmt: skip
    lines = front.readme_table(STORED | {"metrics": metrics}, tmp_path).splitlines()
    assert lines[0].startswith("| shapes | given | Top-1, trained | Top-1, untrained | Top-1, difference |")
    assert lines[2] == "| seen | exact mask | 70.0 | 50.0 | +20.0 (+15.0 to +25.0) | 95.0 | 75.0 | not run |"
    assert lines[4] == "| seen | box alone | 40.0 | 30.0 | +10.0 (+5.0 to +15.0) | 80.0 | 70.0 | not run |"
    assert lines[3] == "| seen | box, GrabCut | not run | not run | not run | not run | not run | not run |"
    assert lines[5] == "| unseen | exact mask | 25.0 | not run | not run | not run | not run | not run |"
    assert lines[7] == "| unseen | box alone | 20.0 | 25.0 | -5.0 | 60.0 | 50.0 | not run |"
    assert "400 photos of seen and 90 of unseen shapes against a gallery of 520; a random order finds 0.2." in lines[-1]


def seeds(**changed):
    """What `tools/measure/measure_seeds.py` stores: two seeds of the benchmark as it is, one with other shapes."""

    def row(part, top1):
        figures = {"trained": {"top1": top1, "top10": 0.9}, "untrained": {"top1": 0.3, "top10": 0.8}}
        return {"part": part, "given": "given", "photos": 8, **figures, "gain": [top1 - 0.3, 0.05, 0.3]}

    runs = [{"split": "reported", "seed": seed, "rows": [row("seen", top1), row("unseen", 0.4)]}
            for seed, top1 in enumerate((0.7, 0.8))]  # fmt: skip
    runs.append({"split": "fresh", "seed": 0, "rows": [row("seen", 0.1), row("unseen", 0.5)]})
    return json.dumps({"config": "c", "benchmark_hash": "b", "runs": runs} | changed)


KNOWN = STORED["metrics"] | {"config": "c", "benchmark_hash": "b"}


def test_other_seeds_and_fresh_shapes_stand_in_the_table(tmp_path) -> None:
    (tmp_path / "seeds.json").write_text(seeds())
    table = front.mask_table(KNOWN, tmp_path)
    assert table.loc[("seen", "exact mask"), "Top-1, seeds"] == "2: 75.0 (70.0 to 80.0)"
    assert table.loc[("seen", "box alone"), "Top-1, seeds"] == "not run"
    fresh = table.loc[(front.FRESH, "exact mask")]
    assert list(fresh) == ["50.0", "30.0", "+20.0 (+5.0 to +30.0)", "90.0", "80.0", "1: 50.0"]
    assert "helped to choose the fixed numbers" in front.chosen(KNOWN, tmp_path)


@pytest.mark.parametrize("changed", [{"config": "another"}, {"benchmark_hash": "another"}])
def test_seeds_of_another_configuration_or_benchmark_do_not_count(tmp_path, changed) -> None:
    (tmp_path / "seeds.json").write_text(seeds(**changed))
    assert set(front.mask_table(KNOWN, tmp_path)["Top-1, seeds"]) == {"not run"}
    assert "No fresh shapes" in front.chosen(KNOWN, tmp_path)


def test_the_first_sentence_says_what_a_worse_mask_costs(tmp_path) -> None:
    assert "box" not in front.summary(STORED["metrics"], tmp_path)[0]
    first = front.summary(STORED["metrics"] | {"masks": {"box": LESS}}, tmp_path)[0]
    assert first.endswith("in a gallery of 520; with a box alone it comes first for 40 % (35 to 45).")


def test_only_the_results_of_the_readme_change(tmp_path) -> None:
    (tmp_path / "demo.json").write_text(json.dumps(STORED))
    marks = [mark.format(part) for part in ("sentences", "commands", "table") for mark in (front.BEGIN, front.END)]
    readme = "# Title\n\n{}\nold\n{}\n\nbetween\n\n{}\nold\n{}\n\n{}\n{}\n\nrest\n".format(*marks)
    text = front.with_table(readme, tmp_path)
    assert text.startswith(f"# Title\n\n{marks[0]}\n1. With exact masks")
    assert (
        f"{marks[1]}\n\nbetween\n\n{marks[2]}\n```\nmake reproduce" in text
        and "took 21 minutes, added up, on 2 CPU cores" in text
    )
    assert f"{marks[4]}\n| shapes | given |" in text and text.endswith(f"{marks[5]}\n\nrest\n") and "old" not in text
    assert front.with_table(text, tmp_path) == text
    with pytest.raises(BookError, match="marks around its table"):
        front.with_table(text.replace(marks[4], ""), tmp_path)


def test_how_the_settings_were_chosen_is_said_with_the_number_of_candidates(tmp_path) -> None:
    assert "of its candidates" in front.chosen(KNOWN, tmp_path).lower()
    (tmp_path / "candidates.json").write_text(json.dumps({"frozen": {"rows": [{}] * 7}}))
    assert "Of 7 candidates" in front.chosen(KNOWN, tmp_path) and "too good" in front.chosen(KNOWN, tmp_path)


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [([0.1, 0.02, 0.2], "a gain"), ([0.1, -0.02, 0.2], "no measurable gain"), ([-0.1, -0.2, -0.02], "a loss")],
)
def test_the_sentences_say_what_holds_and_what_was_not_tested(tmp_path, gain: list[float], verdict: str) -> None:
    metrics = copy.deepcopy(STORED["metrics"])
    metrics["unseen"] |= {"top1": 0.25, "top10": 0.5}
    metrics |= {"untrained_unseen": {"top1": 0.1}, "untrained_cells_unseen": {"top1": 0.15}}
    metrics["gains"] = {"untrained_unseen": [0.9, 0.8, 1.0], "untrained_cells_unseen": gain}
    first, second, _, last = front.summary(metrics, tmp_path)
    assert "for 70 %" in first and "gallery of 520" in first
    assert f": {verdict}, {100 * gain[0]:+.1f} points of Top-1" in second and "box" not in second
    assert "not run to its end" in last and "GPU" in last
    less = LESS["unseen"] | {"gain": [0.03, -0.05, 0.11]}
    boxed = front.summary(metrics | {"masks": {"box": {"unseen": less}}}, tmp_path)[1]
    assert boxed.endswith("; with a box alone it is 20 %: no measurable gain, +3.0 points of Top-1 (-5.0 to +11.0).")
    (tmp_path / "seeds.json").write_text(seeds())
    fresh = front.summary(metrics | {"config": "c", "benchmark_hash": "b"}, tmp_path)[1]
    assert fresh.endswith("the fixed numbers, it is 50 %: a gain, +20.0 points of Top-1 (+5.0 to +30.0).")
    rows = [{"photos": kind, "model": "trained", "top1": share, "queries": 60} for kind, share in
            (("CAD mask", 0.72), ("no mask", 0.29))]  # fmt: skip
    (tmp_path / "real_photos.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "gpu.json").write_text("{}")
    *_, real, _, last = front.summary(metrics, tmp_path)
    assert "72 % of 60 photos with a perfect mask" in real and "29 %" in real and "GPU" not in last


def test_the_readme_agrees_with_the_stored_results() -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    assert front.with_table(readme, REPOSITORY / "data" / "results") == readme, "run `make readme`"


def test_a_snapshot_holds_what_readers_need_to_judge_it(tmp_path) -> None:
    finish(tmp_path)
    snapshot = results.snapshot(tmp_path, {"seen.top1": 0.02}, CHAPTERS)
    assert snapshot["seconds"] == {"01_data": 3.5, "07_evaluation": 3.5}
    assert snapshot["effort"]["01_data"] == {"user_seconds": 6.0, "system_seconds": 0.5, "page_faults": 2e6}
    assert all(row.agrees for row in results.compare(STORED["metrics"] | HASHES, snapshot))
    assert front.readme_table(snapshot, tmp_path) == front.readme_table(STORED, tmp_path)


def test_the_effort_of_a_run_is_a_table_with_the_longest_chapter_first() -> None:
    stored = {"seconds": {"a": 30.0, "b": 90.0}, "effort": {"a": {"user_seconds": 40.0, "page_faults": 3e6}, "b": {}}}
    table = results.effort_table(stored)
    assert list(table.index) == ["b", "a"] and list(table.minutes) == [1.5, 0.5]
    assert table.loc["a", "million page faults"] == 3 and table.loc["a", "CPU s, own code"] == 40
    assert table.loc["b"].isna().sum() == 3
    assert results.effort_table({"seconds": {"a": 30.0}}).shape == (1, 4)


CHAPTERS = ["01_data", "07_evaluation"]
HASHES = {"config": "c", "benchmark_hash": "b"}


def finish(outputs, **changes) -> None:
    """Write what a finished reproduction leaves, with changes of the entry of the chapter on evaluation."""
    hashes = {"config": "c", "benchmark": "b"}
    entry = {"key": "k", "status": "ok", "seconds": 3.5, "hashes": hashes, "environment": STORED["environment"]}
    entry |= {"user_seconds": 6.0, "system_seconds": 0.5, "page_faults": 2e6}
    record = {"chapters": {"01_data": entry, "07_evaluation": entry | changes}}
    (outputs / "provenance.json").write_text(json.dumps(record))
    (outputs / "metrics.json").write_text(json.dumps(STORED["metrics"] | HASHES))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": "failed"}, "status 'failed'"),
        ({"stale": True}, "older state"),
        ({"hashes": {"config": "other", "benchmark": "b"}}, "another configuration"),
        ({"hashes": {"config": "c", "benchmark": "other"}}, "another benchmark"),
    ],
)
def test_metrics_that_the_last_evaluation_did_not_write_are_refused(tmp_path, changes: dict, said: str) -> None:
    finish(tmp_path)
    assert results.read_metrics(tmp_path)["seen"]["top1"] == 0.7
    finish(tmp_path, **changes)
    with pytest.raises(BookError, match=said):
        results.read_metrics(tmp_path)


def test_results_of_several_states_are_not_stored(tmp_path) -> None:
    finish(tmp_path)
    with pytest.raises(BookError, match="08_ablations"):
        results.snapshot(tmp_path, {}, [*CHAPTERS, "08_ablations"])
    record = json.loads((tmp_path / "provenance.json").read_text())
    record["chapters"]["01_data"]["stale"] = True
    (tmp_path / "provenance.json").write_text(json.dumps(record))
    with pytest.raises(BookError, match="01_data"):
        results.snapshot(tmp_path, {}, CHAPTERS)


def test_stored_results_of_other_data_are_not_compared() -> None:
    with pytest.raises(BookError, match="other data"):
        results.compare(STORED["metrics"] | HASHES, STORED)
