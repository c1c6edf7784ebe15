"""Other unseen shapes for a second look: as many as before, none in two roles, and no test photo chooses anything."""

import numpy as np
import pandas as pd
import pytest
from measure_seeds import other_unseen
from toybook import REPOSITORY

from cmiclib.benchmark import Benchmark


@pytest.fixture(scope="module")
def shipped() -> Benchmark:
    """Sixteen shapes of two categories, two of them variants of one another; two chairs and a table are unseen."""
    names = [f"{'chair' if i < 10 else 'table'}{i}" for i in range(16)]
    shapes = pd.DataFrame({"shape_id": names, "category": [name.rstrip("0123456789") for name in names]})
    shapes["group"] = ["pair" if i in (3, 4) else f"g{i}" for i in range(16)]
    rows = []
    for i, name in enumerate(names):
        seen = i not in (0, 1, 10)
        for k, split in enumerate(("train", "train", "val", "test") if seen else ("val", "test")):
            rows.append({"query_id": f"{name}_{k}", "shape_id": name, "category": shapes.category[i], "split": split,
                         "seen": seen})  # fmt: skip
    queries = pd.DataFrame(rows)
    images = np.arange(len(queries), dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 2, 2), np.uint8)
    meta = {"sha256": {"queries.csv": "a", "queries.npy": "b", "views.npy": "c"}, "queries": len(queries)}
    return Benchmark(REPOSITORY, meta, shapes, queries, {"queries.npy": images, "views.npy": np.zeros(3)})


@pytest.mark.parametrize("seed", range(8))
def test_other_shapes_are_held_out_with_their_variants_and_nothing_leaks(shipped, seed):
    other = other_unseen(shipped, seed)
    before = set(shipped.queries.shape_id[~shipped.queries.seen])
    test = other.queries[other.queries.split == "test"]
    fresh = set(test.shape_id[~test.seen])
    assert not fresh & before, "what was unseen before is not reported again"
    assert {name.rstrip("0123456789") for name in fresh} == {"chair", "table"}
    assert len(fresh) == 3 and ({"chair3", "chair4"} <= fresh or not {"chair3", "chair4"} & fresh)
    chooses = other.queries[other.queries.split != "test"]
    assert not fresh & set(chooses.shape_id), "a fresh shape neither trains nor chooses"
    assert set(chooses.shape_id[~chooses.seen]) == before
    old = shipped.queries.set_index("query_id")
    for row, query in other.queries.iterrows():
        assert other.images[row, 0, 0, 0] == list(old.index).index(query.query_id), "photos keep their pictures"
        assert query.split == "test" or query.split == old.split[query.query_id]
    assert other.hash != shipped.hash and other.meta["sha256"]["views.npy"] == "c"


def test_the_draw_is_the_same_each_time_and_depends_on_its_seed(shipped):
    drawn = [other_unseen(shipped, seed).hash for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1
