import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cmiclib import index as module
from cmiclib.config import Config, ModelConfig
from cmiclib.embed import embed_gallery, embed_queries
from cmiclib.errors import CheckpointError, StorageError
from cmiclib.index import ShapeIndex
from cmiclib.metrics import top_k
from cmiclib.model import attention_scores, attention_weights, build_model, fused_scores

CONFIG = Config(
    model=ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random")
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(CONFIG.model).eval()


@pytest.fixture(scope="module")
def built(model, tiny_benchmark):
    return ShapeIndex.build(model, tiny_benchmark, CONFIG)


@pytest.fixture(scope="module")
def query(built, tiny_benchmark):
    return built.embed(tiny_benchmark.images[:9])


def random_arrays(shapes=20, d=8, seed=0):
    rng = np.random.default_rng(seed)
    views, query = rng.standard_normal((shapes, 12, d)), rng.standard_normal((5, d))
    views, query = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (views, query))
    return views, rng.standard_normal((d, d)), [f"shape/{i}" for i in range(shapes)], query


# Embeddings


def test_embeddings_are_unit_vectors_of_each_photo_and_view_alone(model, tiny_benchmark):
    photos, views = tiny_benchmark.images[:5], tiny_benchmark.views[:3]
    query, gallery = embed_queries(model, photos, CONFIG), embed_gallery(model, views, CONFIG)
    assert query.shape == (5, 16) and gallery.shape == (3, 12, 16)
    torch.testing.assert_close(query.norm(dim=-1), torch.ones(5))
    torch.testing.assert_close(gallery.norm(dim=-1), torch.ones(3, 12))
    torch.testing.assert_close(embed_queries(model, photos, CONFIG, batch=2), query, atol=1e-5, rtol=0)
    torch.testing.assert_close(embed_gallery(model, views, CONFIG, batch=2), gallery, atol=1e-5, rtol=0)
    assert embed_queries(model, photos[:0], CONFIG).shape == (0, 16)


def test_with_mirror_a_photo_and_its_mirror_image_have_one_vector(model, tiny_benchmark):
    photos, both = tiny_benchmark.images[:4], CONFIG.override(["model.mirror=true"])
    query = embed_queries(model, photos, both)
    one, other = (embed_queries(model, np.ascontiguousarray(p), CONFIG) for p in (photos, photos[..., ::-1]))
    assert not torch.allclose(one, other, atol=1e-3)
    torch.testing.assert_close(query, torch.nn.functional.normalize(one + other, dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(embed_queries(model, photos[..., ::-1], both), query, atol=1e-5, rtol=0)


def test_embeddings_can_be_used_where_gradients_are_wanted(model, tiny_benchmark):
    query = embed_queries(model, tiny_benchmark.images[:2], CONFIG)
    gallery = embed_gallery(model, tiny_benchmark.views[:2], CONFIG)
    weight = model.attention_weight.detach().clone().requires_grad_()
    attention_scores(query, gallery, weight).sum().backward()
    assert weight.grad.abs().sum() > 0


# Search


def test_search_is_a_full_sort_of_the_models_scores(built, model, query, tiny_benchmark):
    found = built.search(query, k=5)
    scores = model.score(query, embed_gallery(model, tiny_benchmark.views, CONFIG)).detach().numpy()
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    assert found.ids == tiny_benchmark.shapes.shape_id.to_numpy()[order].tolist()
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order, axis=1), atol=1e-6)
    rows, ranked = built.rank(query, k=5)
    assert torch.equal(ranked, found.scores) and rows.tolist() == order.tolist()


def test_numpy_arrays_of_any_precision_can_be_indexed_and_searched():
    views, attention, ids, query = random_arrays()
    ids_found, scores, weights = ShapeIndex.from_arrays(views, attention, ids).search(query, k=3)
    for i, q in enumerate(query):
        logits = views @ (attention @ q)  # (N, V)
        attended = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected = (attended * (views @ q)).sum(axis=1)
        best = np.argsort(-expected)[:3]
        assert ids_found[i] == [ids[n] for n in best]
        np.testing.assert_allclose(scores[i], expected[best], atol=1e-6)
        np.testing.assert_allclose(weights[i], attended[best], atol=1e-6)


def test_of_equal_scores_the_lower_row_comes_first():
    views, attention, ids, query = random_arrays()
    views[[2, 6, 9, 17]] = query[0]  # all views show the query: score 1
    found = ShapeIndex.from_arrays(views, attention, ids).search(query[:1], k=3)
    assert found.ids == [["shape/2", "shape/6", "shape/9"]]
    torch.testing.assert_close(found.scores, torch.ones(1, 3))


@pytest.mark.parametrize("k, expected", [(1, 1), (20, 20), (21, 20), (1000, 20)])
def test_more_results_than_shapes_are_all_shapes(k, expected):
    views, attention, ids, query = random_arrays()
    found = ShapeIndex.from_arrays(views, attention, ids).search(query, k)
    assert found.scores.shape == (5, expected) and found.weights.shape == (5, expected, 12)
    assert all(len(set(line)) == expected for line in found.ids)


