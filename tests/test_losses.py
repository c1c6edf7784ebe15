"""Both losses against the authors' arrays, a slow loop, closed forms and pytorch-metric-learning."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss, TripletMarginLoss

from cmiclib.config import LossConfig
from cmiclib.losses import category_loss, cmic_loss, instance_loss
from cmiclib.training.other_losses import hard_negative_loss, total_loss, triplet_loss

PARITY = Path(__file__).parent / "data" / "parity" / "parity_losses.npz"
CASES = [
    "all_distinct",
    "repeats",
    "single_category",
    "single_category_images",
    "lonely_category",
    "lonely_exact_one",
]
TAU, LOSS_TOLERANCE, GRADIENT_TOLERANCE = 0.1, 4e-6, 2e-7
RELEASED = LossConfig(tau=TAU, category_weight=0.2, include_instance=True)


@pytest.fixture(scope="module")
def parity():
    with np.load(PARITY) as arrays:
        return {name: arrays[name] for name in arrays.files}


def load(parity, case):
    """Scores as (photo, shape), with gradients, and labels; the arrays of the reference are (shape, photo)."""
    scores = torch.from_numpy(parity[f"{case}/prod_mat"]).T.clone().requires_grad_()
    target = torch.from_numpy(parity[f"{case}/inst_index"]).long()
    shape_category = torch.from_numpy(parity[f"{case}/shape_cats_index"])
    image_category = torch.from_numpy(parity[f"{case}/image_cats_index"])
    return scores, target, image_category[:, None] == shape_category[None, :]


@pytest.fixture
def batch():
    """9 photos of 5 of 7 shapes; shapes 0-2, 3-4 and 5-6 are of one category each, shape 5 has no photo."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(9, 7, generator=generator, dtype=torch.float64)
    target = torch.tensor([0, 1, 1, 2, 3, 3, 3, 6, 0])
    category = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    return scores, target, category[target][:, None] == category[None, :]


def slow_losses(scores, target, same_category, tau, include_instance):
    """Both losses with scalar arithmetic and loops."""
    instance, category = [], []
    for i, row in enumerate((scores / tau).tolist()):
        total = sum(math.exp(value) for value in row)
        instance.append(-math.log(math.exp(row[target[i]]) / total))
        terms = [
            -math.log(math.exp(row[j]) / total)
            for j in range(len(row))
            if same_category[i, j] and (include_instance or j != target[i])
        ]
        if terms:
            category.append(sum(terms) / len(terms))
    return sum(instance) / len(instance), sum(category) / len(category)


@pytest.mark.parametrize("case", CASES)
def test_instance_loss_and_gradient_match_the_released_code(parity, case):
    scores, target, _ = load(parity, case)
    loss = instance_loss(scores, target, TAU)
    loss.backward()
    torch.testing.assert_close(loss.item(), float(parity[f"{case}/loss_inst"]), atol=LOSS_TOLERANCE, rtol=0)
    gradient = parity.get(f"{case}/grad_loss_inst")
    if gradient is not None:
        np.testing.assert_allclose(scores.grad.T, gradient, atol=GRADIENT_TOLERANCE)


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("single_category", "lonely_exact_one")])
def test_category_loss_and_gradient_match_the_released_code(parity, case):
    scores, target, same = load(parity, case)
    loss = category_loss(scores, same, TAU, target=target)
    loss.backward()
    torch.testing.assert_close(loss.item(), float(parity[f"{case}/loss_cats"]), atol=LOSS_TOLERANCE, rtol=0)
    np.testing.assert_allclose(scores.grad.T, parity[f"{case}/grad_loss_cats"], atol=GRADIENT_TOLERANCE)


@pytest.mark.parametrize("case", [case for case in CASES if case != "lonely_exact_one"])
def test_total_loss_and_gradient_match_the_released_code(parity, case):
    scores, target, same = load(parity, case)
    total, _, category = cmic_loss(scores, target, same, RELEASED)
    total.backward()
    torch.testing.assert_close(total.item(), float(parity[f"{case}/loss_total"]), atol=LOSS_TOLERANCE, rtol=0)
    np.testing.assert_allclose(scores.grad.T, parity[f"{case}/grad_total"], atol=GRADIENT_TOLERANCE)
    assert (category.item() != 0) == bool(parity[f"{case}/has_cat_loss"])


