"""Embedding a gallery, and searching a million shapes, on the device."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from cmiclib.config import Config
from cmiclib.embed import autocast, embed_gallery
from cmiclib.metrics import top_k
from cmiclib.model import CMIC, attention_scores
from cmiclib.study.speed import search_work
from gpu.part import Part


def embed(part: Part) -> None:
    """Turn a gallery's views into vectors by the paper's view encoder, in both precisions, channels last."""
    shapes, stored = (6, 32) if part.smoke else (1024, 224)
    views = np.random.default_rng(0).integers(0, 256, (shapes, 12, stored, stored), np.uint8)
    for precision in ("fp32", "bf16"):
        config = part.paper(f"train.precision={precision}")
        part.case(precision, partial(measured_embedding, part, config, views), least=15)


def measured_embedding(part: Part, config: Config, views: np.ndarray) -> dict[str, Any]:
    """Time the whole way from the host's memory to vectors there, and the encoder alone on views on the device."""
    torch.manual_seed(0)
    model = CMIC(config.model).to(part.device).eval().to(memory_format=torch.channels_last)
    size = config.model.image_size
    pictures = torch.rand(6 if part.smoke else 384, 1, size, size, device=part.device)

    def encode() -> None:
        with torch.no_grad(), autocast(config, part.device):
            model.view_encoder(pictures)

    with FlopCounterMode(display=False) as counter:
        encode()
    return {
        "seconds": part.timed(lambda: embed_gallery(model, views, config)), "views": views.shape[0] * views.shape[1],
        "encoder_seconds": part.timed(encode), "encoder_views": len(pictures), "size": size,
        "operations_a_view": counter.get_total_flops() / len(pictures),
    }  # fmt: skip


def random_vectors(shapes: int, queries: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries (Q, 128), views (N, 12, 128) and W (128, 128) on the device; their values change no time."""
    generator = torch.Generator(device).manual_seed(0)
    query = F.normalize(torch.randn(queries, 128, generator=generator, device=device), dim=-1)
    views = torch.empty(shapes, 12, 128, device=device)
    for block in views.split(1 << 16):
        block.copy_(F.normalize(torch.randn(block.shape, generator=generator, device=device), dim=-1))
    return query, views, torch.randn(128, 128, generator=generator, device=device) / 4


def one_product(query: Tensor, views: Tensor, weight: Tensor, numbers: int = 1 << 28) -> Tensor:
    """Score as :func:`attention_scores`, with W q and q side by side in one product, so that views are read once.

    The products have the views' precision, and ``numbers`` of them exist at a time.
    """
    both = torch.cat([query @ weight.T, query]).to(views.dtype)  # (2Q, d)
    scores, width = query.new_empty(len(query), len(views)), max(1, numbers // (len(both) * views.shape[1]))
    for start in range(0, len(views), width):
        block = views[start : start + width]
        products = (both @ block.flatten(0, 1).T).float().unflatten(1, block.shape[:2])  # (2Q, n, V)
        logits, cosines = products.chunk(2)
        scores[:, start : start + width] = (logits.softmax(dim=-1) * cosines).sum(dim=-1)
    return scores


def exact_scores(query: Tensor, views: Tensor, weight: Tensor) -> Tensor:
    """Score by brute force in double precision with torch's own softmax, (Q, N)."""
    parts, query, weight = [], query.double(), weight.double()
    for block in views.split(1 << 14):
        flat = block.double().flatten(0, 1).T
        logits, cosines = ((q @ flat).unflatten(1, block.shape[:2]) for q in (query @ weight.T, query))
        parts.append((logits.softmax(dim=-1) * cosines).sum(dim=-1))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def search(part: Part) -> None:
    """One query and 256 against a million shapes on the device, in two precisions and by two ways."""
    shapes, checked = (300, 4) if part.smoke else (1_000_000, 16)
    query, views, weight = random_vectors(shapes, 256, part.device)
    exact = exact_scores(query[:checked], views, weight)
    ways = {"": attention_scores, ", one product": one_product}
    for dtype, (way, score) in itertools.product((torch.float32, torch.bfloat16), ways.items()):
        gallery = views.to(dtype)
        for queries in (1, 256):
            name = f"{str(dtype).removeprefix('torch.')}, {queries}{way}"
            part.case(name, partial(measured_search, part, score, query[:queries], gallery, weight, query, exact))


def measured_search(
    part: Part,
    score: Callable[[Tensor, Tensor, Tensor], Tensor],
    asked: Tensor,
    gallery: Tensor,
    weight: Tensor,
    query: Tensor,
    exact: Tensor,
) -> dict[str, Any]:
    """Time a search for the first ten of the ``asked`` queries; compare those of ``query`` with ``exact`` scores."""
    scores = score(query[: len(exact)], gallery, weight)
    top, best = (matrix.topk(10, dim=1).indices for matrix in (scores, exact))
    return {
        "seconds": part.timed(lambda: top_k(score(asked, gallery, weight), 10)),
        "queries": len(asked), "shapes": len(gallery), **search_work(len(gallery), len(asked), gallery.dtype),
        "checked": len(exact), "same_top10": int((top == best).all(dim=1).sum()),
        "shared_top10": float((top[:, :, None] == best[:, None, :]).any(dim=2).double().mean()),
        "largest_error": float((scores - exact).abs().max()),
    }  # fmt: skip
