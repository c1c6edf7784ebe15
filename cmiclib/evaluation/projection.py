"""The common space of photos and shapes: one point for each, a map of the points, and the purity of neighbourhoods."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..benchmark import Benchmark
from ..index import ShapeIndex
from ..index.cache import kept_for, photo_vectors
from ..io.code import code_digest
from ..training.run import Run


def shape_points(views: Tensor) -> Tensor:
    """Return one point per shape, the mean of its views' vectors at length 1: (N, V, d) → (N, d).

    A shape's descriptor depends on the query, which weighs its views; the mean results from equal weights.
    """
    return F.normalize(views.mean(dim=1), dim=1)


def tsne(points: Tensor, seed: int = 0, perplexity: float = 30) -> np.ndarray:
    """Lay points out in the plane by t-SNE, started from their principal components.

    Points (n, d) of length 1 have squared distances of 2 - 2 · cosine. ``perplexity`` is about how many neighbours
    count, at most a third of the points. Returns (n, 2) float32, the same for one seed on one machine.
    """
    from sklearn.manifold import TSNE  # takes a second to load

    perplexity = min(perplexity, (len(points) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=seed).fit_transform(points.numpy())


@dataclass(frozen=True)
class Atlas:
    """A map of photos and shapes: n points with their places; photos come first."""

    points: Tensor  # (n, d), rows of length 1
    places: np.ndarray  # (n, 2)
    category: np.ndarray  # (n,) names
    is_photo: np.ndarray  # (n,) bool
    rows: np.ndarray  # (n,) rows of the photos, then of the shapes, that the map was made from

    def locate(self, vector: Tensor, k: int = 5) -> np.ndarray:
        """Return where a vector (d,) of length 1 belongs: (2,).

        t-SNE places only the points that it was run on. So this is the mean place of the k nearest points, each
        weighted by one over its squared distance; a point of the map stays where it is.
        """
        cosine, nearest = (self.points @ vector).topk(min(k, len(self.points)))
        weights = 1 / (2 - 2 * cosine.clamp(max=1) + 1e-6)  # (k,)
        return np.average(self.places[nearest.numpy()], axis=0, weights=weights.numpy())


def build_map(
    photos: Tensor, photo_category: np.ndarray, views: Tensor, shape_category: np.ndarray, most: int = 600,
    seed: int = 0, places: np.ndarray | None = None,
) -> Atlas:  # fmt: skip
    """Lay out photos and the shapes of their categories on one map; without photos, all shapes.

    Photos are (Q, d), rows of length 1; of more than ``most``, some are drawn by ``seed``, which is that of t-SNE too.
    ``views`` (N, V, d) are the gallery, see :func:`shape_points`; categories are names. ``places`` (n, 2) is where the
    same points were laid out before; ValueError if it does not fit.
    """
    some = np.random.default_rng(seed).permutation(len(photos))[:most]
    known = np.flatnonzero(np.isin(shape_category, photo_category) | (len(photos) == 0))
    points = torch.cat([photos[some], shape_points(views)[known]])
    if places is not None and places.shape != (len(points), 2):
        raise ValueError(f"places are {places.shape}; {len(points)} points need ({len(points)}, 2)")
    places = tsne(points, seed=seed) if places is None else places
    category, rows = np.concatenate([photo_category[some], shape_category[known]]), np.concatenate([some, known])
    return Atlas(points, places, category, is_photo=np.arange(len(points)) < len(some), rows=rows)


def kept_map(run: Run, index: ShapeIndex, benchmark: Benchmark, most: int = 600, seed: int = 0) -> Atlas:
    """Return the map of a run's test photos and gallery, :func:`build_map`: laid out once and kept with the run.

    ``index`` is what :func:`cmiclib.index.cache.gallery_index` returned.
    """
    photos, rows = photo_vectors(run, index, benchmark, "test"), benchmark.rows("test")
    points = (
        photos, benchmark.queries.category.to_numpy()[rows], index.views.float(), benchmark.shapes.category.to_numpy(),
        most, seed,
    )  # fmt: skip
    code = code_digest(["evaluation/projection"])
    name = f"map-{most}-{seed}-{code[:6]}"
    made = kept_for(run, index, benchmark, name, lambda: {"places": torch.from_numpy(build_map(*points).places)})
    return build_map(*points, places=made["places"].numpy())


def neighbour_purity(
    points: Tensor, labels: np.ndarray, among: Tensor, among_labels: np.ndarray, k: int = 10,
    own: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Return for each point the share of its k nearest neighbours that have its label, measured in the space itself.

    Neighbours of ``points`` (n, d), rows of length 1, are looked for ``among`` (m, d); if these are fewer than ``k``,
    all count, which gives the share by chance. ``own`` (n,) is the row of each point in ``among``, which is not its
    neighbour; None: the points are not there. Returns (n,) in [0, 1].
    """
    cosine, count = points @ among.T, len(among)  # (n, m)
    if own is not None:
        cosine[torch.arange(len(points)), torch.as_tensor(own)] = -torch.inf
        count -= 1
    nearest = cosine.topk(min(k, count), dim=1).indices.numpy()  # (n, k)
    return (np.asarray(among_labels)[nearest] == np.asarray(labels)[:, None]).mean(axis=1)
