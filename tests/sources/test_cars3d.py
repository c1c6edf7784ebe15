"""StanfordCars3D and CompCars3D: an archive in small, drawn without rays; damage of every kind; the real annotation."""

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from cmiclib.benchmark import Benchmark
from cmiclib.cli import app
from cmiclib.errors import SourceError
from cmiclib.geometry import load_mesh
from cmiclib.geometry.rays import Rays
from cmiclib.io.images import square_crop
from cmiclib.io.pickles import load_pickle
from cmiclib.sources import Prepared, PrepareOptions
from cmiclib.sources.cars3d import COMPCARS, STANFORD, CarSet, prepare_cars3d
from cmiclib.sources.cars3d.camera import WIDTH, Pose, read_poses, rotation, silhouette
from cmiclib.sources.own.listings import hash_share

SIDE = 96
PAINT, GROUND = (230, 60, 40), (40, 90, 120)
BOXES = {  # extents and places in the file's frame: +x the front, +y up; nothing is symmetric from end to end
    "aaa1": [((0.86, 0.12, 0.36), (0, -0.08, 0)), ((0.4, 0.14, 0.3), (-0.15, 0.05, 0))],
    "bbb2": [((0.9, 0.24, 0.3), (0, 0, 0)), ((0.06, 0.05, 0.3), (0.4, 0.14, 0))],
    "ccc3": [((0.8, 0.3, 0.4), (0, 0, 0)), ((0.1, 0.1, 0.1), (0.4, 0.2, 0.1))],
}


def pose(model_id: str, seed: int) -> Pose:
    rng = np.random.default_rng(seed)
    f, (u, v) = rng.uniform(300, 600), rng.uniform(-20, 20, 2).tolist()
    distance = f / 330 * rng.uniform(1.2, 1.5)
    return Pose(model_id, rng.uniform(0, 6.28), rng.uniform(-0.1, 0.5), rng.uniform(-0.3, 0.3), distance, u, v, f)


TRAIN = {f"{k:05}.jpg": pose(("aaa1", "bbb2")[k % 2], k) for k in range(1, 8)}
TEST = {f"{k:05}.jpg": pose(("aaa1", "bbb2")[k % 2], 90 + k) for k in range(1, 4)}


def draw(mesh: trimesh.Trimesh, pose: Pose, width: int, height: int, fine: int = 4) -> np.ndarray:
    """The mask, a triangle after the other; the camera is placed by its direction, not by three rotations."""
    a, e, t = pose.azimuth, pose.elevation, pose.theta
    back = np.array([math.cos(e) * math.sin(a), math.sin(e), -math.cos(e) * math.cos(a)])
    right = np.cross([0, 1, 0], back) / math.cos(e)
    offset = mesh.vertices - back * pose.distance
    x, y = offset @ right, -offset @ np.cross(back, right)  # y down
    x, y = x * math.cos(t) - y * math.sin(t), x * math.sin(t) + y * math.cos(t)
    plane = np.stack([x, y], axis=1) / -(offset @ back)[:, None] * pose.f + [150 + pose.u, pose.v]
    pixels = (plane * width / 300 + [0, height / 2]) * fine
    image = Image.new("L", (width * fine, height * fine))
    for corners in pixels[mesh.faces]:
        ImageDraw.Draw(image).polygon([tuple(corner) for corner in corners], fill=255)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX)) >= 128


def project(points: np.ndarray, pose: Pose, width: int, height: int) -> np.ndarray:
    """Where points (n, 3) of the model's file fall in its photo: (n, 2) columns and rows in pixels."""
    x, y, z = (points @ rotation(pose).T - [0, 0, pose.distance]).T
    column, row = WIDTH / 2 + pose.u + pose.f * x / -z, pose.v - pose.f * y / -z
    return np.stack([width / WIDTH * column, height / 2 + width / WIDTH * row], axis=1)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def write_records(path: Path, poses: dict[str, Pose]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({name: asdict(pose) for name, pose in poses.items()}, 2))


def size_of(name: str) -> tuple[int, int]:
    return (330, 220) if name < "00003" else (240, 200)


