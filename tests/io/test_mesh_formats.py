# ruff: noqa: E501  (XML)
"""glTF with all that trimesh leaves out, 3MF, COLLADA and STEP: known areas, volumes and bounds."""

import base64
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from fuzz_cases import glb

from cmiclib.errors import MeshError
from cmiclib.geometry import face_colors, load_mesh

BOX = trimesh.creation.box((1, 2, 3))  # volume 6, surface 22
POINTS, FACES = BOX.vertices.astype("<f4"), BOX.faces.astype("<u2")


def tree(**changes: object) -> dict:
    """A box: accessor 0 its corners, 1 its triangles; further bytes may follow."""
    return {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "buffers": [{"byteLength": 168}],
        "bufferViews": [{"buffer": 0, "byteLength": 96}, {"buffer": 0, "byteOffset": 96, "byteLength": 72}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 8, "type": "VEC3"},
                      {"bufferView": 1, "componentType": 5123, "count": 36, "type": "SCALAR"}],
    } | changes  # fmt: skip


DATA = POINTS.tobytes() + FACES.tobytes()


def with_view(values: np.ndarray, kind: int, shape: str, **more: object) -> tuple[dict, bytes]:
    """The tree with accessor 2, of these values."""
    made = tree()
    made["bufferViews"].append({"buffer": 0, "byteOffset": len(DATA), "byteLength": values.nbytes})
    made["accessors"].append({"bufferView": 2, "componentType": kind, "count": len(values), "type": shape} | more)
    made["buffers"] = [{"byteLength": len(DATA) + values.nbytes}]
    return made, DATA + values.tobytes()


def load(path: Path, made: dict, data: bytes = DATA) -> trimesh.Trimesh:
    path.write_bytes(glb(made, data))
    mesh = load_mesh(path)
    mesh.merge_vertices()
    return mesh


@pytest.mark.parametrize("scene", [{}, {"scene": 0}, {"scenes": [{"nodes": [0]}]}])
def test_a_glb_without_a_scene_or_its_number(tmp_path: Path, scene: dict) -> None:
    made = {key: value for key, value in tree().items() if key not in ("scene", "scenes")} | scene
    assert load(tmp_path / "a.glb", made).volume == pytest.approx(6)


def test_sparse_corners(tmp_path: Path) -> None:
    moved = np.array([[9, 9, 9]], "<f4")
    made = tree()
    made["bufferViews"] += [
        {"buffer": 0, "byteOffset": 168, "byteLength": 4},
        {"buffer": 0, "byteOffset": 172, "byteLength": 12},
    ]
    made["buffers"] = [{"byteLength": 184}]
    made["accessors"][0]["sparse"] = {
        "count": 1, "indices": {"bufferView": 2, "componentType": 5123}, "values": {"bufferView": 3},
    }  # fmt: skip
    mesh = load(tmp_path / "a.glb", made, DATA + np.array([7, 0], "<u2").tobytes() + moved.tobytes())
    expected = BOX.copy()
    expected.vertices[7] = 9
    assert mesh.volume == pytest.approx(expected.volume) and mesh.bounds[1].tolist() == [9, 9, 9]
    del made["accessors"][0]["bufferView"]  # then all others are 0
    assert (
        load(tmp_path / "a.glb", made, DATA + np.array([7, 0], "<u2").tobytes() + moved.tobytes()).extents.tolist()
        == [9] * 3
    )


def test_normalised_corners(tmp_path: Path) -> None:
    values = np.rint(POINTS / 1.5 * 32767).astype("<i2")
    made, data = with_view(values, 5122, "VEC3", normalized=True)
    made["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = 2
    made["nodes"] = [{"mesh": 0, "scale": [1.5] * 3, "translation": [5, 0, 0]}]
    mesh = load(tmp_path / "a.glb", made, data)
    assert mesh.volume == pytest.approx(6, rel=1e-3) and mesh.centroid.tolist() == pytest.approx([5, 0, 0], abs=1e-3)


@pytest.mark.parametrize("mode, indices", [(5, [0, 1, 2, 3]), (6, [0, 1, 3, 2])])
def test_strips_and_fans(tmp_path: Path, mode: int, indices: list[int]) -> None:
    square = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 0]], "<f4")
    made, data = with_view(np.array(indices, "<u2"), 5123, "SCALAR")
    made["accessors"][0]["count"], data = 4, square.tobytes() + bytes(48) + data[96:]
    made["meshes"][0]["primitives"][0] |= {"indices": 2, "mode": mode}
    mesh = load(tmp_path / "a.glb", made, data)
    assert mesh.area == pytest.approx(4) and mesh.is_winding_consistent


