"""The same photos with a box, with or without an automatic mask: which masks they have, and what their figures are."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from cmiclib.errors import BenchmarkError
from cmiclib.evaluation import baselines
from cmiclib.evaluation import masks as module
from cmiclib.evaluation.masks import by_mask, from_box, other_masks
from cmiclib.evaluation.report import Scored
from cmiclib.metrics import paired_interval


def plain(size: int = 64) -> np.ndarray:
    """A blue disk on a yellow ground, with its exact mask."""
    y, x = np.mgrid[:size, :size]
    disk = (y - 30) ** 2 + (x - 34) ** 2 < 15**2
    noise = np.random.default_rng(0).integers(-6, 7, (3, size, size))
    rgb = np.where(disk, np.array([30, 60, 200])[:, None, None], np.array([220, 200, 40])[:, None, None]) + noise
    return np.concatenate([rgb, 255 * disk[None]]).astype(np.uint8)


def test_a_box_gives_the_object_that_lies_in_it_whatever_else_its_mask_says():
    image = plain()
    exact = image[3] > 0
    found = from_box(image)
    assert (found & exact).sum() / (found | exact).sum() > 0.9
    rows, columns = ndimage.find_objects(exact.astype(int))[0]
    boxed = image.copy()
    boxed[3] = 0
    boxed[3, rows, columns] = 255  # the same box, and nothing more
    np.testing.assert_array_equal(from_box(boxed), found)


def test_a_photo_without_a_known_mask_has_none_from_a_box_either():
    image = plain()
    image[3] = 255
    assert from_box(image).all()


def test_each_photo_of_the_split_stands_there_twice_with_its_pixels_and_its_own_shape(tiny_benchmark, tmp_path):
    marked, rows = other_masks(tiny_benchmark, "test", tmp_path), tiny_benchmark.rows("test")
    half = len(rows)
    assert marked.queries["mask"].tolist() == ["automatic"] * half + ["box"] * half
    assert marked.rows("test").tolist() == list(range(2 * half)) and marked.queries.query_id.is_unique
    for part in (slice(half), slice(half, None)):
        np.testing.assert_array_equal(marked.images[part, :3], tiny_benchmark.images[rows, :3])
        np.testing.assert_array_equal(marked.relevant(marked.rows())[part], tiny_benchmark.relevant(rows))
    for image, row in zip(marked.images[:half], rows, strict=True):
        np.testing.assert_array_equal(image[3] == 255, from_box(tiny_benchmark.images[row]))
    assert (marked.images[half:, 3] == 255).all()
    assert marked.hash != tiny_benchmark.hash and marked.views is tiny_benchmark.views


def test_masks_are_made_once_and_anew_for_other_photos(tiny_benchmark, tmp_path, monkeypatch):
    first = other_masks(tiny_benchmark, "test", tmp_path)
    monkeypatch.setattr(module, "from_box", lambda image: pytest.fail("made again"))
    again = other_masks(tiny_benchmark, "test", tmp_path)
    np.testing.assert_array_equal(first.images, again.images)
    assert first.hash == again.hash
    digests = tiny_benchmark.meta["sha256"] | {"queries.npy": "0" * 64}
    other = dataclasses.replace(tiny_benchmark, meta=tiny_benchmark.meta | {"sha256": digests})
    monkeypatch.setattr(module, "from_box", lambda image: np.ones(image.shape[1:], bool))
    changed = other_masks(other, "test", tmp_path)
    assert changed.hash != first.hash and (changed.images[:, 3] == 255).all()


def test_a_split_without_photos_is_refused(tiny_benchmark, tmp_path):
    none = dataclasses.replace(tiny_benchmark, queries=tiny_benchmark.queries.assign(split="train"))
    with pytest.raises(BenchmarkError, match="no photos in split 'test'"):
        other_masks(none, "test", tmp_path)


def test_figures_are_those_of_a_slow_count_over_the_same_photos(tiny_benchmark, tmp_path):
    marked, generator = other_masks(tiny_benchmark, "test", tmp_path), torch.Generator().manual_seed(0)
    shape = (len(marked.queries), len(marked.shapes))
    trained, rival = (torch.rand(shape, generator=generator) for _ in range(2))
    figures = by_mask(Scored(trained, marked.rows("test"), marked), {module.UNTRAINED: rival})
    assert list(figures) == ["automatic", "box"]
    photos, ids = marked.queries, marked.shapes.shape_id.tolist()
    for kind, parts in figures.items():
        for part, made in parts.items():
            at = [i for i in range(shape[0]) if photos["mask"][i] == kind and photos.seen[i] == (part == "seen")]
            right = {
                name: np.array([ids[int(scores[i].argmax())] == photos.shape_id[i] for i in at])
                for name, scores in (("trained", trained), ("untrained", rival))
            }
            for name, each in right.items():
                assert made[name]["top1"] == pytest.approx(each.mean()) and made[name]["queries"] == len(at)
            assert made["gain"][0] == pytest.approx(right["trained"].mean() - right["untrained"].mean())
            if len(set(photos.shape_id[at])) > 1:
                low, high = paired_interval(right["trained"], right["untrained"], photos.shape_id[at].to_numpy())
                assert made["gain"][1:] == pytest.approx([low, high])


def test_the_untrained_network_sees_both_benchmarks_photos_and_embeds_the_views_once(
    tiny_benchmark, tmp_path, monkeypatch
):
    asked = []

    def scores(images, views):
        asked.append((images, views))
        return {"untrained": torch.zeros(len(images), len(views))}

    monkeypatch.setattr(baselines, "untrained_scores", scores)
    marked = other_masks(tiny_benchmark, "test", tmp_path)
    made = baselines.kept_untrained_scores(tiny_benchmark, "test", tmp_path, marked)["untrained"]
    ((images, views),) = asked
    assert len(made) == 3 * len(tiny_benchmark.rows("test")) and views is tiny_benchmark.views
    np.testing.assert_array_equal(images[: len(made) // 3], tiny_benchmark.images[tiny_benchmark.rows("test")])
    np.testing.assert_array_equal(images[len(made) // 3 :], marked.images)
