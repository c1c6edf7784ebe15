"""One frozen, typed configuration; `smoke`, `demo` and `paper` stand side by side at the end of this file.

Unknown keys are errors. A configuration is data: it is written into each run folder, hashed into the run's name, and
read back unchanged. The defaults are the settings of the released code; where that code has a defect, a named option
keeps the old behaviour.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigError

Fusion = Literal["attention", "mean", "max"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ModelConfig(_Frozen):
    """Two encoders and the attention over views."""

    query_backbone: str = Field(
        "resnet50", description="torchvision or timm name of the photo encoder, with or without tag"
    )
    view_backbone: str = Field("resnet18", description="torchvision or timm name of the view encoder")
    dim: int = Field(128, ge=2, description="length of the common embedding, as it is learnt")
    fixed: int = Field(0, ge=0, description="numbers of the untrained features that evaluation puts beside the learnt")
    fixed_share: float = Field(0.5, gt=0, lt=1, description="how much the fixed numbers count in a score")
    image_size: int = Field(224, ge=32, description="side in pixels that both encoders see")
    mask: Literal["channel", "cutout", "none"] = Field(
        "channel", description="'channel': the photo's fourth channel; 'cutout': white outside the mask; 'none': none"
    )
    fusion: Fusion = Field("attention", description="how the views of a shape become its score")
    attention_start: float = Field(0.0, description="W starts as this times the identity; 0: at random, as released")
    init: str = Field(
        "imagenet",
        description="initial weights: 'imagenet' (torchvision's, or the installed ones of tf_efficientnet_lite0), "
        "'timm' (what it downloads for the backbone), 'hf-hub:OWNER/NAME', 'package:MODULE/FILE', 'random', a file of "
        "safetensors or Jittor, or a folder of <backbone>.safetensors",
    )
    frozen: int = Field(0, ge=0, description="number of first stages of both backbones that keep their initial weights")
    view_frozen: int | None = Field(None, ge=0, description="the same for the view encoder; None: as model.frozen")
    fixed_filters: bool = Field(False, description="depthwise filters, whose gradient is slow on a CPU, do not learn")
    grid: int = Field(1, ge=1, le=7, description="pool the last feature map in a grid × grid of cells as well")
    shared_head: bool = Field(False, description="one linear layer for photos and views; needs one backbone")
    mirror: bool = Field(False, description="evaluate a photo with its mirror image, by their mean; not in the paper")
    running_variance: Literal["unbiased", "biased"] = Field(
        "unbiased", description="the variance that batch normalisation remembers; 'biased': as in Jittor"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the features that a training step drops")

    @property
    def length(self) -> int:
        """Numbers in a vector, as evaluation, index and browser see it."""
        return self.dim + self.fixed

    @property
    def frozen_of_views(self) -> int:
        """What ``view_frozen`` comes to."""
        return self.frozen if self.view_frozen is None else self.view_frozen


class AugmentConfig(_Frozen):
    """How training photos and views are changed; a photo and its mask share one draw."""

    translate: float = Field(0.05, ge=0, lt=0.5, description="largest shift of a photo, as a share of its side")
    query_scale: tuple[float, float] = Field((0.85, 0.95), description="area of a photo's random crop, as a share")
    view_scale: tuple[float, float] = Field((0.65, 0.9), description="area of a view's random crop, as a share")
    views: bool = Field(True, description="change training views; false: as evaluation sees them, which costs nothing")
    aspect: float = Field(4 / 3, ge=1, description="largest ratio of a crop's sides, before it is resized to a square")
    flip: bool = Field(True, description="mirror each photo and view with probability 1/2")
    color: Literal["lab", "reference", "jitter", "none"] = Field(
        "lab", description="'lab': colour transfer between photos of the batch; 'reference': by the released formula"
    )
    style: Literal["other", "any"] = Field("other", description="photo that gives the colours; 'any': possibly itself")
    crops: Literal["own", "clock"] = Field("own", description="'clock': samples of one second share crop and flip")
    occlusion: float = Field(0.0, ge=0, le=1, description="share of photos with another photo's object in front")
    mask_damage: float = Field(0.0, ge=0, le=1, description="share of masks that get a wrong outline; not in the paper")
    mask_drop: float = Field(0.0, ge=0, le=1, description="share of photos that lose their mask; not in the paper")
    mask_range: Literal["centred", "reference"] = Field(
        "centred", description="'centred': in [-1, 1]; 'reference': in [0, 1] while training, in [-1, 1] in evaluation"
    )

    @model_validator(mode="after")
    def _scales(self) -> "AugmentConfig":
        for low, high in (self.query_scale, self.view_scale):
            if not 0 < low <= high <= 1:
                raise ValueError(f"a crop scale needs 0 < low <= high <= 1, got ({low}, {high})")
        return self


class LossConfig(_Frozen):
    """The instance and the category loss."""

    instance: Literal["contrastive", "triplet"] = Field("contrastive", description="the paper argues against 'triplet'")
    margin: float = Field(0.2, gt=0, description="margin of the triplet loss")
    hard_negatives: float = Field(0.0, ge=0, description="β: how much more wrong shapes with high scores count")
    tau: float = Field(0.1, gt=0, description="temperature of both losses")
    category_weight: float = Field(0.2, ge=0, description="weight of the category loss")
    include_instance: bool = Field(True, description="the own shape is a positive of the category loss, as released")
    zero_losses: Literal["kept", "dropped"] = Field("kept", description="'dropped': category losses of 0 do not count")
    symmetric: bool = Field(False, description="average the instance loss with that of the direction shape→photo")

    @model_validator(mode="after")
    def _one_kind(self) -> "LossConfig":
        if self.symmetric and (self.instance == "triplet" or self.hard_negatives):
            raise ValueError("loss.symmetric excludes loss.instance=triplet and loss.hard_negatives: set it to false")
        if self.instance == "triplet" and self.hard_negatives:
            raise ValueError("loss.hard_negatives excludes loss.instance=triplet: set it to 0")
        return self


class TrainConfig(_Frozen):
    """Optimisation; a step compares a batch of photos with distinct shapes, among which are the photos' own."""

    batch: int = Field(30, ge=2, description="number of photos, and of distinct shapes, in a batch")
    shapes: int = Field(0, ge=0, description="largest number of distinct shapes in a batch; 0: as many as photos")
    distractors: bool = Field(True, description="batches are also topped up with shapes that no photo shows")
    steps: int = Field(1000, ge=1, description="optimiser steps")
    views: int = Field(12, ge=1, le=12, description="random views of each shape in a step; evaluation uses all")
    copies: int = Field(0, ge=0, description="augmented copies of each photo that pass the frozen stages beforehand")
    view_copies: int = Field(0, ge=0, description="augmented copies of each view, likewise")
    optimizer: Literal["adam", "adamw", "jittor-adam"] = Field("adam", description="'jittor-adam': with Jittor's ε")
    lr: float = Field(5e-5, gt=0, description="learning rate")
    backbone_lr: float = Field(1.0, gt=0, le=1, description="learning rate of the backbones, as a share of lr")
    betas: tuple[float, float] = Field((0.5, 0.999), description="decay of Adam's two means")
    weight_decay: float = Field(0.0, ge=0, description="of every weight; with adamw, of matrices and filters only")
    schedule: Literal["constant", "cosine"] = Field("constant", description="learning rate after the warm-up")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="'bf16': autocast on a GPU; a CPU computes in fp32")
    channels_last: bool = Field(True, description="memory layout of the encoders")
    seed: int = Field(3104, description="seed of all random numbers")
    log_every: int = Field(10, ge=1, description="steps from one line of log.jsonl to the next")
    eval_every: int = Field(100, ge=1, description="steps from one validation to the next")

    @model_validator(mode="after")
    def _decays(self) -> "TrainConfig":
        if self.optimizer == "jittor-adam" and self.weight_decay:
            raise ValueError("train.optimizer=jittor-adam has no decay: set train.weight_decay=0, or use adamw")
        return self


