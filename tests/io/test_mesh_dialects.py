"""Meshes as other programs write them give the surface that they describe: known areas, volumes and bounds."""

import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from cmiclib.errors import MeshError
from cmiclib.geometry import face_colors, load_mesh, normalise

# A bench: a prism over a U, 4 wide, 2 high, 1 deep, its notch 2 by 1: volume 6, surface 12 + 14.
PROFILE = [(0, 0), (1, 0), (1, 1), (3, 1), (3, 0), (4, 0), (4, 2), (0, 2)]
CORNERS = [(x, y, z) for z in (0, 1) for x, y in PROFILE]
SIDES = [(i, (i + 1) % 8, 8 + (i + 1) % 8, 8 + i) for i in range(8)]
POLYGONS = [tuple(range(7, -1, -1)), tuple(range(8, 16)), *SIDES]


def obj(polygons: list[tuple[int, ...]] = POLYGONS, corner: str = "{0}") -> str:
    faces = ("f " + " ".join(corner.format(i + 1) for i in polygon) for polygon in polygons)
    return "\n".join([*("v {} {} {}".format(*point) for point in CORNERS), *faces]) + "\n"


def check_bench(path: Path) -> trimesh.Trimesh:
    mesh = load_mesh(path)
    mesh.merge_vertices()
    assert mesh.area == pytest.approx(26) and abs(mesh.volume) == pytest.approx(6)
    assert mesh.bounds.tolist() == [[0, 0, 0], [4, 2, 1]]
    return mesh


def turned(polygon: tuple[int, ...], by: int) -> tuple[int, ...]:
    return polygon[by:] + polygon[:by]


@pytest.mark.parametrize("start", range(8))
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 0, 1), (1, 0, 2)])
def test_a_concave_polygon_is_filled_inside_its_border_only(tmp_path: Path, start: int, axes: tuple) -> None:
    corners = np.array(CORNERS)[:, axes]
    text = "".join("v {} {} {}\n".format(*point) for point in corners)
    text += "".join("f " + " ".join(str(i + 1) for i in turned(polygon, start)) + "\n" for polygon in POLYGONS)
    (tmp_path / "bench.obj").write_text(text)
    mesh = load_mesh(tmp_path / "bench.obj")
    mesh.merge_vertices()
    assert mesh.area == pytest.approx(26) and mesh.is_watertight and mesh.is_winding_consistent
    assert abs(mesh.volume) == pytest.approx(6)


def test_a_quad_with_a_notch_is_cut_at_the_notch(tmp_path: Path) -> None:
    for start in range(4):
        corners = turned(((0, 0), (4, 0), (1, 1), (0, 4)), start)
        (tmp_path / "arrow.obj").write_text("".join(f"v {x} {y} 0\n" for x, y in corners) + "f 1 2 3 4\n")
        assert load_mesh(tmp_path / "arrow.obj").area == pytest.approx(4)


RELATIVE = "".join(
    f"usemtl part{k}\n"
    + "".join(f"v {x + 2 * k} {y} {z}\n" for x, y, z in trimesh.creation.box().vertices)
    + "".join("f {} {} {}\n".format(*(face - 8)) for face in trimesh.creation.box().faces)
    for k in range(3)
)


def test_indices_from_the_end_count_from_the_line_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "boxes.obj").write_text(RELATIVE + "vt 0 0\nvn 0 0 1\nf -1/-1/-1 -2/-1/-1 -3/-1/-1\n")
    mesh = load_mesh(tmp_path / "boxes.obj")
    assert mesh.area == pytest.approx(18 + mesh.area_faces[-1]) or mesh.area == pytest.approx(18.5)
    assert mesh.extents.tolist() == [5, 1, 1]


@pytest.mark.parametrize("face", ["-9 -1 -2", "-1 -2 -3 -9", "-9/1 -1/1 -2/1", "-9//-1 -1//-1 -2//-1"])
def test_an_index_from_the_end_that_leads_before_the_start_is_refused(tmp_path: Path, face: str) -> None:
    (tmp_path / "a.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nvn 0 0 1\nf {face}\nf 1 2 3\n")
    with pytest.raises(MeshError, match="does not have"):
        load_mesh(tmp_path / "a.obj")