def write_root(root: Path, cars: CarSet) -> Path:
    meshes = {}
    for model_id, boxes in BOXES.items():
        parts = [trimesh.creation.box(extents).apply_translation(place) for extents, place in boxes]
        meshes[model_id] = trimesh.util.concatenate(parts)
        path = root / "CAD" / "02958343" / model_id / "model.obj"
        path.parent.mkdir(parents=True)
        meshes[model_id].export(path)
    (root / "CAD" / f"{cars.folder}3D.txt").write_text("aaa1\nbbb2\nbbb2\nccc3\n")
    for split, poses in (("train", TRAIN), ("test", TEST)):
        prefix = f"78/{split}/" if cars is COMPCARS else ""
        for name, given in poses.items():
            photo = root / cars.folder / cars.photos[split] / prefix / name
            photo.parent.mkdir(parents=True, exist_ok=True)
            mask = draw(meshes[given.model_id], given, *size_of(name))
            Image.fromarray(np.where(mask[..., None], PAINT, GROUND).astype(np.uint8)).save(photo, quality=95)
        for suffix in cars.versions.values():
            named = {prefix + name: given for name, given in poses.items()}
            write_records(root / "Anno3D" / cars.folder / f"{split}_anno{suffix}.pkl", named)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_root(tmp_path / "cars", STANFORD)


def prepare(root: Path, output: str = "out", cars: CarSet = STANFORD, **rest: Any) -> Prepared:
    named = {key: rest.pop(key) for key in ("size", "jobs", "allow_missing") if key in rest}
    options = PrepareOptions(**{"size": SIDE, "jobs": 1, "progress": False} | named)
    return prepare_cars3d(cars, root, root.parent / output, options, **rest)


def model(root: Path, model_id: str) -> Path:
    return root / "CAD" / "02958343" / model_id / "model.obj"


def poses_file(root: Path, split: str = "train") -> Path:
    return root / "Anno3D" / "StanfordCars" / f"{split}_anno_v2.pkl"


def change(root: Path, **values: Any) -> None:
    """Change the first training record; a value of None takes the field away."""
    records = load_pickle(poses_file(root).read_bytes(), poses_file(root), SourceError)
    record = records["00001.jpg"] | values
    records["00001.jpg"] = {key: value for key, value in record.items() if value is not None}
    poses_file(root).write_bytes(pickle.dumps(records))


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# The camera


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("model_id", ["aaa1", "ccc3"])
def test_silhouettes_are_those_of_another_rasteriser(root: Path, model_id: str, seed: int) -> None:
    mesh, given = load_mesh(model(root, model_id)), pose(model_id, 1000 + seed)
    drawn = draw(mesh, given, 330, 250)
    fits = iou(silhouette(Rays(mesh), given, 330, 250), drawn)
    assert fits > 0.99
    turned = replace(given, azimuth=given.azimuth + math.pi)  # the models differ from end to end: this must show
    assert iou(silhouette(Rays(mesh), turned, 330, 250), drawn) < fits - 0.01


def test_twice_the_pixels_are_the_same_silhouette(root: Path) -> None:
    scene, given = Rays(load_mesh(model(root, "aaa1"))), TRAIN["00002.jpg"]
    small, large = silhouette(scene, given, 150, 100), silhouette(scene, given, 450, 300)
    assert (large[1::3, 1::3] == small).all()  # every third pixel has the same centre


def test_points_are_projected_onto_the_silhouettes_border(root: Path) -> None:
    mesh, given = load_mesh(model(root, "bbb2")), pose("bbb2", 5)
    rows, columns = np.nonzero(silhouette(Rays(mesh), given, 600, 400))
    points = project(mesh.vertices, given, 600, 400)
    assert points.min(axis=0) == pytest.approx([columns.min(), rows.min()], abs=1.5)
    assert points.max(axis=0) == pytest.approx([columns.max() + 1, rows.max() + 1], abs=1.5)
    origin = project(np.zeros((1, 3)), given, 600, 400)
    assert origin[0] == pytest.approx([300 + 2 * given.u, 200 + 2 * given.v])


# The benchmark


def test_everything_arrives_where_it_belongs(root: Path) -> None:
    made, left_out = prepare(root, val=0.4)
    assert left_out == []
    assert made.name == "stanfordcars3d"
    assert made.shapes.shape_id.tolist() == ["car/aaa1", "car/bbb2", "car/ccc3"]  # the third is in the list only
    table = made.queries.set_index("query_id")
    assert set(table.index) == {f"train/{n[:-4]}" for n in TRAIN} | {f"test/{n[:-4]}" for n in TEST}
    assert set(table.category) == {"car"} and set(table.split) == {"train", "val", "test"}
    for split, poses in (("train", TRAIN), ("test", TEST)):
        for name, given in poses.items():
            row = table.loc[f"{split}/{name[:-4]}"]
            held = split == "train" and hash_share(name) < 0.4
            assert (row.shape_id, row.split) == (f"car/{given.model_id}", "val" if held else split)
            assert row.photo == f"cars_{split}/{name}"
    trained = set(table.shape_id[table.split == "train"])
    assert (table.seen == table.shape_id.isin(trained)).all()