class Config(_Frozen):
    """Everything that a run depends on besides the benchmark and the code."""

    profile: str = "custom"
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.model.shared_head and self.model.query_backbone != self.model.view_backbone:
            raise ValueError("model.shared_head needs model.view_backbone equal to model.query_backbone")
        if self.model.fixed and self.model.query_backbone != self.model.view_backbone:
            raise ValueError("model.fixed needs model.view_backbone equal to model.query_backbone")
        if self.train.copies and not self.model.frozen:
            raise ValueError("train.copies needs frozen stages: set model.frozen to 1 or more, or train.copies=0")
        if self.train.view_copies and not self.model.frozen_of_views:
            raise ValueError("train.view_copies needs frozen stages: set model.view_frozen, or train.view_copies=0")
        if 0 < self.train.shapes < self.train.batch:
            raise ValueError("train.shapes includes the photos' own shapes: set it to train.batch or more, or to 0")
        return self

    def digest(self) -> str:
        """Return a hexadecimal hash of the values that differ from the defaults: a new option renames no run."""
        text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def override(self, assignments: Iterable[str]) -> "Config":
        """Return a copy with ``key=value`` strings applied, such as ``loss.tau=0.05``; ConfigError for a bad one."""
        values = self.model_dump()
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise ConfigError(f"'{assignment}' is not key=value", fix="write for example loss.tau=0.05")
            _assign(values, key, text)
        return parse_config(values)


def _assign(values: dict[str, Any], key: str, text: str) -> None:
    *sections, name = key.split(".")
    target: Any = values
    for section in sections:
        target = target.get(section) if isinstance(target, dict) else None
    if not isinstance(target, dict) or name not in target or isinstance(target[name], dict):
        known = ", ".join(f"{s}.{n}" for s, v in values.items() if isinstance(v, dict) for n in v)
        raise ConfigError(f"unknown configuration key '{key}'", fix=f"use one of: {known}")
    try:
        target[name] = json.loads(text)
    except json.JSONDecodeError:
        target[name] = text


_RETIRED: dict[str, dict[str, Any]] = {
    "model": {"mix_style": 0.0},
    "augment": {"background": 0.0},
    "data": {"views": 12, "shading": "gray", "mask_error": 0.0},
}
"""Options that earlier versions wrote into run folders and index files, each with the value that changed nothing."""


