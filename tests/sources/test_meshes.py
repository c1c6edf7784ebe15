from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from cmiclib.benchmark.writer import BenchmarkWriter
from cmiclib.errors import SourceError
from cmiclib.geometry import unpack_voxels
from cmiclib.sources import PrepareOptions, listed
from cmiclib.sources.building import add_shapes
from cmiclib.sources.meshes import MeshFile

QUICK = PrepareOptions(jobs=1, progress=False)


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
    options = PrepareOptions(jobs=jobs, progress=False)
    assert add_shapes(growing, files, options) == {}
    assert add_shapes(growing, files, options) == {}  # they are there
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
    with (
        writer(tmp_path) as growing,
        pytest.raises(SourceError, match=r"2 shapes cannot be used: .*empty.obj: .*no faces.*no.stl: no such file"),
    ):
        add_shapes(growing, [broken[0], files[0], broken[1]], QUICK)
    with writer(tmp_path) as again:
        left_out = add_shapes(again, [*broken, *files], replace(QUICK, allow_missing=True))
        assert list(left_out) == ["misc/empty", "misc/no"]
        assert "no faces" in left_out["misc/empty"] and "no such file" in left_out["misc/no"]
        assert again.finish().shapes.shape_id.tolist() == ["misc/box", "misc/ball"]


def test_a_mesh_that_was_changed_between_two_calls_is_made_again(tmp_path: Path, files: list[MeshFile]) -> None:
    with writer(tmp_path) as growing:
        add_shapes(growing, files, QUICK)
    trimesh.creation.box((1, 1, 1.5)).export(files[1].path)
    with writer(tmp_path) as again:
        add_shapes(again, files, QUICK)
        made = again.finish()
    assert unpack_voxels(made.voxels[1]).mean() == pytest.approx(1.5 / 8 / (0.5 + 0.75**2) ** 1.5, rel=0.1)
    undisturbed = BenchmarkWriter(tmp_path / "whole", name="toy", source="test", licence="CC0-1.0", size=32)
    add_shapes(undisturbed, files, QUICK)
    assert undisturbed.finish().hash == made.hash  # the order is the files', whatever came first


@pytest.mark.parametrize("sides", [12, 24, 36, 48, 72])
def test_a_round_column_is_a_shape(tmp_path: Path, sides: int) -> None:
    trimesh.creation.cylinder(0.5, 1, sections=sides).export(tmp_path / "column.obj")
    with writer(tmp_path) as growing:
        assert add_shapes(growing, [MeshFile("a/b", "a", tmp_path / "column.obj", up="+z", front="+x")], QUICK) == {}


def test_a_mesh_whose_views_are_empty_is_a_broken_one_among_others(tmp_path: Path, files: list[MeshFile]) -> None:
    speck = [[9, 9, 9], [9, 9, 9.0001], [9, 9.0001, 9]]
    trimesh.Trimesh([*(np.eye(3) * 1e-4), *speck], [[0, 1, 2], [3, 4, 5]]).export(tmp_path / "dust.ply")
    dust = MeshFile("misc/dust", "misc", tmp_path / "dust.ply")
    with writer(tmp_path) as growing:
        with pytest.raises(SourceError, match=r"1 shape cannot .*dust.ply: the 12 views .* are empty"):
            add_shapes(growing, [dust, files[0]], QUICK)
        left_out = add_shapes(growing, [dust, files[0]], replace(QUICK, allow_missing=True))
    assert list(left_out) == ["misc/dust"]


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b", "c"], "file", " missing", most=2) == "3 files missing: a; b; and 1 more"
    assert listed(["a"], "file") == "1 file: a"
