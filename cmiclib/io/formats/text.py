"""Text files of meshes as other programs write them: OBJ put right for trimesh; STL and OFF read here."""

import re
import warnings

import numpy as np
import trimesh

from ...errors import MeshError
from . import CUT
from .polygons import cut_ears, is_concave, triangulate


def decoded(data: bytes) -> str:
    """Return a text with line feeds only, whatever marks, ends of lines and letters its program wrote."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:  # a name or a comment in Latin-1; numbers are the same
            text = data.decode("latin-1").removeprefix("ï»¿")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def numbers(text: str) -> np.ndarray:
    """Return all numbers of a text, float (N,).

    Raises:
        MeshError: one is not a number.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.fromstring(text, np.float64, sep=" ")  # a list of texts would need ten times the memory
        except (ValueError, DeprecationWarning):
            raise MeshError("there is a word where a number belongs", fix="export it again") from None


def mend_obj(data: bytes) -> str:
    """Return an OBJ that trimesh reads rightly: white space, comments, indices from the end, concave polygons.

    trimesh counts negative indices from the end of the file (its issue 2364), loses the line after a comment that ends
    with a backslash, and makes fans of polygons (2519).

    Raises:
        MeshError: a face names a vertex that does not exist.
    """
    text = re.sub(r"(?m)^[^\S\n]+", "", re.sub(r"(?m)^[^\S\n]*#.*$", "", decoded(data)))
    text = re.sub(r"(?m)^fo\b", "f", re.sub(r"\\[^\S\n]*\n", " ", text))
    if re.search(r"[^\S\n ]|(?m:^(?:v[nt]?|f)\b.*#)", text):
        text = re.sub(r"(?m)^((?:v[nt]?|f)\b[^#\n]*)#.*$", r"\1", re.sub(r"[^\S\n]", " ", text))
    last = text.rpartition("\n")[2].split()
    if (last[:1] == ["v"] and len(last) < 4) or (last[:1] == ["f"] and len(last) < 4):
        raise MeshError("the file is cut off in its last line", fix=CUT)
    if re.search(r"(?m)^f (?:.* )?0+(?:[ /]|$)", text):
        raise MeshError("a face names the vertex 0; OBJ counts from 1", fix="export it again")
    faces = len(re.findall(r"(?m)^f ", text))
    if not faces:
        return text
    if len(re.findall(r"(?m)^f [^\n]*/", text)) not in (0, faces):  # it takes 1/1 2/1 3/1 for a polygon of six corners
        text = re.sub(r"(?m)^f .*$", lambda line: re.sub(r"/\S*", "", line[0]), text)
    if re.search(r"(?m)^f .*-|^f +\S+ +\S+ +\S+ +\S", text):
        text = _mend_faces(text.split("\n"))
    return text


def _mend_faces(lines: list[str]) -> str:
    """Return the lines with indices from the start, and triangles for concave polygons."""
    seen, vertices, polygons = {"v": 0, "vt": 0, "vn": 0}, list[list[str]](), dict[int, list[int]]()
    for number, line in enumerate(lines):
        key = line[:2].rstrip()
        if key in seen:
            seen[key] += 1
            if key == "v":
                vertices.append(line.split()[1:4])
        elif key == "f":
            if "-" in line:
                line = lines[number] = "f " + " ".join(
                    _absolute(corner, tuple(seen.values())) for corner in line.split()[1:]
                )
            corners = line.split()[1:]
            if len(corners) > 3:
                polygons[number] = [_number(corner.partition("/")[0]) - 1 for corner in corners]
    try:
        points = np.array(vertices, np.float64).reshape(-1, 3)
    except ValueError:
        raise MeshError("a vertex has no three numbers", fix=CUT) from None
    for length in {len(polygon) for polygon in polygons.values()}:
        own = [number for number, polygon in polygons.items() if len(polygon) == length]
        indices = np.array([polygons[number] for number in own])
        check_corners(indices, len(points))
        for k in np.flatnonzero(is_concave(points[indices])):
            names = lines[own[k]].split()[1:]
            lines[own[k]] = "\n".join("f " + " ".join(names[i] for i in t) for t in cut_ears(points[indices[k]]))
    return "\n".join(lines)


