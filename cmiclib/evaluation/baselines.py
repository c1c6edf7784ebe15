"""What a number of the result table has to beat: chance, the category prior, and a network that never saw the task.

Chance and prior are expectations in closed form, without sampling noise. Both order the gallery by blocks in a fixed
order, each shuffled inside: chance has one block, the prior one per category. If R of the n shapes of a block are right
and wrong shapes take i of its places, the next place is wrong with probability 1 - R / (n - i). The product of these
over the first k places is S(k), the probability that none of them is right. Then

    top-k      = 1 - S(k)
    mrr        = sum over k of (S(k-1) - S(k)) / k
    map10      = sum over k ≤ 10 of (1/k) · sum over j ≤ k of P(places j and k are both right), over min(R, 10)

The untrained network is EfficientNet-Lite0 with ImageNet weights, or any other one, nearest view.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..benchmark import Benchmark
from ..config import ModelConfig
from ..encoders import Encoder
from ..errors import ConfigError
from ..io.code import code_digest
from ..training.features import kept_file
from ..weights import PACKAGED, load_initial_weights, usual_init

_MAP_DEPTH = 10


def chance(query_category: np.ndarray, shape_category: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Return the expected figures of a gallery in random order.

    Categories are int (Q,) and (N,), in the same codes; ``relevant``, bool (Q, N), has a right shape per query. Returns
    ``top1``, ``top10``, ``category``, ``map10``, ``mrr`` as means over queries, in [0, 1], and ``queries``.
    """
    return _expected(np.zeros(len(shape_category), dtype=np.int64), query_category, shape_category, relevant)


def category_prior(
    query_category: np.ndarray, shape_category: np.ndarray, relevant: np.ndarray, training_category: np.ndarray
) -> dict[str, float]:
    """Return the figures of :func:`chance` if the most photographed category always comes first, then the next.

    ``training_category``, int (T,), is the category of each training photo. Equally frequent ones rank by code.
    """
    count = np.bincount(training_category, minlength=int(shape_category.max()) + 1)
    place = np.argsort(np.argsort(-count, kind="stable"), kind="stable")  # of each category
    return _expected(place[shape_category], query_category, shape_category, relevant)


def _expected(
    block: np.ndarray, query_category: np.ndarray, shape_category: np.ndarray, relevant: np.ndarray
) -> dict[str, float]:
    """Expectations for blocks (N,) listed in ascending order, shuffled inside."""
    _, block, size = np.unique(block, return_inverse=True, return_counts=True)
    at = np.sort(block)  # (N,) the block that fills each place
    taken = np.arange(len(at)) - np.searchsorted(at, at)  # (N,) places of that block before this one
    right = np.stack([relevant[:, block == b].sum(axis=1) for b in range(len(size))], axis=1)[:, at]  # (Q, N)

    missed = np.cumprod(1 - right / (size[at] - taken), axis=1)  # (Q, N): S(1), …, S(N)
    missed = np.clip(missed, 0, 1)
    first = -np.diff(missed, axis=1, prepend=1.0)  # (Q, N) the first right shape is at this place

    depth = min(_MAP_DEPTH, len(at))
    hit = (right / size[at])[:, :depth]  # (Q, K)
    again = ((right - 1) / np.maximum(size[at] - 1, 1))[:, :depth]  # given another hit in the same block
    same = at[:depth, None] == at[None, :depth]  # (K, K)
    both = hit[:, :, None] * np.where(same, again[:, :, None], hit[:, None, :])  # (Q, K, K)
    before = np.tril(np.ones((depth, depth)), k=-1)
    precision = (hit + (both * before).sum(axis=2)) / np.arange(1, depth + 1)
    in_front = shape_category[block == 0]
    return {
        "top1": float(1 - missed[:, 0].mean()),
        "top10": float(1 - missed[:, depth - 1].mean()),
        "category": float((query_category[:, None] == in_front[None, :]).mean()),
        "map10": float((precision.sum(axis=1) / np.minimum(relevant.sum(axis=1), _MAP_DEPTH)).mean()),
        "mrr": float((first / np.arange(1, len(at) + 1)).sum(axis=1).mean()),
        "queries": len(query_category),
    }


