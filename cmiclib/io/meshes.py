"""Read mesh files from strangers: five formats, with limits, and no file outside the mesh's own folder.

trimesh reads many more formats, archives among them, by a file's ending. A few bytes can claim a mesh that fills the
memory: a GLB may place one mesh thousands of times, or claim numbers that it does not hold.
"""

import base64
import contextlib
import io
import json
import struct
from functools import partial
from pathlib import Path
from typing import Any

import trimesh

from ..errors import CMICError, MeshError
from .files import check_content, check_inside, read_limited
from .formats.ply import read_ply
from .formats.text import mend_obj, read_off, read_stl
from .images import decode_image

FORMATS = (".obj", ".glb", ".ply", ".stl", ".off")
REFUSED = {
    ".fbx": "FBX", ".usd": "USD", ".usda": "USD", ".usdc": "USD", ".usdz": "USD", ".blend": "Blender's own format",
    ".3ds": "3D Studio", ".max": "3ds Max's own format", ".skp": "SketchUp's own format", ".3dm": "Rhino's own format",
    ".c4d": "Cinema 4D's own format", ".lwo": "LightWave's own format", ".sldprt": "SolidWorks's own format",
    ".wrl": "VRML", ".x3d": "X3D", ".3dxml": "3DXML", ".ifc": "IFC", ".abc": "Alembic", ".vrm": "VRM", ".jt": "JT",
}  # fmt: skip
"""Endings of meshes that are not read, and what they are."""
WAY_OUT = "open it in Blender or the program that wrote it, and export it as GLB"
MESH_LIMIT = 1 << 30
"""Bytes of a mesh, and of a texture."""
MOST_FACES = 5_000_000
MOST_NODES = 10_000
MOST_DEPTH = 100
"""Depth of a node; trimesh multiplies the transforms of a chain anew for each of its nodes."""
POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
"""First bytes of a picture for which Pillow starts Ghostscript; trimesh opens textures of every format."""
PACKED = {"KHR_draco_mesh_compression": "Draco", "EXT_meshopt_compression": "meshopt"}
_FIX = "convert it to OBJ, GLB, PLY, STL or OFF"


def read_scene(path: Path, process: bool = False) -> trimesh.Scene:
    """Read a mesh file; materials and textures outside its folder count as missing.

    Args:
        path: OBJ, GLB, PLY, STL or OFF.
        process: merge vertices that coincide.

    Raises:
        MeshError: no such file, damaged, of another format, or too large.
    """
    if not path.is_file():
        raise MeshError("no such file", path=path, fix="correct the path")
    if name := REFUSED.get(path.suffix.lower()):
        raise MeshError(f"this is {name}, which is not read", path=path, fix=WAY_OUT)
    if path.suffix.lower() not in FORMATS:
        raise MeshError(f"'{path.suffix}' is not the ending of a mesh that is read here", path=path, fix=_FIX)
    return parse_scene(read_limited(path, MESH_LIMIT, MeshError), path, process, _Beside(str(path)))


def parse_scene(data: bytes, path: Path, process: bool = False, resolver: Any = None) -> trimesh.Scene:
    """Read a mesh from the content of a file.

    Args:
        data: the content.
        path: its name, whose ending tells the format.
        process: merge vertices that coincide.
        resolver: finds materials and textures; without one they count as missing.

    Raises:
        MeshError: as :func:`read_scene`.
    """
    kind = path.suffix.lower().removeprefix(".")
    check_content(data, path, MeshError)
    try:
        scene = _parse(data, kind, process, resolver)
        _check_faces(sum(
            len(getattr(scene.geometry[scene.graph[node][1]], "faces", ())) for node in scene.graph.nodes_geometry
        ))  # fmt: skip
    except MeshError as error:
        raise MeshError(error.problem, path=error.path or path, fix=error.fix) from None
    except MemoryError:
        raise MeshError("the mesh is larger than the memory", path=path, fix="simplify it") from None
    except Exception as error:  # trimesh's readers fail in many ways, with words about themselves
        raise MeshError(
            f"cannot be read as a mesh: the file is damaged, or not {kind.upper()}", path=path, fix=_FIX
        ) from error
    return scene


