"""Practice photos of a gallery: what is rendered, from where, and that it can be trained on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from typer.testing import CliRunner

from cmiclib.benchmark import Benchmark
from cmiclib.cli import app
from cmiclib.errors import CMICError, MeshError, SourceError
from cmiclib.sources import PrepareOptions, rendered
from cmiclib.sources.photos import PhotoFile
from cmiclib.sources.rendered import MOST_ROLL, draw_pose, photograph, prepare_synthetic, read_poses

QUICK = PrepareOptions(jobs=1, progress=False)
ENTRIES = [
    {"category": "box", "azimuth_deg": 90.0, "elevation_deg": 30.0, "inplane_rotation": np.radians(5)},
    {"category": "box", "cam_position": [1.0, 1.0, 0.0], "inplane_rotation": np.radians(-90)},
    {"category": "round", "azimuth_deg": None},
]


@pytest.fixture
def annotation(tmp_path: Path) -> Path:
    (tmp_path / "poses.json").write_text(json.dumps(ENTRIES))
    return tmp_path / "poses.json"


def test_every_shape_is_photographed(tiny_benchmark: Benchmark, annotation: Path, tmp_path: Path) -> None:
    made = prepare_synthetic(tiny_benchmark.path, tmp_path / "out", QUICK, photos=3, poses=annotation).benchmark
    assert list(made.shapes["shape_id"]) == list(tiny_benchmark.shapes["shape_id"])
    assert np.array_equal(made.views, tiny_benchmark.views)
    assert len(made.queries) == 3 * len(made.shapes)
    assert list(made.queries["split"][:3]) == ["train", "train", "val"] and made.queries["seen"].all()
    share = (made.images[:, 3] > 127).mean(axis=(1, 2))
    assert share.min() > 0.02 and share.max() < 0.9
    assert np.array_equal(made.images[:, 3], made.amodal)
    again = prepare_synthetic(
        tiny_benchmark.path, tmp_path / "two", replace(QUICK, jobs=2), photos=3, poses=annotation
    ).benchmark
    assert again.hash == made.hash  # whatever the number of processes
    other = prepare_synthetic(tiny_benchmark.path, tmp_path / "three", QUICK, photos=3, seed=1).benchmark
    assert not np.array_equal(other.images, made.images)


def test_an_interrupted_one_goes_on(tiny_benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(name: str) -> Benchmark:
        return prepare_synthetic(tiny_benchmark.path, tmp_path / name, QUICK, photos=2).benchmark

    made, real = [], rendered.render_photo

    def watched(*arguments: object) -> np.ndarray:
        made.append(arguments)
        if len(made) == 8:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(rendered, "render_photo", watched)
    with pytest.raises(KeyboardInterrupt):
        prepare("out")
    resumed = prepare("out")
    assert len(made) == 8 + 2 * len(tiny_benchmark.shapes) - 6  # the photos of three shapes were complete
    assert resumed.hash == prepare("whole").hash


def test_a_flat_shape_is_photographed_from_where_it_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    square = trimesh.Trimesh([[-0.7, -0.7, 0], [0.7, -0.7, 0], [0.7, 0.7, 0], [-0.7, 0.7, 0]], [[0, 1, 2], [0, 2, 3]])
    square.export(tmp_path / "sheet.glb")
    sheet = PhotoFile("sheet__00", tmp_path / "sheet.glb", ("sheet",), "poster", "train", facts=0)
    from_the_side, from_anywhere = np.array([[90.0, 0.0, 0.0]]), None
    seen = [photograph(replace(sheet, facts=k), 32, from_anywhere, seed=0).image for k in range(6)]
    assert all((image[3] > 0).any() for image in seen)
    monkeypatch.setattr("cmiclib.sources.rendered.JITTER", 0.0)
    with pytest.raises(MeshError, match=r"sheet.glb: not seen from any of 100 sides"):
        photograph(sheet, 32, from_the_side, seed=0)


def test_poses_turn_into_our_frame(annotation: Path) -> None:
    """Pix3D's camera at +x, which is left there, is at our −x: azimuth −90."""
    poses = read_poses(annotation)
    assert list(poses) == ["box"]
    assert poses["box"] == pytest.approx(np.array([[-90, 30, 5], [-90, 45, -90]]))


@pytest.mark.shared
def test_azimuths_agree_with_camera_positions(shared_root: Path) -> None:
    path = shared_root / "pix3d" / "pix3d.json"
    if not path.is_file():
        pytest.skip("no pix3d in the shared folder")
    posed = [entry for entry in json.loads(path.read_text()) if entry.get("cam_position")]
    known = {entry["img"]: entry for entry in json.loads(path.with_name("pix3d_recovered.json").read_text())}
    assert posed
    from cmiclib.sources.rendered import _pose

    for entry in posed:
        computed, annotated = _pose(entry), _pose(known[entry["img"]])
        assert computed is not None and annotated is not None
        assert np.exp(1j * np.radians(computed)) == pytest.approx(np.exp(1j * np.radians(annotated)), abs=1e-3)


def test_drawn_poses_stay_near_annotated_ones() -> None:
    rng = np.random.default_rng(0)
    poses = [draw_pose(np.array([[40.0, 20.0, 4.0], [40.0, 20.0, 90.0]]), rng) for _ in range(200)]
    assert np.mean([pose.azimuth for pose in poses]) == pytest.approx(40, abs=2)
    assert np.mean([pose.elevation for pose in poses]) == pytest.approx(20, abs=2)
    assert {round(abs(pose.roll)) for pose in poses} == {0, 4}
    around = [draw_pose(None, rng) for _ in range(200)]
    assert np.ptp([pose.azimuth for pose in around]) > 300
    assert all(0 <= pose.elevation <= 45 and abs(pose.roll) < MOST_ROLL for pose in around)


def test_wrong_input(tiny_benchmark: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="1 photos a shape are too few"):
        prepare_synthetic(tiny_benchmark.path, tmp_path / "out", photos=1)
    wrong = {"{": "cannot be read as JSON", "[1]": "not a list of records", "[]": "no record has a pose"}
    for text, message in wrong.items():
        (tmp_path / "poses.json").write_text(text)
        with pytest.raises(SourceError, match=message):
            read_poses(tmp_path / "poses.json")
    with pytest.raises(CMICError):
        prepare_synthetic(tmp_path / "nothing", tmp_path / "out")


def test_the_command(tiny_benchmark: Benchmark, tmp_path: Path) -> None:
    arguments = ["prepare", "synthetic", "--gallery", str(tiny_benchmark.path), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--photos", "2", "--jobs", "1"])
    assert done.exit_code == 0, done.output
    assert "8 shapes and 16 photos" in done.output
