import numpy as np
import pytest
from photo_plan import (
    VISIBLE_SHARE,
    area,
    cells,
    choose_camera,
    draw_plan,
    look_at,
    place_camera,
    place_occluder,
    repeated_faces,
    rng_of,
    truncate,
)


def box(size=(1.0, 0.6, 0.8), n=6000):
    """Points on the faces of a box that stands on the floor over the origin."""
    rng = np.random.default_rng(1)
    p = rng.random((n, 3))
    p[np.arange(n), rng.integers(3, size=n)] = rng.integers(2, size=n)
    return (p - [0.5, 0.5, 0]) * size


def test_seeds_depend_on_the_key_alone():
    assert rng_of("chair/a", 3).integers(1 << 40) == rng_of("chair/a", 3).integers(1 << 40)
    assert rng_of("chair/a", 3).integers(1 << 40) != rng_of("chair/a", 4).integers(1 << 40)
    assert rng_of("chair/a", 3).integers(1 << 40) == 135680563828  # on every machine


def test_plans_stay_in_range():
    plans = [draw_plan(f"chair/{n}", k) for n in range(60) for k in range(12)]
    assert all(0 <= p.azimuth < 360 and 0 <= p.elevation <= 45 and abs(p.roll) <= 4 for p in plans)
    assert all(24 <= p.focal <= 70 and 0.45 <= p.fill <= 0.85 for p in plans)
    kinds = [p.kind for p in plans]
    assert 0.06 < kinds.count("truncated") / len(plans) < 0.14
    assert 0.06 < kinds.count("occluded") / len(plans) < 0.14


def test_half_of_a_shapes_photos_are_restyled():
    assert sum(draw_plan("sofa/b", k).restyled for k in range(400)) == pytest.approx(200, abs=40)


def test_attempts_change_the_view_only():
    first, second = draw_plan("sofa/b", 2, 0), draw_plan("sofa/b", 2, 1)
    assert (first.kind, first.restyled) == (second.kind, second.restyled)
    assert first.azimuth != second.azimuth


def test_azimuth_0_looks_at_the_front_and_90_at_plus_x():
    towards, axes = look_at(0, 0, 0)
    np.testing.assert_allclose(towards, [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(axes, [[1, 0, 0], [0, 0, 1], [0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(look_at(90, 0, 0)[0], [1, 0, 0], atol=1e-12)
    assert look_at(10, 30, 0)[0][2] == pytest.approx(0.5)


@pytest.mark.parametrize("k", range(12))
def test_camera_shows_the_whole_object_in_the_wished_size(k):
    points, plan = box(), draw_plan("table/c", k)
    camera = place_camera(plan, points)
    np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-9)
    xy, depth = camera.project(points)
    assert np.abs(xy).max() <= 0.5
    assert np.ptp(xy, axis=0).max() == pytest.approx(plan.fill, abs=0.02)
    assert depth.min() > 0.1
    assert camera.position[2] > 0


def test_cells_counts_frames_side_by_side():
    xy = np.array([[-0.49, -0.49], [-0.4899, -0.4899], [0.6, 0.0], [9.0, 0.0]])
    assert cells(xy).sum() == 1
    assert cells(xy, reach=2).sum() == 2


def test_a_thin_object_is_seen_from_its_best_side():
    stick = box((1.9, 0.02, 0.02))
    _, camera, attempt = choose_camera("tool/pencil", 0, stick)
    views = [area(place_camera(draw_plan("tool/pencil", 0, n), stick), stick) for n in range(12)]
    assert area(camera, stick) >= max(views) - 1e-9
    assert attempt >= 0


@pytest.mark.parametrize("k", range(6))
def test_truncation_leaves_the_right_share(k):
    points = box()
    camera, share = truncate(place_camera(draw_plan("bed/d", k), points), points, rng_of("t", k))
    assert VISIBLE_SHARE[0] - 0.02 <= share <= VISIBLE_SHARE[1] + 0.02
    xy, _ = camera.project(points)
    assert (np.abs(xy) > 0.5).any()


def test_an_occluder_hides_a_part_and_touches_nothing():
    points = box()
    placed = 0
    for k in range(8):
        camera = place_camera(draw_plan("bed/e", k), points)
        found = place_occluder(camera, points, box((0.8, 0.8, 1.0)), rng_of("o", k))
        if found is None:
            continue
        placed += 1
        placement, share = found
        assert VISIBLE_SHARE[0] <= share <= VISIBLE_SHARE[1]
        other = placement.apply(box((0.8, 0.8, 1.0)))
        flat = -camera.axes[2][:2] / np.linalg.norm(camera.axes[2][:2])
        assert (other[:, :2] @ flat).min() > (points[:, :2] @ flat).max()
        assert other[:, 2].min() >= -1e-9
    assert placed >= 4


def test_repeated_faces_are_found_whatever_their_vertices_and_winding():
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    vertices = np.concatenate([square, square + 1e-6, square + np.array([0, 0, 1])])
    corners = np.array([0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11, 8, 9, 10])
    starts = np.array([0, 4, 8, 12])
    assert repeated_faces(vertices, starts, corners).tolist() == [1]
