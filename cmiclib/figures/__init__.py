"""Every figure of the book, in one style. Functions take arrays and tables and return a matplotlib figure."""

from .ablations import Scale, accuracy_along, forest, wrong_without
from .data import cameras, counts, samples, views, voxel_plot
from .embedding import embedding_map
from .method import attention, color_transfer, loss_matrix, training_curves
from .results import category_bars, confusion, effects, margins, rank_curves, result_points
from .retrieval import attended_views, retrieval_rows
from .speed import bound_shares, roofline, search_scaling
from .style import category_colors, use_style

__all__ = [
    "Scale",
    "accuracy_along",
    "attended_views",
    "attention",
    "bound_shares",
    "cameras",
    "category_bars",
    "category_colors",
    "color_transfer",
    "confusion",
    "counts",
    "effects",
    "embedding_map",
    "forest",
    "loss_matrix",
    "margins",
    "rank_curves",
    "result_points",
    "retrieval_rows",
    "roofline",
    "samples",
    "search_scaling",
    "training_curves",
    "use_style",
    "views",
    "voxel_plot",
    "wrong_without",
]
