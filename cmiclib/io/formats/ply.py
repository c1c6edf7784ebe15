"""PLY: text and binary of both orders, polygons of mixed lengths, strips, colours of vertices and faces, a texture.

trimesh refuses binary files of mixed polygons (its issues 1911 and 2147) and headers that end with carriage returns.
"""

import re
import struct
from typing import Any, NamedTuple

import numpy as np
import trimesh

from ...errors import MeshError
from . import CUT
from .polygons import strips, triangulate
from .text import check_corners, decoded, numbers

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "int64": "i8", "uint64": "u8",
    "float16": "f2", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
Columns = dict[str, Any]
"""A property → its values (N,), or of a list its values one after the other and the lengths (N,)."""


class Element(NamedTuple):
    """What the header says of an element: how many rows, and of each property its name, type and type of lengths."""

    name: str
    rows: int
    properties: list[tuple[str, str, str]]


def read_ply(data: bytes, texture: Any = None) -> trimesh.Trimesh:
    """Read a PLY.

    Args:
        data: the content.
        texture: takes the name of a picture that the header may name, and gives the picture, or None.

    Raises:
        MeshError: cut off, no header, or faces that name vertices that do not exist.
    """
    alone = b"\n" not in data[: data.find(b"end_header")]  # then a line feed is the first byte of the numbers
    end = re.search(rb"end_header[ \t]*" + (rb"\r" if alone else rb"\r?\n"), data)
    if end is None:
        raise MeshError("the header has no end", fix=CUT)
    header = decoded(data[: end.start()]).split("\n")
    kind, elements = _header(header)
    body, read, at = memoryview(data)[end.end() :], dict[str, Columns](), 0
    if kind == "ascii":  # numbers in the memory, as in a binary file
        body = memoryview(numbers(decoded(data[end.end() :])).tobytes())
    for element in elements:
        read[element.name], at = _rows(body, at, element)
    names = [line.split(maxsplit=2)[2:] for line in header if "texturefile" in line.lower()]
    return _mesh(read, texture(*names[0]) if texture and names and names[0] else None)


def _header(lines: list[str]) -> tuple[str, list[Element]]:
    kind, elements, order = "", list[Element](), "<"
    for words in map(str.split, lines):
        try:
            match words:
                case ["format", kind, *_]:
                    order = ">" if "big" in kind else "<"
                case ["element", name, count]:
                    elements.append(Element(name, int(count), []))
                case ["property", "list", of_length, of_item, name]:
                    elements[-1].properties.append((name, order + TYPES[of_item], order + TYPES[of_length]))
                case ["property", of_item, name]:
                    elements[-1].properties.append((name, order + TYPES[of_item], ""))
        except (KeyError, ValueError, IndexError):
            raise MeshError(f"the header has a line that is not understood: {' '.join(words):.60}", fix=CUT) from None
    if any(element.rows < 0 for element in elements) or not kind:
        raise MeshError("the header has no format, or a negative number of rows", fix="export it again")
    if kind == "ascii":
        elements = [
            element._replace(
                properties=[(name, "<f8", "<f8" if length else "") for name, _, length in element.properties]
            )
            for element in elements
        ]
    return kind, elements


def _mesh(read: dict[str, Columns], picture: Any) -> trimesh.Trimesh:
    vertex, face = read.get("vertex", {}), read.get("face", {})
    if not {"x", "y", "z"} <= set(vertex):
        raise MeshError("the vertices have no x, y and z", fix="export it again")
    vertices = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(float)
    faces, owner = np.zeros((0, 3), int), np.zeros(0, int)
    for name in ("vertex_indices", "vertex_index"):
        if name in face:
            corners, lengths = face[name][0].astype(int), face[name][1].astype(int)
            check_corners(corners, len(vertices))
            faces, owner = triangulate(vertices, corners, lengths)
    for columns in (read.get("tristrips", {}), read.get("tristrip", {})):
        for name in set(columns) & {"vertex_indices", "vertex_index"}:
            corners, lengths = columns[name][0].astype(int), columns[name][1].astype(int)
            check_corners(corners[corners != -1], len(vertices))
            faces, face = strips(np.split(corners, np.cumsum(lengths)[:-1])), {}
    colors: dict[str, Any] = {}
    if picture is not None:
        material = trimesh.visual.material.SimpleMaterial(image=picture)
        colors["visual"] = trimesh.visual.TextureVisuals(uv=np.zeros((len(vertices), 2)), material=material)
    elif (of_faces := _colors(face)) is not None:
        colors["face_colors"] = of_faces[owner]
    elif len(faces):
        colors["vertex_colors"] = _colors(vertex)
    return trimesh.Trimesh(vertices, faces, process=False, **colors)


