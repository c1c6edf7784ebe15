"""Models as folders and as repositories of a hub; the pages that go with them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cmiclib.config import Config
from cmiclib.errors import CheckpointError
from cmiclib.evaluation.card import data_sheet, model_card, pass_on
from cmiclib.io.atomic import write_json
from cmiclib.model import CMIC
from cmiclib.training.run import Run

CONFIG = Config.model_validate(
    {"model": {"query_backbone": "test_resnet", "view_backbone": "test_resnet", "image_size": 32, "init": "random"}}
)
METRICS = {
    "benchmark": "tiny", "split": "test", "gallery_size": 8, "seen": {"top1": 0.625, "top1_low": 0.5, "top1_high": 0.75,
    "queries": 40}, "chance": {"top1": 0.125, "top10": 1.0, "category": 0.5, "mrr": 0.3, "queries": 40},
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> CMIC:
    torch.manual_seed(0)
    return CMIC(CONFIG.model)


@pytest.fixture
def folder(model: CMIC, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "saved", CONFIG)
    return tmp_path / "saved"


def same(one: CMIC, other: CMIC) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_saved_model_comes_back_and_is_a_run_folder(model: CMIC, folder: Path, tmp_path: Path) -> None:
    again = CMIC.from_pretrained(folder)
    assert same(again, model) and not again.training
    run = Run.open(folder)
    assert run.config == CONFIG and same(run.model(), model)
    model.save_pretrained(tmp_path / "bare")
    assert Run.open(tmp_path / "bare").config.model == CONFIG.model


def test_a_model_comes_from_the_hub_by_name(
    model: CMIC, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client is replaced by one that fetches into a cache of links, as its own does; no network here."""
    asked = []

    def fetch(name: str, file: str) -> str:
        asked.append((name, file))
        shutil.copy(folder / file, tmp_path / f"blob-{file}")
        (tmp_path / "snapshot").mkdir(exist_ok=True)
        link = tmp_path / "snapshot" / file
        link.symlink_to(tmp_path / f"blob-{file}")
        return str(link)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    assert same(CMIC.from_pretrained("hf-hub:somebody/cmic"), model)
    assert asked == [("somebody/cmic", "config.json"), ("somebody/cmic", "model.safetensors")]


@pytest.mark.parametrize("fault", [OSError("no network"), None])
def test_a_hub_that_has_nothing_is_one_message(fault: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, file: str) -> str:
        raise fault

    if fault:
        monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    name = "somebody/cmic" if fault else "not a/valid/name"  # the client itself refuses this one
    with pytest.raises(CheckpointError, match=r"hf-hub:.*config\.json cannot be had"):
        CMIC.from_pretrained(f"hf-hub:{name}")


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        CMIC.from_pretrained(folder)


def finish(folder: Path, benchmark) -> Run:
    data = {"benchmark": benchmark.name, "hash": benchmark.hash, "shapes": 8, "photos": {"train": 20, "test": 10}}
    write_json(folder / "data.json", data)
    write_json(folder / "metrics.json", METRICS)
    made = {"date": "2026-01-02", "processor": "A CPU", "cores": 2, "accelerator": "none", "python": "3.11.7"}
    write_json(folder / "environment.json", made | {"seconds": 12.5, "versions": {"torch": "2.9.0"}})
    return Run.open(folder)


def test_what_is_passed_on_holds_the_runs_own_figures(folder: Path, tmp_path: Path, tiny_benchmark) -> None:
    run, out = finish(folder, tiny_benchmark), tmp_path / "out"
    pass_on(run, out, tiny_benchmark)
    card, sheet = (out / "README.md").read_text("utf-8"), (out / "DATASHEET.md").read_text("utf-8")
    assert "| seen | 40 | 62.5 (50.0 to 75.0) | not run | not run | not run |" in card
    assert "| chance | 40 | 12.5 | 100.0 | 50.0 | 30.0 |" in card and "gallery of 8 shapes" in card
    assert "20 train, 10 test" in card and "asks for 1000 steps of 30 photos, with seed 3104" in card
    assert "12.5 seconds" in card and tiny_benchmark.hash in card
    assert f"- {len(tiny_benchmark.shapes)} shapes in" in sheet and "8)" in sheet
    tests = (tiny_benchmark.queries.split == "test").sum()
    assert f"- {tests} test photos" in sheet
    assert json.loads((out / "metrics.json").read_text()) == METRICS
    assert same(CMIC.from_pretrained(out), run.model())
    assert load_file(out / "model.safetensors").keys() == load_file(folder / "model.safetensors").keys()
    with pytest.raises(CheckpointError, match="in use"):
        pass_on(run, out)


def test_what_was_not_run_says_so(folder: Path, tmp_path: Path) -> None:
    pass_on(Run.open(folder), tmp_path / "out")
    card, sheet = ((tmp_path / "out" / name).read_text("utf-8") for name in ("README.md", "DATASHEET.md"))
    assert "Not run: the run holds no `metrics.json`" in card and "date and duration: not noted" in card
    assert "Shapes: not noted" in sheet
    assert "No training is noted" in card and "steps of 30" not in card, "what config.json asks for was not run"
    assert model_card(CONFIG, {}) == card and data_sheet({}, None) == sheet


def test_the_data_sheet_of_other_data_is_refused(folder: Path, tmp_path: Path, tiny_benchmark) -> None:
    finish(folder, tiny_benchmark)
    write_json(folder / "data.json", {"benchmark": "tiny", "hash": "0"})
    with pytest.raises(CheckpointError, match="not trained on"):
        pass_on(Run.open(folder), tmp_path / "out", tiny_benchmark)
    assert not (tmp_path / "out").exists()
