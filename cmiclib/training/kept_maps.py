"""What frozen stages return for a benchmark's pictures, kept in files, so that runs which agree in it share it.

Runs that differ in their loss, their batch or their fusion see the same augmented copies where they share the seed;
see :mod:`cmiclib.training.copies`. Each file is named by a hash of all that its content depends on: the frozen weights,
the pictures, what happens to them before they reach the frozen stages, and the code.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..benchmark import Benchmark
from ..config import Config
from ..embed import default_device, query_maps, view_maps
from ..encoders import Encoder
from ..errors import ConfigError
from ..io.atomic import write_atomically
from ..io.lock import in_turn
from ..io.provenance import code_digest
from ..model import CMIC, build_model
from .copies import AugmentedFeatures, ValidationFeatures, make_copies
from .loop import TrainingData

CODE = ("augment", "batches", "color", "damage", "embed", "encoders", "engine", "model", "training", "weights")
AFTERWARDS = {
    "dim", "fusion", "attention_start", "shared_head", "running_variance", "dropout", "mirror",
}  # fmt: skip
"""Options of the model that change nothing before the head."""
OF_PHOTOS = {
    "translate", "query_scale", "color", "style", "occlusion", "mask_damage", "mask_drop", "mask_range",
}  # fmt: skip
"""Options of the augmentation that leave views alone."""


class Maps(NamedTuple):
    """All that a run needs of the frozen stages."""

    copies: AugmentedFeatures
    still: ValidationFeatures


def kept_maps(config: Config, benchmark: Benchmark, folder: Path) -> Maps:
    """Load the maps of a configuration's pictures, or compute and keep them.

    Of two processes that want the same file, the second waits for the first. A file that cannot be read is made again.

    Args:
        config: with frozen stages and copies.
        benchmark: what the run is trained on.
        folder: where the files are.

    Raises:
        ConfigError: a configuration without copies, whose maps nobody would want to keep.
        StorageError: the disk is full.
    """
    if not config.train.copies or not config.train.view_copies:
        raise ConfigError("there are no copies to keep", fix="set train.copies and train.view_copies, and model.frozen")
    device, settings = default_device(), config.train

    @cache
    def model() -> CMIC:
        torch.manual_seed(settings.seed)  # as the training does: random weights of frozen stages are the same
        made = build_model(config.model).to(device)
        return (made.to(memory_format=torch.channels_last) if settings.channels_last else made).train()

    @cache
    def data() -> TrainingData:
        return TrainingData.load(benchmark, device, settings.distractors)

    def copied_photos() -> dict[str, Tensor]:
        made = make_copies(model(), data().photos, data().views[:1], config, progress=False)
        return {"copies": _present(made.photos)}

    def copied_views() -> dict[str, Tensor]:
        one = config.override(["train.copies=1"])
        made = make_copies(model(), data().photos[:1], data().views, one, progress=False)
        return {"copies": _present(made.views)}

    val = benchmark.rows("val")
    sha, augment = benchmark.meta["sha256"], config.augment.model_dump(mode="json")
    network = config.model.model_dump(mode="json", exclude=AFTERWARDS)
    common = [device.type, settings.precision, settings.channels_last, code_digest(CODE), sha["queries.csv"]]
    photos = [_weights(model().query_encoder), network, common, sha["queries.npy"]]
    views = [_weights(model().view_encoder), network | {"mask": ""}, common, sha["views.npy"], sha["shapes.csv"]]
    of_photos = {name: value for name, value in augment.items() if name != "view_scale"}
    of_views = {name: value for name, value in augment.items() if name not in OF_PHOTOS}
    seed, copies, pool = settings.seed, (settings.copies, settings.view_copies), settings.distractors

    def still_photos() -> dict[str, Tensor]:
        return _numbered(query_maps(model(), benchmark.images[val], config))

    def still_views() -> dict[str, Tensor]:
        return _numbered(view_maps(model(), benchmark.views, config))

    def kept(kind: str, make: Callable[[], dict[str, Tensor]], *key: Any) -> list[Tensor]:
        maps = _kept(folder, [kind, *key], make)
        return [maps[name].to(device) for name in sorted(maps)]

    (photo_copies,) = kept("photos", copied_photos, photos, of_photos, seed, copies[0])
    (view_copies,) = kept("views", copied_views, views, of_views, seed, copies[1], pool)
    still = ValidationFeatures(kept("still photos", still_photos, photos), kept("still views", still_views, views))
    return Maps(AugmentedFeatures(photo_copies, view_copies), still)


def _numbered(maps: Iterable[Tensor]) -> dict[str, Tensor]:
    return {f"{i:05d}": block for i, block in enumerate(maps)}


def _present(maps: Tensor | None) -> Tensor:
    assert maps is not None
    return maps


def _weights(encoder: Encoder) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(encoder.backbone.state_dict().items()):
        digest.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _kept(folder: Path, key: list[Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{key[0].replace(' ', '-')}-{name}.safetensors"
    with in_turn(path.with_suffix(".lock")):
        if path.is_file():
            try:
                return load_file(path)
            except (OSError, SafetensorError):  # such as one that a full disk cut off: make it again
                path.unlink()
        made = {name: value.detach().contiguous().cpu() for name, value in make().items()}
        write_atomically(path, lambda temporary: save_file(made, temporary))
    return made