def _parse(data: bytes, kind: str, process: bool, resolver: Any) -> trimesh.Scene:
    """Read a mesh of a known format."""
    if kind in ("ply", "stl", "off"):
        texture = partial(_picture, resolver) if resolver else None
        mesh = read_ply(data, texture) if kind == "ply" else (read_stl if kind == "stl" else read_off)(data)
        return trimesh.Scene(mesh.process() if process else mesh)
    if kind == "glb":
        _check_glb(data)
    else:
        text = mend_obj(data)
        _check_faces(text.count("\nf "))
        data = text.encode()
    return trimesh.load_scene(io.BytesIO(data), file_type=kind, resolver=resolver, process=process)  # noqa: TID251 (the one place)


def _check_faces(faces: int) -> None:
    if faces > MOST_FACES:
        raise MeshError(f"the mesh has {faces} faces, more than {MOST_FACES}", fix="simplify it")


def _picture(resolver: Any, name: str) -> Any:
    """Return a texture beside the mesh; None where it is missing or damaged."""
    with contextlib.suppress(CMICError):
        return decode_image(io.BytesIO(resolver.get(name)), Path(name))


class _Beside(trimesh.resolvers.FilePathResolver):
    """Finds regular files of limited size in a mesh's folder and below."""

    def get(self, name: str) -> bytes:
        path, folder = Path(self.parent) / name.strip().replace("\\", "/"), Path(self.parent)
        check_inside(path, folder, MeshError)
        data = read_limited(path, MESH_LIMIT, MeshError)
        if data.startswith(POSTSCRIPT):
            raise MeshError("this texture is PostScript", path=path, fix="convert it to PNG or JPEG")
        return data


def _check_glb(data: bytes) -> None:
    """Refuse a GLB that claims more numbers than it has bytes, too many nodes or faces, or a picture in PostScript.

    Raises:
        MeshError: what is wrong.
    """
    (length,) = struct.unpack_from("<I", data, 12)
    header = json.loads(data[20 : 20 + length].decode())  # trimesh guesses the encoding of what is not UTF-8
    for extension, packer in PACKED.items():
        if extension in header.get("extensionsUsed", []):
            raise MeshError(f"its geometry is compressed with {packer}", fix="export it without compression")
    _check_pictures(header, data, 20 + length)
    counts = [accessor["count"] for accessor in header.get("accessors", [])]
    if any(not isinstance(count, int) or not 0 <= count <= len(data) for count in counts) or sum(counts) > len(data):
        raise MeshError("it claims more numbers than it holds")
    if len(header.get("nodes", [])) > MOST_NODES:
        raise MeshError(f"it has more than {MOST_NODES} nodes")
    _check_tree(header.get("nodes", []))
    parts = [part for mesh in header.get("meshes", []) for part in mesh["primitives"]]
    if sum(counts[part.get("indices", part["attributes"]["POSITION"])] for part in parts) > 3 * MOST_FACES:
        raise MeshError(f"it has more than {MOST_FACES} faces")


def _check_pictures(header: dict[str, Any], data: bytes, at: int) -> None:
    """Refuse embedded pictures in PostScript; ``at`` is where the chunk after the header begins.

    Raises:
        MeshError: one is in PostScript, or lies in a buffer of another file.
    """
    length, kind = 0, b""
    while kind != b"BIN\0" and (at := at + length) + 8 <= len(data):
        length, kind = struct.unpack_from("<I4s", data, at)
        at += 8
    binary = memoryview(data)[at : at + length]
    outside = any("uri" in buffer for buffer in header.get("buffers", []))
    for picture in header.get("images", []):
        if "bufferView" in picture:
            view = header["bufferViews"][picture["bufferView"]]
            if view["buffer"] != 0 or outside:
                raise MeshError("a picture lies in a buffer outside the file")
            start = view.get("byteOffset", 0)
            first = bytes(binary[start : start + view["byteLength"]][:4])
        else:  # the name of a file, which the resolver checks, or the picture itself
            first = base64.b64decode(picture.get("uri", "").partition("base64,")[2])[:4]
        if first.startswith(POSTSCRIPT):
            raise MeshError("a picture is PostScript")


def _check_tree(nodes: list[dict[str, Any]]) -> None:
    """Refuse nodes that form no tree, or too deep a tree.

    Raises:
        MeshError: what is wrong.
    """
    parent: dict[int, int] = {}
    for number, node in enumerate(nodes):
        for child in node.get("children", []):
            if parent.setdefault(child, number) != number:
                raise MeshError("a node has two parents")
    for number in range(len(nodes)):
        depth, above = 0, number
        while above in parent and depth <= MOST_DEPTH:
            depth, above = depth + 1, parent[above]
        if depth > MOST_DEPTH:
            raise MeshError(f"its nodes are more than {MOST_DEPTH} deep, or go round in circles")