def _colors(columns: Columns) -> np.ndarray | None:
    """Return RGB as uint8 (N, 3), from numbers up to 255, or up to 1 where they are fractions."""
    for names in (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b")):
        if set(names) <= set(columns):
            values = np.stack([columns[name] for name in names], axis=1)
            if values.dtype.kind == "f" and len(values) and values.max() <= 1 and (values % 1).any():
                values = values * 255
            return np.nan_to_num(values).clip(0, 255).astype(np.uint8)
    return None


def _rows(body: memoryview, at: int, element: Element) -> tuple[Columns, int]:
    """Read an element from byte ``at`` on; return its columns and the byte after it."""
    name, count, properties = element
    if not count or not properties:
        return {}, at
    lengths, starts, end = _places(body, at, element)
    if end > len(body):
        raise MeshError(f"the file is cut off: the header claims {count} rows of '{name}'", fix=CUT)
    columns: Columns = {}
    flat = {k: np.zeros(lengths[:, k].sum(), item) for k, (_, item, _) in enumerate(properties)}
    first = np.cumsum(lengths, axis=0) - lengths
    for shape, own in _alike(lengths):
        row = np.dtype([
            field
            for k, (_, item, length) in enumerate(properties)
            for field in ([(f"length {k}", length)] if length else []) + [(f"{k}", item, (shape[k],))]
        ])  # fmt: skip
        if len(own) == count:
            table = np.frombuffer(body, row, count, at)
        else:
            table = np.frombuffer(body, np.uint8)[starts[own, None] + np.arange(row.itemsize)].view(row)[:, 0]
        for k in range(len(properties)):
            flat[k][first[own, k, None] + np.arange(shape[k])] = table[f"{k}"]
    for k, (field, _, length) in enumerate(properties):
        columns[field] = (flat[k], lengths[:, k]) if length else flat[k]
    return columns, end


def _places(body: memoryview, at: int, element: Element) -> tuple[np.ndarray, np.ndarray, int]:
    """Return how many values each property has in each row, (N, P), where rows start, (N,), and where the last ends."""
    count, properties = element.rows, element.properties
    sizes = [np.dtype(item).itemsize for _, item, _ in properties]
    if not any(length for *_, length in properties):
        return np.ones((count, len(sizes)), int), at + sum(sizes) * np.arange(count), at + sum(sizes) * count
    if count > len(body):
        return np.zeros((1, len(sizes)), int), np.zeros(1, int), len(body) + 1
    letters = {np.dtype(name): letter for name, letter in (("i8", "q"), ("u8", "Q"))}
    readers = [
        struct.Struct(length[0] + letters.get(np.dtype(length), np.dtype(length).char)) if length else None
        for *_, length in properties
    ]
    lengths, starts = np.ones((count, len(sizes)), int), np.zeros(count, int)
    try:
        for i in range(count):
            starts[i] = at
            for k, reader in enumerate(readers):
                own = 1
                if reader:
                    own = lengths[i, k] = int(reader.unpack_from(body, at)[0])
                    at += reader.size
                at += own * sizes[k]
    except (struct.error, ValueError, OverflowError):  # no such byte; NaN or Inf
        at = len(body) + 1
    return lengths, starts, at if lengths.min() >= 0 else len(body) + 1


def _alike(lengths: np.ndarray) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Return each kind of row, as the number of its properties' values, and which rows are of it."""
    if (lengths == lengths[0]).all():
        return [(tuple(lengths[0]), np.arange(len(lengths)))]
    kinds, number = np.unique(lengths, axis=0, return_inverse=True)
    return [(tuple(kind), np.flatnonzero(number.ravel() == k)) for k, kind in enumerate(kinds)]
