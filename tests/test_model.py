from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cmiclib import model as model_module
from cmiclib.config import LossConfig, ModelConfig
from cmiclib.errors import ConfigError
from cmiclib.losses import cmic_loss
from cmiclib.model import attention_scores, attention_weights, build_model, fused_scores, fused_weights
from cmiclib.training.run import save_weights

PARITY = Path(__file__).parent / "data" / "parity"
TINY = ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random")


def embeddings(queries, shapes, views=12, d=16, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = F.normalize(torch.randn(queries, d, generator=generator, dtype=dtype), dim=-1)
    gallery = F.normalize(torch.randn(shapes, views, d, generator=generator, dtype=dtype), dim=-1)
    return query, gallery, 3 * torch.randn(d, d, generator=generator, dtype=dtype)


def slow_weights_and_scores(query, views, weight):
    """The paper's order of operations: for each pair, attention over the views, their mixture, a dot product."""
    weights, scores = [], []
    for q in query:
        for shape in views:
            exponentials = torch.exp(torch.stack([torch.dot(weight @ q, r) for r in shape]))
            weights.append(exponentials / exponentials.sum())
            mixture = sum(w * r for w, r in zip(weights[-1], shape, strict=True))
            scores.append(torch.dot(q, mixture))
    pairs = len(query), len(views)
    return torch.stack(weights).unflatten(0, pairs), torch.stack(scores).unflatten(0, pairs)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 5e-7), (torch.float64, 1e-14)])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 2), (3, 5, 12, 16), (7, 2, 3, 5)])
def test_scores_and_weights_equal_the_mixture_of_the_paper(sizes, dtype, tolerance):
    inputs = embeddings(*sizes, dtype=dtype)
    weights, scores = slow_weights_and_scores(*inputs)
    torch.testing.assert_close(attention_weights(*inputs), weights, atol=tolerance, rtol=0)
    torch.testing.assert_close(attention_scores(*inputs), scores, atol=tolerance, rtol=0)


@pytest.mark.parametrize("case", ["init", "ties", "equal_views"])
def test_parity_with_the_released_code(case):
    arrays = np.load(PARITY / "parity_attention.npz")
    inputs = [torch.from_numpy(arrays[f"{case}/{name}"]) for name in ("query", "views", "linear_in_weight")]
    scores = attention_scores(*inputs)
    np.testing.assert_allclose(attention_weights(*inputs), arrays[f"{case}/weights"], atol=5e-7, rtol=0)
    np.testing.assert_allclose(scores, arrays[f"{case}/scores"], atol=5e-7, rtol=0)
    np.testing.assert_array_equal(scores.argmax(dim=1), arrays[f"{case}/argmax"])


def test_parity_of_the_training_form_which_is_shape_by_image():
    arrays = np.load(PARITY / "parity_attention.npz")
    inputs = [torch.from_numpy(arrays[f"train_form/{name}"]) for name in ("query", "views", "linear_in_weight")]
    np.testing.assert_allclose(attention_scores(*inputs).T, arrays["train_form/prod_mat"], atol=5e-7, rtol=0)


def test_parity_of_attention_and_losses_together_with_their_gradients():
    arrays = np.load(PARITY / "parity_losses.npz")
    inputs = [torch.from_numpy(arrays[f"chain/{name}"]) for name in ("query", "views", "linear_in_weight")]
    own, same = (torch.from_numpy(arrays[f"chain/{name}"]).T for name in ("InstsMat", "CatsMat"))  # (image, shape)
    scores = attention_scores(*(tensor.requires_grad_() for tensor in inputs))
    losses = cmic_loss(scores, own.argmax(dim=1), same > 0, LossConfig())
    for loss, name in zip(losses, ("loss_total", "loss_inst", "loss_cats"), strict=True):
        assert loss.item() == pytest.approx(arrays[f"chain/{name}"].item(), abs=4e-6)
    for gradient, name in zip(
        torch.autograd.grad(losses[0], inputs), ("query", "views", "linear_in_weight"), strict=True
    ):
        np.testing.assert_allclose(gradient, arrays[f"chain/grad_{name}"], atol=2e-7, rtol=0)


def test_gradients_are_those_of_the_mixture():
    inputs = [tensor.requires_grad_() for tensor in embeddings(4, 3, dtype=torch.float64)]
    slope = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    fast = torch.autograd.grad((attention_scores(*inputs) * slope).sum(), inputs)
    slow = torch.autograd.grad((slow_weights_and_scores(*inputs)[1] * slope).sum(), inputs)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("elements", [1, 50, 84, 100, 10_000])