@pytest.mark.parametrize(
    "dialect",
    [
        lambda text: text.replace(" ", "\t"),
        lambda text: "".join(f"\t  {line}\n" for line in text.splitlines()),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace("\n", " \r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace(" ", "  ").replace("\n", "   # note\n"),
        lambda text: "# written to C:\\models\\\n" + text,
        lambda text: text.replace("v 4", "v \\\n 4"),
        lambda text: text.replace("v ", "v\u00a0"),
        lambda text: "vt 0 0\n" + text.replace("f 1 2 ", "f 1/1 2/1 "),
    ],
    ids=["tabs", "indented", "cr", "crlf", "bom", "comments", "backslash", "continued", "hard spaces", "some vt"],
)
def test_obj_as_others_write_it(tmp_path: Path, dialect) -> None:
    (tmp_path / "bench.obj").write_bytes(dialect(obj()).encode())
    check_bench(tmp_path / "bench.obj")


def test_comments_and_names_in_latin_1_and_utf_16(tmp_path: Path) -> None:
    (tmp_path / "bench.obj").write_bytes(("# Küchenstühle\no Bücherregal\n" + obj()).encode("latin-1"))
    check_bench(tmp_path / "bench.obj")
    (tmp_path / "bench.obj").write_bytes(obj().encode("utf-16"))
    check_bench(tmp_path / "bench.obj")


def test_a_triangle_with_texture_is_not_taken_for_a_polygon_of_six_corners(tmp_path: Path) -> None:
    text = "".join(f"v {np.cos(a):.9f} {np.sin(a):.9f} 0\n" for a in np.arange(6) * np.pi / 3)
    (tmp_path / "mixed.obj").write_text(text + "vt 0 0\nv 0 0 1\nf 1 2 3 4 5 6\nf 1/1 2/1 7/1\n")
    assert load_mesh(tmp_path / "mixed.obj").area == pytest.approx(1.5 * 3**0.5 + 7**0.5 / 4)


# PLY


def ply(kind: str, polygons: list = POLYGONS, colors: bool = False, end: str = "\n", strips: bool = False) -> bytes:
    order = ">" if "big" in kind else "<"
    head = ["ply", f"format {kind} 1.0", f"element vertex {len(CORNERS)}", *(f"property float {a}" for a in "xyz")]
    lists = f"element {'tristrips' if strips else 'face'} {len(polygons)}"
    head += ["element material 1", "property list uchar uchar name", lists]
    head += [
        "property list uchar int vertex_indices",
        *(f"property uchar {c}" for c in ("red", "green", "blue") if colors),
    ]
    lines = end.join([*head, "end_header", ""]).encode()
    tint = (160, 90, 40) if colors else ()
    if kind == "ascii":
        rows = [*CORNERS, (2, 65, 66), *((len(polygon), *polygon, *tint) for polygon in polygons)]
        return lines + end.join(" ".join(map(str, row)) for row in rows).encode() + end.encode()
    body = b"".join(struct.pack(order + "3f", *corner) for corner in CORNERS) + b"\2AB"
    for polygon in polygons:
        body += struct.pack(f"{order}B{len(polygon)}i", len(polygon), *polygon) + bytes(tint)
    return lines + body


KINDS = ["ascii", "binary_little_endian", "binary_big_endian"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"], ids=["lf", "cr", "crlf"])
@pytest.mark.parametrize("colors", [False, True])
def test_ply_of_polygons_of_many_lengths(tmp_path: Path, kind: str, end: str, colors: bool) -> None:
    (tmp_path / "bench.ply").write_bytes(ply(kind, colors=colors, end=end))
    mesh = check_bench(tmp_path / "bench.ply")
    if colors:
        assert (face_colors(mesh)[:, :3] == [160, 90, 40]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_ply_of_strips(tmp_path: Path, kind: str) -> None:
    around = [i for k in (*range(8), 0) for i in (k, k + 8)]
    (tmp_path / "bench.ply").write_bytes(ply(kind, [(*around[:6], -1, *around[4:])], strips=True))
    mesh = load_mesh(tmp_path / "bench.ply")
    assert mesh.area == pytest.approx(14) and mesh.is_winding_consistent


@pytest.mark.parametrize("kind", KINDS)
def test_a_ply_that_is_cut_off_is_called_that(tmp_path: Path, kind: str) -> None:
    for data in (ply(kind)[:-9], ply(kind)[:400], ply(kind)[:60]):
        (tmp_path / "bench.ply").write_bytes(data)
        with pytest.raises(MeshError, match=r"bench\.ply: the (file is cut off|header has no end)"):
            load_mesh(tmp_path / "bench.ply")


def test_ply_of_points_has_no_faces(tmp_path: Path) -> None:
    (tmp_path / "points.ply").write_bytes(ply("ascii", []))
    with pytest.raises(MeshError, match="no faces"):
        load_mesh(tmp_path / "points.ply")


# OFF


@pytest.mark.parametrize("color", ["", " 200 10 10", " 200 10 10 255", " 0.8 0.04 0.04", " 7"])
@pytest.mark.parametrize(
    "head", ["OFF\n{}", "OFF {}", "off # made by hand\n\n# counts\n{}", "{}", "\ufeffOFF\n{}", "OFF{}"]
)
def test_off_of_polygons(tmp_path: Path, color: str, head: str) -> None:
    rows = [f"{len(polygon)} {' '.join(map(str, polygon))}{color}" for polygon in POLYGONS]
    text = head.format(f"{len(CORNERS)} {len(POLYGONS)} 0") + "\n"
    (tmp_path / "bench.off").write_text(text + "\n".join([*("{} {} {}".format(*point) for point in CORNERS), *rows]))
    mesh = check_bench(tmp_path / "bench.off")
    if len(color) > 2:
        assert np.allclose(face_colors(mesh)[0, :3], [200, 10, 10], atol=6)


def test_an_off_that_is_cut_off_or_binary_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "a.off").write_text("OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n")
    with pytest.raises(MeshError, match="cut off: it claims 4 vertices and 4 faces"):
        load_mesh(tmp_path / "a.off")
    (tmp_path / "a.off").write_bytes(b"OFF BINARY\n" + bytes(99))
    with pytest.raises(MeshError, match="binary"):
        load_mesh(tmp_path / "a.off")


# STL

BOX = trimesh.creation.box((1, 2, 3))


@pytest.mark.parametrize("tail", [b"", b"\0", b"made by a program" * 9, bytes(50), b"endsolid"])
@pytest.mark.parametrize("head", [b"binary", b"solid box", b""])
def test_stl_with_a_tail(tmp_path: Path, tail: bytes, head: bytes) -> None:
    data = BOX.export(file_type="stl")
    (tmp_path / "box.stl").write_bytes(head.ljust(80) + data[80:] + tail)
    assert load_mesh(tmp_path / "box.stl").volume == pytest.approx(6)


@pytest.mark.parametrize("change", [str, str.upper, lambda text: text.replace("\n", "\r"), lambda text: text * 2])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_stl_as_text(tmp_path: Path, change, encoding: str) -> None:
    text = change("solid vertex of a box\n" + BOX.export(file_type="stl_ascii").partition("\n")[2])
    (tmp_path / "box.stl").write_text(text, encoding)
    assert load_mesh(tmp_path / "box.stl").area == pytest.approx(22 * text.lower().count("endsolid"))


def test_an_stl_that_is_cut_off_is_called_that(tmp_path: Path) -> None:
    for data in (BOX.export(file_type="stl")[:-1], BOX.export(file_type="stl_ascii")[:-60].encode()):
        (tmp_path / "box.stl").write_bytes(data)
        with pytest.raises(MeshError, match="cut off"):
            load_mesh(tmp_path / "box.stl")


# What is no mesh, and what nobody sees


@pytest.mark.parametrize("ending", ["obj", "glb", "ply", "stl", "off"])
def test_what_stands_in_a_files_place_is_called_what_it_is(tmp_path: Path, ending: str) -> None:
    for text, said in (
        (f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0a' * 32}\nsize 99\n", "Git LFS"),
        ("\n<!DOCTYPE HTML>\n<html><body>f 1 2 3</body></html>", "web page"),
        ("<html lang='en'>", "web page"),
        ("", "empty"),
    ):
        (tmp_path / f"a.{ending}").write_text(text)
        with pytest.raises(MeshError, match=rf"a\.{ending}: .*{said}"):
            load_mesh(tmp_path / f"a.{ending}")


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.obj", obj().encode()[:-7], "cut off in its last line"),
        ("a.obj", obj().encode()[:30], "cut off in its last line"),
        ("a.obj", obj().replace("f 1 ", "f 0 ").encode(), "vertex 0"),
        ("a.obj", obj().replace("f 1 ", "f 99 ").encode(), "vertices that it does not have"),
        ("a.obj", obj().replace("f 1 ", "f one ").encode(), "not a number"),
        ("a.obj", BOX.export(file_type="glb"), "this is GLB, not OBJ"),
        ("a.glb", b"PK\3\4" + bytes(99), "this is a zip archive"),
        ("a.stl", b"\x89PNG\r\n" + bytes(300), "this is a picture"),
        ("a.glb", obj().encode(), "not glTF"),
    ],
)
def test_what_is_damaged_or_another_thing_is_called_that(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MeshError, match=said) as error:
        load_mesh(tmp_path / name)
    assert not any(word in str(error.value) for word in ("Error", "index ", "array", "None", "object at"))


@pytest.mark.parametrize("stray", [(0, 0, 0), (1, 0, 1), (0, 1, 1)], ids=["dot", "needle", "line"])
def test_a_face_without_area_moves_nothing(stray: tuple[int, int, int]) -> None:
    box = trimesh.creation.box((1, 2, 3))
    far = [[500, 0, 0], [500, 700, 0]]
    faces = np.vstack([box.faces, [[8 + i for i in stray]]])
    with_stray = trimesh.Trimesh([*box.vertices, *far], faces, process=False)
    assert np.allclose(normalise(with_stray).vertices, normalise(box).vertices)
    for width, seen in ((1e-5, False), (0.5, True)):
        pole = trimesh.Trimesh([*box.vertices, far[0], [500, width, 0]], [*box.faces, [0, 8, 9]], process=False)
        assert np.allclose(normalise(pole).extents, normalise(box).extents) != seen
