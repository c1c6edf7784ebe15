"""Views: where things fall in them, how they are shaded, and that they repeat to the byte."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from pydantic import ValidationError
from scipy import ndimage

from cmiclib import geometry
from cmiclib.errors import MeshError
from cmiclib.geometry.render import camera, project, render_views
from cmiclib.io.protocol import ViewProtocol


@pytest.fixture(scope="module")
def bracket() -> trimesh.Trimesh:
    parts = [((2, 0.3, 0.6), (0, 0, 0)), ((0.3, 1.5, 0.3), (0.85, 0.7, 0.1)), ((0.4, 0.2, 1), (-0.5, 0, 0.6))]
    boxes = [trimesh.creation.box(e).apply_translation(t) for e, t in parts]
    return geometry.normalise(trimesh.util.concatenate(boxes))


def test_protocol_is_the_documented_one() -> None:
    protocol = ViewProtocol()
    assert protocol.azimuths == tuple(range(0, 360, 30))
    assert (protocol.elevation, protocol.fov, protocol.background, protocol.samples) == (20, 30, 255, 2)
    assert ViewProtocol(**protocol.model_dump(mode="json")) == protocol
    with pytest.raises(ValidationError):
        ViewProtocol(light="red")


def test_camera_stands_in_front_above_and_goes_towards_x() -> None:
    origin, axes = camera(0)
    assert origin[0] == pytest.approx(0) and origin[1] > 0 and origin[2] > 0
    assert np.degrees(np.arcsin(origin[1] / np.linalg.norm(origin))) == pytest.approx(20)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    side, _ = camera(90)
    assert side[0] > 0 and side[2] == pytest.approx(0)


def test_unit_sphere_just_fits() -> None:
    view = render_views(trimesh.creation.icosphere(5), 64, ViewProtocol(azimuths=(0, 45)))[0]
    hit = view < 255
    assert hit[:, 0].any() and hit[0].any() and hit[:, -1].any() and hit[-1].any()
    assert not hit[0, 0] and not hit[-1, -1]
    assert hit.mean() == pytest.approx(np.pi / 4, abs=0.02)


@pytest.mark.parametrize("azimuth", [0, 30, 150, 270])
def test_small_balls_appear_where_they_are_projected(azimuth: float) -> None:
    centres = np.array([[0.5, 0.3, 0.2], [-0.4, -0.5, 0.3], [0.0, 0.6, -0.6]])
    for centre in centres:
        ball = trimesh.creation.icosphere(2, radius=0.05).apply_translation(centre)
        view = render_views(ball, 96, ViewProtocol(azimuths=(azimuth,)))[0]
        rows, columns = np.nonzero(view < 255)
        expected = project(centre[None], azimuth, 96)[0]
        np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], expected, atol=0.5)


def test_pinhole_by_hand() -> None:
    """Seen from elevation 0 at distance d, a point at height h projects h / d above the centre."""
    protocol = ViewProtocol(elevation=0, fov=90)
    assert protocol.distance == pytest.approx(np.sqrt(2))
    x, y = project(np.array([[0.3, 0.2, 0.0]]), 0, 100, protocol)[0]
    assert x == pytest.approx(50 + 50 * 0.3 / np.sqrt(2)) and y == pytest.approx(50 - 50 * 0.2 / np.sqrt(2))


def test_turning_the_mesh_shifts_the_views(bracket: trimesh.Trimesh) -> None:
    turned = bracket.copy()
    turned.apply_transform(trimesh.transformations.rotation_matrix(np.radians(30), (0, 1, 0)))
    views, shifted = render_views(bracket, 48), render_views(turned, 48)
    difference = np.abs(shifted.astype(int) - np.roll(views, 1, axis=0))
    assert (difference > 2).mean() < 0.002  # rounding moves a border sample here and there
    assert (np.abs(shifted.astype(int) - views) > 2).mean() > 0.02


def test_front_is_nearer_than_back() -> None:
    """A small plate in front of a large one hides its middle from azimuth 0 and is hidden from 180."""
    small = trimesh.creation.box((0.4, 0.4, 0.05)).apply_translation((0, 0, 0.3))
    ball = trimesh.creation.icosphere(3, radius=0.55).apply_translation((0, 0, -0.3))
    mesh = trimesh.util.concatenate([small, ball])
    flat = ViewProtocol(azimuths=(0, 180), elevation=0)
    front, back = render_views(mesh, 64, flat)
    alone = render_views(small, 64, flat)[0]
    assert (front[28:36, 28:36] == alone[28:36, 28:36]).all()
    assert len(np.unique(front[28:36, 28:36])) == 1 and len(np.unique(back[28:36, 28:36])) > 1


def test_faces_differ_in_gray_and_from_the_background() -> None:
    cube = geometry.normalise(trimesh.creation.box((1, 1, 1)))
    for view in render_views(cube, 64, ViewProtocol(azimuths=(30, 45, 60))):
        grays, counts = np.unique(view[view < 255], return_counts=True)
        large = grays[counts > 60].astype(int)
        assert len(large) == 3 and np.diff(large).min() > 40 and large.max() <= 215


def test_both_sides_of_a_surface_are_seen() -> None:
    plate = trimesh.Trimesh([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0, 0.7, 0]], [[0, 1, 2]], process=False)
    views = render_views(plate, 32)
    inverted = trimesh.Trimesh(plate.vertices, plate.faces[:, ::-1], process=False)
    assert ((views[0] < 255).sum() > 50) and ((views[6] < 255).sum() > 50)
    assert (views == render_views(inverted, 32)).all()


def test_samples_are_averaged(bracket: trimesh.Trimesh) -> None:
    fine = render_views(bracket, 96, ViewProtocol(samples=1)).astype(float)
    mean = fine.reshape(12, 48, 2, 48, 2).mean(axis=(2, 4))
    assert (render_views(bracket, 48) == np.rint(mean)).all()


def test_two_runs_give_the_same_bytes(bracket: trimesh.Trimesh, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)  # thousands of crossing triangles: ties and a large tree
    soup = trimesh.Trimesh(rng.uniform(-0.5, 0.5, (9000, 3)), np.arange(9000).reshape(-1, 3), process=False)
    mesh = trimesh.util.concatenate([bracket, bracket, soup])
    mesh.export(tmp_path / "mesh.ply")
    script = (
        "import sys, hashlib; from cmiclib import geometry; from cmiclib.geometry import render;"
        "mesh = geometry.normalise(geometry.load_mesh(sys.argv[1]));"
        "print(hashlib.sha256(render.render_views(mesh, 64).tobytes()).hexdigest())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "mesh.ply")], check=True, capture_output=True, text=True
    )
    again = geometry.normalise(geometry.load_mesh(tmp_path / "mesh.ply"))
    here = {hashlib.sha256(render_views(again, 64).tobytes()).hexdigest() for _ in range(3)}
    assert here == {elsewhere.stdout.strip()}


def test_unusable_meshes(bracket: trimesh.Trimesh) -> None:
    with pytest.raises(MeshError, match="no faces"):
        render_views(trimesh.Trimesh(), 32)
    with pytest.raises(MeshError, match="normalise"):
        render_views(bracket.copy().apply_scale(3), 32)
    broken = bracket.copy()
    broken.vertices[0, 0] = np.nan
    with pytest.raises(MeshError):
        render_views(broken, 32)


@pytest.mark.shared
def test_surface_of_a_real_chair_falls_onto_its_views(shared_root: Path) -> None:
    obj = next((shared_root / "pix3d" / "model" / "chair" / "IKEA_BERNHARD").glob("*.obj"))
    mesh = geometry.normalise(geometry.load_mesh(obj, front="-z"))
    points, protocol = geometry.sample_points(mesh, 2000), ViewProtocol()
    for azimuth, view in zip(protocol.azimuths, render_views(mesh, 64, protocol), strict=True):
        columns, rows = np.floor(project(points, azimuth, 64)).astype(int).T
        near = ndimage.binary_dilation(view < 255, iterations=1)
        assert near[rows, columns].all()
        hit = np.zeros((64, 64), bool)
        hit[rows, columns] = True
        assert ((view < 200) & ~ndimage.binary_dilation(hit, iterations=2)).sum() < 5
