"""Meshes that claim more than they hold, or ask for files that are not theirs."""

import io
from pathlib import Path

import pytest
import trimesh
from fuzz_cases import GLB_DATA, OBJ, glb, glb_tree, picture, write_obj
from PIL import EpsImagePlugin

from cmiclib.errors import MeshError
from cmiclib.geometry import face_colors, load_mesh
from cmiclib.io.meshes import MOST_DEPTH, parse_scene, read_scene


def chain(length: int) -> list[dict]:
    return [{"children": [k + 1]} for k in range(length - 1)] + [{"mesh": 0}]


def test_a_mesh_of_a_reasonable_tree_is_read() -> None:
    scene = parse_scene(glb(glb_tree(nodes=chain(MOST_DEPTH)), GLB_DATA), Path("x.glb"))
    assert len(scene.to_mesh().faces) == 12


PART = {"attributes": {"POSITION": 0}, "indices": 1}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"accessors": [{"componentType": 5126, "count": 10**12, "type": "VEC3"}] * 2}, "more numbers than it holds"),
        ({"nodes": [{"mesh": 0}] * 10_001}, "more than 10000 nodes"),
        ({"nodes": chain(MOST_DEPTH + 2)}, "deep"),
        ({"nodes": [{"children": [1], "mesh": 0}, {"children": [0]}]}, "round in circles"),
        ({"nodes": [{"children": [2]}, {"children": [2]}, {"mesh": 0}]}, "two parents"),
        ({"meshes": [{"primitives": [PART] * 2_000_000}]}, "faces"),
    ],
    ids=["numbers", "nodes", "depth", "circle", "parents", "faces"],
)
def test_a_glb_that_claims_too_much_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(MeshError, match=rf"x\.glb: cannot be read as a mesh \(ValueError: .*{said}"):
        parse_scene(glb(glb_tree(**changes), GLB_DATA), Path("x.glb"))


@pytest.mark.parametrize("name", ["x.zip", "x.gltf", "x.dae", "x"])
def test_other_endings_are_not_tried(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(OBJ)
    with pytest.raises(MeshError, match="is not the ending of a mesh"):
        read_scene(tmp_path / name)


@pytest.mark.parametrize("place", ["../wood.png", "link.png"])
def test_textures_outside_the_folder_are_as_if_missing(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "mesh"
    folder.mkdir()
    write_obj(folder)
    scene = read_scene(folder / "part.obj")
    (part,) = scene.geometry.values()
    assert part.visual.material.image is not None
    (tmp_path / "wood.png").write_bytes(picture())
    (folder / "link.png").symlink_to("../wood.png")
    (folder / "part.mtl").write_text(f"newmtl wood\nmap_Kd {place}\n")
    (part,) = read_scene(folder / "part.obj").geometry.values()
    assert getattr(part.visual.material, "image", None) is None
    assert len(load_mesh(folder / "part.obj").faces) == 12


def test_no_texture_starts_another_program() -> None:
    assert EpsImagePlugin.gs_binary is False
    visual = trimesh.visual.TextureVisuals(material=trimesh.visual.material.SimpleMaterial())
    visual.material.image = EpsImagePlugin.EpsImageFile(
        io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    )
    part = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], visual=visual, process=False)
    assert face_colors(part).shape == (1, 4)
