"""The book's figures, in one style: each function takes arrays or tables and returns a matplotlib figure."""

from .ablations import Scale, accuracy_along, forest, wrong_without
from .data import cameras, counts, samples, views, voxel_plot
from .embedding import embedding_map
from .method import attention, color_transfer, loss_matrix, training_curves
from .results import category_bars, confusion, effects, margins, rank_curves, result_points
from .retrieval import attended_views, retrieval_rows
from .speed import bound_shares, roofline, search_scaling
from .style import category_colors, use_style