@pytest.mark.parametrize("shapes", [0, 1, 11])
def test_blocks_of_any_size_give_the_same_scores(monkeypatch, elements, shapes):
    query, views, weight = embeddings(7, shapes, dtype=torch.float64)
    whole = attention_scores(query, views, weight.requires_grad_()).detach()
    monkeypatch.setattr(model_module, "CHUNK", elements)
    blocked = attention_scores(query, views, weight.detach())
    assert blocked.shape == (7, shapes)
    torch.testing.assert_close(blocked, whole, atol=2e-7, rtol=0)


class LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("training", [True, False])
def test_no_vector_per_query_and_shape_ever_exists(training):
    query, views, weight = embeddings(64, 50, views=4, d=128, dtype=torch.float64)
    query.requires_grad_(training)
    with LargestTensor() as largest:
        scores = attention_scores(query, views, weight)
        if training:
            scores.sum().backward()
    assert largest.elements == max(64 * 50 * 4, views.numel()) < 64 * 50 * 128


def test_a_large_gallery_is_scored_block_by_block(monkeypatch):
    monkeypatch.setattr(model_module, "CHUNK", 64 * 4 * 10)
    query, views, weight = embeddings(64, 500, views=4, d=8, dtype=torch.float64)
    with LargestTensor() as largest:
        attention_scores(query, views, weight)
    assert largest.elements == 64 * 500  # the result itself


@pytest.mark.parametrize("fusion", ["attention", "mean", "max"])
def test_scores_are_weighted_means_of_cosines_and_ignore_the_order_of_shapes_and_views(fusion):
    query, views, weight = embeddings(6, 9)
    weights, scores = fused_weights(query, views, weight, fusion), fused_scores(query, views, weight, fusion)
    cosines = torch.einsum("qd,nvd->qnv", query, views)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(6, 9))
    torch.testing.assert_close((weights * cosines).sum(dim=-1), scores, atol=5e-7, rtol=0)
    generator = torch.Generator().manual_seed(1)
    order, turned = torch.randperm(9, generator=generator), torch.randperm(12, generator=generator)
    moved = fused_scores(query, views[order][:, turned], weight, fusion)
    torch.testing.assert_close(moved, scores[:, order], atol=5e-7, rtol=0)


def test_fusions_by_hand():
    query = torch.tensor([[1.0, 0.0]])
    views = torch.tensor([[[0.6, 0.8], [1.0, 0.0]]])  # cosines 0.6 and 1
    zero, strong = torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [50.0, 0.0]])  # W q = (0, 50): the first view wins
    assert attention_scores(query, views, zero).item() == pytest.approx(0.8)
    assert attention_scores(query, views, strong).item() == pytest.approx(0.6)
    assert fused_scores(query, views, strong, "mean").item() == pytest.approx(0.8)
    assert fused_scores(query, views, strong, "max").item() == pytest.approx(1.0)
    assert fused_weights(query, views, strong, "max").tolist() == [[[0.0, 1.0]]]


@pytest.mark.parametrize("function", [attention_scores, attention_weights, lambda *x: fused_scores(*x, "mean")])
@pytest.mark.parametrize(
    "shapes",
    [((4, 8), (5, 3, 7), (8, 8)), ((4, 8), (5, 8), (8, 8)), ((8,), (5, 3, 8), (8, 8)), ((4, 8), (5, 3, 8), (8, 4))],
)
def test_wrong_shapes_raise_and_say_what_is_expected(function, shapes):
    with pytest.raises(ValueError, match=r"expected query \(Q, d\), views \(N, V, d\) and weight \(d, d\), got"):
        function(*(torch.zeros(shape) for shape in shapes))