@pytest.mark.parametrize("case", [case for case in CASES if case != "single_category"])
def test_the_released_option_matches_the_released_code_in_every_case(parity, case):
    scores, target, same = load(parity, case)
    config = RELEASED.model_copy(update={"zero_losses": "dropped"})
    total, _, category = cmic_loss(scores, target, same, config)
    total.backward()
    torch.testing.assert_close(category.item(), float(parity[f"{case}/loss_cats"]), atol=LOSS_TOLERANCE, rtol=0)
    torch.testing.assert_close(total.item(), float(parity[f"{case}/loss_total"]), atol=LOSS_TOLERANCE, rtol=0)
    np.testing.assert_allclose(scores.grad.T, parity[f"{case}/grad_total"], atol=GRADIENT_TOLERANCE)


def test_released_code_drops_photos_whose_loss_rounds_to_zero(parity):
    """Its mean is over losses other than 0; a photo that takes the whole softmax counts here, as 0."""
    case = "lonely_exact_one"
    scores, _, same = load(parity, case)
    rows = torch.stack([category_loss(scores[i : i + 1], same[i : i + 1], TAU) for i in range(len(scores))])
    rounded_to_zero = torch.from_numpy(parity[f"{case}/loss_cats_per_image"] == 0)
    assert rounded_to_zero.sum() >= 1
    assert (rows[rounded_to_zero] < 1e-6).all()
    released = rows[~rounded_to_zero].mean().item()
    assert released == pytest.approx(float(parity[f"{case}/loss_cats"]), abs=LOSS_TOLERANCE)
    ours = category_loss(scores, same, TAU).item()
    assert ours == pytest.approx(rows.mean().item(), abs=LOSS_TOLERANCE)
    assert released - ours > 0.5


@pytest.mark.parametrize("include_instance", [True, False])
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_losses_match_a_slow_loop(batch, tau, include_instance):
    scores, target, same = batch
    instance, category = slow_losses(scores, target.tolist(), same, tau, include_instance)
    assert instance_loss(scores, target, tau).item() == pytest.approx(instance, abs=1e-10)
    mine = category_loss(scores, same, tau, include_instance, target)
    assert mine.item() == pytest.approx(category, abs=1e-10)


def test_equal_scores_give_the_logarithm_of_the_number_of_shapes(batch):
    _, target, same = batch
    equal = torch.full((9, 7), 0.3)
    for loss in (instance_loss(equal, target, TAU), category_loss(equal, same, TAU)):
        assert loss.item() == pytest.approx(math.log(7), rel=1e-6)


def test_two_shapes_give_softplus():
    scores = torch.tensor([[0.8, 0.1]], dtype=torch.float64)
    expected = math.log1p(math.exp((0.1 - 0.8) / TAU))
    assert instance_loss(scores, torch.tensor([0]), TAU).item() == pytest.approx(expected, rel=1e-12)
    same = torch.tensor([[True, True]])
    assert category_loss(scores, same, TAU).item() == pytest.approx(expected + 3.5, rel=1e-12)


def test_large_scores_stay_finite(batch):
    scores, target, same = batch
    scores = (1000 * scores).float().requires_grad_()
    total, _, _ = total_loss(scores, target, same, LossConfig(symmetric=True))
    total.backward()
    assert total.isfinite() and scores.grad.isfinite().all()


def test_half_precision_is_computed_in_float32(batch):
    scores, target, same = batch
    half = scores.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = instance_loss(half, target, TAU), category_loss(half, same, TAU)
    expected = instance_loss(half.float(), target, TAU), category_loss(half.float(), same, TAU)
    assert all(value.dtype == torch.float32 for value in result)
    torch.testing.assert_close(result, expected)


def test_gradients_match_finite_differences(batch):
    scores, target, same = batch
    config = LossConfig(tau=0.5, include_instance=False, symmetric=True)
    assert torch.autograd.gradcheck(lambda s: total_loss(s, target, same, config), scores.requires_grad_())


def test_photos_without_positives_are_left_out(batch):
    scores, target, same = batch
    lonely = same.clone()
    lonely[0] = False
    torch.testing.assert_close(category_loss(scores, lonely, TAU), category_loss(scores[1:], same[1:], TAU))
    own = torch.nn.functional.one_hot(target, 7).bool()  # each shape is the only one of its category
    leaf = scores.clone().requires_grad_()
    loss = category_loss(leaf, own, TAU, include_instance=False, target=target)
    loss.backward()
    assert loss.item() == 0 and (leaf.grad == 0).all()


