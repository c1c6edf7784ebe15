from pathlib import Path

import numpy as np
import pytest
import trimesh

from cmiclib.benchmark.writer import BenchmarkWriter
from cmiclib.errors import SourceError
from cmiclib.geometry import unpack_voxels
from cmiclib.sources.meshes import MeshFile, add_meshes, listed


@pytest.fixture
def files(tmp_path: Path) -> list[MeshFile]:
    """A long box and a ball, as OBJ and PLY."""
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "box.obj")
    trimesh.creation.icosphere(2).export(tmp_path / "ball.ply")
    return [
        MeshFile("misc/box", "misc", tmp_path / "box.obj", up="+z", front="+x", name="Box"),
        MeshFile("misc/ball", "misc", tmp_path / "ball.ply"),
    ]


def writer(tmp_path: Path) -> BenchmarkWriter:
    return BenchmarkWriter(tmp_path / "out", name="toy", source="test", licence="CC0-1.0", size=32)


@pytest.mark.parametrize("jobs", [1, 2])
def test_meshes_become_shapes(tmp_path: Path, files: list[MeshFile], jobs: int) -> None:
    growing = writer(tmp_path)
    assert add_meshes(growing, files, jobs=jobs, progress=False) == []
    assert add_meshes(growing, files, jobs=jobs, progress=False) == []  # they are there
    benchmark = growing.finish()
    assert list(benchmark.shapes["shape_id"]) == ["misc/box", "misc/ball"]
    assert benchmark.shapes["name"][0] == "Box"
    extent = np.ptp(benchmark.points[0].astype(float), axis=0)
    assert np.allclose(extent / extent.max(), [2 / 3, 1, 1 / 3], atol=0.02)  # its z is up, its x the front
    assert unpack_voxels(benchmark.voxels[1]).mean() == pytest.approx(np.pi / 6, abs=0.03)
    assert trimesh.load(benchmark.mesh_path("misc/ball")).bounds[1] == pytest.approx([1, 1, 1], abs=0.03)


def test_broken_meshes_are_all_listed_and_the_rest_is_kept(tmp_path: Path, files: list[MeshFile]) -> None:
    (tmp_path / "empty.obj").write_text("v 0 0 0\n")
    broken = [MeshFile("misc/empty", "misc", tmp_path / "empty.obj"), MeshFile("misc/no", "misc", tmp_path / "no.stl")]
    with pytest.raises(SourceError, match=r"2 meshes cannot be used: .*empty.obj: .*no faces.*no.stl: no such file"):
        add_meshes(writer(tmp_path), [broken[0], files[0], broken[1]], jobs=1, progress=False)
    again = writer(tmp_path)
    assert again.has_shape("misc/box")
    left_out = add_meshes(again, [*broken, *files], jobs=1, allow_missing=True, progress=False)
    assert [mesh for mesh, _ in left_out] == broken
    assert ["no faces" in left_out[0][1], "no such file" in left_out[1][1]] == [True, True]
    assert len(again.finish().shapes) == 2


def test_a_mesh_whose_views_are_all_alike_is_a_broken_one_among_others(tmp_path: Path, files: list[MeshFile]) -> None:
    trimesh.creation.cylinder(0.5, 1, sections=24).export(tmp_path / "column.obj")
    column = MeshFile("misc/column", "misc", tmp_path / "column.obj", up="+z", front="+x")
    with pytest.raises(SourceError, match=r"1 meshes .*column.obj: the 12 views .* are all alike"):
        add_meshes(writer(tmp_path), [column, files[0]], jobs=1, progress=False)
    ((mesh, _),) = add_meshes(writer(tmp_path), [column, files[0]], jobs=1, allow_missing=True, progress=False)
    assert mesh == column


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b", "c"], "are missing", most=2) == "3 are missing: a; b; and 1 more"
