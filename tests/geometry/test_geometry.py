"""Geometry against closed forms and slow loops."""

import io
from pathlib import Path

import numpy as np
import pytest
import trimesh

from cmiclib import geometry
from cmiclib.errors import MeshError


def grid_box(low: tuple[int, int, int], high: tuple[int, int, int], size: int = 32) -> np.ndarray:
    grid = np.zeros((size, size, size), bool)
    grid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return grid


@pytest.fixture
def chair() -> trimesh.Trimesh:
    """Seat, back (towards -z) and one leg: nothing about it is symmetric."""
    parts = [((2, 0.2, 2), (0, 0, 0)), ((2, 2, 0.2), (0, 1, -0.9)), ((0.2, 2, 0.3), (0.9, -1, 0.8))]
    return trimesh.util.concatenate([trimesh.creation.box(e).apply_translation(t) for e, t in parts])


@pytest.mark.parametrize("suffix", ["obj", "glb", "ply", "stl", "off"])
def test_formats_give_the_same_surface(tmp_path: Path, chair: trimesh.Trimesh, suffix: str) -> None:
    chair.export(tmp_path / f"chair.{suffix}")
    mesh = geometry.load_mesh(tmp_path / f"chair.{suffix}")
    assert len(mesh.faces) == len(chair.faces)
    np.testing.assert_allclose(mesh.bounds, chair.bounds, atol=1e-6)
    np.testing.assert_allclose(mesh.area, chair.area, rtol=1e-6)


def test_parts_of_a_scene_are_placed(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    cube = trimesh.creation.box((1, 1, 1))
    scene.add_geometry(cube, node_name="here")
    scene.add_geometry(cube, node_name="there", transform=trimesh.transformations.translation_matrix((5, 0, 0)))
    scene.export(tmp_path / "two.glb")
    mesh = geometry.load_mesh(tmp_path / "two.glb")
    assert len(mesh.faces) == 24
    np.testing.assert_allclose(mesh.bounds, [[-0.5, -0.5, -0.5], [5.5, 0.5, 0.5]], atol=1e-6)


def test_colours_of_materials_reach_the_faces(tmp_path: Path) -> None:
    (tmp_path / "two.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl leaf\nKd 0 1 0\n")
    (tmp_path / "two.obj").write_text(
        "mtllib two.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nusemtl red\nf 1 2 3\nusemtl leaf\nf 1 2 4\nf 1 3 4\n"
    )
    colors = geometry.face_colors(geometry.load_mesh(tmp_path / "two.obj"))[:, :3].tolist()
    assert sorted(colors) == [[0, 255, 0], [0, 255, 0], [255, 0, 0]]


def test_polygons_and_missing_material_file(tmp_path: Path) -> None:
    (tmp_path / "quad.obj").write_text("mtllib gone.mtl\nusemtl x\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n")
    assert geometry.load_mesh(tmp_path / "quad.obj").area == pytest.approx(1)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no faces"),
        ("", "the file is empty"),
        ("v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n", "NaN or Inf"),
        ("v 0 0 0\nv inf 0 0\nv 0 1 0\nf 1 2 3\n", "NaN or Inf"),
        ("v 1 2 3\nv 1 2 3\nv 1 2 3\nf 1 2 3\n", "coincide"),
    ],
)
def test_unusable_meshes(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "bad.obj").write_text(content)
    with pytest.raises(MeshError, match=rf"bad\.obj: .*{problem}"):
        geometry.load_mesh(tmp_path / "bad.obj")


def test_unreadable_meshes(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="no such file"):
        geometry.load_mesh(tmp_path / "absent.obj")
    for name in ("bad.glb", "bad.off", "bad.xyz", "bad.blend"):
        (tmp_path / name).write_bytes(b"\x00\x01 no mesh")
        with pytest.raises(MeshError, match=rf"{name}: "):
            geometry.load_mesh(tmp_path / name)
    (tmp_path / "index.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 9\n")
    with pytest.raises(MeshError, match=r"index\.off: "):
        geometry.load_mesh(tmp_path / "index.off")


