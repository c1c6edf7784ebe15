"""One frozen, typed configuration; `smoke`, `demo` and `paper` stand side by side at the end of this file.

Unknown keys are errors. A configuration is data: it is written into each run folder, hashed into the run's
name, and read back unchanged. Defaults are the setting of the released code; where the
released code does something else than it should, a named option keeps the old behaviour.
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

    query_backbone: str = Field("resnet50", description="torchvision or timm name of the photo encoder")
    view_backbone: str = Field("resnet18", description="torchvision or timm name of the view encoder")
    dim: int = Field(128, ge=2, description="length of the common embedding")
    image_size: int = Field(224, ge=32, description="side in pixels that both encoders see")
    mask: Literal["channel", "cutout", "none"] = Field(
        "channel", description="the mask is a fourth channel of the photo, cuts it out on white, or is not used"
    )
    fusion: Fusion = Field("attention", description="how views become a score")
    attention_start: float = Field(
        0.0, description="W starts as so many times the identity; 0: as a linear layer does, as in the released code"
    )
    init: str = Field(
        "imagenet",
        description="'imagenet' (torchvision's weights, or the installed ones of tf_efficientnet_lite0), 'random', "
        "a file of safetensors or of Jittor, or a folder of safetensors",
    )
    frozen: int = Field(0, ge=0, description="first stages of both backbones that keep their initial weights")
    view_frozen: int | None = Field(None, ge=0, description="the same of the view encoder, where it is another number")
    fixed_filters: bool = Field(
        False, description="depthwise filters keep their initial weights; on a CPU their gradient is most of a step"
    )
    grid: int = Field(1, ge=1, le=7, description="side of the grid in whose cells the last maps are pooled, too")
    shared_head: bool = Field(False, description="photos and views share the head's linear layer; needs one backbone")
    mirror: bool = Field(
        False, description="evaluation takes the mean vector of a photo and its mirror image; not in the paper"
    )
    running_variance: Literal["unbiased", "biased"] = Field(
        "unbiased", description="what batch normalisations remember; 'biased': as Jittor's do"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the features that a training step leaves out")

    @property
    def frozen_of_views(self) -> int:
        """First stages of the view encoder that keep their initial weights."""
        return self.frozen if self.view_frozen is None else self.view_frozen


class AugmentConfig(_Frozen):
    """What happens to a training photo and to a view; photo and mask share one draw."""

    translate: float = Field(0.05, ge=0, lt=0.5, description="largest shift of a photo, share of its side")
    query_scale: tuple[float, float] = Field((0.85, 0.95), description="area of the random crop of a photo")
    view_scale: tuple[float, float] = Field((0.65, 0.9), description="area of the random crop of a view")
    aspect: float = Field(
        4 / 3, ge=1, description="longest side of a crop over its shortest, before it is square again"
    )
    flip: bool = Field(True, description="mirror photos and views, each with probability 1/2")
    color: Literal["lab", "reference", "jitter", "none"] = Field(
        "lab", description="colour transfer between photos of the batch; 'reference': the released formula"
    )
    style: Literal["other", "any"] = Field(
        "other", description="a photo takes the colours of another one; 'any': of any of the batch, also its own"
    )
    crops: Literal["own", "clock"] = Field(
        "own", description="each sample draws its own crop and flip; 'clock': samples of one second share theirs"
    )
    occlusion: float = Field(
        0.0, ge=0, le=1, description="share of photos with another photo's object in front; not in the paper"
    )
    mask_damage: float = Field(0.0, ge=0, le=1, description="share of masks with a wrong outline; not in the paper")
    mask_drop: float = Field(0.0, ge=0, le=1, description="share of photos that lose their mask; not in the paper")
    mask_range: Literal["centred", "reference"] = Field(
        "centred", description="mask in [-1, 1] always; 'reference': [0, 1] while training, [-1, 1] in evaluation"
    )

    @model_validator(mode="after")
    def _scales(self) -> "AugmentConfig":
        for low, high in (self.query_scale, self.view_scale):
            if not 0 < low <= high <= 1:
                raise ValueError(f"a crop scale needs 0 < low <= high <= 1, got ({low}, {high})")
        return self


class LossConfig(_Frozen):
    """Instance and category contrastive loss."""

    instance: Literal["contrastive", "triplet"] = Field(
        "contrastive", description="'triplet': the metric learning that the paper argues against"
    )
    margin: float = Field(0.2, gt=0, description="of the triplet loss")
    hard_negatives: float = Field(
        0.0, ge=0, description="β, by which wrong shapes that score high count more in the instance loss; 0: all alike"
    )
    tau: float = Field(0.1, gt=0, description="temperature of both losses")
    category_weight: float = Field(0.2, ge=0, description="weight of the category loss")
    include_instance: bool = Field(
        True, description="the own shape is among the category's positives, as in the paper's code"
    )
    zero_losses: Literal["kept", "dropped"] = Field(
        "kept", description="'dropped': a category loss that rounds to 0 does not count in the mean"
    )
    symmetric: bool = Field(False, description="add the shape→photo direction of the instance loss")

    @model_validator(mode="after")
    def _one_kind(self) -> "LossConfig":
        if self.symmetric and (self.instance == "triplet" or self.hard_negatives):
            raise ValueError("loss.symmetric belongs to the plain contrastive loss: no triplets, no hard_negatives")
        if self.instance == "triplet" and self.hard_negatives:
            raise ValueError("loss.hard_negatives weighs the contrastive loss: set it to 0 for triplets")
        return self


class TrainConfig(_Frozen):
    """Optimisation; a step is one batch of photos against distinct shapes, their own ones among them."""

    batch: int = Field(30, ge=2, description="photos in a batch, and distinct shapes")
    shapes: int = Field(0, ge=0, description="more distinct shapes than photos: as many as there are, at most so many")
    distractors: bool = Field(True, description="a batch is topped up with shapes that no photo shows, too")
    steps: int = Field(1000, ge=1, description="optimiser steps")
    views: int = Field(12, ge=1, le=12, description="random views of each shape a step (evaluation uses all)")
    copies: int = Field(
        0,
        ge=0,
        description="copies of each photo, augmented and run through the frozen stages before training; 0: none",
    )
    view_copies: int = Field(0, ge=0, description="such copies of each view")
    optimizer: Literal["adam", "adamw", "jittor-adam"] = Field(
        "adam", description="'jittor-adam': with ε before the bias correction, as Jittor has it"
    )
    lr: float = Field(5e-5, gt=0)
    backbone_lr: float = Field(1.0, gt=0, le=1, description="of the backbones, as a share of lr")
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: autocast of the encoders on a GPU; a CPU computes in fp32"
    )
    channels_last: bool = True
    seed: int = 3104
    log_every: int = Field(10, ge=1, description="steps between lines of log.jsonl")
    eval_every: int = Field(100, ge=1, description="steps between looks at the validation photos")

    @model_validator(mode="after")
    def _decays(self) -> "TrainConfig":
        if self.optimizer == "jittor-adam" and self.weight_decay:
            raise ValueError("train.optimizer=jittor-adam has no weight decay: set train.weight_decay=0, or use adamw")
        return self


class Config(_Frozen):
    """Everything a run depends on besides the benchmark and the code."""

    profile: str = "custom"
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.model.shared_head and self.model.query_backbone != self.model.view_backbone:
            raise ValueError("model.shared_head needs the same backbone for photos and views, or set it to false")
        if self.train.copies and not self.model.frozen:
            raise ValueError("train.copies keeps what frozen stages return: set model.frozen, too, or train.copies=0")
        if self.train.view_copies and not self.model.frozen_of_views:
            raise ValueError(
                "train.view_copies keeps what frozen stages return: set model.view_frozen, too, or it to 0"
            )
        if 0 < self.train.shapes < self.train.batch:
            raise ValueError("train.shapes counts the photos' own shapes, too: set it to train.batch or more, or to 0")
        return self

    def digest(self) -> str:
        """Return a hexadecimal hash of the values that differ from the defaults; a new option renames no run."""
        text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def override(self, assignments: Iterable[str]) -> "Config":
        """Return a copy with ``key=value`` strings applied, such as ``loss.tau=0.05``.

        Raises:
            ConfigError: an unknown key, a value of the wrong type or out of range.
        """
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


def _without_retired(values: Any) -> Any:
    """Drop retired options that changed nothing; others stay, and are refused as unknown."""
    if not isinstance(values, dict):
        return values
    kept = {}
    for section, options in values.items():
        retired = _RETIRED.get(section, {})
        if isinstance(options, dict) and retired:
            options = {name: value for name, value in options.items() if retired.get(name, ...) != value}
        if options or section != "data":
            kept[section] = options
    return kept


def parse_config(values: dict[str, Any], path: str | None = None) -> Config:
    """Validate a nested dictionary, such as the ``config.json`` of a run, also one of an earlier version.

    Raises:
        ConfigError: with every key that is unknown or out of range.
    """
    try:
        return Config.model_validate(_without_retired(values))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'configuration'}: {e['msg']}" for e in error.errors()]
        raise ConfigError("; ".join(lines), path=path, fix="correct the named keys") from None


# What two cores can train: ImageNet's features stay as they are and are computed once for a few augmented copies of
# each picture; heads and attention learn. A mask channel would be new to a frozen network, so the photo is cut out
# instead.
_FROZEN = ModelConfig(
    query_backbone="tf_efficientnet_lite0",
    view_backbone="tf_efficientnet_lite0",
    image_size=224,
    mask="cutout",
    init="imagenet",
    frozen=8,
    grid=3,
    shared_head=True,
    attention_start=5.0,
    dropout=0.5,
)
_SHORT = TrainConfig(
    batch=192,
    steps=1000,
    views=3,
    copies=6,
    view_copies=2,
    optimizer="adamw",
    lr=2e-3,
    betas=(0.9, 0.99),
    weight_decay=0.05,
    schedule="cosine",
    warmup=20,
    precision="bf16",
    log_every=10,
    eval_every=250,
)

PROFILES: dict[str, Config] = {
    # CI and tests: the same code path at the smallest size that still learns something.
    "smoke": Config(
        profile="smoke",
        model=_FROZEN.model_copy(update={"image_size": 96}),
        train=_SHORT.model_copy(
            update={"batch": 12, "steps": 150, "copies": 1, "view_copies": 1, "log_every": 5, "eval_every": 50}
        ),
    ),
    # Two cores and less than half an hour. Crops milder than the paper's keep training and evaluation at nearly one
    # scale. The candidates that were trained to the end stand in data/results/candidates.json.
    "demo": Config(
        profile="demo",
        model=_FROZEN,
        augment=AugmentConfig(query_scale=(0.8, 1.0), view_scale=(0.8, 1.0)),
        train=_SHORT,
    ),
    # Two cores and two hours, for photos rendered by `cmic prepare synthetic` and a test on real ones. The photo
    # encoder learns but for its first stages and its depthwise filters. The view encoder only needs a vector for each
    # view of a gallery that it knows: its maps are computed once, and a step compares its photos with every shape.
    "photos": Config(
        profile="photos",
        model=_FROZEN.model_copy(
            update={
                "image_size": 160,
                "frozen": 3,
                "view_frozen": 8,
                "fixed_filters": True,
                "shared_head": False,
                "dropout": 0.2,
                "mirror": True,
            }
        ),
        augment=AugmentConfig(
            query_scale=(0.75, 1.0),
            view_scale=(0.8, 1.0),
            aspect=1.0,
            occlusion=0.2,
            mask_damage=0.25,
            mask_drop=0.25,
        ),
        train=_SHORT.model_copy(
            update={
                "batch": 96,
                "shapes": 400,
                "steps": 4000,
                "views": 2,
                "copies": 0,
                "view_copies": 4,
                "lr": 1e-3,
                "backbone_lr": 0.5,
                "warmup": 50,
            }
        ),
    ),
    # The paper's recipe, as the released configuration has it (400 epochs of Pix3D's four categories). It computed in
    # fp32; `train.precision=bf16` is faster on a GPU and was not compared.
    "paper": Config(
        profile="paper",
        train=TrainConfig(steps=90_000, log_every=50, eval_every=1000),
    ),
}


PRESETS: dict[str, tuple[str, ...]] = {
    "paper": (),
    "released": (
        "augment.color=reference",
        "augment.mask_range=reference",
        "augment.style=any",
        "augment.crops=clock",
        "loss.include_instance=true",
        "loss.zero_losses=dropped",
        "model.running_variance=biased",
        "train.optimizer=jittor-adam",
        "train.weight_decay=0",
        "train.precision=fp32",
    ),
}
"""What the released code does otherwise than the paper says or than was surely meant, each by its own option."""


def profile(name: str, overrides: Iterable[str] = (), preset: str = "paper") -> Config:
    """Return a profile by name, with a preset and then ``key=value`` overrides applied.

    Args:
        name: of :data:`PROFILES`.
        overrides: such as ``loss.tau=0.05``.
        preset: of :data:`PRESETS`; ``"released"`` repeats the released code's peculiarities.

    Raises:
        ConfigError: no such profile or preset, or a bad override.
    """
    if name not in PROFILES:
        raise ConfigError(f"unknown profile '{name}'", fix=f"use one of: {', '.join(PROFILES)}")
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset '{preset}'", fix=f"use one of: {', '.join(PRESETS)}")
    return PROFILES[name].override([*PRESETS[preset], *overrides])