def test_the_crop_is_the_square_around_the_drawn_car(root: Path) -> None:
    made, _ = prepare(root)
    for row, query in enumerate(made.queries.itertuples()):
        split, _, name = query.photo.removeprefix("cars_").partition("/")
        given = {"train": TRAIN, "test": TEST}[split][name]
        mask = draw(load_mesh(model(root, given.model_id)), given, *size_of(name))
        image = np.array(made.images[row])
        photo = np.asarray(Image.open(root / "StanfordCars" / query.photo))
        expected = square_crop(photo, mask, size=SIDE)
        assert iou(image[3] >= 128, expected[3] >= 128) >= 0.97, query.query_id
        red = image[0] > image[2]  # PAINT is, GROUND is not
        assert red[image[3] >= 128].mean() >= 0.97, query.query_id
        assert np.abs(np.subtract(image[:3], expected[:3], dtype=int)).mean() < 4, query.query_id


def test_large_photos_give_the_same_crop(root: Path) -> None:
    small, _ = prepare(root)
    for path in (root / "StanfordCars").rglob("*.jpg"):
        image = Image.open(path)
        image.resize((3 * image.width, 3 * image.height), Image.Resampling.NEAREST).save(path)
    large, _ = prepare(root, "large")
    for a, b in zip(small.images, large.images, strict=True):
        assert iou(np.array(a[3]) >= 128, np.array(b[3]) >= 128) > 0.97
        assert np.abs(np.subtract(a[:3], b[:3], dtype=int)).mean() < 6


def test_the_gallery_is_upright_and_looks_forward(root: Path) -> None:
    made, _ = prepare(root)
    points = np.asarray(made.points[0], float)  # aaa1: longest from front to back, lowest in height, cabin in the rear
    assert np.argsort(np.ptp(points, axis=0)).tolist() == [1, 0, 2]
    assert points[points[:, 1] > points[:, 1].max() - 0.05, 2].mean() < -0.1


def test_compcars_has_its_own_folders(tmp_path: Path) -> None:
    made, left_out = prepare(write_root(tmp_path / "cars", COMPCARS), cars=COMPCARS)
    assert (len(made.queries), len(made.shapes), left_out) == (10, 3, [])
    query = made.queries.set_index("query_id").loc["test/78/test/00001"]
    assert (query.photo, query.split, query.shape_id) == ("image/78/test/00001.jpg", "test", "car/bbb2")


def test_everything_may_lie_elsewhere(root: Path, tmp_path: Path) -> None:
    whole, _ = prepare(root)
    (root / "Anno3D" / "StanfordCars").rename(tmp_path / "poses")
    (root / "StanfordCars").rename(tmp_path / "jpg")
    (tmp_path / "ShapeNetCore.v1").mkdir()
    (root / "CAD" / "02958343").rename(tmp_path / "ShapeNetCore.v1" / "02958343")
    places = {"anno": tmp_path / "poses", "photos": tmp_path / "jpg", "shapes": tmp_path / "ShapeNetCore.v1"}
    assert prepare(root, "elsewhere", **places)[0].queries.equals(whole.queries)


def test_both_versions_of_the_poses_are_read(root: Path) -> None:
    change(root, azimuth=TRAIN["00001.jpg"].azimuth + 1)  # of v2
    newest, old = prepare(root)[0], prepare(root, "v1", annotation="v1")[0]
    differs = [not np.array_equal(a, b) for a, b in zip(newest.images, old.images, strict=True)]
    assert newest.queries.query_id[differs].tolist() == ["train/00001"]


def test_many_processes_and_a_second_start_change_nothing(root: Path) -> None:
    whole, _ = prepare(root)
    photo = root / "StanfordCars" / "cars_train" / "00007.jpg"
    good = photo.read_bytes()
    photo.write_bytes(good[:300])
    with pytest.raises(SourceError, match="1 photo cannot be used"):
        prepare(root, "again", jobs=2)
    photo.write_bytes(good)
    again, _ = prepare(root, "again", jobs=2)
    assert again.queries.sort_values("query_id", ignore_index=True).equals(
        whole.queries.sort_values("query_id", ignore_index=True)
    )
    order = [again.queries.query_id.tolist().index(name) for name in whole.queries.query_id]
    np.testing.assert_array_equal(np.array(again.images)[order], whole.images)
    np.testing.assert_array_equal(again.views, whole.views)


