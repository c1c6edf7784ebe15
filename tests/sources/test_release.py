"""The released archive's layout, written here in small, and forged renderings."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from released_archive import write_archive, write_binvox

from cmiclib.errors import SourceError
from cmiclib.sources import PrepareOptions
from cmiclib.sources.release import prepare_release, read_binvox, read_renderings

SIDE = 32


@pytest.fixture
def archive(tiny_benchmark, tmp_path):
    return write_archive(tiny_benchmark, tmp_path / "pix3d")


def prepare(archive, tmp_path, output="out", val=0.1, allow_missing=False):
    options = PrepareOptions(size=SIDE, jobs=1, progress=False, allow_missing=allow_missing)
    return prepare_release(archive, tmp_path / output, options, val=val)


def test_everything_arrives_where_it_belongs(archive, tmp_path, tiny_benchmark):
    made = prepare(archive, tmp_path, val=0.3).benchmark
    assert made.name == "pix3d"
    order = [made.shapes.shape_id.tolist().index(name) for name in tiny_benchmark.shapes.shape_id]
    for name in ("views", "voxels", "points"):
        np.testing.assert_array_equal(getattr(made, name)[order], getattr(tiny_benchmark, name), name)
    for row, query in tiny_benchmark.queries.iterrows():
        split = "test" if query.split == "test" else "train"
        entry = made.queries[made.queries.query_id == f"{split}/img/{query.category}/{row:04}"].iloc[0]
        assert (entry.shape_id, entry.category) == (query.shape_id, query.category)
        assert entry.split == "test" if split == "test" else entry.split in ("train", "val")
        np.testing.assert_array_equal(made.images[entry.name][:3], tiny_benchmark.images[row][:3])
        np.testing.assert_array_equal(made.images[entry.name][3] >= 128, tiny_benchmark.images[row][3] >= 128)
    assert {"train", "val", "test"} == set(made.queries.split)
    trained = set(made.queries[made.queries.split == "train"].shape_id)
    assert all(query.seen == (query.shape_id in trained) for query in made.queries.itertuples())


def test_the_validation_part_depends_on_names_only(archive, tmp_path):
    first = prepare(archive, tmp_path, val=0.3).benchmark.queries
    other = prepare(archive, tmp_path, "again", val=0.3).benchmark.queries
    assert first.equals(other)
    none = prepare(archive, tmp_path, "none", val=0).benchmark.queries
    assert "val" not in set(none.split)


def test_voxels_and_points_may_be_missing_as_in_what_was_shipped(archive, tmp_path):
    for folder in ("model_std_bin128", "model_std_ptc10k_npy"):
        (archive / folder).rename(tmp_path / folder)
    made = prepare(archive, tmp_path).benchmark
    assert "points.npy" not in made.arrays and "voxels.npy" not in made.arrays


def test_missing_files_are_listed_or_left_out(archive, tmp_path):
    lost = sorted((archive / "img" / "box").glob("*.png"))[:2]
    for path in lost:
        path.unlink()
    with pytest.raises(SourceError, match="2 photos cannot be used") as error:
        prepare(archive, tmp_path)
    assert all(str(path) in str(error.value) for path in lost) and "--allow-missing" in str(error.value)
    whole = sum(len(json.loads(path.read_text())) for path in archive.glob("*.json"))
    made, left_out = prepare(archive, tmp_path, allow_missing=True)
    assert len(made.queries) == whole - 2 and len(left_out) == 2
    assert (made.path / "left_out.txt").read_text().splitlines() == left_out
    assert all(str(path) in line for path, line in zip(lost, sorted(left_out), strict=True))


def test_damaged_photos_are_all_listed_or_left_out(archive, tmp_path):
    damaged = sorted((archive / "img" / "box").glob("*.png"))[:2]
    for path in damaged:
        path.write_bytes(b"no photo")
    with pytest.raises(SourceError, match="2 photos cannot be used") as error:
        prepare(archive, tmp_path)
    assert all(str(path) in str(error.value) for path in damaged)
    assert len(prepare(archive, tmp_path, allow_missing=True).left_out) == 2


def test_damaged_points_cost_their_shape_and_its_photos(archive, tmp_path):
    np.save(archive / "model_std_ptc10k_npy/box/flat.npy", np.zeros((3, 3)))
    with pytest.raises(SourceError, match=r"1 shape cannot be used: .*flat.npy"):
        prepare(archive, tmp_path)
    made, left_out = prepare(archive, tmp_path, allow_missing=True)
    assert "box/flat" not in set(made.shapes.shape_id) | set(made.queries.shape_id)
    assert (made.path / "left_out.txt").read_text().splitlines() == left_out and len(left_out) == 7


def test_a_photo_of_a_shape_without_views_is_a_problem(archive, tmp_path):
    entries = json.loads((archive / "pix3d_test.json").read_text())
    entries[0]["model"] = "model/box/unknown/model.obj"
    (archive / "pix3d_test.json").write_text(json.dumps(entries))
    with pytest.raises(SourceError, match="no views of box/unknown"):
        prepare(archive, tmp_path)


@pytest.mark.parametrize("img", ["/etc/passwd", "../outside.png"])
def test_paths_that_leave_the_archive_are_refused(archive, tmp_path, img):
    entries = json.loads((archive / "pix3d_test.json").read_text())
    entries[0]["img"] = img
    (archive / "pix3d_test.json").write_text(json.dumps(entries))
    with pytest.raises(SourceError, match="leads out of the archive"):
        prepare(archive, tmp_path)


@pytest.mark.parametrize("text", ["", "{}x", '[{"img": 1}]', '{"img": "x"}', "[1]"])
def test_a_damaged_list_is_named(archive, tmp_path, text):
    (archive / "pix3d_train.json").write_text(text)
    with pytest.raises(SourceError, match=r"pix3d_train\.json"):
        prepare(archive, tmp_path)


def test_another_folder_says_what_is_expected(tmp_path):
    with pytest.raises(SourceError, match=r"\*_train\.json"):
        prepare_release(tmp_path, tmp_path / "out")


# Renderings


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


VIEWS = [np.full((4, 4), 9, np.uint8)] * 12


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_the_renderings_is_not_run(tmp_path, protocol):
    path = tmp_path / "rendering_x.pkl"
    path.write_bytes(pickle.dumps({"chair": {"a": [*VIEWS[:11], Bomb(tmp_path / "boom")]}}, protocol))
    with pytest.raises(SourceError, match="open, which is not data"):
        read_renderings(path)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("protocol", range(2, 6))
def test_gray_pictures_of_every_protocol_are_read(tmp_path, protocol):
    path = tmp_path / "rendering_x.pkl"
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path.write_bytes(pickle.dumps({"chair": {"a": [Image.fromarray(gray)] * 12}}, protocol))
    views = read_renderings(path)["chair/a"]
    assert len(views) == 12 and all(np.array_equal(view, gray) for view in views)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2], {"chair": [1]}, {"chair": {"a": VIEWS[:11]}}, {"chair": {"a": 3}}, {"chair": {"a": ["x"] * 12}},
        {"chair": {"a": [np.zeros((2, 2))] * 12}}, {"chair": {"a": [np.zeros((0, 0), np.uint8)] * 12}},
        {"chair": {"a": [Image.new("RGB", (2, 2))] * 12}},
    ],
    ids=["list", "no instances", "eleven", "number", "text", "floats", "empty", "colour"],
)  # fmt: skip
def test_other_content_is_refused(tmp_path, content):
    path = tmp_path / "rendering_x.pkl"
    path.write_bytes(pickle.dumps(content, 4))
    with pytest.raises(SourceError, match=r"rendering_x\.pkl"):
        read_renderings(path)


# Binvox


def test_a_grid_comes_back(tmp_path):
    grid = np.random.default_rng(0).random((128, 128, 128)) < 0.3
    write_binvox(tmp_path / "x.binvox", grid)
    assert np.array_equal(read_binvox(tmp_path / "x.binvox"), grid)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-2], lambda b: b + b"\x01\x05", lambda b: b.replace(b"128", b"999"), lambda b: b"nothing"]
)
def test_a_damaged_grid_is_refused(tmp_path, damage):
    path = tmp_path / "x.binvox"
    write_binvox(path, np.zeros((128, 128, 128), bool))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match=r"x\.binvox"):
        read_binvox(path)
