"""Read mesh files from strangers: few formats, with limits, and no file outside the mesh's own folder.

trimesh reads many more formats, archives among them, by a file's ending. A few bytes can claim a mesh that fills the
memory: a GLB may place one mesh thousands of times, or claim numbers that it does not hold.
"""

import contextlib
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from ..errors import CMICError, MeshError, PassingError
from .files import check_content, check_inside, read_limited
from .formats import FORMATS, REFUSED, WAY_OUT
from .formats.gltf import POSTSCRIPT, mend_gltf
from .formats.packed import glb_of_cad, read_3mf, read_dae
from .formats.ply import read_ply
from .formats.text import decoded, mend_obj, read_off, read_stl
from .images import decode_image

STARTS = {
    b"PK\3\4": ("a zip archive", ("3mf",)), b"\x1f\x8b": ("a gzip archive", ()), b"Rar!": ("a RAR archive", ()),
    b"7z\xbc\xaf": ("a 7z archive", ()), b"%PDF": ("PDF", ()), b"\x89PNG": ("a picture", ()),
    b"\xff\xd8\xff": ("a picture", ()), b"Kaydara FBX": ("FBX", ()), b"BLENDER": ("a file of Blender", ()),
    b"glTF": ("GLB", ("glb", "gltf")), b"ply\n": ("PLY", ("ply",)), b"ply\r": ("PLY", ("ply",)),
}  # fmt: skip
"""First bytes of a file → what it is, and the kinds that begin so."""
MESH_LIMIT = 1 << 30
"""Bytes of a mesh, and of a texture."""
MOST_FACES = 3_000_000
READERS = {"stl": read_stl, "off": read_off, "3mf": read_3mf, "dae": read_dae}
CAD = {"step": "step", "stp": "step", "iges": "iges", "igs": "iges"}
_FIX = "convert it to OBJ, GLB, PLY, STL or OFF"


def read_scene(path: Path, process: bool = False) -> trimesh.Scene:
    """Read a mesh file; materials and textures outside its folder count as missing.

    Args:
        path: OBJ, GLB, glTF, PLY, STL, OFF, 3MF or DAE; with the package cascadio STEP or IGES.
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
    for start, (name, right) in STARTS.items():
        if data.startswith(start) and kind not in right:
            raise MeshError(f"this is {name}, not {kind.upper()}", path=path, fix="correct its ending, or unpack it")
    try:
        with np.errstate(all="ignore"):  # NaN and Inf are refused later, in words
            scene = _parse(data, kind, process, resolver)
        _check_faces(sum(
            len(getattr(scene.geometry[scene.graph[node][1]], "faces", ())) for node in scene.graph.nodes_geometry
        ))  # fmt: skip
    except MeshError as error:
        raise type(error)(error.problem, path=error.path or path, fix=error.fix) from None
    except MemoryError:
        raise PassingError("the mesh is larger than the memory", path=path, fix="simplify it") from None
    except Exception as error:  # trimesh's readers fail in many ways, with words about themselves
        raise MeshError(
            f"cannot be read as a mesh: the file is damaged, or not {kind.upper()}", path=path, fix=_FIX
        ) from error
    return scene


def _parse(data: bytes, kind: str, process: bool, resolver: Any) -> trimesh.Scene:
    """Read a mesh of a known format."""
    if kind in READERS or kind == "ply":
        texture = partial(_picture, resolver) if resolver else None
        mesh = read_ply(data, texture) if kind == "ply" else READERS[kind](data)
        return trimesh.Scene(mesh.process() if process else mesh)
    if kind in CAD:
        data, kind = glb_of_cad(data, CAD[kind]), "glb"
    if kind in ("glb", "gltf"):
        data, kind = mend_gltf(data, partial(_beside, resolver), MOST_FACES), "glb"
    else:
        _check_faces(data.count(b"\nf "))  # before the work on each line
        text = mend_obj(data)
        _check_faces(text.count("\nf "))
        data = text.encode()
    return trimesh.load_scene(io.BytesIO(data), file_type=kind, resolver=resolver, process=process)  # noqa: TID251 (the one place)


def _check_faces(faces: int) -> None:
    if faces > MOST_FACES:
        raise MeshError(f"the mesh has {faces} faces, more than {MOST_FACES}", fix="simplify it")


def _beside(resolver: Any, name: str) -> bytes:
    if resolver is None:
        raise MeshError("nothing beside this mesh is read")
    return bytes(resolver.get(name))


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
        return decoded(data).encode() if path.suffix.lower() == ".mtl" else data