@pytest.mark.parametrize("block", [1, 5 * 12, 5 * 12 * 3, 5 * 12 * 7, 10**9])
def test_however_large_the_blocks_the_ranking_is_that_of_all_scores(block, monkeypatch):
    views, attention, ids, query = random_arrays()
    views[[2, 6, 9, 17]] = query[0]  # equal scores in several blocks
    index = ShapeIndex.from_arrays(views, attention, ids)
    whole = fused_scores(torch.as_tensor(query).float(), index.views, index.attention, "attention")
    best, expected = top_k(whole, 6)
    monkeypatch.setattr(module, "BLOCK", block)
    rows, scores = index.rank(query, 6)
    torch.testing.assert_close(scores, best, atol=1e-6, rtol=0)
    assert torch.equal(rows[1:], expected[1:]) and rows[0, :4].tolist() == [2, 6, 9, 17]
    torch.testing.assert_close(index.scores(query), whole, atol=1e-6, rtol=0)


def test_an_index_in_half_precision_is_half_as_large_and_nearly_as_exact(tmp_path):
    views, attention, ids, query = random_arrays(shapes=300, d=128)
    whole, half = (
        ShapeIndex.from_arrays(views, attention / 10, ids, dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    sizes = []
    for name, index in (("whole", whole), ("half", half)):
        index.save(tmp_path / name)
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] - sizes[1] == 300 * 12 * 128 * 2
    loaded = ShapeIndex.load(tmp_path / "half")
    assert loaded.views.dtype == torch.bfloat16 and torch.equal(loaded.views, half.views)
    found, exact = loaded.search(query, 10), whole.search(query, 10)
    assert found.scores.dtype == found.weights.dtype == torch.float32
    torch.testing.assert_close(found.scores, exact.scores, atol=5e-3, rtol=0)
    assert all(len(set(a) & set(b)) >= 9 for a, b in zip(found.ids, exact.ids, strict=True))


@pytest.mark.parametrize("k", [0, -1])
def test_a_search_for_nothing_is_refused(k):
    views, attention, ids, query = random_arrays()
    index = ShapeIndex.from_arrays(views, attention, ids)
    for ask in (index.search, index.rank):
        with pytest.raises(ValueError, match=f"k is {k}; it must be at least 1"):
            ask(query, k)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_queries_that_are_not_numbers_are_named(bad):
    views, attention, ids, query = random_arrays()
    index = ShapeIndex.from_arrays(views, attention, ids)
    query[[1, 3], 2] = bad
    for ask in (index.search, index.rank, index.scores):
        with pytest.raises(ValueError, match="NaN or Inf in rows 1, 3; check the photos"):
            ask(query)


def test_no_query_gives_no_result():
    views, attention, ids, query = random_arrays()
    found = ShapeIndex.from_arrays(views, attention, ids).search(query[:0], k=3)
    assert found.ids == [] and found.scores.shape == (0, 3)


@pytest.mark.parametrize("fusion", ["mean", "max"])
def test_an_index_scores_and_explains_as_its_model_does(fusion, tiny_benchmark, tmp_path):
    config = CONFIG.override([f"model.fusion={fusion}"])
    torch.manual_seed(0)
    index = ShapeIndex.build(build_model(config.model), tiny_benchmark, config)
    index.save(tmp_path / "index")
    index = ShapeIndex.load(tmp_path / "index")
    query = index.embed(tiny_benchmark.images[:4])
    cosines = torch.einsum("qd,nvd->qnv", query, index.views)
    expected = cosines.mean(dim=-1) if fusion == "mean" else cosines.amax(dim=-1)
    torch.testing.assert_close(index.scores(query), expected, atol=1e-6, rtol=0)
    rows, scores = index.rank(query, k=3)
    explained = (index.search(query, k=3).weights * cosines.gather(1, rows[..., None].expand(-1, -1, 12))).sum(dim=-1)
    torch.testing.assert_close(explained, scores, atol=1e-6, rtol=0)


def test_weights_are_the_attention_over_the_found_shapes_views(built, query):
    found = built.search(query, k=2)
    every = attention_weights(query, built.views, built.attention)
    for i, line in enumerate(found.ids):
        for j, shape_id in enumerate(line):
            torch.testing.assert_close(found.weights[i, j], every[i, built.shape_ids.index(shape_id)])


def test_building_puts_the_model_into_evaluation_mode(tiny_benchmark, built):
    torch.manual_seed(0)
    training = build_model(CONFIG.model)
    index = ShapeIndex.build(training, tiny_benchmark)
    assert torch.equal(index.views, built.views)
    assert not training.training


@pytest.mark.parametrize(
    "views, attention, names", [((3, 2), (2, 2), 3), ((3, 12, 2), (2, 3), 3), ((3, 12, 2), (2, 2), 4)]
)
def test_arrays_that_do_not_fit_are_refused(views, attention, names):
    with pytest.raises(ValueError, match=r"views \(N, V, d\), attention \(d, d\) and N ids"):
        ShapeIndex.from_arrays(np.zeros(views), np.zeros(attention), ["x"] * names)


# Files


def test_a_file_holds_all_that_a_search_needs(built, query, tiny_benchmark, tmp_path):
    built.save(tmp_path / "gallery.index")
    loaded = ShapeIndex.load(tmp_path / "gallery.index")
    assert loaded.shape_ids == built.shape_ids and loaded.config == CONFIG and len(loaded) == 8
    assert torch.equal(loaded.embed(tiny_benchmark.images[:9]), query)
    before, after = built.search(query, 4), loaded.search(query, 4)
    assert before.ids == after.ids
    for one, other in ((before.scores, after.scores), (before.weights, after.weights)):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)  # sums are ordered by where arrays lie in memory