def parse_config(values: Any, path: str | None = None) -> Config:
    """Validate a nested dictionary, such as the ``config.json`` of a run, also one of an earlier version.

    Retired options that changed nothing are dropped. ConfigError names every key that is unknown or out of range.
    """
    kept = dict(values) if isinstance(values, dict) else values
    for section, retired in _RETIRED.items() if isinstance(kept, dict) else ():
        if isinstance(options := kept.get(section), dict):
            kept[section] = {name: value for name, value in options.items() if retired.get(name, ...) != value}
            if section == "data" and not kept[section]:  # retired as a whole
                del kept[section]
    try:
        return Config.model_validate(kept)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'configuration'}: {e['msg']}" for e in error.errors()]
        raise ConfigError("; ".join(lines), path=path, fix="correct the named keys") from None


# Two cores and a quarter of an hour. ImageNet's features stay as they are and are computed once, for a few augmented
# copies of each picture; heads and attention learn, and evaluation puts the untrained features beside what they say:
# data/results/fixed.json. A frozen network cannot learn a mask channel, so the photo is cut out instead. Crops milder
# than the paper's keep training and evaluation at nearly one scale. Candidates: data/results/candidates.json.
_DEMO = Config(
    profile="demo",
    model=ModelConfig(
        query_backbone="tf_efficientnet_lite0", view_backbone="tf_efficientnet_lite0", mask="cutout", frozen=8, grid=3,
        shared_head=True, attention_start=5.0, dropout=0.5, mirror=True, fixed=128,
        fixed_share=0.35,
    ),
    augment=AugmentConfig(query_scale=(0.8, 1.0), views=False),
    train=TrainConfig(
        batch=192, steps=1000, views=3, copies=3, view_copies=1, optimizer="adamw", lr=2e-3, betas=(0.9, 0.99),
        weight_decay=0.05, schedule="cosine", warmup=20, precision="bf16", eval_every=250,
    ),
)  # fmt: skip

PROFILES: dict[str, Config] = {
    # CI and tests: the same code path at the smallest size that still learns something.
    "smoke": _DEMO.override([
        "profile=smoke", "model.image_size=96", "augment.query_scale=[0.85, 0.95]", "train.batch=12", "train.steps=150",
        "train.copies=1", "train.log_every=5", "train.eval_every=50",
    ]),
    "demo": _DEMO,
    # Two cores and two hours, for photos rendered by `cmic prepare synthetic` and a test on real ones. The photo
    # encoder learns, except its first stages and its depthwise filters. The view encoder only needs a vector for each
    # view of a gallery that it knows: its maps are computed once, and a step compares its photos with every shape.
    "photos": _DEMO.override([
        "profile=photos", "model.fixed=0", "model.image_size=160", "model.frozen=3", "model.view_frozen=8",
        "model.fixed_filters=true", "model.shared_head=false", "model.dropout=0.2", "augment.query_scale=[0.75, 1.0]",
        "augment.views=true", "augment.view_scale=[0.8, 1.0]", "augment.aspect=1", "augment.occlusion=0.2",
        "augment.mask_damage=0.25", "augment.mask_drop=0.25", "train.batch=96", "train.shapes=400", "train.steps=4000",
        "train.views=2", "train.copies=0", "train.view_copies=4", "train.lr=1e-3", "train.backbone_lr=0.5",
        "train.warmup=50",
    ]),
    # A few minutes, for `cmic fit`: heads for one gallery that nobody has photographed, on photos rendered of it.
    "fit": _DEMO.override([
        "profile=fit", "model.image_size=160", "model.fixed_share=0.5", "augment.mask_damage=0.25", "train.steps=500",
        "train.eval_every=125",
    ]),
    # The paper's recipe, as the released configuration has it (400 epochs of Pix3D's four categories). It computed in
    # fp32; `train.precision=bf16` is faster on a GPU and was not compared.
    "paper": Config(profile="paper", train=TrainConfig(steps=90_000, log_every=50, eval_every=1000)),
}  # fmt: skip

PRESETS: dict[str, tuple[str, ...]] = {
    "paper": (),
    "released": (
        "augment.color=reference", "augment.mask_range=reference", "augment.style=any", "augment.crops=clock",
        "loss.include_instance=true", "loss.zero_losses=dropped", "model.running_variance=biased",
        "train.optimizer=jittor-adam", "train.weight_decay=0", "train.precision=fp32",
    ),
}  # fmt: skip
"""Where the released code differs from the paper or from what was surely meant, each by its own option."""


def profile(name: str, overrides: Iterable[str] = (), preset: str = "paper") -> Config:
    """Return a profile with a preset, then ``key=value`` overrides, applied; ConfigError for an unknown or bad one."""
    for kind, given, known in (("profile", name, PROFILES), ("preset", preset, PRESETS)):
        if given not in known:
            raise ConfigError(f"unknown {kind} '{given}'", fix=f"use one of: {', '.join(known)}")
    return PROFILES[name].override([*PRESETS[preset], *overrides])