def test_a_batch_of_one_category_has_no_category_loss(batch):
    scores, target, same = batch
    total, instance, category = cmic_loss(scores, target, torch.ones_like(same), RELEASED)
    assert category.item() == 0 and total.item() == instance.item()
    total, instance, category = cmic_loss(scores, target, same, RELEASED)
    assert category.item() > 0
    assert total.item() == pytest.approx(instance.item() + 0.2 * category.item())


def test_symmetric_loss_adds_the_direction_from_shape_to_photo(batch):
    scores, target, same = batch
    _, instance, _ = total_loss(scores, target, same, LossConfig(tau=TAU, symmetric=True))
    columns = []
    for shape in sorted(set(target.tolist())):  # shapes 4 and 5 have no photo
        values = (scores[:, shape] / TAU).exp()
        terms = [-(values[i] / values.sum()).log() for i in range(9) if target[i] == shape]
        columns.append(sum(terms) / len(terms))
    expected = (instance_loss(scores, target, TAU) + sum(columns) / len(columns)) / 2
    torch.testing.assert_close(instance, expected)


def embeddings(count, seed):
    vectors = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=1)


def test_instance_loss_is_nt_xent_of_photos_against_shapes():
    photos, shapes = embeddings(8, 1), embeddings(8, 2)
    labels = torch.arange(8)
    oracle = NTXentLoss(temperature=TAU, distance=CosineSimilarity())
    expected = oracle(photos, labels, ref_emb=shapes, ref_labels=labels.clone())  # not the same object
    torch.testing.assert_close(instance_loss(photos @ shapes.T, labels, TAU), expected)


def test_category_loss_is_supcon_of_photos_against_shapes():
    photos, shapes = embeddings(9, 3), embeddings(7, 4)
    photo_category = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 3])
    shape_category = torch.tensor([0, 0, 0, 1, 1, 2, 3])
    oracle = SupConLoss(temperature=TAU, distance=CosineSimilarity())
    expected = oracle(photos, photo_category, ref_emb=shapes, ref_labels=shape_category)
    same = photo_category[:, None] == shape_category[None, :]
    torch.testing.assert_close(category_loss(photos @ shapes.T, same, TAU), expected)


def slow_hard_negative_loss(scores, target, tau, beta):
    """As Robinson et al. write it: importance weights with mean 1 on the wrong shapes' exponentials."""
    losses = []
    for i, row in enumerate((scores / tau).tolist()):
        wrong = [value for j, value in enumerate(row) if j != target[i]]
        importance = [math.exp(beta * value) for value in wrong]
        mean = sum(importance) / len(importance)
        total = sum(w / mean * math.exp(value) for w, value in zip(importance, wrong, strict=True))
        right = math.exp(row[target[i]])
        losses.append(-math.log(right / (right + total)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_hard_negative_loss_matches_a_slow_loop(batch, tau, beta):
    scores, target, _ = batch
    expected = slow_hard_negative_loss(scores, target.tolist(), tau, beta)
    assert hard_negative_loss(scores, target, tau, beta).item() == pytest.approx(expected, abs=1e-10)


def test_hard_negative_loss_without_concentration_is_the_instance_loss(batch):
    scores, target, _ = batch
    torch.testing.assert_close(hard_negative_loss(scores, target, TAU, 0.0), instance_loss(scores, target, TAU))


def test_hard_negative_loss_in_closed_form(batch):
    _, target, _ = batch
    equal = torch.full((9, 7), 0.3, dtype=torch.float64)
    assert hard_negative_loss(equal, target, TAU, 3.0).item() == pytest.approx(math.log(7), rel=1e-12)
    two, first = torch.tensor([[0.8, 0.1]], dtype=torch.float64), torch.tensor([0])
    plain = instance_loss(two, first, TAU)
    assert hard_negative_loss(two, first, TAU, 3.0).item() == pytest.approx(plain.item(), rel=1e-12)
    assert hard_negative_loss(two[:, :1], first, TAU, 3.0).item() == 0


def test_hard_negatives_make_the_hardest_wrong_shape_pull_more(batch):
    scores, target, _ = batch
    shares = []
    for beta in (0.0, 1.0, 4.0):
        leaf = scores.clone().requires_grad_()
        hard_negative_loss(leaf, target, 1.0, beta).backward()
        wrong = leaf.grad.masked_fill(torch.nn.functional.one_hot(target, 7).bool(), 0).clamp(min=0)
        hardest = scores.scatter(1, target[:, None], -torch.inf).argmax(dim=1, keepdim=True)
        shares.append((wrong.gather(1, hardest).squeeze(1) / wrong.sum(dim=1)).mean().item())
    assert shares[0] < shares[1] < shares[2]


def test_triplet_loss_matches_a_slow_loop_and_pytorch_metric_learning():
    photos, shapes = embeddings(9, 5), embeddings(7, 6)
    target = torch.tensor([0, 1, 1, 2, 3, 3, 3, 6, 0])
    scores = photos @ shapes.T
    terms = [0.4 + scores[i, j] - scores[i, target[i]] for i in range(9) for j in range(7) if j != target[i]]
    active = [term.item() for term in terms if term > 0]
    assert 0 < len(active) < len(terms)
    mine = triplet_loss(scores, target, 0.4)
    assert mine.item() == pytest.approx(sum(active) / len(active), rel=1e-12)
    oracle = TripletMarginLoss(margin=0.4, distance=CosineSimilarity())
    torch.testing.assert_close(mine, oracle(photos, target, ref_emb=shapes, ref_labels=torch.arange(7)))


def test_solved_triplets_cost_nothing_and_leave_no_gradient():
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.0, 0.5, 0.1]]).requires_grad_()
    loss = triplet_loss(scores, torch.tensor([0, 1]), 0.2)
    loss.backward()
    assert loss.item() == 0 and (scores.grad == 0).all()


