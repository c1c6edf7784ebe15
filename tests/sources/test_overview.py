"""The sheet of a prepared folder, and the suspicion that a shape lies."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from typer.testing import CliRunner

from cmiclib.cli import app
from cmiclib.sources.own.overview import may_lie, say_overview


def furniture(back: bool) -> trimesh.Trimesh:
    """A chair, or a table without its back, +y up."""
    parts = [trimesh.creation.box((1, 0.06, 1), trimesh.transformations.translation_matrix((0, 1, 0)))]
    for x in (-0.45, 0.45):
        for z in (-0.45, 0.45):
            leg = trimesh.creation.box((0.06, 1, 0.06))
            parts.append(leg.apply_translation((x, 0.5, z)))
    if back:
        parts.append(trimesh.creation.box((1, 1, 0.06)).apply_translation((0, 1.5, -0.47)))
    return trimesh.util.concatenate(parts)


def on_its_back(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The same as a program with +z up writes it."""
    return mesh.copy().apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))


@pytest.mark.parametrize("back", [False, True])
def test_furniture_that_lies_is_suspected_and_furniture_that_stands_is_not(back: bool) -> None:
    standing = furniture(back)
    assert not may_lie(standing.triangles)
    assert may_lie(on_its_back(standing).triangles)
    assert not may_lie(trimesh.creation.box((1, 1, 1)).triangles)


def test_a_prepared_folder_has_a_sheet_and_names_what_may_lie(tmp_path: Path) -> None:
    root = tmp_path / "models"
    (root / "chair").mkdir(parents=True)
    furniture(True).export(root / "chair" / "good.stl")
    on_its_back(furniture(True)).export(root / "chair" / "lying.stl")
    command = ["prepare", "folder", "--input", root, "--output", tmp_path / "b", "--size", "32", "--jobs", "1"]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 0, result.output
    told = result.output.split("perhaps lying: ")[1].splitlines()[0]
    assert "chair/lying" in told and "chair/good" not in told and "--up" in told
    with Image.open(tmp_path / "b" / "contact-sheet.jpg") as sheet:
        assert sheet.width > sheet.height > 100 and str(tmp_path / "b" / "contact-sheet.jpg") in result.output
    turned = [*command[:5], tmp_path / "c", *command[6:], "--up", "*lying.stl=+z", "--front", "*lying.stl=-y"]
    again = CliRunner().invoke(app, list(map(str, turned)))
    assert again.exit_code == 0 and "perhaps lying" not in again.output, again.output
    views = [np.load(tmp_path / name / "views.npy") for name in "bc"]
    assert np.array_equal(views[1][0], views[1][1])  # turned, both are one chair; without the option nothing was
    assert not np.array_equal(views[0][0], views[0][1])


def test_a_benchmark_of_another_source_has_none(tiny_benchmark) -> None:
    assert say_overview(tiny_benchmark) == []
