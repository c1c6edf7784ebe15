"""glTF and GLB, checked and put right for trimesh.

trimesh leaves out sparse and normalised numbers, fans, instances, nodes behind a camera, and files without a scene.
"""

import base64
import json
import struct
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import numpy as np

from ...errors import MeshError
from . import CUT
from .polygons import fan, strips

MOST_NODES = 10_000
MOST_DEPTH = 100
"""Depth of a node; trimesh multiplies the transforms of a chain anew for each of its nodes."""
POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
"""First bytes of a picture for which Pillow starts Ghostscript; trimesh opens textures of every format."""
PACKED = {
    "KHR_draco_mesh_compression": "Draco",
    "EXT_meshopt_compression": "meshopt",
    "KHR_meshopt_compression": "meshopt",
}
TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
HARMLESS = (
    "KHR_materials_", "KHR_texture_", "EXT_texture_", "MSFT_texture_", "KHR_lights_", "EXT_lights_", "KHR_xmp",
    "KHR_mesh_quantization", "EXT_mesh_gpu_instancing", "KHR_animation_", "EXT_mesh_features", "EXT_structural_",
)  # fmt: skip
"""What names of extensions begin with that are read, or that change no shape."""
STRIP, FAN, TRIANGLES = 5, 6, 4
GAMMA = 2.2  # of colours on a screen; glTF's factors are linear light


def mend_gltf(data: bytes, find: Callable[[str], bytes], most_faces: int) -> bytes:
    """Return the GLB that trimesh reads rightly: these very bytes where there is nothing to mend.

    ``find`` gives the content of a file beside it.

    Raises:
        MeshError: compressed, bound to a skeleton, cut off, a buffer is missing, or it claims more than it holds.
    """
    file = _File(data, find)
    header = file.header
    for extension, packer in PACKED.items():
        if extension in [*header.get("extensionsUsed", []), *header.get("extensionsRequired", [])]:
            fix = "export it without compression, or unpack it with 'gltf-transform copy in.glb out.glb'"
            raise MeshError(f"its geometry is compressed with {packer}, which is not read", fix=fix)
    if str(header.get("asset", {}).get("version", "2")).startswith("1"):
        raise MeshError("this is glTF 1.0, which is not read", fix="export it as glTF 2.0 or GLB")
    if other := [name for name in header.get("extensionsRequired", []) if not name.startswith(HARMLESS)]:
        raise MeshError(f"it needs the extension {other[0]:.60}, which is not read", fix="export it without")
    file.read_buffers()
    _check_pictures(file)
    meshes = header.get("meshes", [])
    nodes = header.setdefault("nodes", [])
    if meshes and not nodes:  # a library of meshes, none of which is placed
        nodes += [{"mesh": number} for number in range(len(meshes))]
        header.pop("scenes", None)
    if any("skin" in node and "mesh" in node for node in nodes):
        fix = "apply the armature's pose in Blender, and export it without skins"
        raise MeshError("it is bound to a skeleton (a skin), whose pose decides its shape", fix=fix)
    if any(any(item.get("weights", [])) for item in (*nodes, *meshes)):
        raise MeshError("blend shapes (morph targets) decide its shape", fix="apply them, and export it without")
    counts = [accessor["count"] for accessor in header.get("accessors", [])]
    room = len(data) + sum(map(len, file.buffers))
    if any(not isinstance(count, int) or not 0 <= count <= room for count in counts) or sum(counts) > room:
        raise MeshError("it claims more numbers than it holds", fix=CUT)
    parts = [part for mesh in meshes for part in mesh["primitives"]]
    if sum(counts[part.get("indices", part["attributes"]["POSITION"])] for part in parts) > 3 * most_faces:
        raise MeshError(f"it has more than {most_faces} faces", fix="simplify it")
    for part in parts:
        file.mend_part(part)
    for node in list(nodes):
        file.mend_node(node)
    _check_tree(nodes)
    if "scenes" not in header and nodes:
        children = {child for node in nodes for child in node.get("children", [])}
        header["scenes"], file.changed = [{"nodes": [k for k in range(len(nodes)) if k not in children]}], True
    return file.packed() if file.changed else data


