"""What the frozen stages return: computed once for each picture, and kept in files where a folder is given.

Frozen stages return the same in every step, and they are most of the work. So each training photo and view is augmented
a few times (``train.copies``, ``train.view_copies``), as a step would do it, and passes the frozen stages before
training; a step then draws one copy of each of its pictures. A copy's colours and occluders come from photos of its own
batch, as in a step. Validation photos and the gallery are not augmented and pass the frozen stages once.

A file's name holds a hash of all that its content depends on: frozen weights, pictures, augmentation and code. Runs
that agree in these share the file, and the index of their gallery reads it too.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..augment import augment_queries, augment_views
from ..batches import step_generator
from ..benchmark import Benchmark
from ..config import Config
from ..embed import autocast, query_maps, view_maps
from ..encoders import Encoder, unit
from ..engine.device import to_device
from ..errors import ConfigError
from ..io.atomic import write_atomically
from ..io.code import code_digest
from ..io.lock import in_turn
from ..model import CMIC

FOLDER = "features"  # The folder of kept features, beside the runs that share it
BATCH = 96  # Pictures that are augmented together; on every device, memory holds what the first stages make of them
CODE = (
    "augment", "batches", "benchmark", "color", "crops", "damage", "embed", "encoders", "engine", "model",
    "training/features", "training/step", "weights",
)  # fmt: skip
"""What decides the features, and which pictures are in which row of them."""
WHITEN = 0.5
"""Power of a principal direction's size by which `fix_directions` divides it; chosen on held-out training shapes."""
NEGLIGIBLE = 1e-3
"""Size of a principal direction, as a share of the first one's, below which it is noise and stays out."""
SPARE = 32  # directions beyond those that are kept, for the precision of the randomised decomposition
AFTERWARDS = {
    "dim",
    "fixed",
    "fixed_share",
    "fusion",
    "attention_start",
    "init",
    "shared_head",
    "running_variance",
    "dropout",
    "mirror",
}
"""Options of the model that change nothing in front of the head, or only through the weights."""
OF_PHOTOS = {"translate", "query_scale", "color", "style", "occlusion", "mask_damage", "mask_drop", "mask_range"}
"""Options of the augmentation that leave views alone."""


class AugmentedFeatures(NamedTuple):
    """Copies of the training pictures, or None where a step augments the pictures themselves."""

    photos: Tensor | None = None  # (K, P, …)
    views: Tensor | None = None  # (L, N, V, …)


class ValidationFeatures(NamedTuple):
    """Validation photos and gallery, batch by batch."""

    queries: list[Tensor]
    views: list[Tensor]


def training_shapes(benchmark: Benchmark, distractors: bool = True) -> np.ndarray:
    """Return the gallery rows of the shapes that training sees, ascending, int64 (N,)."""
    own = benchmark.relevant(benchmark.rows("train")).argmax(axis=1)
    return np.union1d(own, np.flatnonzero(~benchmark.photographed)) if distractors else np.unique(own)