# What is missing


def test_missing_files_are_listed_together_or_left_out_and_counted(root: Path) -> None:
    lost = [root / "StanfordCars" / "cars_test" / "00001.jpg", model(root, "ccc3"), model(root, "aaa1")]
    for path in lost:
        path.unlink()
    with pytest.raises(SourceError, match="3 files missing") as error:
        prepare(root)
    assert all(str(path) in str(error.value) for path in lost) and "--allow-missing" in str(error.value)
    made, left_out = prepare(root, allow_missing=True)
    assert left_out[:3] == [f"{path}: no such file" for path in sorted(lost)]
    named = [f"cars_train/0000{k}.jpg: its model is missing" for k in (2, 4, 6)]
    assert all(line.endswith(end) for line, end in zip(left_out[3:6], named, strict=True)) and len(left_out) == 7
    assert made.shapes.shape_id.tolist() == ["car/bbb2"] and len(made.queries) == 5
    assert (made.path / "left_out.txt").read_text().splitlines() == left_out


def test_a_photo_in_both_lists_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    root = write_root(tmp_path / "cars", COMPCARS)
    listing = root / "Anno3D" / "CompCars" / "test_anno.pkl"
    write_records(listing, {f"78/train/{name}": given for name, given in TRAIN.items()})
    with pytest.raises(
        SourceError, match=r"7 photos in two splits: image/78/train/00001.jpg is in the splits test, tr"
    ):
        prepare(root, cars=COMPCARS, val=0)
    assert not list(tmp_path.glob("*out*"))


def test_photos_and_meshes_that_cannot_be_used_are_left_out_and_counted(root: Path) -> None:
    (root / "StanfordCars" / "cars_train" / "00003.jpg").write_bytes(b"no picture")
    change(root, u=5000.0)
    with pytest.raises(SourceError, match=r"2 photos .*00001\.jpg: .*nothing of car/bbb2.*00003\.jpg: .*image"):
        prepare(root)
    model(root, "ccc3").write_text("v 0 0 0\n")
    with pytest.raises(SourceError, match=r"1 shape cannot be used: .*ccc3.*no faces"):
        prepare(root, "other")
    made, left_out = prepare(root, "third", allow_missing=True)
    assert len(left_out) == 3
    assert (len(made.shapes), len(made.queries)) == (2, 8)
    lines = (made.path / "left_out.txt").read_text()
    assert all(part in lines for part in ("no faces", "00003.jpg: ", "00001.jpg: its annotated pose"))


def test_a_shape_whose_training_photos_are_damaged_is_unseen(root: Path) -> None:
    assert prepare(root, val=0)[0].queries.seen.all()
    for name, given in TRAIN.items():
        if given.model_id == "aaa1":
            (root / "StanfordCars" / "cars_train" / name).write_bytes(b"no picture")
    made, _ = prepare(root, "without", val=0, allow_missing=True)
    assert made.queries.seen.tolist() == (made.queries.shape_id == "car/bbb2").tolist()


def test_without_any_photo_nothing_is_written(root: Path) -> None:
    (root / "StanfordCars").rename(root / "Photos")
    with pytest.raises(SourceError, match=r"0 of 10 photos and 3 of 3 models .*\n.*--photos"):
        prepare(root, allow_missing=True)
    assert not list(root.parent.glob("*out*"))


# What is damaged


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_the_annotation_is_not_run(root: Path, protocol: int) -> None:
    records = {"00001.jpg": asdict(TRAIN["00001.jpg"]) | {"u": Bomb(root / "boom")}}
    poses_file(root).write_bytes(pickle.dumps(records, protocol))
    with pytest.raises(SourceError, match=r"train_anno_v2\.pkl: .*open, which is not data"):
        prepare(root, allow_missing=True)
    assert not (root / "boom").exists()


