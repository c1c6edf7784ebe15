"""Variants, their runs on the tiny benchmark, and a grid that can be stopped at any moment."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toybook import make_book
from typer.testing import CliRunner

from cmiclib.cli import app
from cmiclib.config import Config, ModelConfig, TrainConfig, profile
from cmiclib.errors import BookError, ConfigError
from cmiclib.evaluation.report import score_run
from cmiclib.io.lock import alone
from cmiclib.study import ablations as module
from cmiclib.study.ablations import (
    REFERENCE,
    SEEDS,
    VARIANTS,
    Variant,
    answers_path,
    config_hash,
    config_hashes,
    for_profile,
    run_grid,
    run_variant,
    variant_config,
)
from cmiclib.study.variants import Change, apply_variant
from cmiclib.training.loop import train

TINY = Config(
    profile="test",
    model=ModelConfig(
        query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random", frozen=5,
        mask="cutout",
    ),
    train=TrainConfig(
        batch=4, steps=3, views=2, copies=1, view_copies=1, lr=1e-3, log_every=3, eval_every=3, channels_last=False
    ),
)  # fmt: skip
FEW = {
    "full": Variant("the full method", (), "–"),
    "mean": Variant("mean of the views", ("model.fusion=mean",), "fusion"),
    "views": Variant("3 views", (), "views", data=Change(views=3)),
}


def grid(benchmark, folder, variants=FEW, seeds=(0, 1), **options):
    said = []
    rows = run_grid(
        benchmark, folder / "runs", folder / "results" / "ablations.json", seeds=seeds, reference=TINY,
        variants=variants, say=said.append, **options,
    )  # fmt: skip
    return rows, said


def essence(folder):
    """The table without what differs between equal runs, and the answers."""
    table = folder / "results" / "ablations.json"
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in json.loads(table.read_text())]
    return rows, json.loads(answers_path(table).read_text())


@pytest.fixture(scope="module")
def undisturbed(tiny_benchmark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    torch.manual_seed(0)
    return folder, *grid(tiny_benchmark, folder)


def test_there_are_enough_variants_and_all_fit():
    assert len(VARIANTS) > 12 and len(SEEDS) >= 5
    assert len(set(config_hashes().values())) == len(VARIANTS)
    assert all(variant.against in VARIANTS for variant in VARIANTS.values())
    assert VARIANTS["full"].overrides == ()


def test_each_variant_changes_only_what_it_names():
    for name, variant in VARIANTS.items():
        ours, full = (variant_config(n, 3).model_dump() for n in (name, variant.against))
        changed = {
            f"{s}.{k}" for s, part in ours.items() if isinstance(part, dict) for k in part if part[k] != full[s][k]
        }
        named = {text.partition("=")[0] for text in {*variant.overrides} ^ {*VARIANTS[variant.against].overrides}}
        assert changed == (named if name != "full" else set())


@pytest.mark.parametrize("name", VARIANTS)
def test_small_variants_for_smoke_fit_its_batch(name):
    reference, variants = for_profile("smoke")
    assert variant_config(name, 0, reference, variants).train.batch <= 12
    assert for_profile("demo") == (REFERENCE, VARIANTS)


def test_the_hash_is_of_the_configuration_without_seed_and_name():
    base = variant_config("full", 0)
    assert config_hash(base) == config_hash(variant_config("full", 4))
    assert config_hash(base) == config_hash(base.model_copy(update={"profile": "another"}))
    assert config_hash(base) != config_hash(base.override(["loss.tau=0.11"]))
    assert config_hash(base) == config_hash(base.override(["loss.tau=0.1"]))
    assert config_hash(profile("demo")) != config_hash(base)


def test_an_unknown_variant_is_named(tiny_benchmark, tmp_path):
    with pytest.raises(ConfigError, match="unknown variant 'nothing'"):
        run_variant("nothing", 0, tiny_benchmark, tmp_path)


def test_a_result_says_all_that_a_row_needs(undisturbed, tiny_benchmark):
    _, rows, _ = undisturbed
    assert [(row["variant"], row["seed"]) for row in rows] == [(name, seed) for name in FEW for seed in (0, 1)]
    for row in rows:
        assert set(row["metrics"]) == {"top1", "top10", "category", "unseen_top1"}
        assert all(0 <= value <= 1 for value in row["metrics"].values())
        assert row["benchmark"] == tiny_benchmark.hash and row["seconds"] > 0 and "cores" in row["machine"]
    assert rows[2]["overrides"] == ["model.fusion=mean"]
    assert len({(row["config_hash"], row["seed"]) for row in rows}) == len(rows)


def test_a_row_is_what_training_and_evaluation_say(undisturbed, tiny_benchmark, tmp_path):
    _, rows, _ = undisturbed
    for row in rows[::3]:  # a full one and one with three views
        config = variant_config(row["variant"], row["seed"], TINY, FEW)
        seen_by_run = apply_variant(tiny_benchmark, FEW[row["variant"]].data)
        run = train(config, seen_by_run, tmp_path / row["variant"], progress=False)
        scored = score_run(run, seen_by_run, "val")
        seen = tiny_benchmark.queries.seen.to_numpy()[scored.rows].astype(bool)
        assert row["first"] == " ".join(map(str, scored.scores.argmax(dim=1).tolist()))
        for name in ("top1", "top10", "category"):
            assert row["metrics"][name] == pytest.approx(scored.part(seen).metrics()[name].mean().item())
        assert row["metrics"]["unseen_top1"] == pytest.approx(scored.part(~seen).metrics()["top1"].mean().item())


def test_answers_stand_beside_the_table_and_agree_with_it(undisturbed):
    folder, _, _ = undisturbed
    rows, answers = essence(folder)
    own = answers["photos"]["shape_id"]
    seen = answers["photos"]["seen"]
    for row in rows:
        assert "first" not in row
        first = [
            answers["shapes"]["shape_id"][int(i)] for i in answers["first"][f"{row['variant']} {row['seed']}"].split()
        ]
        right = [a == b for a, b, s in zip(first, own, seen, strict=True) if s]
        assert sum(right) / len(right) == pytest.approx(row["metrics"]["top1"])


def test_nothing_is_run_twice_and_what_is_shared_is_made_once(undisturbed, tiny_benchmark, monkeypatch):
    folder, rows, said = undisturbed
    assert "0 of 6" in said[0]
    assert not any((folder / "runs" / "running").iterdir())
    monkeypatch.setattr(module, "train", None)  # would fail if it were called
    again, said = grid(tiny_benchmark, folder)
    assert again == rows and "6 of 6 runs are there" in said[0]
    kept = run_variant("mean", 1, tiny_benchmark, folder / "runs", reference=TINY, variants=FEW)
    assert kept == rows[3]


def test_the_table_alone_is_enough_to_go_on(undisturbed, tiny_benchmark, tmp_path, monkeypatch):
    folder, _, _ = undisturbed
    monkeypatch.setattr(module, "train", None)
    (tmp_path / "results").mkdir()
    for path in (folder / "results").iterdir():
        (tmp_path / "results" / path.name).write_text(path.read_text())
    grid(tiny_benchmark, tmp_path)
    assert essence(tmp_path) == essence(folder)


def copied(folder, tmp_path):
    for path in folder.glob("*/*.json"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_text(path.read_text())
    return tmp_path


@pytest.fixture
def trained(monkeypatch):
    """What is trained, by its changes; the trainings themselves go on."""
    calls = []

    def counted(config, benchmark, *args, **options):
        calls.append((config.model.fusion, benchmark.views.shape[1], config.loss.tau, config.train.seed))
        return train(config, benchmark, *args, **options)

    monkeypatch.setattr(module, "train", counted)
    return calls


def test_a_benchmark_without_photos_of_seen_shapes_has_no_top1_of_theirs(tiny_benchmark, tmp_path):
    queries = tiny_benchmark.queries.copy()
    queries.loc[queries.split == "val", "seen"] = False
    unseen = dataclasses.replace(tiny_benchmark, queries=queries)
    rows, said = grid(unseen, tmp_path, variants={"full": FEW["full"]}, seeds=(0,))
    assert rows[0]["metrics"]["top1"] is None and "Top-1 of seen shapes – in" in said[-1]


def test_a_changed_override_reruns_exactly_its_own_variant(undisturbed, tiny_benchmark, tmp_path, trained):
    folder = copied(undisturbed[0], tmp_path)
    changed = FEW | {"mean": Variant("best view", ("model.fusion=max",), "fusion")}
    rows, said = grid(tiny_benchmark, folder, changed, replace=True)
    assert [call[0] for call in trained] == ["max", "max"] and "4 of 6" in said[0]
    before = undisturbed[1]
    assert [row["config_hash"] == old["config_hash"] for row, old in zip(rows, before, strict=True)] == [
        True, True, False, False, True, True
    ]  # fmt: skip
    assert [rows[i] for i in (0, 1, 4, 5)] == [before[i] for i in (0, 1, 4, 5)]


def test_a_variant_that_is_taken_out_leaves_the_table(undisturbed, tiny_benchmark, tmp_path, trained):
    folder = copied(undisturbed[0], tmp_path)
    rows, _ = grid(tiny_benchmark, folder, {name: FEW[name] for name in ("full", "views")}, replace=True)
    assert {row["variant"] for row in rows} == {"full", "views"} and trained == []


def test_rows_of_another_benchmark_or_configuration_are_not_dropped_unasked(
    undisturbed, tiny_benchmark, tmp_path, trained
):
    folder = copied(undisturbed[0], tmp_path)
    before = {path: path.read_bytes() for path in (folder / "results").iterdir()}
    other = dataclasses.replace(tiny_benchmark, meta=tiny_benchmark.meta | {"sha256": {"views.npy": "other"}})
    changed = FEW | {"mean": Variant("best view", ("model.fusion=max",), "fusion")}
    for benchmark, variants, count in ((other, FEW, 6), (tiny_benchmark, changed, 2), (tiny_benchmark, {}, 6)):
        with pytest.raises(BookError, match=rf"{count} of 6 rows[\s\S]*--replace"):
            grid(benchmark, folder, variants)
    assert {path: path.read_bytes() for path in (folder / "results").iterdir()} == before and trained == []


def test_nothing_is_written_before_the_first_result(tiny_benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("stopped before the first result"))
    with pytest.raises(pytest.fail.Exception, match="stopped"):
        grid(tiny_benchmark, tmp_path)
    assert not (tmp_path / "results").exists()


def test_other_seeds_and_some_variants_only_leave_the_rest_of_the_table(undisturbed, tiny_benchmark, tmp_path, trained):
    folder = copied(undisturbed[0], tmp_path)
    rows, _ = grid(tiny_benchmark, folder, names=["mean"], seeds=(1, 2))
    assert len(rows) == 7 and [call[3] for call in trained] == [2]


def test_other_code_counts_unless_the_same_is_asked_for(undisturbed, tiny_benchmark, tmp_path, monkeypatch, trained):
    folder = copied(undisturbed[0], tmp_path)
    monkeypatch.setattr(module, "code_digest", lambda modules: "another")
    assert len(grid(tiny_benchmark, folder)[0]) == 6 and trained == []
    rows, _ = grid(tiny_benchmark, folder, seeds=(1,), same_code=True)
    assert [call[3] for call in trained] == [1, 1, 1]
    assert {(row["seed"], row["code"] == "another") for row in rows} == {(0, False), (1, True)}


def test_again_trains_once_more_and_gets_the_same(undisturbed, tiny_benchmark, tmp_path, trained):
    folder = copied(undisturbed[0], tmp_path)
    row = run_variant("mean", 0, tiny_benchmark, folder / "runs", reference=TINY, variants=FEW, again=True)
    assert len(trained) == 1
    assert row | {"seconds": 0} == undisturbed[1][2] | {"seconds": 0}


def test_an_interrupted_grid_ends_as_an_undisturbed_one(undisturbed, tiny_benchmark, tmp_path, monkeypatch):
    original = module.train
    for after in (1, 2):
        calls = []

        def stopped(*args, calls=calls, after=after, **options):
            calls.append(args)
            if len(calls) > after:
                raise KeyboardInterrupt
            return original(*args, **options)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, "train", stopped)
            grid(tiny_benchmark, tmp_path)
    assert len(essence(tmp_path)[0]) == 3
    _, said = grid(tiny_benchmark, tmp_path)
    assert "3 of 6" in said[0]
    assert essence(tmp_path) == essence(undisturbed[0])


def test_two_grids_do_not_work_in_one_folder(tiny_benchmark, tmp_path):
    with alone(tmp_path / "runs", BookError), pytest.raises(BookError, match="at work"):
        grid(tiny_benchmark, tmp_path)


def test_a_damaged_result_is_named(undisturbed, tiny_benchmark, tmp_path):
    folder = copied(undisturbed[0], tmp_path)
    victim = next((folder / "runs").glob("mean-0-*.json"))
    victim.write_text(victim.read_text()[:40])
    with pytest.raises(Exception, match=victim.name):
        grid(tiny_benchmark, folder)


def test_commands_run_the_grid_and_one_run_of_it(undisturbed, tiny_benchmark, tmp_path, monkeypatch):
    root = make_book(tmp_path)
    for kind, place in (("runs", "outputs/ablations"), ("results", "data/results")):
        shutil.copytree(undisturbed[0] / kind, root / place)
    monkeypatch.chdir(root)
    monkeypatch.setattr(module, "for_profile", lambda profile: (TINY, FEW))
    common = ["--benchmark", str(tiny_benchmark.path)]
    stored = {path: path.read_bytes() for path in (root / "data/results").iterdir()}
    for scale in ("smoke", "demo"):
        options = ["--profile", scale, "--seed", "0", "--seed", "1", "--jobs", "1"]
        result = CliRunner().invoke(app, ["ablations", *common, *options])
        assert result.exit_code == 0 and "6 of 6 runs are there" in result.output, result.output
        assert len(json.loads((root / "outputs" / scale / "ablations.json").read_text())) == 6
    assert {path: path.read_bytes() for path in (root / "data/results").iterdir()} == stored
    result = CliRunner().invoke(app, ["ablation", "mean", "--seed", "1", "--output", "row.json", *common])
    assert result.exit_code == 0 and "stored, %" in result.output, result.output
    assert json.loads(Path("row.json").read_text())["metrics"] == undisturbed[1][3]["metrics"]
    result = CliRunner().invoke(app, ["ablation", "nothing", *common])
    assert result.exit_code == 2 and "use one of: full, mean, views" in result.stderr


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {tests!r}
import test_ablations as t
from cmiclib.benchmark import Benchmark
t.grid(Benchmark.open({benchmark!r}), Path({folder!r}), jobs={jobs})
"""


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_grid_that_was_killed_three_times_ends_as_an_undisturbed_one(undisturbed, tiny_benchmark, tmp_path, jobs):
    tests = [str(folder) for folder in Path(__file__).parents[:2]]  # its helpers lie one folder higher
    text = SCRIPT.format(tests=tests, benchmark=str(tiny_benchmark.path), folder=str(tmp_path), jobs=jobs)

    def start():
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", text], start_new_session=True, **quiet)

    generator, results = random.Random(0), tmp_path / "runs"
    for kill in range(3):
        process = start()
        while process.poll() is None and len(list(results.glob("*.json"))) <= kill:
            time.sleep(0.05)
        time.sleep(generator.random() / 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process = start()
    assert process.wait(timeout=300) == 0, process.stderr.read().decode()
    assert essence(tmp_path) == essence(undisturbed[0])
