"""3MF, COLLADA (DAE), and STEP or IGES by way of the package cascadio."""

import io
import re
import signal
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from typing import Any
from xml.etree import ElementTree

import numpy as np
import trimesh

from ...errors import MeshError, PassingError
from ..files import read_member
from . import CUT
from .polygons import triangulate
from .text import check_corners

XML_LIMIT = 1 << 29
MOST_PARTS = 10_000
SECONDS = 120
"""For STEP and IGES, whose surfaces are cut into triangles first."""
GRAY = (102, 102, 102)
HEX = re.compile("#[0-9a-fA-F]{6}")
SUPPORTS = ("support", "solidsupport")  # of a printer, not of the object
UPRIGHT = {"Z_UP": [[1, 0, 0], [0, 0, 1], [0, -1, 0]], "X_UP": [[0, -1, 0], [1, 0, 0], [0, 0, 1]]}
"""COLLADA's axis that points up → the rotation that makes it +y."""


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parse XML without entities of its own, of which few bytes can become gigabytes."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise MeshError("its XML defines entities, which are not read", fix="export it again")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError:
        raise MeshError("its XML is damaged or cut off", fix=CUT) from None


class _Parts:
    """Triangles that are collected part by part, with a colour each."""

    def __init__(self) -> None:
        self.vertices, self.faces, self.count = [np.zeros((0, 3))], [np.zeros((0, 3), int)], 0
        self.colors = [np.zeros((0, 3), np.uint8)]

    def add(self, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray) -> None:
        check_corners(faces.ravel(), len(vertices))
        self.faces.append(faces + self.count)
        self.vertices.append(vertices)
        self.colors.append(np.broadcast_to(colors, (len(faces), 3)).astype(np.uint8))
        self.count += len(vertices)

    def mesh(self) -> trimesh.Trimesh:
        vertices, faces, colors = map(np.concatenate, (self.vertices, self.faces, self.colors))
        return trimesh.Trimesh(vertices, faces, face_colors=colors, process=False)


