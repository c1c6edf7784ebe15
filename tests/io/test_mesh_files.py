"""Meshes that claim more than they hold, or ask for files that are not theirs."""

import base64
import struct
from pathlib import Path

import pytest
from fuzz_cases import GLB_DATA, OBJ, POSTSCRIPT, glb, glb_tree, picture, textured_glb, write_obj

from cmiclib.errors import MeshError
from cmiclib.geometry import load_mesh
from cmiclib.io.formats.gltf import MOST_DEPTH
from cmiclib.io.meshes import parse_scene, read_scene


def chain(length: int) -> list[dict]:
    return [{"children": [k + 1]} for k in range(length - 1)] + [{"mesh": 0}]


def test_a_mesh_of_a_reasonable_tree_is_read() -> None:
    scene = parse_scene(glb(glb_tree(nodes=chain(MOST_DEPTH)), GLB_DATA), Path("x.glb"))
    assert len(scene.to_mesh().faces) == 12


PART = {"attributes": {"POSITION": 0}, "indices": 1}
MANY_INDICES = [
    {"componentType": 5126, "count": 8, "type": "VEC3", "bufferView": 0},
    {"componentType": 5125, "count": 60_000, "type": "SCALAR", "bufferView": 1},
]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"accessors": [{"componentType": 5126, "count": 10**12, "type": "VEC3"}] * 2}, "more numbers than it holds"),
        ({"nodes": [{"mesh": 0}] * 10_001}, "more than 10000 nodes"),
        ({"nodes": chain(MOST_DEPTH + 2)}, "deep"),
        ({"nodes": [{"children": [1], "mesh": 0}, {"children": [0]}]}, "round in circles"),
        ({"nodes": [{"children": [2]}, {"children": [2]}, {"mesh": 0}]}, "two parents"),
        ({"meshes": [{"primitives": [PART] * 1001}], "accessors": MANY_INDICES}, "faces"),
    ],
    ids=["numbers", "nodes", "depth", "circle", "parents", "faces"],
)
def test_a_glb_that_claims_too_much_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(MeshError, match=rf"x\.glb: .*{said}"):
        parse_scene(glb(glb_tree(**changes), GLB_DATA + bytes(240_000)), Path("x.glb"))


@pytest.mark.parametrize("name", ["x.zip", "x.xaml", "x.svg", "x"])
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


def test_a_texture_in_postscript_is_as_if_missing(tmp_path: Path) -> None:
    write_obj(tmp_path)
    (tmp_path / "wood.png").write_bytes(POSTSCRIPT)
    (part,) = read_scene(tmp_path / "part.obj").geometry.values()
    assert getattr(part.visual.material, "image", None) is None
    assert len(load_mesh(tmp_path / "part.obj").faces) == 12


def with_picture(picture: dict, at: int = 0, **changes: object) -> dict:
    view = {"buffer": at, "byteOffset": 240 if at == 0 else 0, "byteLength": len(POSTSCRIPT)}
    tree = glb_tree(
        images=[picture], textures=[{"source": 0}],
        materials=[{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        meshes=[{"primitives": [PART | {"material": 0}]}], buffers=[{"byteLength": 240 + len(POSTSCRIPT)}],
    )  # fmt: skip
    return tree | {"bufferViews": [*tree["bufferViews"], view]} | changes


URI = f"data:image/png;base64,{base64.b64encode(POSTSCRIPT).decode()}"
OUTSIDE = [{"byteLength": 240}, {"byteLength": len(POSTSCRIPT), "uri": URI}]


@pytest.mark.parametrize(
    "tree",
    [
        with_picture({"bufferView": 2, "mimeType": "image/png"}),
        with_picture({"uri": URI}),
        with_picture({"bufferView": 2}, at=1, buffers=OUTSIDE),
        with_picture({"bufferView": -1}),
    ],
    ids=["in the file", "in the header", "in another buffer", "from the end"],
)
def test_a_glb_with_a_picture_in_postscript_is_refused(tree: dict) -> None:
    data = glb(tree, GLB_DATA + POSTSCRIPT)
    length = struct.unpack_from("<I", data, 12)[0]
    unknown = data[: 20 + length] + struct.pack("<I4s", 8, b"NOTE") + bytes(8) + data[20 + length :]
    for content in (data, unknown):
        with pytest.raises(MeshError, match=r"x\.glb: a picture"):
            parse_scene(content, Path("x.glb"))


def test_a_glb_with_a_picture_is_read() -> None:
    (part,) = parse_scene(textured_glb(), Path("x.glb")).geometry.values()
    assert part.visual.material.baseColorTexture.size == (24, 16)
