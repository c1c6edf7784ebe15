import pytest
import torch

from cmiclib.batches import draw_batch, step_generator
from cmiclib.errors import TrainingError

PHOTO_SHAPE = torch.tensor([7, 3, 3, 9, 11, 7, 7, 0, 3, 1, 0, 9, 5])  # 13 photos of 7 shapes
SHAPES = 12


@pytest.mark.parametrize("size", [2, 4, 7, 12])
@pytest.mark.parametrize("step", range(12))
def test_columns_are_distinct_shapes_and_targets_point_at_the_own_one(size, step):
    batch = draw_batch(PHOTO_SHAPE, SHAPES, size, seed=1, step=step)
    assert len(batch.photos) == size
    assert len(set(batch.shapes.tolist())) == len(batch.shapes) == size
    assert set(batch.shapes.tolist()) <= set(range(SHAPES))
    assert torch.equal(batch.shapes[batch.target], PHOTO_SHAPE[batch.photos])


def test_each_photo_comes_at_most_once_an_epoch_and_epochs_differ():
    size, steps = 4, 3  # 13 photos: three batches, one photo left out
    epochs = [
        torch.cat([draw_batch(PHOTO_SHAPE, SHAPES, size, 0, epoch * steps + i).photos for i in range(steps)]).tolist()
        for epoch in range(30)
    ]
    assert all(len(set(photos)) == size * steps for photos in epochs)
    assert len({tuple(photos) for photos in epochs}) == 30
    assert {photo for photos in epochs for photo in photos} == set(range(13))  # none is left out for ever


def test_top_up_reaches_every_other_shape():
    photo_shape = torch.tensor([0, 0, 0, 0, 1, 2, 3, 4])
    drawn = [draw_batch(photo_shape, 6, 2, 0, step) for step in range(100)]
    doubles = [batch for batch in drawn if (photo_shape[batch.photos] == 0).all()]
    assert {int(batch.shapes[1]) for batch in doubles} == {1, 2, 3, 4, 5}  # 5 is on no photo


def test_a_batch_depends_on_seed_and_step_only():
    before = draw_batch(PHOTO_SHAPE, SHAPES, 4, seed=5, step=17)
    torch.manual_seed(0)
    torch.rand(100)
    after = draw_batch(PHOTO_SHAPE, SHAPES, 4, seed=5, step=17)
    assert all(torch.equal(getattr(before, name), getattr(after, name)) for name in ("photos", "shapes", "target"))
    assert not torch.equal(before.photos, draw_batch(PHOTO_SHAPE, SHAPES, 4, seed=6, step=17).photos)


@pytest.mark.parametrize(
    "photo_shape, shapes, cure",
    [([0, 1, 2, 0, 1, 2], 3, "train.batch=3"), ([0, 1, 2], 5, "train.batch=3"), ([0, 1], 3, "train.batch=2")],
)
def test_a_gallery_smaller_than_the_batch_raises_at_once(photo_shape, shapes, cure):
    with pytest.raises(TrainingError, match=cure):
        draw_batch(torch.tensor(photo_shape), shapes, 4, seed=0, step=0)


def test_streams_of_different_purpose_seed_and_step_differ():
    keys = [(0, 0, "epoch"), (0, 1, "epoch"), (1, 0, "epoch"), (0, 0, "augment"), (1, 11, "x"), (11, 1, "x")]
    draws = {tuple(torch.rand(3, generator=step_generator(*key)).tolist()) for key in keys}
    assert len(draws) == len(keys)


def test_more_shapes_than_photos_are_other_shapes_and_the_photos_stay():
    wide, whole, narrow = (draw_batch(PHOTO_SHAPE, SHAPES, 4, 0, 3, columns) for columns in (9, 2 * SHAPES, 0))
    assert torch.equal(wide.photos, narrow.photos) and torch.equal(whole.photos, narrow.photos)
    assert len(wide.shapes.unique()) == 9 and sorted(whole.shapes.tolist()) == list(range(SHAPES))
    assert torch.equal(wide.shapes[wide.target], PHOTO_SHAPE[wide.photos])