def test_frames(tmp_path: Path, chair: trimesh.Trimesh) -> None:
    chair.export(tmp_path / "chair.ply")
    turned = chair.copy()
    turned.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))  # +y → +z, +z → -y
    turned.export(tmp_path / "turned.ply")
    upright = geometry.load_mesh(tmp_path / "turned.ply", up="+z", front="-y")
    np.testing.assert_allclose(upright.vertices, geometry.load_mesh(tmp_path / "chair.ply").vertices, atol=1e-6)
    for up, front in (("+x", "-z"), ("-y", "+x"), ("-z", "-y")):
        rotation = geometry.frame_rotation(up, front)
        assert np.linalg.det(rotation) == pytest.approx(1)
    for up, front in (("+y", "-y"), ("y", "+z")):
        with pytest.raises(MeshError):
            geometry.load_mesh(tmp_path / "chair.ply", up=up, front=front)


def test_normalise_centres_the_box_and_scales_the_farthest_vertex(chair: trimesh.Trimesh) -> None:
    stray = trimesh.Trimesh(np.vstack([chair.vertices, [[99, 99, 99]]]), chair.faces, process=False)
    mesh = geometry.normalise(stray)
    np.testing.assert_allclose(mesh.bounds.sum(axis=0), 0, atol=1e-12)
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(1)
    ratio = mesh.extents / chair.extents
    np.testing.assert_allclose(ratio, ratio[0])
    assert len(stray.vertices) == len(chair.vertices) + 1  # the argument is left alone


def test_points_are_even_repeatable_and_on_the_surface() -> None:
    mesh = trimesh.creation.box((2, 1, 0.5))
    points = geometry.sample_points(mesh, 20_000, seed=3)
    assert points.dtype == np.float32 and points.shape == (20_000, 3)
    np.testing.assert_allclose(np.abs(points / [1, 0.5, 0.25]).max(axis=1), 1, atol=1e-6)
    share = (np.abs(points[:, 2]) > 0.25 - 1e-6).mean()  # the two 2×1 faces have 4 of the area of 7
    assert share == pytest.approx(4 / 7, abs=0.02)
    assert (points == geometry.sample_points(mesh, 20_000, seed=3)).all()
    assert (points != geometry.sample_points(mesh, 20_000, seed=4)).any()


def test_solid_sphere_has_the_volume_of_a_ball() -> None:
    grid = geometry.voxelise(trimesh.creation.icosphere(4), 64)
    volume = grid.sum() * (2 / 64) ** 3
    assert 4 / 3 * np.pi * 0.97 < volume < 4 / 3 * np.pi * 1.12  # the surface's voxels stick out by half
    assert grid[32, 32, 32]


def test_voxels_lie_where_the_mesh_lies() -> None:
    """A box from voxel border to voxel border, a hair smaller, is exactly these voxels, in the order x, y, z."""
    low, high = np.array([-0.5, -0.25, 0.0]), np.array([0.75, 0.5, 0.25])
    box = trimesh.creation.box(bounds=[low + 1e-6, high - 1e-6])
    expected = grid_box((8, 12, 16), (28, 24, 20))
    assert (geometry.voxelise(box, 32) == expected).all()


def test_hollow_and_open_shapes() -> None:
    closed = trimesh.creation.box((1, 1, 1))
    assert geometry.voxelise(closed, 32)[16, 16, 16]
    keep = closed.triangles_center[:, 1] < 0.49
    lidless = trimesh.Trimesh(closed.vertices, closed.faces[keep], process=False)
    assert not geometry.voxelise(lidless, 32)[16, 16, 16]


def test_packing_voxels() -> None:
    grid = np.random.default_rng(0).random((16, 16, 16)) < 0.3
    packed = geometry.pack_voxels(grid)
    assert packed.dtype == np.uint8 and packed.shape == (512,)
    assert (geometry.unpack_voxels(packed, 16) == grid).all()


def test_iou_of_boxes() -> None:
    a, b = grid_box((0, 0, 0), (10, 10, 10)), grid_box((5, 0, 0), (15, 10, 10))
    assert geometry.voxel_iou(a, b) == pytest.approx(500 / 1500)
    assert geometry.voxel_iou(a, a) == 1.0
    assert geometry.voxel_iou(a, grid_box((20, 20, 20), (30, 30, 30))) == 0.0
    assert geometry.voxel_iou(np.zeros_like(a), np.zeros_like(a)) == 1.0
    with pytest.raises(MeshError, match="different shapes"):
        geometry.voxel_iou(a, a[:16])


