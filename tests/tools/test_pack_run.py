"""Runs in half precision, and between two stops of one training."""

import pytest
import torch
from pack_run import between, halve, main

from cmiclib.config import Config, ModelConfig
from cmiclib.io.atomic import write_json
from cmiclib.model import build_model
from cmiclib.training.run import Run, save_weights

MODEL = ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random")


def write_run(folder, seed, **changed):
    torch.manual_seed(seed)
    write_json(folder / "config.json", Config(model=MODEL, **changed).model_dump(mode="json"))
    for name in ("data.json", "environment.json", "log.jsonl"):
        write_json(folder / name, {})
    save_weights(folder / "model.safetensors", build_model(MODEL))
    return Run.open(folder)


def test_matrices_are_halved_and_vectors_keep_their_range():
    state = {"weight": torch.full((2, 3), 0.1), "variance": torch.tensor([1e6, 1.0]), "count": torch.tensor(70000)}
    packed = halve(state)
    assert packed["weight"].dtype == torch.float16
    assert torch.equal(packed["variance"], state["variance"]) and packed["variance"].isfinite().all()
    assert packed["count"] == 70000


def test_weights_between_two_stops():
    late = {"weight": torch.tensor([[4.0, 0.0]]), "count": torch.tensor(9)}
    early = {"weight": torch.tensor([[0.0, 8.0]]), "count": torch.tensor(1)}
    mixed = between(late, early, 0.25)
    assert mixed["weight"].tolist() == [[3.0, 2.0]]
    assert mixed["count"] == 9
    assert all(torch.equal(between(late, early, 0)[name], late[name]) for name in late)


def test_a_packed_run_is_a_run_and_another_training_is_refused(tmp_path, capsys):
    run, earlier = (write_run(tmp_path / str(seed), seed) for seed in (0, 1))
    other = write_run(tmp_path / "other", 2, profile="other")
    command = [str(run.path), str(tmp_path / "x"), "--earlier"]
    with pytest.raises(SystemExit):
        main([*command, str(other.path)])
    assert "another training" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    main([*command, str(earlier.path)])
    packed = Run.open(tmp_path / "x")
    assert packed.config == run.config
    name = "attention_weight"
    mean = 0.75 * run.model().state_dict()[name] + 0.25 * earlier.model().state_dict()[name]
    torch.testing.assert_close(packed.model().state_dict()[name], mean, atol=2e-3, rtol=1e-3)
