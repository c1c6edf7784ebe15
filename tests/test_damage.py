"""What real photos suffer: things in front, poor masks, lost masks."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cmiclib.augment import augment_queries
from cmiclib.config import AugmentConfig
from cmiclib.damage import NOISE_CELLS, OCCLUDER_ZOOM, damage_masks, draw_occluders, occlude, shift


def photos(count: int = 6, side: int = 32) -> tuple[Tensor, Tensor]:
    """Photos of one gray each, (B, 3, S, S), with a square mask in their middle."""
    rgb = torch.linspace(0.1, 0.9, count).view(-1, 1, 1, 1).expand(count, 3, side, side)
    mask = torch.zeros(count, 1, side, side)
    mask[:, :, side // 4 : -side // 4, side // 4 : -side // 4] = 1
    return rgb.clone(), mask


def test_an_occluder_covers_exactly_where_its_mask_falls() -> None:
    rgb, mask = photos(2)
    box = torch.tensor([[-0.5, -0.5, 2.0, 2.0]]).expand(2, 4)  # half as large, in the middle
    changed = occlude(rgb, mask, box, torch.tensor([1, 0]), torch.tensor([True, False]))
    small = torch.zeros(32, 32, dtype=torch.bool)
    small[12:20, 12:20] = True
    assert torch.equal(changed[0, 0] == 0.9, small)
    assert torch.equal(changed[1], rgb[1])


def test_a_photo_without_a_mask_is_no_occluder() -> None:
    rgb, mask = photos(2)
    mask[1] = 1
    box = torch.tensor([[-0.5, -0.5, 2.0, 2.0]]).expand(2, 4)
    assert torch.equal(occlude(rgb, mask, box, torch.tensor([1, 1]), torch.tensor([True, True])), rgb)


def test_shift_agrees_with_a_loop() -> None:
    image = torch.rand(1, 1, 8, 8)
    moved = shift(image, torch.tensor([[0.25, -0.25, 1.0, 1.0]]))[0, 0]
    for y in range(8):
        for x in range(8):
            inside = x + 2 < 8 and y - 2 >= 0
            assert moved[y, x] == pytest.approx(float(image[0, 0, y - 2, x + 2]) if inside else 0.0, abs=1e-5)


def test_occluders_are_smaller_and_lie_inside() -> None:
    boxes = draw_occluders(500, torch.Generator().manual_seed(0))
    assert boxes[:, 2].min() >= OCCLUDER_ZOOM[0] and boxes[:, 2].max() <= OCCLUDER_ZOOM[1]
    assert torch.equal(boxes[:, 2], boxes[:, 3])
    assert (boxes[:, :2] <= 0).all() and (boxes[:, :2] + boxes[:, 2:] >= 1).all()  # the whole photo is in the box


def test_masks_move_as_much_as_asked() -> None:
    _, mask = photos(200, 64)
    noise = torch.randn(200, 1, NOISE_CELLS, NOISE_CELLS, generator=torch.Generator().manual_seed(1))

    def iou(strength: float) -> float:
        moved = damage_masks(mask, noise, torch.full((200,), strength))
        assert set(moved.unique().tolist()) <= {0.0, 1.0}
        return float(((mask * moved).sum((1, 2, 3)) / torch.maximum(mask, moved).sum((1, 2, 3))).mean())

    assert iou(0.0) == 1
    assert 1 > iou(0.6) > iou(0.8) > iou(1.0) > 0.5


def test_unknown_and_tiny_masks_stay() -> None:
    _, mask = photos(2)
    mask[0] = 1
    mask[1] = 0
    mask[1, 0, 3, 3] = 1
    noise = torch.zeros(2, 1, NOISE_CELLS, NOISE_CELLS)
    assert torch.equal(damage_masks(mask, noise, torch.ones(2)), mask)


def batch() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 4, 32, 32), np.uint8))


def augmented(**options: float) -> Tensor:
    config = AugmentConfig(color="none", flip=False, translate=0, query_scale=(1, 1), **options)  # type: ignore[arg-type]
    return augment_queries(batch(), config, 32, torch.Generator().manual_seed(0))


def test_each_option_changes_what_it_should() -> None:
    plain = augmented()
    for option, rgb, mask in (("occlusion", True, False), ("mask_damage", False, True), ("mask_drop", False, True)):
        changed = augmented(**{option: 0.5})
        photo = (changed[:, :3] != plain[:, :3]).flatten(1).any(1)
        outline = (changed[:, 3:] != plain[:, 3:]).flatten(1).any(1)
        assert photo.any() == rgb and outline.any() == mask
        assert not (photo | outline).all()  # a share of them
    assert (augmented(mask_drop=1.0)[:, 3] == 1).all()