def test_the_total_takes_the_instance_loss_that_is_configured(batch):
    scores, target, same = batch
    hard = LossConfig(tau=TAU, hard_negatives=2.0)
    triplet = LossConfig(tau=TAU, instance="triplet", margin=0.3, category_weight=0.5)
    total, instance, category = total_loss(scores, target, same, triplet)
    assert instance == triplet_loss(scores, target, 0.3) and total == instance + 0.5 * category
    assert total_loss(scores, target, same, hard)[1] == hard_negative_loss(scores, target, TAU, 2.0)


@pytest.mark.parametrize(
    "options", [{}, {"hard_negatives": 1.5}, {"symmetric": True}, {"instance": "triplet"}, {"zero_losses": "dropped"}]
)
def test_where_every_other_shape_is_right_as_well_no_loss_and_no_gradient_is_nan(batch, options):
    scores, target, same = batch
    config, excluded = LossConfig(tau=TAU, **options), torch.zeros(9, 7, dtype=torch.bool)
    excluded[0, 1:] = True  # nothing is wrong for photo 0
    excluded[:, 5] = True  # a shape without photos, right for all
    leaf = scores.masked_fill(excluded, -torch.inf).requires_grad_()
    losses = total_loss(leaf, target, same & ~excluded, config)
    losses[0].backward()
    assert all(loss.isfinite() for loss in losses) and leaf.grad.isfinite().all()
    if not config.symmetric:  # in the other direction photo 0 is compared with other photos
        others = total_loss(leaf[1:], target[1:], (same & ~excluded)[1:], config)[1]
        assert losses[1].item() == pytest.approx(others.item() * (1 if options.get("instance") else 8 / 9), rel=1e-9)
        assert (leaf.grad[0] == 0).all()


def test_gradients_of_both_alternatives_match_finite_differences(batch):
    scores, target, same = batch
    for config in (LossConfig(tau=0.5, hard_negatives=1.5), LossConfig(tau=0.5, instance="triplet", margin=0.37)):
        leaf = scores.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda s, config=config: total_loss(s, target, same, config), leaf)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, t, m: (s[0], t, m), "pass floats"),
        (lambda s, t, m: (s.long(), t, m), "pass floats"),
        (lambda s, t, m: (s, t[:-1], m), "one column a photo"),
        (lambda s, t, m: (s, t.float(), m), "one column a photo"),
        (lambda s, t, m: (s, t, m[:, :-1]), "pass bool"),
        (lambda s, t, m: (s, t, m.float()), "pass bool"),
    ],
)
def test_wrong_input_names_the_cure(batch, change, message):
    scores, target, same = change(*batch)
    with pytest.raises(ValueError, match=message):
        cmic_loss(scores, target, same, RELEASED)


def test_wrong_options_name_the_cure(batch):
    scores, target, same = batch
    with pytest.raises(ValueError, match="above 0"):
        instance_loss(scores, target, 0.0)
    with pytest.raises(ValueError, match=r"margin is 0.0: pass a number above 0"):
        triplet_loss(scores, target, 0.0)
    with pytest.raises(ValueError, match="one column a photo"):
        hard_negative_loss(scores, target[:-1], TAU, 1.0)
    with pytest.raises(ValueError, match="needs target"):
        category_loss(scores, same, TAU, include_instance=False)
