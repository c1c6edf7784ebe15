import re

from catalogue import (
    DISTRACTOR_LIST,
    DISTRACTORS,
    MODELS,
    obj_facts,
    read_catalogue,
    read_distractor_list,
    read_models,
    shape_id,
)


def test_shape_id_is_a_safe_file_name():
    assert shape_id("chair", "BlendSwap-CC-0#armchair2") == "chair/C0_armchair2"
    assert shape_id("lamp", "Scopia#a b.c") == "lamp/SC_a_b_c"


def test_tables_are_consistent():
    models, distractors = read_models(MODELS, True), read_models(DISTRACTORS, True)
    rows = models + distractors
    identifiers = [m.shape_id for m in rows]
    assert len(identifiers) == len(set(identifiers))
    assert len({m.obj_path for m in rows}) == len(rows)
    for m in rows:
        assert re.fullmatch(r"[A-Za-z0-9_-]+/[A-Za-z0-9_-]+", m.shape_id)
        assert m.shape_id == shape_id(m.category, m.source)
        assert m.group in identifiers
        assert m.licence.startswith(("CC0-1.0", "CC-BY-3.0"))
        assert m.creator
        assert m.faces > 0
        assert len(m.model_rotation.split()) in (0, 9)


def test_groups_name_themselves():
    groups = {m.shape_id: m.group for m in read_models(MODELS, True)}
    assert all(groups[g] == g for g in groups.values())


def test_distractors_follow_the_list():
    listed = [shape_id(c, f"{lib}#{key}") for c, lib, key in read_distractor_list(DISTRACTOR_LIST)]
    assert listed == [m.shape_id for m in read_models(DISTRACTORS, True)]
    assert len(listed) >= 160


def test_read_catalogue(tmp_path):
    (tmp_path / "PluginFurnitureCatalog.properties").write_bytes(
        b"id=library\n# comment\nid#1=Lib#one\nname#1=Caf\xe9\nid#2=Lib#two\nname#2=b=c\n"
    )
    entries = read_catalogue(tmp_path)
    assert entries["one"]["name"] == "Café"
    assert entries["two"]["name"] == "b=c"


def test_obj_facts(tmp_path):
    (tmp_path / "m.obj").write_text(
        "mtllib m.mtl\nusemtl a\nf 1 2 3 4\nusemtl b\nf 1/1 2/2 3/3\nusemtl plain\nf 1 2 3\n"
    )
    (tmp_path / "m.mtl").write_text(
        "newmtl a\nmap_Kd here.png\nnewmtl b\nmap_Kd gone.png\nnewmtl plain\nKd 1 1 1\nnewmtl unused\nmap_Kd no.png\n"
    )
    (tmp_path / "here.png").write_bytes(b"x")
    assert obj_facts(tmp_path / "m.obj") == (4, 1, 1)
