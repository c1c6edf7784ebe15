import dataclasses

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from cmiclib.engine import folded
from cmiclib.errors import ConfigError
from cmiclib.evaluation import baselines as module
from cmiclib.evaluation.baselines import category_prior, chance, untrained_scores
from cmiclib.metrics import retrieval_metrics

KEYS = ("top1", "top10", "category", "map10", "mrr")
SHAPE_CATEGORY = np.repeat([0, 1, 2, 3], [4, 9, 5, 6])
TRAINING = np.repeat([0, 1, 2], [7, 20, 13])  # category 3 has distractors only


def queries(several: bool) -> tuple[np.ndarray, np.ndarray]:
    """Four queries; with `several`, they have 1, 3, 12 and 2 right shapes, the last ones in two categories."""
    category = np.array([0, 1, 2, 2])
    relevant = np.zeros((4, len(SHAPE_CATEGORY)), dtype=bool)
    relevant[np.arange(4), [1, 6, 14, 15]] = True
    if several:
        relevant[1, [7, 12]] = True
        relevant[2, 2:14] = True
        relevant[3, 3] = True
    return category, relevant


def simulated(order_of_blocks: list[list[int]], several: bool, rounds: int = 5000) -> dict[str, float]:
    """Shuffle inside blocks of categories, rank by the project's own metrics, average."""
    category, relevant = queries(several)
    scores = np.random.default_rng(0).random((rounds, *SHAPE_CATEGORY.shape))
    for place, block in enumerate(order_of_blocks):
        scores[:, np.isin(SHAPE_CATEGORY, block)] -= place
    return retrieval_metrics(
        torch.from_numpy(scores.repeat(4, axis=0)), torch.from_numpy(np.tile(relevant, (rounds, 1))),
        torch.from_numpy(np.tile(category, rounds)), torch.from_numpy(SHAPE_CATEGORY),
    )  # fmt: skip


@pytest.mark.parametrize("several", [False, True])
def test_chance_is_the_mean_over_random_orders(several: bool) -> None:
    category, relevant = queries(several)
    figures = chance(category, SHAPE_CATEGORY, relevant)
    expected = simulated([[0, 1, 2, 3]], several)
    assert [figures[key] for key in KEYS] == pytest.approx([expected[key] for key in KEYS], abs=0.01)


@pytest.mark.parametrize("several", [False, True])
def test_prior_is_the_mean_over_orders_within_categories(several: bool) -> None:
    category, relevant = queries(several)
    figures = category_prior(category, SHAPE_CATEGORY, relevant, TRAINING)
    expected = simulated([[1], [2], [0], [3]], several)
    assert [figures[key] for key in KEYS] == pytest.approx([expected[key] for key in KEYS], abs=0.01)


def test_chance_with_one_right_shape_has_the_textbook_values() -> None:
    category, relevant = queries(False)
    figures = chance(category, SHAPE_CATEGORY, relevant)
    n = len(SHAPE_CATEGORY)
    assert figures["top1"] == pytest.approx(1 / n)
    assert figures["top10"] == pytest.approx(10 / n)
    assert figures["mrr"] == pytest.approx(sum(1 / k for k in range(1, n + 1)) / n)
    assert figures["map10"] == pytest.approx(sum(1 / k for k in range(1, 11)) / n)
    assert figures["queries"] == 4


def test_a_gallery_of_right_shapes_is_always_right() -> None:
    figures = chance(np.array([0]), np.zeros(3, dtype=int), np.ones((1, 3), dtype=bool))
    assert {key: figures[key] for key in KEYS} == pytest.approx(dict.fromkeys(KEYS, 1.0))


def test_a_photo_that_is_a_view_finds_that_view() -> None:
    rng = np.random.default_rng(0)
    views = np.full((3, 4, 32, 32), 255, dtype=np.uint8)
    for n, v in np.ndindex(3, 4):
        top, left = rng.integers(2, 12, 2)
        views[n, v, top : top + 6 + 5 * n, left : left + 4 + 4 * v] = rng.integers(0, 200)
    photo = np.repeat(views[2, 1][None], 3, axis=0)
    mask = np.where(views[2, 1] < 255, 255, 0)[None]
    noise = rng.integers(0, 255, (3, 32, 32))
    photos = np.concatenate([np.where(mask > 0, photo, noise), mask])[None].astype(np.uint8)
    for scores in untrained_scores(photos, views, size=64, batch=5).values():
        assert scores.shape == (1, 3)
        assert scores[0].argmax() == 2
        assert scores[0, 2] == pytest.approx(1, abs=1e-5)  # the noise behind the mask is gone
        assert scores[0, :2].max() < 0.99


def test_the_network_is_folded_once_however_many_batches(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(folded, "fold", lambda network, fold=folded.fold: calls.append(0) or fold(network))
    for photos in (1, 7):
        calls.append(photos)
        untrained_scores(np.zeros((photos, 4, 32, 32), np.uint8), np.zeros((1, 2, 32, 32), np.uint8), size=32, batch=1)
    assert calls.index(7) - 1 == len(calls) - calls.index(7) - 1 > 0


def test_scores_do_not_depend_on_the_batch() -> None:
    rng = np.random.default_rng(1)
    photos = rng.integers(0, 255, (3, 4, 32, 32), dtype=np.uint8)
    views = rng.integers(0, 255, (2, 3, 32, 32), dtype=np.uint8)
    whole = untrained_scores(photos, views, size=64, batch=64)
    assert list(whole) == ["untrained", "untrained_cells"]
    torch.testing.assert_close(untrained_scores(photos, views, size=64, batch=2), whole, atol=1e-5, rtol=0)


def test_any_network_can_be_the_untrained_one(tmp_path) -> None:
    """Its own size, its own weights; without known stages it has no cells."""
    rng = np.random.default_rng(1)
    photos = rng.integers(0, 255, (3, 4, 32, 32), dtype=np.uint8)
    views = rng.integers(0, 255, (2, 3, 32, 32), dtype=np.uint8)
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "test_vit.safetensors")
    first, again = (untrained_scores(photos, views, backbone="test_vit", init=str(tmp_path)) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert {kind: scores.shape for kind, scores in first.items()} == dict.fromkeys(first, (3, 2)) and len(first) == 2
    assert [*untrained_scores(photos, views, size=32, backbone="xcit_nano_12_p16_224", init="random")] == ["untrained"]
    with pytest.raises(ConfigError, match="unknown backbone"):
        untrained_scores(photos, views, backbone="test_vit.no_such_tag")


def other(benchmark):
    meta = benchmark.meta | {"sha256": benchmark.meta["sha256"] | {"views.npy": "0" * 64}}
    return dataclasses.replace(benchmark, meta=meta)


def test_untrained_scores_are_kept_for_a_split_of_one_benchmark(tiny_benchmark, tmp_path, monkeypatch):
    calls = []

    def scores(images, views):
        calls.append(len(images))
        return {"untrained": torch.arange(len(images) * len(views), dtype=torch.float32).view(len(images), -1)}

    monkeypatch.setattr(module, "untrained_scores", scores)
    first, again = (module.kept_untrained_scores(tiny_benchmark, "test", tmp_path) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert calls == [len(tiny_benchmark.rows("test"))]
    module.kept_untrained_scores(tiny_benchmark, "val", tmp_path)
    module.kept_untrained_scores(other(tiny_benchmark), "test", tmp_path)
    assert len(calls) == 3