def test_instances(tmp_path: Path) -> None:
    made, data = with_view(np.array([[0, 0, 0], [10, 0, 0], [0, 20, 0]], "<f4"), 5126, "VEC3")
    made["nodes"] = [
        {"mesh": 0, "scale": [2, 2, 2], "extensions": {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 2}}}}
    ]
    mesh = load(tmp_path / "a.glb", made, data)
    assert mesh.volume == pytest.approx(3 * 48) and mesh.extents.tolist() == pytest.approx([22, 44, 6])


def test_nodes_below_a_camera_and_below_lines(tmp_path: Path) -> None:
    made = tree(nodes=[{"camera": 0, "translation": [5, 0, 0], "children": [1]}, {"mesh": 1, "translation": [0, 7, 0], "children": [2]}, {"mesh": 0}],
                cameras=[{"type": "perspective", "perspective": {"yfov": 1, "znear": 1}}])  # fmt: skip
    made["meshes"].append({"primitives": [{"attributes": {"POSITION": 0}, "mode": 0}]})
    mesh = load(tmp_path / "a.glb", made)
    assert mesh.volume == pytest.approx(6) and mesh.centroid.tolist() == pytest.approx([5, 7, 0])


@pytest.mark.parametrize("place", ["inside", "beside", "a name with spaces"])
def test_gltf_with_its_buffers(tmp_path: Path, place: str) -> None:
    uri = {"inside": "data:application/octet-stream;base64," + base64.b64encode(DATA).decode(), "beside": "box.bin"}
    made = tree(buffers=[{"byteLength": 168, "uri": uri.get(place, "box%20data.bin")}])
    (tmp_path / "box.bin").write_bytes(DATA)
    (tmp_path / "box data.bin").write_bytes(DATA)
    (tmp_path / "a.gltf").write_text(json.dumps(made))
    assert load_mesh(tmp_path / "a.gltf").volume == pytest.approx(6)


def test_gltf_whose_buffer_is_missing_or_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "box.bin").write_bytes(DATA)
    for uri, said in (("no.bin", r"no\.bin"), ("../box.bin", "leads out"), ("http://localhost/x.bin", "localhost")):
        (tmp_path / "m/a.gltf").write_text(json.dumps(tree(buffers=[{"byteLength": 168, "uri": uri}])))
        with pytest.raises(MeshError, match=rf"a\.gltf: its numbers are in .*{said}"):
            load_mesh(tmp_path / "m/a.gltf")
    (tmp_path / "m/short.bin").write_bytes(DATA[:50])
    (tmp_path / "m/a.gltf").write_text(json.dumps(tree(buffers=[{"byteLength": 168, "uri": "short.bin"}])))
    with pytest.raises(MeshError, match="cut off"):
        load_mesh(tmp_path / "m/a.gltf")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"extensionsUsed": ["KHR_draco_mesh_compression"]}, "Draco"),
        ({"extensionsRequired": ["EXT_meshopt_compression"]}, "meshopt"),
        ({"nodes": [{"mesh": 0, "skin": 0}], "skins": [{"joints": [0]}]}, "skin"),
        ({"nodes": [{"mesh": 0, "weights": [0.5]}]}, "blend shapes"),
        ({"extensionsRequired": ["VENDOR_shapes"]}, "VENDOR_shapes"),
        ({"asset": {"version": "1.0"}}, r"glTF 1\.0"),
    ],
)
def test_what_decides_the_shape_elsewhere_is_named(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(MeshError, match=rf"a\.glb: .*{said}") as error:
        load(tmp_path / "a.glb", tree(**changes))
    assert error.value.fix and "export" in error.value.fix
    with pytest.raises(MeshError, match="cut off: it claims"):
        (tmp_path / "a.glb").write_bytes(glb(tree(), DATA)[:-20])
        load_mesh(tmp_path / "a.glb")


def test_what_changes_no_shape_is_passed_over(tmp_path: Path) -> None:
    harmless = ["KHR_texture_transform", "KHR_materials_unlit", "EXT_texture_webp"]
    for changes in (
        {"extensionsRequired": harmless},
        {"extensionsUsed": ["VENDOR_shapes"]},
        {"nodes": [], "scenes": []},
    ):
        assert load(tmp_path / "a.glb", tree(**changes)).volume == pytest.approx(6)
    inside = {"byteLength": 168, "uri": "data:application/gltf-buffer;base64," + base64.b64encode(DATA).decode()}
    (tmp_path / "a.gltf").write_text("\ufeff" + json.dumps(tree(buffers=[inside])), "utf-8")
    assert load_mesh(tmp_path / "a.gltf").volume == pytest.approx(6)


# 3MF

MODEL = """<model unit="millimeter" xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
 xmlns:p="http://schemas.microsoft.com/3dmanufacturing/production/2015/06"><resources>{0}</resources><build>{1}</build></model>"""


def mesh_xml(number: int, more: str = "") -> str:
    vertices = "".join(f'<vertex x="{x}" y="{y}" z="{z}"/>' for x, y, z in POINTS)
    triangles = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in FACES)
    inside = f"<vertices>{vertices}</vertices><triangles>{triangles}</triangles>"
    return f'<object id="{number}" type="model" {more}><mesh>{inside}</mesh></object>'


