"""Ask whether certified bounds could spare a search most of the gallery and still return the exact first ten.

The score is a mixture of the products of a query with a shape's views, so the largest product bounds it from above. A
cluster of vectors bounds the products of all its members: product with the centre, plus radius. What the bound says is
below the tenth best score need not be scored. Here that score is taken as known, which no search knows in advance: it
could not skip more than this.

    python tools/measure/measure_bounds.py --result data/results/bounds.json
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import normalize

from cmiclib.io.atomic import write_json
from cmiclib.io.provenance import environment
from cmiclib.model import attention_scores

SHIPPED = Path(__file__).parents[2] / "data/browser/sweethome.safetensors"
CLUSTERS = (16, 64, 256, 1024)
TOP = 10
GROWTH = (8, 4, 2, 1)  # parts of the gallery
VIEWS_A_CLUSTER = (6, 12, 24, 96)


def trained_vectors() -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Give the shipped model's test photos (Q, d), views (N, V, d) and W, then random ones of the same number."""
    tensors = load_file(SHIPPED)
    query, views = (normalize(tensors[name].float(), dim=-1) for name in ("photos", "views"))
    yield "trained", query, views, tensors["attention"].float()
    generator = torch.Generator().manual_seed(0)
    drawn = (normalize(torch.randn(part.shape, generator=generator), dim=-1) for part in (query, views))
    yield "random", *drawn, tensors["attention"].float()


def skipped_by(bound: np.ndarray, tenth: np.ndarray) -> float:
    """Return the share of (query, shape) pairs (Q, N) whose bound is below the query's tenth best score (Q,)."""
    return float((bound < tenth[:, None]).mean())


def clustered(query: Tensor, views: Tensor, tenth: np.ndarray, count: int) -> dict[str, Any]:
    """Cluster all views, and return what the bounds of so many clusters could spare."""
    flat, shape = views.flatten(0, 1).numpy(), (len(query), *views.shape[:2])  # (N·V, d), (Q, N, V)
    found = KMeans(count, n_init=1, random_state=0).fit(flat)
    distance = np.linalg.norm(flat - found.cluster_centers_[found.labels_], axis=1)  # (N·V,)
    radius = np.zeros(count)
    np.maximum.at(radius, found.labels_, distance)
    centre = query.numpy() @ found.cluster_centers_.T  # (Q, k)
    of_cluster = (centre + radius)[:, found.labels_].reshape(shape).max(axis=2)
    of_view = (centre[:, found.labels_] + distance).reshape(shape).max(axis=2)
    return {
        "clusters": count, "radius": float(radius.mean()), "distance": float(distance.mean()),
        "skipped_by_radius": skipped_by(of_cluster, tenth), "skipped_by_distance": skipped_by(of_view, tenth),
    }  # fmt: skip


def grown(query: Tensor, views: Tensor, weight: Tensor) -> list[dict[str, Any]]:
    """Return what galleries of fewer and of all shapes could spare, with as many views to a cluster in each.

    Shapes are drawn at random, each larger gallery with those of the smaller one. The least share of products that is
    left counts centres and the views that no bound excludes.
    """
    order, rows = torch.randperm(len(views), generator=torch.Generator().manual_seed(0)), []
    for part in GROWTH:
        some = views[order[: len(views) // part]]
        tenth = np.sort(attention_scores(query.double(), some.double(), weight.double()).numpy(), axis=1)[:, -TOP]
        tried = [clustered(query, some, tenth, len(some) * some.shape[1] // each) for each in VIEWS_A_CLUSTER]
        left = [row["clusters"] / some.shape[:2].numel() + 1 - row["skipped_by_distance"] for row in tried]
        rows.append({"shapes": len(some), "left": min(left), "clusters": tried[int(np.argmin(left))]["clusters"]})
    return rows


def measure(
    name: str, query: Tensor, views: Tensor, weight: Tensor, clusters: tuple[int, ...] = CLUSTERS
) -> dict[str, Any]:
    """Return what each bound could spare."""
    scores = attention_scores(query.double(), views.double(), weight.double()).numpy()  # (Q, N)
    tenth = np.sort(scores, axis=1)[:, -TOP]  # (Q,)
    products = torch.einsum("qd,nvd->qnv", query, views).numpy()
    largest = products.max(axis=2)  # (Q, N) the tightest bound of its kind; it needs every product
    if (largest < scores - 1e-5).any():
        raise AssertionError("a score is above the largest product: the bound is wrong")
    rows = [clustered(query, views, tenth, count) for count in clusters]
    return {
        "vectors": name, "queries": len(query), "shapes": len(views), "skipped_by_products": skipped_by(largest, tenth),
        "tenth_score": float(np.median(tenth)), "excess": float(np.median(largest - scores)),
        "spread": float(np.median(products.max(axis=2) - products.min(axis=2))), "rows": rows,
        "grown": grown(query, views, weight),
    }  # fmt: skip


def main() -> None:
    """Measure on trained vectors and on random ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--result", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    made = environment()
    results = [measure(*vectors) for vectors in trained_vectors()]
    write_json(arguments.result, {"about": f"{made['date']}, {made['processor']}", "top": TOP, "results": results})
    for result in results:
        print(result)


if __name__ == "__main__":
    main()
