"""The book's figures, in one style: each function takes arrays or tables and returns a matplotlib figure."""

from .ablations import Scale, accuracy_along, forest, wrong_without
from .caption import captioned, drawn, method_diagram
from .curves import loss_matrix, training_curves
from .data import cameras, counts, samples, views, voxel_plot
from .embedding import embedding_map, map_corners, on_picture
from .grids import color_transfer
from .interactive import hover_map, temperature_slider
from .results import candidates, category_bars, confusion, effects, margins, rank_curves, result_points
from .retrieval import attended_views, attention, retrieval_rows
from .speed import bound_shares, certificates, roofline, search_scaling
from .style import category_colors, use_style
