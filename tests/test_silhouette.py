"""The learnt silhouette: what it returns, what it is told, how it is kept, and that the shipped one knows objects."""

import numpy as np
import pytest
import torch
import train_general
import train_silhouette as tool
from safetensors.torch import load_file, save_file

from cmiclib.benchmark.splits import read_split
from cmiclib.benchmark.writer import BenchmarkWriter
from cmiclib.errors import CheckpointError
from cmiclib.io.foreground import automatic_mask
from cmiclib.io.images import read_mask, read_photo, square_crop
from cmiclib.silhouette import FILE, SIDE, Silhouette, boxes_of, cut_softly, load_silhouette, silhouettes
from cmiclib.sources.sweethome import open_sweethome


@pytest.fixture(scope="module")
def network() -> Silhouette:
    return load_silhouette()


def overlap(found: np.ndarray, masks: np.ndarray) -> float:
    found, masks = found >= 0.5, masks >= 128
    return float(((found & masks).sum((1, 2)) / (found | masks).sum((1, 2))).mean())


def test_logits_have_half_the_side_and_only_the_decoder_learns(network):
    crops, boxes = torch.zeros(2, 3, SIDE, SIDE), torch.ones(2, 1, SIDE, SIDE)
    assert network(crops, boxes).shape == (2, 1, SIDE // 2, SIDE // 2)
    assert not any(name.startswith("stages") for name in network.state_dict())
    learns = Silhouette()
    before = [tensor.clone() for stage in learns.stages[0] for tensor in stage.state_dict().values()]
    learns.train()(crops, boxes).sum().backward()
    assert all(weight.grad is not None for weight in learns.parameters())
    after = [tensor for stage in learns.stages[0] for tensor in stage.state_dict().values()]
    assert all(map(torch.equal, before, after))


def test_a_mirrored_crop_has_the_mirrored_silhouette(network):
    crops = np.random.default_rng(0).integers(0, 256, (3, 3, 90, 90), np.uint8)
    boxes = np.array([[0.1, 0.2, 0.7, 0.9], [0, 0, 1, 1], [0.3, 0.1, 0.9, 0.8]])
    mirrored = boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (1, 0, 1, 0)
    plain = silhouettes(crops, boxes, network)
    assert plain.shape == (3, 90, 90) and plain.dtype == np.float32 and plain.min() >= 0 and plain.max() <= 1
    np.testing.assert_allclose(silhouettes(crops[..., ::-1], mirrored, network), plain[..., ::-1], atol=1e-4)
    one_by_one = [silhouettes(crops[i : i + 1], boxes[i : i + 1], network)[0] for i in range(3)]
    np.testing.assert_allclose(np.stack(one_by_one), plain, atol=1e-4)
    assert silhouettes(crops[:0], boxes[:0], network).shape == (0, 90, 90)


def test_a_soft_cut_out_is_a_blend_with_white():
    crop = np.full((1, 4, 2, 2), 100, np.uint8)
    soft = np.array([[[0.0, 1.0], [0.5, 0.25]]], np.float32)
    cut = cut_softly(crop, soft)
    assert cut.dtype == np.uint8 and (cut[:, 3] == 255).all()
    np.testing.assert_array_equal(cut[0, 0], [[255, 100], [178, 216]])


def test_boxes_of_masks():
    masks = np.zeros((2, 10, 10), bool)
    masks[0, 2:5, 7:10] = masks[1, :, 0] = True
    np.testing.assert_allclose(boxes_of(masks), [[0.7, 0.2, 1.0, 0.5], [0, 0, 0.1, 1]])


def test_loading_draws_no_random_numbers_and_names_what_is_wrong(tmp_path):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    load_silhouette.cache_clear()
    load_silhouette()
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(CheckpointError, match="train_silhouette"):
        load_silhouette(tmp_path / "none.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="not the weights"):
        load_silhouette(tmp_path / "damaged.safetensors")
    weights = load_file(FILE)
    weights.pop("logit.bias")
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not the weights"):
        load_silhouette(tmp_path / "other.safetensors")


def test_the_shipped_one_finds_objects_better_than_their_box_and_than_grabcut(network):
    home = open_sweethome()
    rows = home.rows("val")[::30]
    crops = np.array(home.images[rows])
    boxes, masks = boxes_of(crops[:, 3] >= 128), crops[:, 3]
    found = overlap(silhouettes(crops, boxes, network), masks)
    side = crops.shape[-1]
    whole, cut = np.zeros((2, len(rows), side, side))
    for i, box in enumerate(boxes):
        x0, y0, x1, y1 = (box * side).round().astype(int)
        whole[i, y0:y1, x0:x1] = 1
        rgb = np.ascontiguousarray(crops[i, :3].transpose(1, 2, 0))
        cut[i] = automatic_mask(rgb, (x0, y0, x1, y1)).mask
    assert found > overlap(whole, masks) + 0.1
    assert found > overlap(cut, masks)
    assert found > 0.8


@pytest.fixture(scope="module")
def pictures() -> tool.Pictures:
    home = open_sweethome()
    return tool.Pictures(tool.photos_with_masks(home, home.rows("val")[:40]))


def test_what_is_learnt_is_the_whole_object(tmp_path):
    image, whole = np.zeros((4, 16, 16), np.uint8), np.zeros((16, 16), np.uint8)
    image[3, 4:8, 4:8] = whole[4:12, 4:8] = 255
    with BenchmarkWriter(tmp_path / "made", name="made", source="", licence="", size=16) as writer:
        writer.add_shape("s", "chair", views=np.indices((12, 16, 16)).sum(0).astype(np.uint8))
        for name, known in (("known", whole), ("unknown", None)):
            writer.add_query(name, "s", "chair", image, split="train", amodal=known)
        made = writer.finish()
    joined = train_general.join(tmp_path / "joined", [made])
    photos = tool.photos_with_masks(joined, np.arange(2))
    assert photos.shape == (2, 5, 16, 16) and torch.equal(photos[:, :4], torch.from_numpy(np.array(made.images)))
    np.testing.assert_array_equal(photos[:, 4], [whole, image[3]])
    areas = [tool.Pictures(photos[[row]]).draw(8, torch.Generator().manual_seed(0))[1].mean() for row in (0, 1)]
    assert areas[0] > 1.7 * areas[1], "the hidden half belongs to the object"


def test_some_row_is_always_drawn():
    drawn = [tool.draw_rows(4, 0.2, torch.Generator().manual_seed(seed)) for seed in range(300)]
    assert min(map(len, drawn)) == 1
    assert 0.2 < np.mean([len(rows) for rows in drawn]) / 4 < 0.35


def test_composed_pictures_show_their_object_in_its_box(pictures):
    rgb, mask, box = pictures.draw(24, torch.Generator().manual_seed(0))
    assert rgb.shape == (24, 3, SIDE, SIDE) and mask.shape == box.shape == (24, 1, SIDE, SIDE)
    assert rgb.min() >= 0 and rgb.max() <= 1 and set(box.unique().tolist()) == {0.0, 1.0}
    silent = (box.amin((1, 2, 3)) == 1).sum()
    assert 0 < silent < 12
    inside = ((mask > 0.5) * box).sum((1, 2, 3)) / (mask > 0.5).sum((1, 2, 3))
    assert inside.median() > 0.9, "frames cut some off, and boxes are a little wrong"
    again = pictures.draw(24, torch.Generator().manual_seed(0))
    assert all(map(torch.equal, again, (rgb, mask, box)))


def test_boxes_without_errors_are_those_of_the_masks(monkeypatch):
    monkeypatch.setattr(tool, "uniform", lambda generator, shape, low, high: torch.zeros(shape))
    monkeypatch.setattr(tool, "SILENT", 0.0)
    masks = torch.zeros(2, 1, SIDE, SIDE)
    masks[0, 0, 20:50, 60:70], masks[1, 0, 0:3, 100:] = 1, 1
    np.testing.assert_array_equal(tool.draw_boxes(masks, torch.Generator().manual_seed(0)), masks)


def test_a_frame_that_ends_early_repeats_its_edge():
    rgb = torch.rand(40, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    cut, frame = tool.cut_off(rgb, torch.Generator().manual_seed(2))
    ended = frame.amin((1, 2, 3)) == 0
    assert 0 < ended.sum() < 40
    assert torch.equal(cut[~ended], rgb[~ended])
    kept = frame.bool().expand_as(rgb)
    assert torch.equal(cut[kept], rgb[kept])
    row = next(i for i in range(40) if frame[i, 0, :, SIDE // 2].min() == 0)
    column = frame[row, 0, :, SIDE // 2]
    assert column.sum() < SIDE and len(cut[row, 0, :, SIDE // 2].unique()) <= column.sum() + 1


def test_a_training_that_was_stopped_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "BATCH", 2)
    monkeypatch.setattr(tool, "SAVE_EVERY", 2)
    monkeypatch.setattr(tool, "JUDGED", 4)

    def train(work: str) -> None:
        arguments = ["train", "--photos", str(open_sweethome().path), "--work", str(tmp_path / work), "--steps", "4"]
        monkeypatch.setattr("sys.argv", arguments)
        tool.main()

    train("whole")
    draw, calls = tool.Pictures.draw, []

    def stops(self, count, generator):
        calls.append(count)
        if len(calls) == 4:  # the third step, after one look at validation photos
            raise KeyboardInterrupt
        return draw(self, count, generator)

    monkeypatch.setattr(tool.Pictures, "draw", stops)
    with pytest.raises(KeyboardInterrupt):
        train("stopped")
    monkeypatch.setattr(tool.Pictures, "draw", draw)
    train("stopped")
    whole, stopped = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys() and all(torch.equal(whole[name], stopped[name]) for name in whole)
    network = load_silhouette(tmp_path / "whole/model.safetensors")
    assert network(torch.zeros(1, 3, SIDE, SIDE), torch.ones(1, 1, SIDE, SIDE)).isfinite().all()


def test_the_loss_is_small_only_for_the_right_mask():
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., :64, :] = 1
    right = logits_of(mask)
    assert tool.loss(right, mask)[0] < 0.1 < 1 < tool.loss(-right, mask)[0]
    assert tool.loss(right, mask)[1] > 0.95


def logits_of(mask: torch.Tensor) -> torch.Tensor:
    return 20 * (torch.nn.functional.avg_pool2d(mask, 2) - 0.5)


@pytest.mark.shared
def test_real_photos_are_better_marked_than_by_their_box(network, pix3d_photos):
    crops = pix3d_photos
    boxes, masks = boxes_of(crops[:, 3] >= 128), crops[:, 3]
    side = crops.shape[-1]
    whole = np.zeros(masks.shape)
    for i, box in enumerate(boxes):
        x0, y0, x1, y1 = (box * side).round().astype(int)
        whole[i, y0:y1, x0:x1] = 1
    assert overlap(silhouettes(crops, boxes, network), masks) > overlap(whole, masks) + 0.05


@pytest.fixture
def pix3d_photos(shared_root) -> np.ndarray:
    """Photos of Pix3D's val half with the masks of its models, (Q, 4, 224, 224)."""
    root, parts = shared_root / "pix3d", read_split("pix3d-open")
    crops = []
    for path in sorted((root / "img").rglob("*.*")):
        name = path.relative_to(root / "img").with_suffix("").as_posix()
        mask = (root / "mask" / name).with_suffix(".png")
        if parts.get(name) == "val" and mask.is_file():
            crops.append(square_crop(read_photo(path), read_mask(mask)))
    assert len(crops) > 20
    return np.stack(crops[::2])
