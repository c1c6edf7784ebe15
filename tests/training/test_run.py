import errno
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from cmiclib.config import Config, ModelConfig
from cmiclib.errors import CheckpointError, ConfigError, StorageError
from cmiclib.io.atomic import write_atomically, write_json
from cmiclib.model import build_model
from cmiclib.training.run import Run, save_weights
from cmiclib.training.state import load_state, open_state, prepare, save_state

CONFIG = Config(
    model=ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=8, image_size=32, init="random")
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(CONFIG.model).to(memory_format=torch.channels_last)


@pytest.fixture
def folder(model, tmp_path):
    write_json(tmp_path / "run" / "config.json", CONFIG.model_dump(mode="json"))
    save_weights(tmp_path / "run" / "model.safetensors", model)
    return tmp_path / "run"


def test_weights_come_back_bit_by_bit_and_ready_for_evaluation(folder, model):
    run = Run.open(folder)
    loaded = run.model()
    assert run.config == CONFIG
    assert not any(module.training for module in loaded.modules())
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_weights_in_half_precision_are_loaded_as_float32(folder, model):
    file = folder / "model.safetensors"
    half = {name: value.half() if value.is_floating_point() else value for name, value in load_file(file).items()}
    save_file(half, file)
    weight = Run.open(folder).model().attention_weight
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, model.attention_weight, atol=1e-3, rtol=0)


def test_log_lines_of_both_kinds_become_one_table(folder):
    lines = [{"step": 1, "loss": 2.0}, {"step": 1, "val": {"mrr": 0.5}}, {"step": 2, "loss": 1.0}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = Run.open(folder).log
    assert log.step.tolist() == [1, 1, 2]
    assert log.loss.dropna().tolist() == [2.0, 1.0] and log["val.mrr"].dropna().tolist() == [0.5]


@pytest.mark.parametrize(
    "missing, cure", [("config.json", "cmic train"), ("model.safetensors", "--resume")], ids=["no run", "not finished"]
)
def test_a_folder_without_a_finished_run_is_refused(folder, missing, cure):
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=cure) as error:
        Run.open(folder)
    assert error.value.path == folder


@pytest.mark.parametrize(
    "text, kind", [("{", CheckpointError), ('{"profil": "demo"}', ConfigError), ('{"loss": {"tau": -1}}', ConfigError)]
)
def test_a_damaged_configuration_is_named(folder, text, kind):
    (folder / "config.json").write_text(text)
    with pytest.raises(kind, match=r"config\.json"):
        Run.open(folder)


def truncate(path):
    os.truncate(path, path.stat().st_size - 100)


def replace(path):
    path.write_text("nothing like weights")


def forget(path):
    state = load_file(path)
    del state["attention_weight"]
    save_file(state, path)


def enlarge(path):
    save_file(load_file(path) | {"attention_weight": torch.zeros(9, 9)}, path)


@pytest.mark.parametrize("damage", [truncate, replace, forget, enlarge])
def test_weights_that_cannot_be_used_are_named(folder, damage):
    damage(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Run.open(folder).model()


def test_json_keeps_its_values_and_the_order_of_its_keys(tmp_path):
    values = {"x": 1, "a": {"b": 0.1, "a": None}}
    write_json(tmp_path / "x.json", values)
    found = json.loads((tmp_path / "x.json").read_text())
    assert found == values and list(found) == ["x", "a"] and list(found["a"]) == ["b", "a"]


def test_a_full_disk_leaves_the_earlier_file_and_nothing_half_written(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("earlier")

    def run_out_of_space(temporary):
        temporary.write_text("half a fi")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=r"metrics\.json.*No space left[\s\S]*make room"):
        write_atomically(path, run_out_of_space)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_json(tmp_path / "file" / "config.json", {})


def test_a_resume_state_comes_back_with_its_memory_layout(tmp_path):
    state = {"step": 3, "best": 0.25, "run": "x", "w": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)}
    save_state(tmp_path / "state.pt", state)
    loaded = load_state(tmp_path / "state.pt")
    assert torch.equal(loaded.pop("w"), state["w"]) and loaded == {"step": 3, "best": 0.25, "run": "x"}
    save_state(tmp_path / "state.pt", {"w": state["w"]})
    assert load_state(tmp_path / "state.pt")["w"].stride() == state["w"].stride()


def test_a_resume_state_with_code_in_it_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "boom"), "w")

    torch.save({"step": Bomb()}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="UnpicklingError"):
        load_state(tmp_path / "state.pt")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off"])
def test_an_unreadable_resume_state_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="--resume") as error:
        load_state(tmp_path / "state.pt")
    assert error.value.path == tmp_path / "state.pt"


def files(folder):
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_new_start_takes_what_was_left_away_and_nothing_else(folder, model):
    (folder / "notes.txt").write_text("mine")
    for name in ("metrics.json", "origin.json", "index-0123.safetensors", ".model.safetensors.12.tmp"):
        write_json(folder / name, {})
    save_state(folder / "checkpoint" / "state.pt", {})
    prepare(folder, {"step": 0, "code": []})
    assert files(folder) == {"config.json", "notes.txt", "code.json", "log.jsonl"}
    save_weights(folder / "model.safetensors", model)
    prepare(folder, {"step": 5, "code": []})
    assert files(folder) == {"config.json", "notes.txt", "code.json", "log.jsonl", "model.safetensors"}


@pytest.mark.parametrize("left", ["model.safetensors", "checkpoint/state.pt", "checkpoint/state-before.pt"])
def test_a_new_start_does_not_erase_a_training(tmp_path, left):
    write_json(tmp_path / left, {})
    with pytest.raises(CheckpointError, match=r"holds a training already[\s\S]*--resume"):
        open_state(tmp_path, "run", "code", resume=False)


@pytest.mark.parametrize("kind", ["environment.json", "origin.json"])
def test_weights_without_a_state_are_not_trained_over(folder, kind):
    write_json(folder / kind, {})
    with pytest.raises(CheckpointError, match="no state to go on from"):
        open_state(folder, "run", "code", resume=True)


def test_a_training_that_was_killed_before_its_first_state_starts_again_and_says_so(folder):
    with pytest.warns(UserWarning, match="starts again at step 1"):
        assert open_state(folder, "run", "code", resume=True)["step"] == 0


def test_two_processes_do_not_write_one_temporary_file(tmp_path):
    """Each writes beside the other, and the last one stands."""
    names = []

    def write(temporary):
        names.append(temporary.name)
        temporary.write_text("x")

    write_atomically(tmp_path / "a", write)
    assert str(os.getpid()) in names[0]