def write_3mf(path: Path, **models: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in models.items():
            archive.writestr(f"3D/{name}.model", text)
    return path


def test_3mf_with_components_transforms_and_colours(tmp_path: Path) -> None:
    red = '<basematerials id="5"><base name="a" displaycolor="#0000FFFF"/><base name="b" displaycolor="#C80A14FF"/></basematerials>'
    two = '<object id="2"><components><component objectid="1"/><component objectid="1" transform="2 0 0 0 1 0 0 0 1 10 0 0"/></components></object>'
    items = '<item objectid="2"/><item objectid="2" transform="0 1 0 -1 0 0 0 0 1 0 50 0"/><item objectid="9" p:path="/3D/other.model"/>'
    path = write_3mf(
        tmp_path / "a.3mf",
        main=MODEL.format(red + mesh_xml(1, 'pid="5" pindex="1"') + two, items),
        other=MODEL.format(mesh_xml(9), ""),
    )
    mesh = load_mesh(path)
    mesh.merge_vertices()
    assert mesh.volume == pytest.approx(6 + 12 + 6 + 12 + 6)
    assert mesh.bounds.tolist() == [[-1, -1, -1.5], [11, 61, 1.5]]
    assert {tuple(color) for color in face_colors(mesh)[:, :3].tolist()} == {(200, 10, 20), (102, 102, 102)}


@pytest.mark.parametrize("items", ["", '<item objectid="1"/><item objectid="2" transform="1 0 0 0 1 0 0 0 1 9 0 0"/>'])
@pytest.mark.parametrize("color", ["red", "", "#C80A14"])
def test_3mf_without_a_list_and_with_supports(tmp_path: Path, items: str, color: str) -> None:
    paint = f'<basematerials id="5"><base name="a" displaycolor="{color}"/></basematerials>'
    support = mesh_xml(2).replace('type="model"', 'type="support"')
    path = write_3mf(tmp_path / "a.3mf", main=MODEL.format(paint + mesh_xml(1, 'pid="5" pindex="0"') + support, items))
    mesh = load_mesh(path)
    assert mesh.volume == pytest.approx(6) and mesh.extents == pytest.approx([1, 2, 3])
    assert face_colors(mesh)[0, :3].tolist() == ([200, 10, 20] if color[:1] == "#" else [102, 102, 102])


@pytest.mark.parametrize(
    "content, said",
    [
        (b"PK\3\4 but no zip", "no zip"),
        (MODEL.format('<object id="1"><components><component objectid="1"/></components></object>', '<item objectid="1"/>'), "contain themselves"),
        (MODEL.format("", '<item objectid="3"/>'), "lack parts"),
        (MODEL.format(mesh_xml(1).replace('v1="', 'v1="99'), '<item objectid="1"/>'), "name vertices"),
        (MODEL.format(mesh_xml(1).replace(' x="', ' q="'), '<item objectid="1"/>'), "lacks a number"),
        (MODEL[:40], "damaged or cut off"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>" + MODEL.format("", ""), "entities"),
        (MODEL.format("", ""), "no faces"),
    ],
)  # fmt: skip
def test_a_damaged_3mf_is_called_that(tmp_path: Path, content: bytes | str, said: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / "a.3mf").write_bytes(content)
    else:
        write_3mf(tmp_path / "a.3mf", main=content)
    with pytest.raises(MeshError, match=rf"a\.3mf: .*{said}"):
        load_mesh(tmp_path / "a.3mf")


# COLLADA

U = [(0, 0), (1, 0), (1, 1), (3, 1), (3, 0), (4, 0), (4, 2), (0, 2)]  # its surface is 6


def dae(up: str = "Y_UP", kind: str = "polylist", skin: bool = False) -> str:
    points = " ".join(f"{x} {y} 0" for x, y in U)
    order = " ".join(map(str, range(8)))
    counts = "<vcount>8</vcount>" if kind == "polylist" else ""
    bind = (
        '<instance_controller url="#k"/>'
        if skin
        else '<instance_geometry url="#g"><bind_material><technique_common><instance_material symbol="m" target="#m"/></technique_common></bind_material></instance_geometry>'
    )
    return f"""<?xml version="1.0"?><COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">
<asset><created>2020-01-01T00:00:00</created><modified>2020-01-01T00:00:00</modified><up_axis>{up}</up_axis></asset>
<library_effects><effect id="e"><profile_COMMON><technique sid="t"><lambert><diffuse><color>0.2 0.4 0.6 1</color></diffuse></lambert></technique></profile_COMMON></effect></library_effects>
<library_materials><material id="m"><instance_effect url="#e"/></material></library_materials>
<library_geometries><geometry id="g"><mesh><source id="p"><float_array id="pa" count="24">{points}</float_array><technique_common>
<accessor source="#pa" count="8" stride="3"><param name="X" type="float"/><param name="Y" type="float"/><param name="Z" type="float"/></accessor></technique_common></source>
<vertices id="v"><input semantic="POSITION" source="#p"/></vertices>
<{kind} count="1" material="m"><input semantic="VERTEX" source="#v" offset="0"/>{counts}<p>{order}</p></{kind}></mesh></geometry></library_geometries>
<library_visual_scenes><visual_scene id="s"><node><translate>0 0 7</translate><scale>1 1 2</scale><node><rotate>1 0 0 90</rotate>{bind}</node></node></visual_scene></library_visual_scenes>
<scene><instance_visual_scene url="#s"/></scene></COLLADA>"""


@pytest.mark.parametrize("kind", ["polylist", "polygons"])
@pytest.mark.parametrize("up, bounds", [("Y_UP", [[0, 0, 7], [4, 0, 11]]), ("Z_UP", [[0, 7, 0], [4, 11, 0]])])
def test_dae_with_a_concave_polygon_transforms_colour_and_axis(
    tmp_path: Path, kind: str, up: str, bounds: list
) -> None:
    (tmp_path / "a.dae").write_text(dae(up, kind))
    mesh = load_mesh(tmp_path / "a.dae")
    assert mesh.area == pytest.approx(12)
    assert mesh.bounds == pytest.approx(np.array(bounds), abs=1e-6)
    assert np.allclose(face_colors(mesh)[:, :3], [51, 102, 153], atol=1)


@pytest.mark.parametrize(
    "text, said",
    [(dae(skin=True), "skin"), ("<COLLADA/>", "COLLADA|no scene"), (dae()[:900], "cut off"), ("no xml", "cut off"),
     (dae().replace(">0 0 0 ", ">0 NaN 0 "), "NaN or Inf"), (dae(kind="polygons").replace("<p>", "<ph><p>").replace("</p>", "</p><h>0 1 2</h></ph>"), "holes"),
     (dae().replace("<scene>", "<s>").replace("</scene>", "</s>"), "no scene"), (dae().replace(" 6 7</p>", " 6 70</p>"), "damaged")],
)  # fmt: skip
def test_a_damaged_dae_is_called_that(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.dae").write_text(text)
    with pytest.raises(MeshError, match=rf"a\.dae: .*({said})"):
        load_mesh(tmp_path / "a.dae")


# STEP

QUOTES = "''"  # names are empty


def step() -> str:
    """A box of 1 by 2 by 3, in millimetres."""
    lines = list[str]()
    points = np.array([[x, y, z] for x in (0, 1) for y in (0, 2) for z in (0, 3)], float)

    def entity(kind: str, *values: object) -> str:
        lines.append(f"#{len(lines) + 100}={kind}({','.join(map(str, (QUOTES, *values)))});")
        return f"#{len(lines) + 99}"

    def triple(kind: str, values: np.ndarray) -> str:
        return entity(kind, "({:.6f},{:.6f},{:.6f})".format(*values))

    places = [triple("CARTESIAN_POINT", point) for point in points]
    corners = [entity("VERTEX_POINT", place) for place in places]
    edges = dict[tuple[int, int], str]()

    def edge(a: int, b: int) -> str:
        if (b, a) not in edges:
            length = np.linalg.norm(points[b] - points[a])
            vector = entity("VECTOR", triple("DIRECTION", (points[b] - points[a]) / length), f"{length:.6f}")
            edges[a, b] = entity("EDGE_CURVE", corners[a], corners[b], entity("LINE", places[a], vector), ".T.")
        forward = (a, b) in edges
        return entity("ORIENTED_EDGE", "*", "*", edges[(a, b) if forward else (b, a)], ".T." if forward else ".F.")

    faces = []
    for a, b, c, d in ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)):
        loop = entity("EDGE_LOOP", f"({','.join(edge(*pair) for pair in ((a, b), (b, c), (c, d), (d, a)))})")
        along, across = points[b] - points[a], points[c] - points[a]
        axes = triple("DIRECTION", np.cross(along, across)), triple("DIRECTION", along)
        plane = entity("PLANE", entity("AXIS2_PLACEMENT_3D", places[a], *axes))
        faces.append(entity("ADVANCED_FACE", f"({entity('FACE_OUTER_BOUND', loop, '.T.')})", plane, ".T."))
    brep = entity("MANIFOLD_SOLID_BREP", entity("CLOSED_SHELL", f"({','.join(faces)})"))
    head = """#1=APPLICATION_CONTEXT('automotive_design');#2=PRODUCT_CONTEXT('',#1,'mechanical');#3=PRODUCT('box','box','',(#2));
#4=PRODUCT_DEFINITION_FORMATION('','',#3);#5=PRODUCT_DEFINITION_CONTEXT('part definition',#1,'design');
#6=PRODUCT_DEFINITION('design','',#4,#5);#7=PRODUCT_DEFINITION_SHAPE('','',#6);#8=SHAPE_DEFINITION_REPRESENTATION(#7,#9);
#10=(GEOMETRIC_REPRESENTATION_CONTEXT(3)GLOBAL_UNCERTAINTY_ASSIGNED_CONTEXT((#14))GLOBAL_UNIT_ASSIGNED_CONTEXT((#11,#12,#13))REPRESENTATION_CONTEXT('',''));
#11=(LENGTH_UNIT()NAMED_UNIT(*)SI_UNIT(.MILLI.,.METRE.));#12=(NAMED_UNIT(*)PLANE_ANGLE_UNIT()SI_UNIT($,.RADIAN.));
#13=(NAMED_UNIT(*)SI_UNIT($,.STERADIAN.)SOLID_ANGLE_UNIT());#14=UNCERTAINTY_MEASURE_WITH_UNIT(LENGTH_MEASURE(1.E-5),#11,'','');
"""
    data = head + f"#9=ADVANCED_BREP_SHAPE_REPRESENTATION('',({brep}),#10);\n" + "\n".join(lines)
    return (
        "ISO-10303-21;\nHEADER;\nFILE_DESCRIPTION((''),'2;1');\nFILE_NAME('','',(''),(''),'','','');\n"
        f"FILE_SCHEMA(('AUTOMOTIVE_DESIGN'));\nENDSEC;\nDATA;\n{data}\nENDSEC;\nEND-ISO-10303-21;\n"
    )


def test_step_is_read_as_it_stands_in_metres(tmp_path: Path) -> None:
    pytest.importorskip("cascadio", reason="needs the extra 'cad'")
    (tmp_path / "a.step").write_text(step())
    mesh = load_mesh(tmp_path / "a.step")
    mesh.merge_vertices()
    assert mesh.volume == pytest.approx(6e-9, rel=1e-4) and mesh.extents.tolist() == pytest.approx(
        [0.001, 0.002, 0.003]
    )


def test_step_needs_a_package_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmiclib.io.formats import packed

    monkeypatch.setattr(packed, "find_spec", lambda name: None)
    (tmp_path / "a.STP").write_text(step())
    with pytest.raises(MeshError, match=r"(?s)a\.STP: .*cascadio.*pip install 'cmiclib\[cad\]'"):
        load_mesh(tmp_path / "a.STP")


@pytest.mark.parametrize("ending", ["step", "igs"])
def test_a_damaged_step_is_called_that(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("cascadio", reason="needs the extra 'cad'")
    (tmp_path / f"a.{ending}").write_text(step()[:900])
    with pytest.raises(MeshError, match="cannot be converted"):
        load_mesh(tmp_path / f"a.{ending}")