def read_3mf(data: bytes) -> trimesh.Trimesh:
    """Read a 3MF: all objects that its list of what to build places, components and colours included.

    Raises:
        MeshError: not a zip, no model in it, cut off, or objects that contain themselves.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except Exception:  # damaged zips fail in many ways
        raise MeshError("the file is damaged or cut off: it is no zip", fix=CUT) from None
    models = {}
    for name in archive.namelist():
        if name.lower().endswith(".model"):
            models["/" + name.lstrip("/")] = parse_xml(read_member(archive, name, XML_LIMIT, MeshError, CUT))
    objects, colors = dict[tuple[str, str], Any](), dict[tuple[str, str], np.ndarray]()
    for path, model in models.items():
        for item in model.iter():
            tag = _tag(item)
            if tag == "object":
                objects[path, item.get("id", "")] = item
            elif tag in ("basematerials", "colorgroup"):
                names = [child.get("displaycolor") or child.get("color") or "" for child in item]
                tints = [list(bytes.fromhex(name[1:7])) if HEX.match(name) else GRAY for name in names]
                colors[path, item.get("id", "")] = np.array(tints)
    parts = _Parts()
    waiting = [
        (item.get("objectid", ""), _attribute(item, "path") or path, _placing(item), 0)
        for path, model in models.items() for item in model.iter() if _tag(item) == "item"
    ]  # fmt: skip
    if not waiting:  # some programs list nothing to build
        nested = {
            part.get("objectid") for item in objects.values() for part in item.iter() if _tag(part) == "component"
        }
        waiting = [(number, path, np.eye(4), 0) for path, number in objects if number not in nested]
    while waiting:
        number, path, placing, depth = waiting.pop()
        owner = objects.get((path, number))
        if owner is None or depth > 30 or len(parts.faces) > MOST_PARTS:
            raise MeshError("its objects lack parts, contain themselves, or are too many", fix="export it again")
        for part in owner.iter() if owner.get("type", "model") not in SUPPORTS else ():
            if _tag(part) == "component":
                inner = _attribute(part, "path") or path
                waiting.append((part.get("objectid", ""), inner, _placing(part) @ placing, depth + 1))
            elif _tag(part) == "mesh":
                _add_3mf(
                    parts, part, placing, {key[1]: value for key, value in colors.items() if key[0] == path}, owner
                )
    return parts.mesh()


def _add_3mf(parts: _Parts, mesh: Any, placing: np.ndarray, colors: dict[str, np.ndarray], owner: Any) -> None:
    try:
        vertices = np.array([[float(v.get(axis)) for axis in "xyz"] for v in mesh.iter() if _tag(v) == "vertex"])
        triangles = [t for t in mesh.iter() if _tag(t) == "triangle"]
        faces = np.array([[int(t.get(key)) for key in ("v1", "v2", "v3")] for t in triangles], int)
        given, first = owner.get("pid", ""), owner.get("pindex", "0")
        tints = [(colors.get(t.get("pid", given)), int(t.get("p1", first))) for t in triangles]
        tint = np.array([GRAY if group is None else group[number] for group, number in tints]).reshape(-1, 3)
    except (TypeError, ValueError, IndexError):
        raise MeshError("a vertex or triangle lacks a number", fix=CUT) from None
    vertices = np.c_[vertices.reshape(-1, 3), np.ones(len(vertices))] @ placing
    parts.add(vertices[:, :3], faces.reshape(-1, 3), tint)


def _tag(item: Any) -> str:
    return str(item.tag).rpartition("}")[2]


def _attribute(item: Any, name: str) -> str:
    return next((text for key, text in item.attrib.items() if key.rpartition("}")[2] == name), "")


def _placing(item: Any) -> np.ndarray:
    """Return the matrix (4, 4) by which rows of vertices are multiplied."""
    matrix = np.eye(4)
    if text := item.get("transform"):
        try:
            matrix[:, :3] = np.array(text.split(), float).reshape(4, 3)
        except ValueError:
            raise MeshError("a transform has no twelve numbers", fix="export it again") from None
    return matrix


def read_dae(data: bytes) -> trimesh.Trimesh:
    """Read COLLADA: the geometry that its scene places, turned so that its upper axis is +y.

    Raises:
        MeshError: damaged, bound to a skeleton, or with polygons that have holes.
    """
    parse_xml(data)
    if b"<ph>" in data:  # pycollada would leave them out
        raise MeshError("it has polygons with holes, which are not read", fix="export it with triangles, or as GLB")
    data = re.sub(rb"(?i)(?<=[\s>])[-+]?nan(?=[\s<])", b"inf", data)  # pycollada takes NaN for 0
    if b"<instance_controller" in data:
        fix = "apply the armature's pose in Blender, and export it without skins"
        raise MeshError("it is bound to a skeleton (a skin), whose pose decides its shape", fix=fix)
    import collada  # a machine that only trains may lack it

    ignored = [collada.common.DaeUnsupportedError, collada.common.DaeBrokenRefError]
    try:
        read = collada.Collada(io.BytesIO(data), ignore=ignored)
    except collada.common.DaeError:
        raise MeshError("it is damaged, or not COLLADA", fix="export it again, or as GLB") from None
    if read.scene is None:
        raise MeshError("it has no scene, so nothing is placed", fix="export it again")
    parts = _Parts()
    for geometry in read.scene.objects("geometry"):
        for piece in geometry.primitives():
            if isinstance(piece, collada.lineset.BoundLineSet) or piece.vertex is None or not len(piece):
                continue
            indices = np.asarray(piece.vertex_index).ravel().astype(int)
            if isinstance(piece, collada.triangleset.BoundTriangleSet):
                lengths = np.full(len(indices) // 3, 3)
            else:
                lengths = np.diff(piece.polyindex, axis=1)[:, 0].astype(int)
            check_corners(indices, len(piece.vertex))
            faces, _ = triangulate(np.asarray(piece.vertex, float), indices, lengths)
            diffuse = getattr(getattr(piece.material, "effect", None), "diffuse", None)
            tint = np.array(diffuse[:3]) * 255 if isinstance(diffuse, tuple) else np.array(GRAY)
            parts.add(np.asarray(piece.vertex, float), faces, tint.clip(0, 255))
    mesh = parts.mesh()
    turn = np.eye(4)
    turn[:3, :3] = UPRIGHT.get(str(read.assetInfo.upaxis), np.eye(3))
    return mesh.apply_transform(turn)


def glb_of_cad(data: bytes, kind: str) -> bytes:
    """Return the GLB of a STEP or IGES file; another process cuts its surfaces, because damaged ones end it.

    Raises:
        MeshError: the package is not installed, or the file cannot be converted.
    """
    if find_spec("cascadio") is None:
        raise MeshError(
            "STEP and IGES need the package cascadio", fix="pip install 'cmiclib[cad]', or export it as GLB"
        )
    code = (
        "import sys, cascadio; sys.stdout.buffer.write(cascadio.load(sys.stdin.buffer.read(), file_type=sys.argv[1]))"
    )
    try:
        done = subprocess.run([sys.executable, "-c", code, kind], input=data, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise PassingError(f"it is not converted within {SECONDS} seconds", fix="export it as GLB") from None
    if done.returncode == -signal.SIGKILL:  # by the system, where memory is short
        raise PassingError("its conversion was ended, perhaps for want of memory", fix="export it as GLB")
    at = done.stdout.find(b"glTF")
    if done.returncode or at < 0:
        raise MeshError("it cannot be converted to triangles: it is damaged or cut off", fix="export it as GLB")
    return done.stdout[at:]
