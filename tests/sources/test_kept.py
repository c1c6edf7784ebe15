"""A folder of meshes as a kept gallery: only what is new is read and rendered."""

import os
import shutil
import time
from pathlib import Path

import pytest
import trimesh

from cmiclib.errors import PassingError, SourceError
from cmiclib.sources import PrepareOptions
from cmiclib.sources.own import kept
from cmiclib.sources.own.kept import cache_folder, keep_gallery

OPTIONS = PrepareOptions(size=32, jobs=1, progress=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, mesh in (
        ("chair/box.obj", trimesh.creation.box((1, 2, 1))),
        ("chair/tall.ply", trimesh.creation.box((1, 4, 1))),
        ("lamp/cone.stl", trimesh.creation.cone(1, 2, sections=6)),
    ):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mesh.export(path)
    return tmp_path / "models"


def made(cache: Path) -> set[str]:
    return {path.name for path in (cache / "shapes").iterdir()}


def test_an_unchanged_folder_is_opened_without_reading_a_mesh(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = keep_gallery(folder, cache, OPTIONS)
    assert first.benchmark.shapes.shape_id.tolist() == ["chair/box", "chair/tall", "lamp/cone"]
    assert first.files["lamp/cone"] == folder / "lamp/cone.stl"
    assert first.benchmark.views.shape == (3, 12, 32, 32)

    def fail(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(kept, "file_sha256", fail)
    monkeypatch.setattr(kept, "prepare_mesh", fail)
    again = keep_gallery(folder, cache, OPTIONS)
    assert again.benchmark.path == first.benchmark.path
    assert again.benchmark.meta["digests"] == first.benchmark.meta["digests"]


def test_a_new_a_changed_and_a_renamed_file(folder, tmp_path):
    cache = tmp_path / "cache"
    first = keep_gallery(folder, cache, OPTIONS)
    before = made(cache)
    trimesh.creation.icosphere(1).export(folder / "lamp/ball.off")
    trimesh.creation.box((3, 1, 1)).export(folder / "chair/box.obj")
    (folder / "lamp/cone.stl").rename(folder / "lamp/hat.stl")
    second = keep_gallery(folder, cache, OPTIONS)
    assert second.benchmark.shapes.shape_id.tolist() == ["chair/box", "chair/tall", "lamp/ball", "lamp/hat"]
    assert len(made(cache) - before) == 2  # the ball and the wider box; the cone has its old content
    assert (second.benchmark.views[3] == first.benchmark.views[2]).all()
    assert (second.benchmark.views[0] != first.benchmark.views[0]).any()


def test_a_file_that_cannot_be_used_is_named_in_every_call_and_costs_itself_only(folder, tmp_path, monkeypatch):
    (folder / "chair/page.obj").write_text("<!doctype html><html></html>")
    first = keep_gallery(folder, tmp_path / "cache", OPTIONS)
    assert len(first.benchmark.shapes) == 3
    (line,) = first.left_out
    assert "chair/page.obj" in line.replace(os.sep, "/")
    monkeypatch.setattr(kept, "prepare_mesh", None)
    assert keep_gallery(folder, tmp_path / "cache", OPTIONS).left_out == first.left_out


def test_a_changed_buffer_of_a_gltf_is_another_content(tmp_path):
    (tmp_path / "models").mkdir()
    for name, high in (("first", 1), ("second", 3)):
        for file, data in trimesh.Scene(trimesh.creation.box((1, high, 1))).export(file_type="gltf").items():
            (tmp_path / "models" / ("a.gltf" if file.endswith("gltf") else file)).write_bytes(data)
        seen = keep_gallery(tmp_path / "models", tmp_path / "cache", OPTIONS)
        if name == "first":
            before = seen.benchmark.views.copy()
            text = (tmp_path / "models/a.gltf").read_bytes()
    (tmp_path / "models/a.gltf").write_bytes(text)  # only the buffer differs
    after = keep_gallery(tmp_path / "models", tmp_path / "cache", OPTIONS).benchmark.views
    assert (after != before).any()


def test_one_model_in_two_formats_is_two_shapes(folder, tmp_path):
    trimesh.creation.box((1, 2, 1)).export(folder / "chair/box.stl")
    kept_gallery = keep_gallery(folder, tmp_path / "cache", OPTIONS)
    assert kept_gallery.benchmark.shapes.shape_id.tolist() == [
        "chair/box.obj", "chair/box.stl", "chair/tall", "lamp/cone"
    ]  # fmt: skip
    assert kept_gallery.files["chair/box.stl"] == folder / "chair/box.stl"
    assert set(kept_gallery.benchmark.shapes.category) == {"chair", "lamp"}


def test_a_copy_of_a_folder_names_its_own_broken_file(folder, tmp_path, monkeypatch):
    (folder / "chair/page.obj").write_text("<!doctype html><html></html>")
    keep_gallery(folder, tmp_path / "cache", OPTIONS)
    copy = Path(shutil.copytree(folder, tmp_path / "copy" / folder.name))
    monkeypatch.setattr(kept, "prepare_mesh", None)  # what was made is shared
    (line,) = keep_gallery(copy, tmp_path / "cache", OPTIONS).left_out
    assert line.startswith(str(copy))


def test_names_that_collide_lose_no_shape(folder, tmp_path):
    for name in ("box.stl", "box.obj.ply"):
        trimesh.creation.box((1, 2, 1)).export(folder / "chair" / name)
    files = keep_gallery(folder, tmp_path / "cache", OPTIONS).files
    assert len(files) == 5 and len(set(files.values())) == 5


def test_files_of_one_size_and_time_that_change_places_are_told_apart(folder, tmp_path):
    one, two = folder / "chair/one.stl", folder / "chair/two.stl"
    for path, size in ((one, (1, 1, 3)), (two, (3, 1, 1))):
        trimesh.creation.box(size).export(path)
        os.utime(path, (0, 0))
    before = keep_gallery(folder, tmp_path / "cache", OPTIONS).benchmark
    one.rename(folder / "kept"), two.rename(one), (folder / "kept").rename(two)
    after = keep_gallery(folder, tmp_path / "cache", OPTIONS).benchmark
    rows = [before.shapes.shape_id.tolist().index(f"chair/{name}") for name in ("one", "two")]
    assert (before.views[rows] == after.views[rows[::-1]]).all()


def test_what_failed_for_another_reason_than_the_file_is_tried_again(folder, tmp_path, monkeypatch):
    whole = kept.prepare_mesh

    def fail(mesh, *rest, **more):
        if mesh.shape_id == "lamp/cone":
            raise MemoryError
        return whole(mesh, *rest, **more)

    monkeypatch.setattr(kept, "prepare_mesh", fail)
    assert len(keep_gallery(folder, tmp_path / "cache", OPTIONS).benchmark.shapes) == 2
    monkeypatch.setattr(kept, "prepare_mesh", whole)
    assert len(keep_gallery(folder, tmp_path / "cache", OPTIONS).benchmark.shapes) == 3


def test_an_interrupted_call_goes_on(folder, tmp_path, monkeypatch):
    cache, whole, calls = tmp_path / "cache", kept.prepare_mesh, []

    def stop(mesh, *rest, **more):
        calls.append(mesh.shape_id)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(mesh, *rest, **more)

    monkeypatch.setattr(kept, "prepare_mesh", stop)
    with pytest.raises(KeyboardInterrupt):
        keep_gallery(folder, cache, OPTIONS)
    assert len(keep_gallery(folder, cache, OPTIONS).benchmark.shapes) == 3
    assert calls == ["chair/box", "chair/tall", "chair/tall", "lamp/cone"]


def test_one_category_shares_what_was_made(folder, tmp_path):
    cache = tmp_path / "cache"
    keep_gallery(folder, cache, OPTIONS)
    before = made(cache)
    some = keep_gallery(folder, cache, OPTIONS, category="chair")
    assert some.benchmark.shapes.shape_id.tolist() == ["chair/box", "chair/tall"]
    assert made(cache) == before
    with pytest.raises(SourceError, match="no shapes of the category 'sofa'"):
        keep_gallery(folder, cache, OPTIONS, category="sofa")


def test_other_axes_are_other_shapes(folder, tmp_path):
    up = keep_gallery(folder, tmp_path / "cache", OPTIONS)
    side = keep_gallery(folder, tmp_path / "cache", OPTIONS, up="+z", front="-y")
    assert (up.benchmark.views[1] != side.benchmark.views[1]).any()


def test_a_damaged_table_of_digests_costs_reading_again(folder, tmp_path):
    cache = tmp_path / "cache"
    first = keep_gallery(folder, cache, OPTIONS)
    (cache / "files.json").write_text("{")
    again = keep_gallery(folder, cache, OPTIONS)
    assert again.benchmark.meta["digests"] == first.benchmark.meta["digests"]


def test_the_cache_lies_where_the_system_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert os.name == "nt" or cache_folder() == tmp_path / "cmic"


def test_a_verdict_on_memory_or_time_is_not_kept(folder, tmp_path, monkeypatch):
    real, broken = kept.prepare_mesh, ["cone"]

    def short_of_memory(mesh, *rest, **options):
        if broken and mesh.path.stem in broken:
            raise PassingError("the mesh is larger than the memory", path=mesh.path, fix="simplify it")
        return real(mesh, *rest, **options)

    monkeypatch.setattr(kept, "prepare_mesh", short_of_memory)
    first = keep_gallery(folder, tmp_path / "cache", OPTIONS)
    assert len(first.benchmark.shapes) == 2 and "memory" in first.left_out[0]
    broken.clear()
    again = keep_gallery(folder, tmp_path / "cache", OPTIONS)
    assert len(again.benchmark.shapes) == 3 and not again.left_out


def test_a_file_saved_while_it_is_rendered_is_not_kept_for_the_old_one(folder, tmp_path, monkeypatch):
    real, saved = kept.prepare_mesh, trimesh.creation.box((5, 1, 1))

    def slow(mesh, *rest, **options):
        if mesh.path.stem == "box" and saved is not None:
            saved.export(mesh.path)
        return real(mesh, *rest, **options)

    monkeypatch.setattr(kept, "prepare_mesh", slow)
    first = keep_gallery(folder, tmp_path / "cache", OPTIONS)
    assert "changed while it was read" in first.left_out[0] and len(made(tmp_path / "cache")) == 2
    monkeypatch.setattr(kept, "prepare_mesh", real)
    assert len(keep_gallery(folder, tmp_path / "cache", OPTIONS).benchmark.shapes) == 3


def test_what_was_long_not_used_goes_and_a_folder_has_one_gallery(folder, tmp_path):
    cache, old = tmp_path / "cache", time.time() - (kept.DAYS + 1) * 86400
    keep_gallery(folder, cache, OPTIONS)
    keep_gallery(folder, cache, OPTIONS, category="lamp")
    before = made(cache)
    (folder / "lamp" / "cone.stl").unlink()
    (cache / "vectors" / "encoder").mkdir(parents=True)
    for name in before:
        os.utime(cache / "shapes" / name, (old, old))
        (cache / "vectors" / "encoder" / name).touch()
    keep_gallery(folder, cache, OPTIONS)  # opens nothing of the lamp
    assert len(list((cache / "galleries").iterdir())) == 2  # the whole folder's is one, the lamps' another
    trimesh.creation.icosphere(1).export(folder / "chair/ball.off")
    keep_gallery(folder, cache, OPTIONS)
    assert len(made(cache) & before) == 2 and len(made(cache)) == 3
    assert {path.name for path in (cache / "vectors" / "encoder").iterdir()} == made(cache) & before


@pytest.mark.parametrize("name", ["other.mtl", "of wood.mtl"])
def test_a_material_of_another_name_belongs_to_the_content(tmp_path, name):
    models = tmp_path / "models"
    models.mkdir()
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nusemtl a\nf 1 2 3\nf 1 2 4\nf 1 3 4\n"
    (models / "box.obj").write_text(f"mtllib {name}\n{corners}")
    (models / name).write_text("newmtl a\nKd 1 0 0\n")
    first = keep_gallery(models, tmp_path / "cache", OPTIONS)
    (models / name).write_text("newmtl a\nKd 0 0 1\n")
    second = keep_gallery(models, tmp_path / "cache", OPTIONS)
    assert first.benchmark.meta["digests"] != second.benchmark.meta["digests"]


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
@pytest.mark.parametrize("name", [b"\xff.obj", b"one|two.obj", b"back\\slash.obj", b"two\nlines.obj"])
def test_a_name_that_cannot_be_kept_is_named_and_costs_itself_only(folder, tmp_path, name):
    shutil.copyfile(folder / "chair/box.obj", os.fsencode(folder) + b"/" + name)
    gallery = keep_gallery(folder, tmp_path / "cache", OPTIONS)
    assert len(gallery.benchmark.shapes) == 3
    assert len(gallery.left_out) == 1 and "rename it" in gallery.left_out[0] and gallery.left_out[0].isascii()
