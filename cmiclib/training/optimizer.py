"""The optimiser and its learning rate: constant or a cosine, after a warm-up, and smaller for the backbones."""

import math
import os
import shutil

import torch
from torch import nn

from ..config import TrainConfig
from ..encoders import is_depthwise
from ..errors import ConfigError
from ..model import CMIC
from .jittor_optim import JittorAdam


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the rate of a step: linear warm-up, then constant or half a cosine down to zero."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(model: CMIC, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the configured optimiser; AdamW does not decay biases and normalisation. States keep the groups' order."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = []
    for share in dict.fromkeys((1.0, config.backbone_lr)):
        part = [p for name, p in trained if config.backbone_lr == 1 or (".backbone." in name) == (share != 1)]
        if config.optimizer == "adamw":
            split = [([p for p in part if p.ndim > 1], config.weight_decay), ([p for p in part if p.ndim <= 1], 0.0)]
        else:
            split = [(part, config.weight_decay)]
        groups += [{"params": chosen, "weight_decay": decay, "share": share} for chosen, decay in split if chosen]
    if config.optimizer == "jittor-adam":
        return JittorAdam(groups, config.lr, config.betas)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, config.lr, config.betas)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of every parameter group: its share of ``value``."""
    for group in optimizer.param_groups:
        group["lr"] = value * group["share"]


def check_options(model: CMIC) -> None:
    """Raise ConfigError where ``model.fixed_filters`` is set and neither encoder has depthwise filters."""
    if model.config.fixed_filters and not any(map(is_depthwise, model.modules())):
        photo, view = model.config.query_backbone, model.config.view_backbone
        names = f"model.query_backbone={photo} nor model.view_backbone={view}"
        raise ConfigError(
            f"model.fixed_filters fixes depthwise filters, and neither {names} has any",
            fix="set model.fixed_filters=false, or use a backbone with depthwise convolutions",
        )


def fuse_operations(model: nn.Module) -> None:
    """Let ``torch.compile`` fuse the model's forward pass; the first call then takes minutes.

    ConfigError where there is no C++ compiler, which ``torch.compile`` needs on a CPU and on a GPU.
    """
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++", "cl")):
        raise ConfigError("torch.compile finds no C++ compiler", fix="install one, as g++, or leave out --compile")
    model.compile()