class FrozenFeatures:
    """The features of a benchmark's pictures: what :meth:`.Encoder.frozen_forward` returns, on the model's device.

    Only the model's frozen stages matter, so before and after training it gives the same features. They are kept and
    shared in ``folder``; None keeps nothing, and a full disk raises StorageError.
    """

    def __init__(self, model: CMIC, benchmark: Benchmark, config: Config, folder: Path | None = None):
        self.model, self.benchmark, self.config, self.folder = model, benchmark, config, folder
        self.device = next(model.parameters()).device
        self.still: list[Tensor] | None = None  # the gallery's, once they are known

    @torch.no_grad()
    def augmented(self, photos: Tensor, views: Tensor, progress: bool = True) -> AugmentedFeatures:
        """Return copies of all training photos, uint8 (P, 4, S, S), and of the views that steps take, (N, V, S, S).

        Where training leaves views as they are, their one copy is what the gallery keeps.
        """
        settings, augment, sha = self.config.train, self.config.augment, self.benchmark.meta["sha256"]
        made: list[Tensor | None] = [None, None]
        if settings.copies:
            (made[0],) = self._kept(
                "photos", lambda: self._photo_copies(photos, progress), augment.model_dump(exclude={"view_scale"}),
                settings.seed, settings.copies, sha["queries.csv"], sha["queries.npy"],
            )  # fmt: skip
        if settings.view_copies and not augment.views:
            still = torch.cat(list(self.gallery())).unflatten(0, self.benchmark.views.shape[:2])
            made[1] = still[None, training_shapes(self.benchmark, settings.distractors)]
        elif settings.view_copies:
            (made[1],) = self._kept(
                "views", lambda: self._view_copies(views, progress), augment.model_dump(exclude=OF_PHOTOS),
                settings.seed, settings.view_copies, settings.distractors, sha["queries.csv"], sha["shapes.csv"],
                sha["views.npy"],
            )  # fmt: skip
        return AugmentedFeatures(*made)

    def validation(self) -> ValidationFeatures:
        """Return the features of the validation photos and of the gallery."""
        images, rows = self.benchmark.images, self.benchmark.rows("val")
        sha = self.benchmark.meta["sha256"]
        queries = self._kept(
            "still-photos", lambda: query_maps(self.model, images[rows], self.config),
            self.config.model.mirror, sha["queries.csv"], sha["queries.npy"],
        )  # fmt: skip
        return ValidationFeatures(queries, list(self.gallery()))

    def gallery(self, keep: bool = True) -> Iterable[Tensor]:
        """Return all views' features, a few shapes at a time: (n·V, …); without ``keep`` no file is written."""
        views, key = self.benchmark.views, self.benchmark.meta["sha256"]["views.npy"]
        path = self._path("still-views", key)
        if not keep and (path is None or not path.is_file()):
            return view_maps(self.model, views, self.config)
        if self.still is None:
            self.still = self._kept("still-views", lambda: view_maps(self.model, views, self.config), key)
        return self.still

    def _photo_copies(self, photos: Tensor, progress: bool) -> Iterator[Tensor]:
        config, seed, copies = self.config, self.config.train.seed, []
        total = config.train.copies * len(photos)
        with tqdm(total=total, desc="frozen stages: photos", disable=not progress) as bar:
            for copy in range(config.train.copies):
                order = torch.randperm(len(photos), generator=step_generator(seed, copy, "copy"))
                maps = []
                for rows in order.split(BATCH):
                    generator = step_generator(seed, copy, f"photos from {rows[0]}")
                    batch = photos[to_device(rows, self.device)]
                    pictures = augment_queries(batch, config.augment, config.model.image_size, generator)
                    maps.append(self._run(self.model.query_encoder, self.model.photo_input(pictures), bar))
                copies.append(torch.cat(maps)[to_device(order.argsort(), self.device)])
        yield torch.stack(copies)

    def _view_copies(self, views: Tensor, progress: bool) -> Iterator[Tensor]:
        config, copies = self.config, []
        total = config.train.view_copies * views.shape[:2].numel()
        with tqdm(total=total, desc="frozen stages: views", disable=not progress) as bar:
            for copy in range(config.train.view_copies):
                maps, start = [], 0
                for batch in views.split(max(1, BATCH // views.shape[1])):
                    generator = step_generator(config.train.seed, copy, f"views from {start}")
                    pictures = augment_views(batch, config.augment, config.model.image_size, generator).flatten(0, 1)
                    maps.append(self._run(self.model.view_encoder, pictures, bar))
                    start += len(pictures)
                copies.append(torch.cat(maps).unflatten(0, views.shape[:2]))
        yield torch.stack(copies)

    def _run(self, encoder: Encoder, pictures: Tensor, bar: Any) -> Tensor:
        bar.update(len(pictures))
        with autocast(self.config, self.device):
            return encoder.frozen_forward(pictures)

    def _path(self, kind: str, *key: Any) -> Path | None:
        if self.folder is None:
            return None
        of_views, settings = kind.endswith("views"), self.config.train
        network = self.config.model.model_dump(mode="json", exclude=AFTERWARDS | ({"mask"} if of_views else set()))
        weights = _digest(self.model.view_encoder if of_views else self.model.query_encoder)
        machine = [self.device.type, settings.precision, settings.channels_last]
        whole = [kind, weights, network, machine, code_digest(CODE), *key]
        name = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{kind}-{name}.safetensors"

    def _kept(self, kind: str, make: Callable[[], Iterable[Tensor]], *key: Any) -> list[Tensor]:
        path = self._path(kind, *key)
        if path is None:
            return list(make())
        kept = kept_file(path, lambda: {f"{i:05d}": block.contiguous().cpu() for i, block in enumerate(make())})
        return [kept[name].to(self.device) for name in sorted(kept)]


@torch.no_grad()
def fix_directions(model: CMIC, views: Tensor | None, whiten: float = WHITEN) -> None:
    """Set the projection of `model.fixed` from the features of training views, (L, N, V, F): their first copies'.

    The rows are the principal directions of the cells' features, not centred, each divided by a power of its size.
    ConfigError where training keeps no features of views.
    """
    if (fixed := model.query_encoder.fixed) is None:
        return
    if views is None:
        raise ConfigError("model.fixed needs the features of views", fix="set train.view_copies=1, or model.fixed=0")
    weight = fixed.weight
    features = unit(views[0].flatten(0, 1)[:, -weight.shape[1] :])  # (N·V, cells)
    _, sizes, directions = torch.svd_lowrank(features, q=min(len(weight) + SPARE, *features.shape), niter=4)
    share = sizes / sizes[0]
    scale = torch.where(share > NEGLIGIBLE, share.pow(-whiten), 0)
    found = (directions * scale).T[: len(weight)]
    weight.zero_()[: len(found)] = found  # of a few views there are fewer directions


def kept_file(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Read a file of tensors, or make and write it; another process that wants the same one waits meanwhile."""
    with in_turn(path.with_suffix(".lock")):
        if path.is_file():
            with suppress(OSError, SafetensorError):  # a damaged file is made again
                return load_file(path)
        made = make()
        write_atomically(path, lambda temporary: save_file(made, temporary))
    return made


def _digest(encoder: Encoder) -> str:
    """Hash the frozen stages' weights."""
    digest = hashlib.sha256()
    for name, value in sorted(nn.ModuleList(encoder.frozen_parts()).state_dict().items()):
        digest.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def draw_photos(copies: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one of the ``copies`` (K, P, …) of each photo in ``rows`` (B,); returns (B, …)."""
    return copies[_draw(len(copies), rows, generator), rows]


def draw_views(copies: Tensor, shapes: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one of the ``copies`` (L, N, V, …) of views ``chosen`` (B, v) of ``shapes`` (B,); returns (B, v, …)."""
    return copies[_draw(len(copies), chosen, generator), shapes[:, None], chosen]


def _draw(copies: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return to_device(torch.randint(copies, like.shape, generator=generator), like.device)
