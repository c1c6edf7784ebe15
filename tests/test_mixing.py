"""Mixed feature statistics against a loop, and what they must not change."""

import pytest
import torch

from cmiclib.config import ModelConfig, parse_config
from cmiclib.encoders import Encoder
from cmiclib.errors import ConfigError
from cmiclib.mixing import CONCENTRATION, FLOOR, mix_statistics


@pytest.fixture
def maps():
    return 3 * torch.randn(6, 4, 5, 7, generator=torch.Generator().manual_seed(0)) + 2


def test_statistics_are_mixed_as_a_loop_does(maps):
    torch.manual_seed(1)
    mixed = mix_statistics(maps, 1.0)
    torch.manual_seed(1)
    own = torch.distributions.Beta(CONCENTRATION, CONCENTRATION).sample((6,))
    torch.rand(6)
    other = torch.randperm(6)
    for b in range(6):
        for c in range(4):
            mine, theirs = maps[b, c], maps[other[b], c]
            std, std_other = ((x.var(correction=0) + FLOOR).sqrt() for x in (mine, theirs))
            mean = own[b] * mine.mean() + (1 - own[b]) * theirs.mean()
            expected = (mine - mine.mean()) / std * (own[b] * std + (1 - own[b]) * std_other) + mean
            torch.testing.assert_close(mixed[b, c], expected, rtol=1e-4, atol=1e-5)


def test_no_share_changes_nothing_and_a_part_changes_a_part(maps):
    torch.testing.assert_close(mix_statistics(maps, 0.0), maps, rtol=1e-5, atol=1e-5)
    torch.manual_seed(0)
    many = maps[:1].expand(400, -1, -1, -1) * torch.linspace(1, 2, 400).view(-1, 1, 1, 1)
    changed = (mix_statistics(many, 0.25) - many).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert 0.1 < changed.float().mean() < 0.3


def test_the_type_stays_and_a_gradient_comes_through(maps):
    half = maps.bfloat16().requires_grad_()
    mixed = mix_statistics(half, 0.5)
    mixed.float().square().sum().backward()
    assert mixed.dtype == torch.bfloat16 and half.grad is not None and half.grad.abs().sum() > 0


def test_only_training_mixes():
    settings = {"dim": 8, "frozen": 1, "init": "random"}
    encoder = Encoder("resnet10t", 3, ModelConfig(**settings, mix_style=1.0))
    plain = Encoder("resnet10t", 3, ModelConfig(**settings))
    plain.load_state_dict(encoder.state_dict())
    images = torch.randn(8, 3, 32, 32)
    assert torch.equal(encoder.eval()(images), plain.eval()(images))
    torch.manual_seed(0)
    assert not torch.allclose(encoder.train()(images), plain.train()(images), atol=1e-3)


def test_mixing_needs_frozen_stages():
    with pytest.raises(ConfigError, match="mix_style"):
        parse_config({"model": {"mix_style": 0.5}})
