"""`cmic fit`: practice photos, heads, and an honest comparison on photos rendered anew."""

import json
from pathlib import Path

import pytest
import trimesh
from typer.testing import CliRunner

from cmiclib import config
from cmiclib.benchmark import Benchmark
from cmiclib.cli import app
from cmiclib.study import fit as module


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    (root / "block").mkdir(parents=True)
    for i, sides in enumerate([(1, 2, 1), (3, 1, 1), (1, 1, 2), (2, 2, 0.2)]):
        trimesh.creation.box(sides).export(root / "block" / f"{i}.obj")
    return root


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile at a size that takes seconds, with a network that needs no weights."""
    small = [
        "model.query_backbone=test_resnet", "model.view_backbone=test_resnet", "model.init=random", "model.frozen=5",
        "model.image_size=32", "model.dim=8", "model.fixed=8", "train.steps=4", "train.eval_every=2", "train.copies=1",
    ]  # fmt: skip
    monkeypatch.setitem(config.PROFILES, "fit", config.profile("fit").override(small))


def call(*arguments: object):
    return CliRunner().invoke(app, ["fit", *map(str, arguments)])


def test_it_adapts_says_what_it_gave_and_goes_on_from_what_is_there(quick, untrained_run, models, tmp_path):
    given = ["--shapes", models, "--output", tmp_path / "fit", "--run", untrained_run.path, "--minutes", 0.1]
    given += ["--jobs", 1, "--cache", tmp_path / "cache"]
    result = call(*given)
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "fit" / "figures.json").read_text())
    assert told["photos"] == module.FEWEST and 0 < told["before"]["mrr"] <= 1 and 0 < told["after"]["mrr"] <= 1
    assert told["better"] == (told["after"]["mrr"] > told["before"]["mrr"])
    assert ("adapted weights are better" in result.output) == told["better"]
    practice, judges = (Benchmark.open(tmp_path / "fit" / name) for name in ("practice-4", "held-out"))
    assert len(judges.queries) == 2 * 4 and len(practice.queries) == 4 * 4
    assert not any((photo == practice.images).all(axis=(1, 2, 3)).any() for photo in judges.images)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "fit").rglob("model.safetensors")}
    again = call(*given)
    assert again.exit_code == 0
    assert json.loads((tmp_path / "fit" / "figures.json").read_text()) | {"minutes": told["minutes"]} == told
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "fit").rglob("model.safetensors")}


def test_another_state_of_the_folder_is_refused(quick, untrained_run, models, tmp_path):
    given = ["--shapes", models, "--output", tmp_path / "fit", "--run", untrained_run.path, "--minutes", 0.1]
    given += ["--jobs", 1, "--cache", tmp_path / "cache"]
    assert call(*given).exit_code == 0
    trimesh.creation.box((1, 5, 1)).export(models / "block" / "new.obj")
    result = call(*given)
    assert result.exit_code == 2 and "another state" in result.output and "--output" in result.output


def test_one_shape_is_refused(quick, untrained_run, models, tmp_path):
    for name in "123":
        (models / "block" / f"{name}.obj").unlink()
    places = ["--shapes", models, "--output", tmp_path / "fit", "--cache", tmp_path / "cache"]
    result = call(*places, "--run", untrained_run.path)
    assert result.exit_code == 2 and "one shape" in result.output


@pytest.mark.parametrize("minutes, shapes, jobs, photos", [(10, 40, 2, 40), (5, 40, 2, 21), (1, 1000, 2, 4)])
def test_the_budget_decides_on_the_number_of_practice_photos(minutes, shapes, jobs, photos):
    assert module.photos_within(minutes, shapes, jobs) == photos