def test_model_embeds_photos_and_views_on_the_unit_sphere():
    torch.manual_seed(0)
    model = build_model(TINY).eval()
    query, views = model.embed_queries(torch.rand(3, 4, 32, 32)), model.embed_views(torch.rand(2, 5, 1, 32, 32))
    assert query.shape == (3, 16) and views.shape == (2, 5, 16)
    torch.testing.assert_close(query.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(views.norm(dim=-1), torch.ones(2, 5))
    expected = slow_weights_and_scores(query, views, model.attention_weight)[1]
    torch.testing.assert_close(model.score(query, views), expected, atol=5e-7, rtol=0)


def test_views_keep_their_places():
    torch.manual_seed(0)
    model, views = build_model(TINY).eval(), torch.rand(2, 3, 1, 32, 32)
    alone = torch.stack([model.embed_views(views[i : i + 1, j : j + 1])[0, 0] for i in range(2) for j in range(3)])
    torch.testing.assert_close(model.embed_views(views).flatten(0, 1), alone, atol=1e-5, rtol=0)


def test_attention_starts_as_a_linear_layer_or_as_the_identity():
    torch.manual_seed(0)
    assert 0 < build_model(TINY).attention_weight.std() < 1 / TINY.dim**0.5
    model = build_model(TINY.model_copy(update={"attention_start": 5.0}))
    assert torch.equal(model.attention_weight, 5 * torch.eye(TINY.dim))


def test_a_shared_head_is_one_layer_that_is_saved_and_trained_once(tmp_path):
    model = build_model(TINY.model_copy(update={"shared_head": True}))
    assert model.query_encoder.head[1] is model.view_encoder.head[1]
    assert model.query_encoder.head[0] is not model.view_encoder.head[0]
    apart = build_model(TINY)
    assert sum(1 for _ in apart.parameters()) - sum(1 for _ in model.parameters()) == 2
    save_weights(tmp_path / "model.safetensors", model)
    again = build_model(TINY.model_copy(update={"shared_head": True}))
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    photos, views = torch.rand(2, 4, 32, 32), torch.rand(2, 3, 1, 32, 32)
    for each in (model, again):
        each.eval()
    assert torch.equal(again.embed_queries(photos), model.embed_queries(photos))
    assert torch.equal(again.embed_views(views), model.embed_views(views))


FIXED = TINY.model_copy(update={"frozen": 5, "grid": 2, "fixed": 6, "fixed_share": 0.25, "mask": "cutout"})


def test_in_evaluation_fixed_numbers_stand_beside_the_learnt_ones_and_count_by_their_share(tmp_path):
    torch.manual_seed(0)
    model = build_model(FIXED).eval()
    torch.nn.init.normal_(model.query_encoder.fixed.weight)
    photos, views = torch.rand(3, 4, 32, 32), torch.rand(5, 3, 1, 32, 32)
    query, gallery = model.embed_queries(photos), model.embed_views(views)
    assert query.shape == (3, 22) and gallery.shape == (5, 3, 22)
    torch.testing.assert_close(query.norm(dim=1), torch.ones(3))
    cells = model.query_encoder.frozen_forward(model.photo_input(photos))[:, -model.query_encoder.fixed.in_features :]
    fixed = F.normalize(F.normalize(cells, dim=1) @ model.query_encoder.fixed.weight.T, dim=1)
    torch.testing.assert_close(query[:, 16:], fixed * 0.25**0.5)
    learnt, known = query[:, :16] @ gallery[..., :16].flatten(0, 1).T, query[:, 16:] @ gallery[..., 16:].flatten(0, 1).T
    by_hand = F.normalize(query[:, :16], dim=1) @ F.normalize(gallery[..., :16].flatten(0, 1), dim=1).T
    torch.testing.assert_close(learnt, 0.75 * by_hand)
    weights = attention_weights(query, gallery, model.attention())
    whole = (weights * (learnt + known).unflatten(1, (5, 3))).sum(-1)
    torch.testing.assert_close(model.score(query, gallery), whole)

    before = query[:, 16:].clone()
    model.query_encoder.head[1].weight.data.neg_()
    assert torch.equal(model.embed_queries(photos)[:, 16:], before)
    assert model.train().embed_queries(photos).shape == (3, 16) and model.attention().shape == (16, 16)
    assert not model.query_encoder.fixed.weight.requires_grad
    save_weights(tmp_path / "model.safetensors", model)
    again = build_model(FIXED)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(again.eval().embed_views(views), model.eval().embed_views(views))


@pytest.mark.parametrize("learning", [{"frozen": 0}, {"frozen": 4}, {"view_frozen": 4}])
def test_fixed_numbers_need_features_that_do_not_learn(learning):
    with pytest.raises(ConfigError, match=r"model\.fixed keeps the untrained features.*\n.*model\.frozen"):
        build_model(FIXED.model_copy(update=learning))


@pytest.mark.parametrize("mask", ["channel", "cutout", "none"])
def test_the_mask_is_seen_only_where_the_model_takes_it(mask):
    torch.manual_seed(0)
    model = build_model(TINY.model_copy(update={"mask": mask})).eval()
    photos = torch.rand(2, 4, 32, 32)
    other = photos.clone()
    other[:, 3] = -other[:, 3]
    assert torch.equal(model.embed_queries(photos), model.embed_queries(other)) == (mask == "none")


@pytest.mark.parametrize("background", [-1, 0], ids=["centred range", "released range"])
def test_a_cut_out_photo_is_the_object_on_white(background):
    model = build_model(TINY.model_copy(update={"mask": "cutout"}))
    photos = torch.rand(2, 4, 8, 8)
    photos[:, 3] = 1
    photos[:, 3, :4] = background
    cut = model.photo_input(photos)
    assert cut.shape == (2, 3, 8, 8)
    assert (cut[:, :, :4] == 1).all() and torch.equal(cut[:, :, 4:], photos[:, :3, 4:])


def test_one_seed_gives_one_model():
    def state(seed):
        torch.manual_seed(seed)
        return build_model(TINY).state_dict()

    first, again, other = state(1), state(1), state(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["attention_weight"], other["attention_weight"])
