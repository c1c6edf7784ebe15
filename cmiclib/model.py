"""CMIC: photo encoder, view encoder, and the attention that lets a query choose its views.

The whole method in one place (as in the released code). For a query q and the views r_1 … r_V of a shape:

    weight_v = softmax_v( (W q) · r_v )            no temperature, no 1/√d, W without bias
    score    = q · Σ_v weight_v r_v                the weighted sum is not normalised again

Because the score is linear in the mixture, Σ_v weight_v (q · r_v) is the same number. So a query batch needs two
matrix products and one softmax over views; the mixture itself, one vector for every (query, shape), never exists.
The same function scores in training, evaluation, the index and the browser.
"""

import torch
from torch import Tensor, nn

from .config import Fusion, ModelConfig
from .encoders import Encoder
from .pretrained import Pretrained
from .weights import load_initial_weights

CHUNK = 1 << 26
"""Numbers in one (Q, n, V) block where no gradients are needed: 256 MB in float32."""
FIXED_ATTENTION = 15.0
"""The multiple of the identity that turns fixed cosines into weights of views; chosen on held-out training shapes."""


def attention_weights(query: Tensor, views: Tensor, weight: Tensor) -> Tensor:
    """How much each view of each shape counts for each query.

    Args:
        query: (Q, d), rows of length 1.
        views: (N, V, d), last axis of length 1.
        weight: (d, d), the matrix W as ``torch.nn.Linear`` stores it, so that W q is ``query @ weight.T``.

    Returns:
        (Q, N, V); each row over V is positive and sums to 1.
    """
    _check_shapes(query, views, weight)
    logits = (query @ weight.T) @ views.flatten(0, 1).T.to(query.dtype)  # (Q, N·V)
    return logits.unflatten(1, views.shape[:2]).softmax(dim=-1)  # (Q, N, V)