def test_modified_hausdorff_against_a_double_loop() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 3)), rng.normal(size=(37, 3)) + 0.3
    total = 0.0
    for first, second in ((a, b), (b, a)):
        for p in first:
            total += min(float(np.sqrt(((p - q) ** 2).sum())) for q in second)
    assert geometry.modified_hausdorff(a, b) == pytest.approx(total / 97, rel=1e-12)
    assert geometry.modified_hausdorff(a, a) == 0.0
    assert geometry.modified_hausdorff(a, b) == pytest.approx(geometry.modified_hausdorff(b, a))
    assert geometry.modified_hausdorff(a[:1], a[:1] + np.array([3, 4, 0])) == pytest.approx(5)


def test_simplified_mesh_stays_close_and_keeps_colours() -> None:
    ball = trimesh.creation.icosphere(5)
    upper = ball.triangles_center[:, 1] > 0
    colors = np.where(upper[:, None], [255, 0, 0, 255], [0, 0, 255, 255]).astype(np.uint8)
    ball = trimesh.Trimesh(ball.vertices, ball.faces, face_colors=colors, process=False)
    small = geometry.simplify(ball, 800)
    assert 400 < len(small.faces) <= 880
    far = geometry.modified_hausdorff(geometry.sample_points(ball, 5000), geometry.sample_points(small, 5000, 1))
    same = geometry.modified_hausdorff(geometry.sample_points(ball, 5000), geometry.sample_points(ball, 5000, 1))
    assert far < same + 0.005
    red = geometry.face_colors(small)[:, 0] == 255
    assert (red == (small.triangles_center[:, 1] > 0)).mean() > 0.95
    assert len(geometry.simplify(ball, 10**6).faces) == len(ball.faces)


def test_glb_holds_the_mesh_and_its_colours() -> None:
    box = trimesh.creation.box((1, 1, 1))
    colors = np.where(box.face_normals[:, 1:2] > 0.5, [255, 0, 0, 255], [0, 0, 255, 255]).astype(np.uint8)
    box = trimesh.Trimesh(box.vertices, box.faces, face_colors=colors, process=False)
    scene = trimesh.load_scene(io.BytesIO(geometry.export_glb(box)), file_type="glb")
    parts = {tuple(p.visual.material.baseColorFactor[:3]): len(p.faces) for p in scene.geometry.values()}
    assert parts == {(255, 0, 0): 2, (0, 0, 255): 10}
    np.testing.assert_allclose(scene.bounds, box.bounds, atol=1 / 4096)
    assert geometry.export_glb(box) == geometry.export_glb(box)


def test_glb_keeps_the_brightness_of_colours(tmp_path: Path) -> None:
    """The format wants linear light: a gray of 136 on the screen is a quarter of white's light."""
    box = trimesh.creation.box((1, 1, 1))
    box = trimesh.Trimesh(box.vertices, box.faces, face_colors=[136, 136, 136, 255], process=False)
    (tmp_path / "gray.glb").write_bytes(geometry.export_glb(box))
    (part,) = trimesh.load_scene(tmp_path / "gray.glb").geometry.values()
    assert part.visual.material.baseColorFactor[0] == pytest.approx(255 / 4, abs=2)
    assert geometry.face_colors(geometry.load_mesh(tmp_path / "gray.glb"))[0, 0] == pytest.approx(136, abs=2)


@pytest.mark.shared
def test_real_chair_of_pix3d(shared_root: Path) -> None:
    obj = next((shared_root / "pix3d" / "model" / "chair" / "IKEA_BERNHARD").glob("*.obj"))
    mesh = geometry.normalise(geometry.load_mesh(obj, up="+y", front="-z"))
    grid = geometry.voxelise(mesh, 64)
    assert 0.001 < grid.mean() < 0.2
    lower, upper = grid[:, :32].any(axis=1), grid[:, 32:].any(axis=1)  # seen from above: (x, z)
    assert upper.sum() > 0 and lower.sum() > 0
    back = np.flatnonzero(upper.any(axis=0)).mean()
    assert back < 32  # the backrest stands on the -z side, so the front looks along +z
