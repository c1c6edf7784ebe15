"""Practice photos: geometry against the views' camera, light against closed forms, the same seed the same photo."""

import numpy as np
import pytest
import trimesh

from cmiclib.geometry import normalise
from cmiclib.geometry.render import project
from cmiclib.io.protocol import ViewProtocol
from cmiclib.sources.rendered.materials import Material, draw_material, texture
from cmiclib.sources.rendered.photo import (
    CUT_SHARE,
    MOST_CUT,
    SURROUNDINGS,
    Pose,
    camera_rays,
    develop,
    draw_window,
    furnish,
    render_photo,
)  # fmt: skip


@pytest.fixture(scope="module")
def chair() -> trimesh.Trimesh:
    """A seat with a back, so that all sides differ."""
    seat = trimesh.creation.box((1, 0.2, 1))
    back = trimesh.creation.box((1, 1, 0.15)).apply_translation((0, 0.5, -0.45))
    arm = trimesh.creation.box((0.1, 0.4, 1)).apply_translation((0.5, 0.2, 0))
    return normalise(trimesh.util.concatenate([seat, back, arm]))


def photo(mesh: trimesh.Trimesh, pose: Pose, seed: int = 0, size: int = 64) -> np.ndarray:
    return render_photo(mesh, pose, np.random.default_rng(seed), size)


def test_the_same_seed_gives_the_same_photo(chair: trimesh.Trimesh) -> None:
    pose = Pose(30, 20)
    assert np.array_equal(photo(chair, pose), photo(chair, pose))
    assert not np.array_equal(photo(chair, pose), photo(chair, pose, seed=1))


def test_the_crop_is_the_one_of_square_crop(chair: trimesh.Trimesh) -> None:
    for azimuth in (0, 50, 200):
        image = photo(chair, Pose(azimuth, 25, distance=3), size=120)
        assert image.shape == (4, 120, 120) and image.dtype == np.uint8
        rows, columns = np.flatnonzero(image[3].max(axis=1) > 127), np.flatnonzero(image[3].max(axis=0) > 127)
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert longer == pytest.approx(120 / 1.2, abs=2)
        for ends in (rows, columns):
            assert (ends[0] + ends[-1]) / 2 == pytest.approx(59.5, abs=1.5)


def test_it_stands_where_the_views_camera_stands(chair: trimesh.Trimesh) -> None:
    """Corners fall where `render.project` puts them, up to the crop's scale and place."""
    protocol = ViewProtocol()
    origin, directions = camera_rays(chair, Pose(60, protocol.elevation, distance=protocol.distance), 50, 0.1)
    grid = directions.reshape(50, 50, 3)
    ends = np.stack([origin + protocol.distance * grid[0, 0], origin + protocol.distance * grid[-1, -1]])
    pixels = project(ends, 60, 1000)
    corners = project(chair.vertices, 60, 1000)
    low, high = corners.min(axis=0), corners.max(axis=0)
    half = (high - low).max() * 0.6 * 49 / 50
    assert pixels[0] == pytest.approx((low + high) / 2 - half, abs=0.5)
    assert pixels[1] == pytest.approx((low + high) / 2 + half, abs=0.5)


def test_roll_turns_the_camera(chair: trimesh.Trimesh) -> None:
    upright, turned = (camera_rays(chair, Pose(30, 10, roll), 20, 0.1)[1].reshape(20, 20, 3) for roll in (0, 180))
    assert turned == pytest.approx(upright[::-1, ::-1], abs=1e-9)


def test_windows_hold_a_part_of_the_shape() -> None:
    mask = np.zeros((100, 120), bool)
    mask[30:70, 40:80] = True
    rng = np.random.default_rng(0)
    windows = np.array([draw_window(mask, rng) for _ in range(2000)])
    left = windows[:, 0] - 40
    assert (left > 0).mean() == pytest.approx(CUT_SHARE, abs=0.03)
    assert left.max() == pytest.approx(40 * MOST_CUT, abs=1) and left.min() == pytest.approx(-40 * SURROUNDINGS, abs=1)
    assert (windows[:, 2] > windows[:, 0]).all() and (windows[:, 3] <= 100).all()
    assert draw_window(np.ones((4, 4), bool), rng)[2:] <= (4, 4)


def test_things_stand_on_what_faces_upwards(chair: trimesh.Trimesh) -> None:
    rng, some = np.random.default_rng(0), 0
    for _ in range(30):
        scene, part = furnish(chair, rng)
        assert len(part) == len(scene.faces)
        assert (part > 0).sum() == len(chair.faces) and (part == 0).sum() == 2
        assert set(part[part > 0]) == {1, 2, 3}  # seat, back and arm
        some += bool((part < 0).any())
        for number in set(part[part < 0]):
            foot = scene.triangles[part == number][..., 1].min()
            assert chair.bounds[0, 1] - 1e-6 < foot < chair.bounds[1, 1] + 1e-6
    assert 10 <= some <= 28


def test_what_faces_the_floor_is_darker() -> None:
    """A lid above a wide plate: between them hardly any light of the dome arrives."""
    lid = trimesh.creation.box((2, 0.1, 2)).apply_translation((0, 0.4, 0))
    plate = trimesh.creation.box((2, 0.1, 2))
    mesh = normalise(trimesh.util.concatenate([lid, plate]))
    inside, outside = [], []
    for seed in range(6):
        image = photo(mesh, Pose(0, 8), seed, 96)
        gray, mask = image[:3].mean(axis=0), image[3] > 250
        columns = slice(36, 60)
        rows = np.flatnonzero(mask[:, 48])
        top, bottom = rows[0], rows[-1]
        outside.append(gray[top : top + 6, columns].mean())
        inside.append(gray[(top + bottom) // 2 - 2 : (top + bottom) // 2 + 6, columns].mean())
    assert np.mean(inside) < np.mean(outside)


@pytest.mark.parametrize("kind", ["plain", "grain", "weave", "spots"])
def test_textures_stay_between_their_colours(kind: str) -> None:
    rng = np.random.default_rng(0)
    material = Material(np.zeros(3), np.ones(3), kind, 2.0, 0.0)
    share = texture(rng.uniform(-1, 1, (500, 3)), material, rng)
    assert share.shape == (500,) and share.min() >= -0.01 and share.max() <= 1.01
    assert (np.ptp(share) > 0.2) == (kind != "plain")


def test_materials_are_colours() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_material(rng) for _ in range(300)]
    colors = np.array([(m.color, m.second) for m in drawn])
    assert colors.min() >= 0 and colors.max() <= 1
    assert {m.kind for m in drawn} == {"plain", "grain", "weave", "spots"}


def test_developing_keeps_bright_above_dark() -> None:
    linear = np.zeros((32, 32, 3))
    linear[:, 16:] = 0.8
    picture = develop(linear, np.random.default_rng(0))
    assert picture.dtype == np.uint8 and picture[:, 20:].mean() > picture[:, :12].mean() + 100
