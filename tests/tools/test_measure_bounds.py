"""Bounds of clustered galleries: never wrong, and worth something where vectors are clustered."""

import numpy as np
import pytest
import torch
from measure_bounds import VIEWS_A_CLUSTER, clustered, grown, measure
from torch.nn.functional import normalize

from cmiclib.model import attention_scores


@pytest.fixture
def vectors():
    """Sixteen bundles of nearly equal views, and queries near one of them."""
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(16, 64, generator=generator), dim=-1)
    views = centres.repeat_interleave(12, 0)[:, None] + 0.01 * torch.randn(192, 12, 64, generator=generator)
    return centres, normalize(views, dim=-1), torch.eye(64)


def test_bundles_let_a_search_skip_all_others(vectors):
    query, views, weight = vectors
    tenth = np.sort(attention_scores(query, views, weight).numpy(), axis=1)[:, -10]
    row = clustered(query, views, tenth, 16)
    assert row["skipped_by_radius"] == pytest.approx(15 / 16) and row["skipped_by_distance"] >= row["skipped_by_radius"]
    assert 0 < row["distance"] <= row["radius"] < 0.2


def test_a_tighter_bound_spares_more_and_none_more_than_the_products(vectors):
    found = measure("bundles", *vectors, clusters=(4, 16))
    for row in found["rows"]:
        assert row["skipped_by_radius"] <= row["skipped_by_distance"] <= found["skipped_by_products"]
    assert [row["shapes"] for row in found["grown"]] == [24, 48, 96, 192]


def test_what_is_left_counts_the_centres(vectors):
    for row in grown(*vectors):
        assert row["clusters"] / (12 * row["shapes"]) < row["left"] <= 1 + 1 / min(VIEWS_A_CLUSTER)
