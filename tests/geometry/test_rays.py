"""Rays against a box, whose faces and distances are known."""

import numpy as np
import pytest
import trimesh

from cmiclib.geometry.rays import Rays

UP = np.array([0.0, 1.0, 0.0])


@pytest.mark.parametrize("seamless", [True, False])
def test_rays_meet_the_side_that_is_nearest_at_its_distance(seamless: bool) -> None:
    box = trimesh.creation.box(extents=(2, 4, 6))
    rays = Rays(box, seamless)
    directions = np.array([[0.0, 2, 0], [0, 0, -1], [5, 0, 0]])
    faces, distances = rays.hits(np.array([0.3, 0.2, 0.1]), directions)
    np.testing.assert_allclose(distances, [0.9, 3.1, 0.14], atol=1e-6)
    sides = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(box.face_normals[faces]), np.abs(sides), atol=1e-6)


def test_one_origin_stands_for_all_rays() -> None:
    rays, directions = Rays(trimesh.creation.icosphere()), np.random.default_rng(0).normal(size=(50, 3))
    one, many = rays.faces(1.2 * UP, directions), rays.faces(np.tile(1.2 * UP, (50, 1)), directions)
    assert (one == many).all() and 0 < (one < 0).sum() < 50


def test_what_meets_nothing_is_told_apart_and_free() -> None:
    rays = Rays(trimesh.creation.box())
    origins = np.array([[0.1, 3, 0.2], [0.1, 3, 0.2], [5, 3, 0]])
    directions = np.array([-UP, UP, -UP])
    faces, distances = rays.hits(origins, directions)
    assert (faces >= 0).tolist() == [True, False, False]
    assert distances[1:].tolist() == [0, 0]
    assert rays.blocked(origins, directions).tolist() == [True, False, False]


def test_no_ray_slips_through_a_seam() -> None:
    plate = trimesh.creation.box(extents=(2, 2, 0.1)).subdivide_loop(0).subdivide().subdivide()
    x, y = np.meshgrid(np.linspace(-0.9, 0.9, 200), np.linspace(-0.9, 0.9, 200))
    origins = np.stack([x, y, np.full_like(x, 2)], axis=-1).reshape(-1, 3)
    assert Rays(plate).blocked(origins, np.tile([0.0, 0, -1], (len(origins), 1))).all()