def test_an_index_of_arrays_keeps_its_vectors_but_embeds_no_photos(tmp_path, tiny_benchmark):
    views, attention, ids, query = random_arrays()
    ids[3] = "chaise/Schreibtisch „Ω“"
    index = ShapeIndex.from_arrays(views, attention, ids)
    index.save(tmp_path / "gallery.index")
    loaded = ShapeIndex.load(tmp_path / "gallery.index")
    assert loaded.shape_ids == ids
    assert torch.equal(loaded.scores(query), index.scores(query))
    with pytest.raises(CheckpointError, match="cmic index"):
        loaded.embed(tiny_benchmark.images[:1])


def test_a_memory_mapped_gallery_is_saved_as_any_other(tmp_path):
    views, attention, ids, _ = random_arrays(shapes=20)
    ShapeIndex.from_arrays(views, attention, ids).save(tmp_path / "whole")
    mapped = np.lib.format.open_memmap(tmp_path / "views.npy", "w+", np.float32, views.shape)
    mapped[:] = views
    ShapeIndex.from_arrays(mapped, attention, ids).save(tmp_path / "mapped")
    contents = []
    for name in ("mapped", "whole"):  # not their bytes: safetensors writes the facts of a header in any order
        with safe_open(tmp_path / name, framework="np") as file:
            arrays = {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
            contents.append((arrays, file.metadata(), (tmp_path / name).stat().st_size))
    assert contents[0] == contents[1]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_opening_an_index_does_not_read_its_views(tmp_path):
    shapes = 20_000
    block = torch.nn.functional.normalize(torch.randn(1000, 12, 64), dim=2)
    mapped = np.lib.format.open_memmap(tmp_path / "views.npy", "w+", np.float32, (shapes, 12, 64))
    for start in range(0, shapes, 1000):
        mapped[start : start + 1000] = block.numpy()
    ShapeIndex.from_arrays(mapped, np.eye(64), [str(i) for i in range(shapes)]).save(tmp_path / "large")
    del mapped
    before = resident()
    index = ShapeIndex.load(tmp_path / "large")
    assert resident() - before < 20 << 20  # the file has 61 MB
    assert index.rank(block[3, :1], 1)[0].item() == 3
    assert resident() - before > 50 << 20  # so this is how a gallery that was read shows


def resident():
    """Bytes of this process in memory, mapped files among them."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "other weights"])
def test_a_file_that_is_no_index_is_named(damage, tmp_path):
    path = tmp_path / "gallery.index"
    if damage == "truncated":
        ShapeIndex.from_arrays(*random_arrays()[:3]).save(path)
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "other weights":
        save_file({"views": torch.zeros(2, 12, 4)}, path)
    elif damage != "missing":
        path.write_text({"empty": "", "text": "shape,score\n" * 9}[damage])
    with pytest.raises(CheckpointError, match="cmic index") as error:
        ShapeIndex.load(path)
    assert error.value.path == path


def test_a_full_disk_leaves_no_half_index(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        ShapeIndex.from_arrays(*random_arrays()[:3]).save(tmp_path / "gallery.index")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "views, attention, count, said",
    [
        ((3, 12, 8), (4, 16), 3, r"attention \(4, 16\)"), ((12, 3, 8), (8, 8), 3, r"views \(12, 3, 8\)"),
        ((3, 96), (8, 8), 3, r"views \(3, 96\)"), ((3, 12, 8), (8, 8), 4, "of 4 shapes"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path, views, attention, count, said):
    about = {"format": "cmic-index-1", "shape_ids": str(list("abcd")[:count]).replace("'", '"'), "config": ""}
    save_file({"views": torch.ones(views), "attention": torch.ones(attention)}, tmp_path / "x.index", about)
    with pytest.raises(CheckpointError, match=said):
        ShapeIndex.load(tmp_path / "x.index")