def put(content: Any) -> Callable[[Path], Any]:
    return lambda root: poses_file(root).write_bytes(pickle.dumps(content))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no pickle": (lambda root: poses_file(root, "test").unlink(), r"test_anno_v2\.pkl: cannot be read"),
    "half a pickle": (
        lambda root: poses_file(root).write_bytes(poses_file(root).read_bytes()[:99]),
        r"train_anno_v2\.pkl: this pickle cannot be read",
    ),
    "a list": (put([1, 2]), r"train_anno_v2\.pkl: it does not hold poses"),
    "nothing": (put({}), "it does not hold poses"),
    "no dictionary": (put({"00001.jpg": 3}), "'00001.jpg' cannot be used: it is not a dictionary"),
    "no name": (put({7: asdict(TRAIN["00001.jpg"])}), "record of 7 cannot be used: its key"),
    "a name that leads out": (put({"../a.jpg": asdict(TRAIN["00001.jpg"])}), r"'\.\./a\.jpg' .*leads out"),
    "an absolute name": (put({"/etc/a.jpg": asdict(TRAIN["00001.jpg"])}), "leads out"),
    "no field": (lambda root: change(root, theta=None), "'00001.jpg' cannot be used: it has no 'theta'"),
    "not finite": (lambda root: change(root, azimuth=math.nan), "azimuth = nan is not a finite number"),
    "text": (lambda root: change(root, u="1"), "u = '1' is not a finite number"),
    "behind the car": (lambda root: change(root, distance=-1.5), "distance = -1.5 must be positive"),
    "no focal length": (lambda root: change(root, f=0), "f = 0 .*must be positive"),
    "a model that leads out": (lambda root: change(root, model_id="../aaa1"), "'../aaa1' is not the name of a model"),
    "a listed path": (
        lambda root: (root / "CAD" / "StanfordCars3D.txt").write_text("aaa1\n../../x\n"),
        r"StanfordCars3D\.txt: .*'\.\./\.\./x' is not the name",
    ),
    "a listed picture": (
        lambda root: (root / "CAD" / "StanfordCars3D.txt").write_bytes(b"\xff\xd8\xff"),
        r"StanfordCars3D\.txt: this is not a list of models",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_error_that_names_the_file_and_the_cure(root: Path, case: str) -> None:
    damage, said = DAMAGE[case]
    damage(root)
    with pytest.raises(SourceError, match=said) as error:
        prepare(root, allow_missing=True)
    assert error.value.path is not None and error.value.fix
    assert not list(root.parent.glob("*out*"))  # refused before anything is written


def test_an_unknown_version_is_refused(root: Path) -> None:
    with pytest.raises(SourceError, match=r"no annotation 'v3'\n.*v1, v2"):
        prepare(root, annotation="v3")


# The commands


@pytest.mark.parametrize(("command", "cars"), [("stanfordcars3d", STANFORD), ("compcars3d", COMPCARS)])
def test_the_command_prepares_and_counts(tmp_path: Path, command: str, cars: CarSet) -> None:
    root = write_root(tmp_path / "cars", cars)
    arguments = ("prepare", command, "--input", root, "--size", 32, "--jobs", 1, "--val", 0)
    done = invoke(*arguments, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "3 shapes and 10 photos: " in done.output and "left out" not in done.output
    assert set(Benchmark.open(tmp_path / "out").queries.split) == {"train", "test"}
    model(root, "bbb2").unlink()
    refused = invoke(*arguments, "--output", tmp_path / "less")
    assert refused.exit_code == 2 and refused.stderr.startswith("error: ") and "bbb2" in refused.stderr
    assert "Traceback" not in refused.output and not (tmp_path / "less").exists()
    counted = invoke(*arguments, "--output", tmp_path / "less", "--allow-missing")
    assert counted.exit_code == 0, counted.output
    assert "7 items left out, see left_out.txt: " in counted.output and "2 shapes and 4 photos: " in counted.output


# The real archives


CAR = "189c2b53ef76d02978a20fe14185667"


@pytest.fixture(scope="module")
def real(shared_root: Path) -> Path:
    return shared_root / "cars"


@pytest.fixture(scope="module")
def car(real: Path) -> tuple[trimesh.Trimesh, Rays]:
    mesh = load_mesh(model(real, CAR))
    return mesh, Rays(mesh)


@pytest.fixture(scope="module")
def poses(real: Path) -> dict[str, Pose]:
    return read_poses(real / "Anno3D" / "StanfordCars" / "train_anno_v2.pkl")


@pytest.mark.parametrize(
    ("folder", "suffix", "train", "test", "shapes"),
    [("StanfordCars", "", 8144, 8041, 134), ("StanfordCars", "_v2", 8144, 8041, 134), ("CompCars", "", 3798, 1898, 98)],
)
def test_the_annotation_has_its_known_size(
    real: Path, folder: str, suffix: str, train: int, test: int, shapes: int
) -> None:
    poses = {split: read_poses(real / "Anno3D" / folder / f"{split}_anno{suffix}.pkl") for split in ("train", "test")}
    assert (len(poses["train"]), len(poses["test"])) == (train, test)
    named = {split: {pose.model_id for pose in poses[split].values()} for split in poses}
    assert named["test"] <= named["train"] and len(named["train"]) == shapes
    assert named["train"] == set((real / "CAD" / f"{folder}3D.txt").read_text().split())
    assert bool(set(poses["train"]) & set(poses["test"])) == (folder == "StanfordCars")  # hence the split in the ids


def test_twenty_two_shapes_are_in_both(real: Path) -> None:
    both = [
        {pose.model_id for pose in read_poses(real / "Anno3D" / cars.folder / "train_anno.pkl").values()}
        for cars in (STANFORD, COMPCARS)
    ]
    assert len(both[0] & both[1]) == 22


def pose_in_box(mesh: trimesh.Trimesh, given: Pose, entry: dict[str, Any]) -> Pose:
    """The pose for the photo cut to its box: f, u and v are given for another width and centre.

    The manifest estimates the whole photo's width; its height is not known: the car's middle is put into the box's.
    """
    x0, y0, x1, y1 = entry["bbox"]
    scale, cut = entry["est_full_width"] / 300, (x1 - x0) / 300
    f, u = given.f * scale / cut, (scale * (150 + given.u) - x0) / cut - 150
    moved = replace(given, f=f, u=u, v=0.0)
    rows = project(mesh.vertices[np.unique(mesh.faces)], moved, x1 - x0, y1 - y0)[:, 1]
    return replace(moved, v=(y1 - y0 - rows.min() - rows.max()) / 2 / cut)


def test_silhouettes_are_those_of_the_real_photos(
    real: Path, car: tuple[trimesh.Trimesh, Rays], poses: dict[str, Pose]
) -> None:
    folder, (mesh, scene) = real / "photos_189c2b53", car
    right, wrong = [], []
    for entry in json.loads((folder / "manifest.json").read_text()):
        given = poses[entry["fname"]]
        assert given.model_id == entry["model_id"] == CAR
        mask = np.asarray(Image.open(folder / "mask" / entry["fname"].replace(".jpg", ".png"))) >= 128
        for ious, theta in ((right, given.theta), (wrong, -given.theta)):
            posed = pose_in_box(mesh, replace(given, theta=theta), entry)
            ious.append(iou(silhouette(scene, posed, *mask.shape[::-1]), mask))
    assert len(right) == 43
    assert np.mean(right) > 0.985 and min(right) > 0.965  # a pixel's width along the outline of small photos
    assert np.mean(wrong) < 0.96


def test_the_one_whole_photo_is_masked_where_its_box_is(
    real: Path, car: tuple[trimesh.Trimesh, Rays], poses: dict[str, Pose]
) -> None:
    entry = json.loads((real / "photos_189c2b53" / "manifest.json").read_text())[0]
    given = poses[entry["fname"]]
    width, height = Image.open(real / "StanfordCars" / "cars_train" / entry["fname"]).size
    rows, columns = np.nonzero(silhouette(car[1], given, width, height))
    box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert box == pytest.approx(entry["bbox"], abs=8)  # of 530 × 259 pixels


def link(real: Path, root: Path) -> Path:
    root.mkdir()
    for folder in ("Anno3D", "CAD", "StanfordCars", "CompCars"):
        (root / folder).symlink_to(real / folder)
    return root


def test_what_is_there_of_stanford_cars_is_prepared(real: Path, tmp_path: Path) -> None:
    made, left_out = prepare(link(real, tmp_path / "cars"), val=0, size=224, allow_missing=True)
    assert len(left_out) == 133 + 8143 + 8041
    assert made.shapes.shape_id.tolist() == [f"car/{CAR}"]
    assert made.queries.photo.tolist() == ["cars_train/00001.jpg"]
    mask = np.asarray(Image.open(real / "photos_189c2b53" / "mask" / "00001.png")) >= 128
    expected = square_crop(np.zeros((*mask.shape, 3), np.uint8), mask, size=224)[3] >= 128
    assert iou(np.array(made.images[0, 3]) >= 128, expected) > 0.97


def test_comp_cars_lacks_the_model_of_its_photo_here(real: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"1 of 5696 photos and \d of 98 models are there"):
        prepare(link(real, tmp_path / "cars"), cars=COMPCARS, allow_missing=True)