def read_own(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return corners, float32 (F, 3, 3), and colours, uint8 (F, 3), of what `cmiclib.geometry.export_glb` wrote."""
    file = _File(data, lambda _: b"")
    file.read_buffers()
    corners, colors = [np.zeros((0, 3, 3), np.float32)], [np.zeros((0, 3), np.uint8)]
    for part in (part for mesh in file.header.get("meshes", []) for part in mesh["primitives"]):
        faces = file.accessor(part["indices"]).reshape(-1, 3)
        corners.append(file.accessor(part["attributes"]["POSITION"])[faces])
        linear = np.array(file.header["materials"][part["material"]]["pbrMetallicRoughness"]["baseColorFactor"][:3])
        colors.append(np.tile(np.rint(255 * linear ** (1 / GAMMA)).astype(np.uint8), (len(faces), 1)))
    return np.concatenate(corners), np.concatenate(colors)


class _File:
    """A header, the buffers it names, and whether anything was mended."""

    def __init__(self, data: bytes, find: Callable[[str], bytes]) -> None:
        self.find, self.changed, self.buffers, self.binary = find, False, list[bytes](), b""
        if not data.startswith(b"glTF"):
            if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"{":
                raise MeshError("this is not glTF: it begins neither with a header nor with JSON", fix=CUT)
            self.header, self.changed = json.loads(data.decode("utf-8-sig")), True
            return
        total, length = struct.unpack_from("<8xII", data)
        if total > len(data) or 20 + length > len(data):
            raise MeshError(f"the file is cut off: it claims {total} bytes and holds {len(data)}", fix=CUT)
        self.header = json.loads(data[20 : 20 + length].decode())  # trimesh guesses the encoding of what is not UTF-8
        at, kind = 20 + length, b""
        while kind != b"BIN\0" and at + 8 <= len(data):
            size, kind = struct.unpack_from("<I4s", data, at)
            self.binary, at = data[at + 8 : at + 8 + size], at + 8 + size
        if kind != b"BIN\0":
            self.binary = b""

    def read_buffers(self) -> None:
        for number, buffer in enumerate(self.header.get("buffers", [])):
            uri = buffer.get("uri")
            if uri is None:
                self.buffers.append(self.binary if number == 0 else b"")
                continue
            self.changed = True
            if uri.startswith("data:"):
                self.buffers.append(base64.b64decode(uri.partition("base64,")[2]))
            else:
                try:
                    self.buffers.append(self.find(unquote(uri)))
                except MeshError as error:
                    fix = "put the file beside the mesh, or export a single GLB"
                    raise MeshError(f"its numbers are in {uri:.60}: {error.problem}", fix=fix) from None
            if len(self.buffers[-1]) < buffer["byteLength"]:
                raise MeshError(f"its buffer {number} is cut off", fix=CUT)

    def view(self, number: int) -> memoryview:
        """Return a buffer view's bytes."""
        view = self.header["bufferViews"][number]
        start = view.get("byteOffset", 0)
        return memoryview(self.buffers[view["buffer"]])[start : start + view["byteLength"]]

    def _numbers(self, where: dict[str, Any], kind: str, width: int, count: int) -> np.ndarray:
        """Return numbers (count, width) of a buffer view, however far apart they lie."""
        dtype, data = np.dtype(kind), self.view(where["bufferView"])
        stride = self.header["bufferViews"][where["bufferView"]].get("byteStride") or width * dtype.itemsize
        try:
            return np.ndarray((count, width), dtype, data, where.get("byteOffset", 0), (stride, dtype.itemsize))
        except (TypeError, ValueError):
            raise MeshError("it claims more numbers than it holds", fix=CUT) from None

    def accessor(self, number: int) -> np.ndarray:
        """Return an accessor's numbers (N, width), sparse ones put in, normalised ones as fractions."""
        accessor = self.header["accessors"][number]
        kind, width, count = TYPES[accessor["componentType"]], WIDTHS[accessor["type"]], accessor["count"]
        values = np.zeros((count, width), kind)
        if "bufferView" in accessor:
            values = self._numbers(accessor, kind, width, count)
        if sparse := accessor.get("sparse"):
            rows = self._numbers(sparse["indices"], TYPES[sparse["indices"]["componentType"]], 1, sparse["count"])[:, 0]
            if len(rows) and rows.max() >= count:
                raise MeshError("its sparse numbers are for rows that it does not have", fix=CUT)
            values = values.copy()
            values[rows] = self._numbers(sparse["values"], kind, width, sparse["count"])
        if accessor.get("normalized") and values.dtype.kind in "iu":
            return np.maximum(values / np.iinfo(values.dtype).max, -1).astype(np.float32)
        return values

    def add_accessor(self, values: np.ndarray) -> int:
        """Append numbers (N, width), float32 or uint32; return the accessor's number."""
        self.changed = True
        self.buffers.append(np.ascontiguousarray(values).tobytes())
        views, accessors = self.header.setdefault("bufferViews", []), self.header["accessors"]
        views.append({"buffer": len(self.buffers) - 1, "byteOffset": 0, "byteLength": len(self.buffers[-1])})
        kind = 5126 if values.dtype.kind == "f" else 5125
        width = {1: "SCALAR", 3: "VEC3"}[values.shape[1]]
        accessors.append({"bufferView": len(views) - 1, "componentType": kind, "count": len(values), "type": width})
        return len(accessors) - 1

    def mend_part(self, part: dict[str, Any]) -> None:
        """Make a primitive of triangles plain: its positions as they are meant, its indices a list."""
        mode, attributes = part.get("mode", TRIANGLES), part["attributes"]
        if mode not in (TRIANGLES, STRIP, FAN):
            return
        place = attributes["POSITION"]
        accessor = self.header["accessors"][place]
        if "sparse" in accessor or accessor.get("normalized"):
            attributes["POSITION"] = self.add_accessor(self.accessor(place).astype(np.float32))
        listed, count = part.get("indices"), accessor["count"]
        if mode == TRIANGLES and (listed is None or "sparse" not in self.header["accessors"][listed]):
            return
        indices = np.arange(count) if listed is None else self.accessor(listed)[:, 0].astype(int)
        if mode == STRIP:
            indices = strips([indices]).ravel()
        elif mode == FAN:
            indices = indices[fan(len(indices))].ravel() if len(indices) > 2 else indices[:0]
        part["mode"], part["indices"] = TRIANGLES, self.add_accessor(indices.astype(np.uint32)[:, None])

    def mend_node(self, node: dict[str, Any]) -> None:
        """Give each instance a node of its own; take away cameras, and meshes that have no surface."""
        if node.pop("camera", None) is not None:
            self.changed = True
        if "mesh" not in node:
            return
        parts = self.header["meshes"][node["mesh"]]["primitives"]
        if not any(part.get("mode", TRIANGLES) in (TRIANGLES, STRIP, FAN) for part in parts):
            self.changed = node.pop("mesh") is not None
            return
        instances = node.get("extensions", {}).pop("EXT_mesh_gpu_instancing", {}).get("attributes", {})
        keys = {"TRANSLATION": "translation", "ROTATION": "rotation", "SCALE": "scale"}
        placed = {keys[name]: self.accessor(number).tolist() for name, number in instances.items() if name in keys}
        if placed:
            nodes, mesh, self.changed = self.header["nodes"], node.pop("mesh"), True
            count = min(map(len, placed.values()))
            if len(nodes) + count > MOST_NODES:
                raise MeshError(f"it has more than {MOST_NODES} nodes", fix="simplify it")
            node.setdefault("children", []).extend(range(len(nodes), len(nodes) + count))
            nodes += [{"mesh": mesh} | {key: rows[k] for key, rows in placed.items()} for k in range(count)]

    def packed(self) -> bytes:
        """Return one GLB with all buffers as one."""
        starts, joined = [], bytearray()
        for buffer in self.buffers:
            starts.append(len(joined))
            joined += buffer + bytes(-len(buffer) % 4)
        for view in self.header.get("bufferViews", []):
            view["byteOffset"] = starts[view["buffer"]] + view.get("byteOffset", 0)
            view["buffer"] = 0
        self.header["buffers"] = [{"byteLength": len(joined)}]
        text = json.dumps(self.header).encode()
        text += b" " * (-len(text) % 4)
        head = struct.pack("<4sIIII", b"glTF", 2, 28 + len(text) + len(joined), len(text), 0x4E4F534A)
        return head + text + struct.pack("<I4s", len(joined), b"BIN\0") + bytes(joined)


def _check_pictures(file: _File) -> None:
    """Refuse embedded pictures in PostScript."""
    for picture in file.header.get("images", []):
        if "bufferView" in picture:
            first = bytes(file.view(picture["bufferView"])[:4])
        else:  # the name of a file, which the resolver checks, or the picture itself
            first = base64.b64decode(picture.get("uri", "").partition("base64,")[2])[:4]
        if first.startswith(POSTSCRIPT):
            raise MeshError("a picture is PostScript", fix="convert it to PNG or JPEG")


def _check_tree(nodes: list[dict[str, Any]]) -> None:
    """Refuse too many nodes, nodes that form no tree, or too deep a tree."""
    if len(nodes) > MOST_NODES:
        raise MeshError(f"it has more than {MOST_NODES} nodes", fix="simplify it")
    parent: dict[int, int] = {}
    for number, node in enumerate(nodes):
        for child in node.get("children", []):
            if parent.setdefault(child, number) != number:
                raise MeshError("a node has two parents", fix="export it again")
    for number in range(len(nodes)):
        depth, above = 0, number
        while above in parent and depth <= MOST_DEPTH:
            depth, above = depth + 1, parent[above]
        if depth > MOST_DEPTH:
            problem = f"its nodes are more than {MOST_DEPTH} deep, or go round in circles"
            raise MeshError(problem, fix="export it with fewer groups")