def _absolute(corner: str, seen: tuple[int, ...]) -> str:
    """Return a corner such as -4/-4/-1 with indices from the start, given how many of each kind came before it."""
    parts = [
        _number(part) + count + 1 if part.startswith("-") else part
        for part, count in zip(corner.split("/"), seen, strict=False)
    ]
    if any(isinstance(part, int) and part < 1 for part in parts):
        raise MeshError("faces of the mesh name vertices that it does not have", fix="export it again")
    return "/".join(map(str, parts))


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise MeshError("a face has a corner that is not a number", fix="export it again") from None


def read_stl(data: bytes) -> trimesh.Trimesh:
    """Read STL, binary or text; bytes after the last triangle are passed over (trimesh's issue 1720).

    Raises:
        MeshError: the file is cut off.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = decoded(data).encode()
    count = int.from_bytes(data[80:84], "little")
    room = (len(data) - 84) // 50
    if b"\0" not in data[:512] and re.search(rb"solid|facet", data[:512], re.IGNORECASE):
        text = re.sub(r"(?im)^(?!\s*vertex\b).*$", "", decoded(data))
        corners = numbers(re.sub(r"(?i)vertex\b", "", text))
        if len(corners) % 9 or not re.search(rb"(?i)endsolid", data[-1024:]):
            raise MeshError(f"the file is cut off after {len(corners) // 9} triangles", fix=CUT)
        corners = corners.reshape(-1, 3)
    elif count > room:
        raise MeshError(f"the file is cut off: it claims {count} triangles and holds {room}", fix=CUT)
    else:
        triangle = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("rest", "<u2")])
        corners = np.frombuffer(data, triangle, count, 84)["corners"].reshape(-1, 3)
    return trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3), process=False)


def read_off(data: bytes) -> trimesh.Trimesh:
    """Read OFF as text, with polygons, comments, and colours of faces, as numbers from 0 to 255 or from 0 to 1.

    Raises:
        MeshError: cut off, binary, or faces that name vertices that do not exist.
    """
    lines = [line for raw in decoded(data).split("\n") if (line := raw.partition("#")[0].strip())]
    head = re.match(r"(ST)?(C)?(N)?(4)?(n)?OFF(?![a-z])(?P<rest>.*)", lines[0] if lines else "", re.IGNORECASE)
    if head:
        lines = [head["rest"].strip(), *lines[1:]] if head["rest"].strip() else lines[1:]
        if head[4] or head[5] or "BINARY" in head["rest"].upper():
            raise MeshError("this is OFF in binary or of four dimensions", fix="save it as OFF in text, or as OBJ")
    try:
        vertex_count, face_count = map(int, lines[0].split()[:2])
        rows = lines[1 : 1 + vertex_count]
        vertices = np.array([row.split()[:3] for row in rows], np.float64).reshape(-1, 3)
        faces = [row.split() for row in lines[1 + vertex_count : 1 + vertex_count + face_count]]
        lengths = np.array([int(face[0]) for face in faces], int)
        corners = np.array([i for face, n in zip(faces, lengths, strict=True) for i in face[1 : 1 + n]], int)
    except (ValueError, IndexError):
        raise MeshError("a line of the file is not what OFF has there", fix="export it again") from None
    if len(vertices) < vertex_count or len(faces) < face_count or len(corners) < lengths.sum():
        raise MeshError(f"the file is cut off: it claims {vertex_count} vertices and {face_count} faces", fix=CUT)
    check_corners(corners, len(vertices))
    triangles, owner = triangulate(vertices, corners, lengths)
    tails = [face[1 + n : 4 + n] for face, n in zip(faces, lengths, strict=True)]
    colors = np.array([tail if len(tail) == 3 else [200] * 3 for tail in tails], np.float64).reshape(-1, 3)
    if any("." in "".join(tail) for tail in tails):
        colors = colors * 255
    of_faces = None
    if any(len(tail) == 3 for tail in tails):
        of_faces = np.c_[colors.clip(0, 255), np.full(len(colors), 255)].astype(np.uint8)[owner]
    return trimesh.Trimesh(vertices, triangles, face_colors=of_faces, process=False)


def check_corners(corners: np.ndarray, vertices: int) -> None:
    """Refuse faces that name vertices that do not exist.

    Raises:
        MeshError: they do.
    """
    if len(corners) and (corners.min() < 0 or corners.max() >= vertices):
        raise MeshError("faces of the mesh name vertices that it does not have", fix="export it again")
