"""What a number of the result table has to beat: chance, the category prior, and a network that never saw the task.

Chance and prior are expectations in closed form, without sampling noise. Both order the gallery by blocks in a fixed
order, each shuffled inside: chance has one block, the prior one per category. If R of the n shapes of a block are right
and wrong shapes take i of its places, the next place is wrong with probability 1 - R / (n - i). The product of these
over the first k places is S(k), the probability that none of them is right. Then

    top-k      = 1 - S(k)
    mrr        = sum over k of (S(k-1) - S(k)) / k
    map10      = sum over k ≤ 10 of (1/k) · sum over j ≤ k of P(places j and k are both right), over min(R, 10)

The untrained network is EfficientNet-Lite0 with ImageNet weights, nearest view.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..benchmark import Benchmark
from ..io.code import code_digest
from ..training.features import kept_file
from ..weights import load_efficientnet

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


def untrained_scores(images: np.ndarray, views: np.ndarray, *, size: int = 160, batch: int = 16) -> dict[str, Tensor]:
    """Score photos against shapes with an ImageNet network that was trained neither on views nor on this task.

    The photo is cut out by its mask and put on white, so that it resembles a view. A shape's score is the cosine of its
    nearest view. There are two kinds of features:

    ``untrained``: the 1,280 after the last convolution, averaged over the picture, as is common. ``untrained_cells``:
    the 320 maps of the last block, averaged in the cells of a 3 × 3 grid. For 118 real Pix3D photos and 393 shapes they
    had a Top-1 of 35 % and a Top-10 of 75 %, the others 25 % and 66 %.

    Photos are uint8 (Q, 4, S, S), RGB and mask, views uint8 (N, V, S, S); ``batch`` of them at a time pass the network,
    which sees ``size`` × ``size`` pixels. Returns float32 (Q, N) in [-1, 1] for each kind. CheckpointError where the
    package with the weights is missing, or its file differs.
    """
    network = load_efficientnet()
    query = _features(network, images, size, batch)  # of each kind (Q, F)
    shape = _features(network, views.reshape(-1, 1, *views.shape[2:]), size, batch)  # of each kind (N·V, F)
    scores = [(q @ s.T).unflatten(1, views.shape[:2]).amax(dim=2) for q, s in zip(query, shape, strict=True)]  # (Q, N)
    return dict(zip(("untrained", "untrained_cells"), scores, strict=True))


@torch.inference_mode()
def _features(network: nn.Module, pictures: np.ndarray, size: int, batch: int) -> list[Tensor]:
    whole, cells = [], []
    for start in range(0, len(pictures), batch):
        block = torch.from_numpy(np.array(pictures[start : start + batch])).float()
        rgb, mask = block[:, :3].expand(-1, 3, -1, -1), block[:, 3:] / 255  # (B, 3, S, S) in [0, 255]
        if mask.shape[1]:  # a photo, put on white
            rgb = rgb * mask + 255 * (1 - mask)
        rgb = F.interpolate(rgb, (size, size), mode="bilinear", antialias=True)
        maps = network.blocks(network.bn1(network.conv_stem(normalise_pixels(rgb))))  # type: ignore[operator]
        wide = network.bn2(network.conv_head(maps))  # type: ignore[operator]
        whole.append(F.normalize(wide.mean(dim=(2, 3)), dim=1))  # (B, 1280)
        cells.append(F.normalize(F.adaptive_avg_pool2d(maps, 3).flatten(1), dim=1))  # (B, 320 · 9)
    return [torch.cat(whole), torch.cat(cells)]


def normalise_pixels(rgb: Tensor) -> Tensor:
    """Scale [0, 255] as the weights expect it: (x - 127) / 128."""
    return ((rgb - 127) / 128).contiguous(memory_format=torch.channels_last)


def kept_untrained_scores(benchmark: Benchmark, split: str, folder: Path) -> dict[str, Tensor]:
    """Return :func:`untrained_scores` of a split's photos over the gallery; a file in ``folder`` keeps them."""
    key = f"{benchmark.hash} {code_digest(['evaluation/baselines', 'weights'])}"
    path = folder / f"untrained-{split}-{hashlib.sha256(key.encode()).hexdigest()[:10]}.safetensors"
    photos = benchmark.images[benchmark.rows(split)]  # type: ignore[arg-type]
    return kept_file(path, lambda: untrained_scores(photos, benchmark.views))