def attention_scores(query: Tensor, views: Tensor, weight: Tensor) -> Tensor:
    """Score every query against every shape, without a (Q, N, d) intermediate.

    Args:
        query: (Q, d), rows of length 1.
        views: (N, V, d), last axis of length 1; their precision may be lower than that of the queries.
        weight: (d, d), as in :func:`attention_weights`.

    Returns:
        (Q, N) in [-1, 1]: the attention-weighted mean of the cosines between query and views. float32 on the CPU goes
        through :mod:`cmiclib.scan`, where copies of one shape get equal scores.
    """
    _check_shapes(query, views, weight)
    if _is_compiled(query, views, weight):
        return _compiled(query, views, weight, "attention")
    turned = query @ weight.T  # (Q, d)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (query, views, weight)):
        return _score_block(query, turned, views)
    scores = query.new_empty(len(query), len(views))  # (Q, N)
    width = max(1, CHUNK // max(1, len(query) * views.shape[1]))
    for start in range(0, len(views), width):
        scores[:, start : start + width] = _score_block(query, turned, views[start : start + width].to(query.dtype))
    return scores


def _is_compiled(query: Tensor, views: Tensor, weight: Tensor) -> bool:
    inputs = query, views, weight
    if query.device.type != "cpu" or (torch.is_grad_enabled() and any(t.requires_grad for t in inputs)):
        return False
    return query.dtype == weight.dtype == torch.float32 and views.dtype in (torch.float32, torch.bfloat16)


def _compiled(query: Tensor, views: Tensor, weight: Tensor, fusion: Fusion) -> Tensor:
    from .scan import scan  # takes a moment to load

    return scan(query.detach(), views.detach(), weight.detach(), fusion)


def _score_block(query: Tensor, turned: Tensor, views: Tensor) -> Tensor:
    flat = views.flatten(0, 1).T  # (d, n·V)
    logits = (turned @ flat).unflatten(1, views.shape[:2])  # (Q, n, V)
    products = (query @ flat).unflatten(1, views.shape[:2])  # (Q, n, V)
    return (logits.softmax(dim=-1) * products).sum(dim=-1)  # (Q, n)


def fused_scores(query: Tensor, views: Tensor, weight: Tensor, fusion: Fusion) -> Tensor:
    """Scores (Q, N) by attention, or by the mean or the best view, which do not use ``weight``."""
    if fusion == "attention":
        return attention_scores(query, views, weight)
    _check_shapes(query, views, weight)
    if _is_compiled(query, views, weight):
        return _compiled(query, views, weight, fusion)
    products = _products(query, views, weight)
    return products.mean(dim=-1) if fusion == "mean" else products.amax(dim=-1)


def fused_weights(query: Tensor, views: Tensor, weight: Tensor, fusion: Fusion) -> Tensor:
    """How much each view counts in :func:`fused_scores`, (Q, N, V) with rows that sum to 1."""
    if fusion == "attention":
        return attention_weights(query, views, weight)
    products = _products(query, views, weight)
    if fusion == "mean":
        return torch.full_like(products, 1 / views.shape[1])
    return torch.zeros_like(products).scatter(-1, products.argmax(dim=-1, keepdim=True), 1.0)


def _products(query: Tensor, views: Tensor, weight: Tensor) -> Tensor:
    _check_shapes(query, views, weight)
    return (query @ views.flatten(0, 1).T.to(query.dtype)).unflatten(1, views.shape[:2])  # (Q, N, V)


def _check_shapes(query: Tensor, views: Tensor, weight: Tensor) -> None:
    d = query.shape[-1]
    if query.ndim != 2 or views.ndim != 3 or views.shape[2] != d or weight.shape != (d, d):
        raise ValueError(
            "expected query (Q, d), views (N, V, d) and weight (d, d), "
            f"got {tuple(query.shape)}, {tuple(views.shape)} and {tuple(weight.shape)}"
        )


class CMIC(Pretrained):
    """Both encoders and the attention matrix W; build it with :func:`build_model`.

    ``photos_only`` leaves out the encoder of views, which an index no longer needs.
    """

    def __init__(self, config: ModelConfig, photos_only: bool = False):
        super().__init__()
        self.config = config
        self.query_encoder = Encoder(config.query_backbone, 4 if config.mask == "channel" else 3, config)
        if not photos_only:
            frozen = {"frozen": config.frozen_of_views}
            self.view_encoder = Encoder(config.view_backbone, 1, config.model_copy(update=frozen))
            if config.shared_head:
                self.view_encoder.head[1] = self.query_encoder.head[1]
            self.view_encoder.fixed = self.query_encoder.fixed
        # The same start as the bias-free nn.Linear of the released code, unless the configuration wants another one: a
        # multiple of the identity lets the views that resemble the query count more from the first step on.
        linear = nn.Linear(config.dim, config.dim, bias=False).weight.detach()
        start = config.attention_start
        self.attention_weight = nn.Parameter(start * torch.eye(config.dim) if start else linear)
        self.attention_weight.requires_grad_(config.fusion == "attention")  # what has no gradient makes processes wait

    def photo_input(self, photos: Tensor) -> Tensor:
        """Bring photos with mask (B, 4, H, W) into the form that the photo encoder takes: see ``config.mask``."""
        if self.config.mask == "channel":
            return photos
        if self.config.mask == "none":
            return photos[:, :3]
        return torch.where(photos[:, 3:] > 0, photos[:, :3], 1.0)  # on white, as the views are

    def embed_queries(self, photos: Tensor) -> Tensor:
        """Photos with mask (B, 4, H, W) → (B, d)."""
        return self.query_encoder(self.photo_input(photos))

    def embed_views(self, views: Tensor) -> Tensor:
        """Views (N, V, 1, H, W) → (N, V, d)."""
        return self.view_encoder(views.flatten(0, 1)).unflatten(0, views.shape[:2])

    def forward(
        self, photos: Tensor, views: Tensor, photos_are_features: bool = False, views_are_features: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Embed what a training step compares; returns (B, d) and (C, V, d).

        Args:
            photos: (B, 4, H, W), or what the frozen stages returned for them.
            views: (C, V, 1, H, W), or what the frozen stages returned for them, (C, V, …).
            photos_are_features: the frozen stages have seen the photos.
            views_are_features: the frozen stages have seen the views.
        """
        query = self.query_encoder.head_forward(photos) if photos_are_features else self.embed_queries(photos)
        if not views_are_features:
            return query, self.embed_views(views)
        return query, self.view_encoder.head_forward(views.flatten(0, 1)).unflatten(0, views.shape[:2])

    def attention(self) -> Tensor:
        """Return W; in evaluation, with `model.fixed`, a block-diagonal one, in which fixed numbers weigh views too."""
        if self.training or not self.config.fixed:
            return self.attention_weight
        return torch.block_diag(
            self.attention_weight, FIXED_ATTENTION * torch.eye(self.config.fixed).to(self.attention_weight)
        )

    def score(self, query: Tensor, views: Tensor) -> Tensor:
        """Embeddings (Q, d) and (N, V, d) → scores (Q, N)."""
        return fused_scores(query, views, self.attention(), self.config.fusion)


def build_model(config: ModelConfig) -> CMIC:
    """Make a model with its initial weights; random parts come from torch's global generator.

    Raises:
        ConfigError: an unknown backbone.
        CheckpointError: initial weights that cannot be had; nothing else takes their place.
    """
    model = CMIC(config)
    load_initial_weights(model.query_encoder, config.query_backbone, config.init)
    load_initial_weights(model.view_encoder, config.view_backbone, config.init)
    return model
