import json

import pytest
from pydantic import BaseModel

from cmiclib.config import PROFILES, Config, LossConfig, ModelConfig, TrainConfig, parse_config, profile
from cmiclib.errors import ConfigError


def test_defaults_are_the_recipe_of_the_released_code():
    config = Config()
    assert (config.model.query_backbone, config.model.view_backbone) == ("resnet50", "resnet18")
    assert (config.model.dim, config.model.image_size, config.model.init) == (128, 224, "imagenet")
    assert (config.train.batch, config.train.views, config.train.seed) == (30, 12, 3104)
    assert (config.train.optimizer, config.train.lr, config.train.betas) == ("adam", 5e-5, (0.5, 0.999))
    assert (config.loss.tau, config.loss.category_weight, config.loss.include_instance) == (0.1, 0.2, True)
    assert (config.augment.query_scale, config.augment.view_scale) == ((0.85, 0.95), (0.65, 0.9))


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_survives_json(name):
    config = profile(name)
    assert config.profile == name
    assert parse_config(json.loads(json.dumps(config.model_dump(mode="json")))) == config


@pytest.mark.parametrize(
    "assignment, section, key, value",
    [
        ("loss.tau=0.05", "loss", "tau", 0.05),
        ("train.lr=1e-3", "train", "lr", 1e-3),
        ("train.betas=[0.9, 0.99]", "train", "betas", (0.9, 0.99)),
        ("augment.flip=false", "augment", "flip", False),
        ("augment.color=none", "augment", "color", "none"),
        ("model.init=/some/where=else.safetensors", "model", "init", "/some/where=else.safetensors"),
    ],
)
def test_override_changes_one_value_and_nothing_else(assignment, section, key, value):
    before = profile("demo")
    after = before.override([assignment])
    assert getattr(getattr(after, section), key) == value
    restored = getattr(after, section).model_copy(update={key: getattr(getattr(before, section), key)})
    assert after.model_copy(update={section: restored}) == before


@pytest.mark.parametrize(
    "assignment, named",
    [
        ("loss.temperature=1", "loss.temperature"),
        ("tau=1", "'tau'"),
        ("loss=1", "'loss'"),
        ("loss.tau.x=1", "loss.tau.x"),
        ("loss.tau", "key=value"),
        ("loss.tau=0", "loss.tau"),
        ("loss.tau=NaN", "loss.tau"),
        ("train.views=13", "train.views"),
        ("train.batch=many", "train.batch"),
        ("augment.color=red", "augment.color"),
        ("augment.query_scale=[0.9, 0.8]", "0 < low <= high <= 1"),
        ("model.frozen=0", "train.copies=0"),
        ("model.view_frozen=0", "train.view_copies"),
        ("train.shapes=5", "train.shapes"),
        ("train.optimizer=jittor-adam", "train.weight_decay=0"),
        ("model.view_backbone=resnet18", "model.shared_head"),
    ],
)
def test_a_bad_override_is_named_with_its_cure(assignment, named):
    with pytest.raises(ConfigError, match="How to fix") as error:
        profile("smoke", [assignment])
    assert named in str(error.value)


def test_an_unknown_key_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"loss\.tau, loss\.category_weight"):
        profile("demo", ["loss.temperature=1"])


def test_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"'quick'.*\n.*smoke, demo, photos, fit, paper"):
        profile("quick")


def test_unknown_keys_of_a_file_are_named_with_the_file():
    values = Config().model_dump() | {"optimiser": {}}
    values["train"]["epochs"] = 400
    with pytest.raises(ConfigError) as error:
        parse_config(values, path="run/config.json")
    message = str(error.value)
    assert all(part in message for part in ("run/config.json", "optimiser", "train.epochs"))


def test_files_of_earlier_versions_are_read_where_their_retired_options_changed_nothing():
    """The packed browser model, and each run folder written before, hold such options."""
    earlier = Config().model_dump(mode="json") | {"data": {"views": 12, "shading": "gray", "mask_error": 0.0}}
    earlier["model"]["mix_style"], earlier["augment"]["background"] = 0.0, 0.0
    assert parse_config(earlier) == Config()
    for section, option, value in [("model", "mix_style", 0.5), ("augment", "background", 0.5), ("data", "views", 3)]:
        changed = earlier | {section: earlier[section] | {option: value}}
        with pytest.raises(ConfigError, match=rf"{section}(\.{option})?: "):
            parse_config(changed)


def test_digest_depends_on_every_value_and_on_nothing_else():
    base = profile("demo")
    changed = [base.override([text]) for text in ("loss.tau=0.2", "train.seed=1", "model.init=random", "profile=x")]
    assert len({config.digest() for config in [base, *changed]}) == 5
    assert base.override(["loss.tau=0.1"]).digest() == profile("demo").digest()


def test_an_option_that_comes_later_renames_no_run():
    """Values and whole sections that equal their defaults do not count, so a new one with its default does not."""

    class Later(BaseModel):
        strength: float = 0.0

    class Longer(Config):
        later: Later = Later()
        switch: bool = False

    for name in PROFILES:
        values = profile(name).model_dump()
        assert Longer.model_validate(values).digest() == profile(name).digest()
        changed = Longer.model_validate(values | {"later": {"strength": 1.0}})
        assert changed.digest() != profile(name).digest()
    assert Config(loss=LossConfig(tau=0.1), model=ModelConfig()).digest() == Config().digest()


def test_a_configuration_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        Config().train.steps = 5


@pytest.mark.parametrize("cls, values", [(ModelConfig, {"image_size": 31}), (TrainConfig, {"batch": 1})])
def test_values_out_of_range_are_refused(cls, values):
    with pytest.raises(ValueError, match="greater than or equal"):
        cls(**values)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss.instance=triplet", "loss.symmetric=true"], "loss.symmetric"),
        (["loss.hard_negatives=1", "loss.symmetric=true"], "loss.symmetric"),
        (["loss.instance=triplet", "loss.hard_negatives=1"], "loss.hard_negatives"),
    ],
)
def test_losses_that_exclude_each_other_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        Config().override(overrides)