@torch.no_grad()
def untrained_scores(
    images: np.ndarray, views: np.ndarray, *, size: int | None = None, batch: int = 16, backbone: str = PACKAGED,
    init: str | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Score photos against shapes with a network that was trained neither on views nor on this task.

    The photo is cut out by its mask and put on white, so that it resembles a view. A shape's score is the cosine of its
    nearest view. There are two kinds of features:

    ``untrained``: those of the whole picture, as a classifier takes them; EfficientNet-Lite0's are the 1,280 after the
    last convolution. ``untrained_cells``: the last stage's maps, averaged in the cells of a 3 × 3 grid, where the
    network's stages are known. For 118 real Pix3D photos and 393 shapes EfficientNet-Lite0's 320 maps had a Top-1 of
    35 % and a Top-10 of 75 %, its others 25 % and 66 %.

    Photos are uint8 (Q, 4, S, S), RGB and mask, views uint8 (N, V, S, S). ``batch`` of them at a time pass the network,
    which sees ``size`` × ``size`` pixels; default: 160, of other networks 224. ``init`` is as ``model.init``; default:
    :func:`.weights.usual_init`. Returns float32 (Q, N) in [-1, 1] for each kind. CheckpointError where the weights
    cannot be had.
    """
    size = size or (160 if backbone == PACKAGED else 224)
    try:
        encoder = Encoder(backbone, 3, ModelConfig(image_size=size, grid=3))
    except ConfigError:
        encoder = Encoder(backbone, 3, ModelConfig(image_size=size))  # raises again where it is not for the stages
    load_initial_weights(encoder, backbone, init or usual_init(backbone))
    encoder.eval().to(memory_format=torch.channels_last)
    scale = normalise_pixels if backbone == PACKAGED else lambda rgb: rgb / 127.5 - 1
    query = _features(encoder, scale, images, size, batch)  # of each kind (Q, F)
    shape = _features(encoder, scale, views.reshape(-1, 1, *views.shape[2:]), size, batch)  # of each kind (N·V, F)
    scores = [(q @ s.T).unflatten(1, views.shape[:2]).amax(dim=2) for q, s in zip(query, shape, strict=True)]  # (Q, N)
    return dict(zip(("untrained", "untrained_cells"), scores, strict=False))


def _features(
    encoder: Encoder, scale: Callable[[Tensor], Tensor], pictures: np.ndarray, size: int, batch: int
) -> list[Tensor]:
    whole, cells = [], []
    for start in range(0, len(pictures), batch):
        block = torch.from_numpy(np.array(pictures[start : start + batch])).float()
        rgb, mask = block[:, :3].expand(-1, 3, -1, -1), block[:, 3:] / 255  # (B, 3, S, S) in [0, 255]
        if mask.shape[1]:  # a photo, put on white
            rgb = rgb * mask + 255 * (1 - mask)
        rgb = F.interpolate(rgb, (size, size), mode="bilinear", antialias=True)
        features = encoder.features(scale(rgb).contiguous(memory_format=torch.channels_last))
        whole.append(F.normalize(features[:, : encoder.whole], dim=1))
        cells.append(F.normalize(features[:, encoder.whole :], dim=1))
    return [torch.cat(kind) for kind in (whole, cells) if kind[0].shape[1]]


def normalise_pixels(rgb: Tensor) -> Tensor:
    """Scale [0, 255] as EfficientNet-Lite0's weights expect it: (x - 127) / 128."""
    return (rgb - 127) / 128


def kept_untrained_scores(
    benchmark: Benchmark, split: str, folder: Path, also: Benchmark | None = None
) -> dict[str, Tensor]:
    """Return :func:`untrained_scores` of a split's photos over the gallery; a file in ``folder`` keeps them.

    Below them stand those of the split's photos in ``also``, a benchmark with the same gallery.
    """
    asked = [benchmark] if also is None else [benchmark, also]
    key = f"{'+'.join(b.hash for b in asked)} {code_digest(['evaluation/baselines', 'encoders', 'engine', 'weights'])}"
    path = folder / f"untrained-{split}-{hashlib.sha256(key.encode()).hexdigest()[:10]}.safetensors"
    photos = [each.images[each.rows(split)] for each in asked]  # type: ignore[arg-type]
    return kept_file(path, lambda: untrained_scores(np.concatenate(photos), benchmark.views))
