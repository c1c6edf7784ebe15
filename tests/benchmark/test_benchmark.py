"""The prepared format: what it holds, and one clear error for each way it can be wrong."""

import errno
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tinybench import SIZE, write_tiny_benchmark

from cmiclib.benchmark import Benchmark, file_sha256
from cmiclib.benchmark import writer as benchmark_writer
from cmiclib.benchmark.writer import BenchmarkWriter
from cmiclib.errors import BenchmarkError, MissingArrayError, StorageError


@pytest.fixture
def copy(tiny_benchmark: Benchmark, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(tiny_benchmark.path, tmp_path / "copy"))


def _writer(path: Path, **changes: object) -> BenchmarkWriter:
    settings = {"name": "small", "source": "noise", "licence": "CC0-1.0", "size": 8, **changes}
    return BenchmarkWriter(path, **settings)


def _views(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 8, 8), dtype=np.uint8)


def _image(seed: int) -> np.ndarray:
    return np.random.default_rng(1000 + seed).integers(0, 256, (4, 8, 8), dtype=np.uint8)


def _rewrite(path: Path, table: str, change: str, value: object, row: int = 0) -> None:
    """Change one cell of a table and make the hash fit again."""
    frame = pd.read_csv(path / table, dtype=str, keep_default_na=False)
    frame.loc[row, change] = value
    frame.to_csv(path / table, index=False)
    _rehash(path, table)


def _rehash(path: Path, file: str) -> None:
    meta = json.loads((path / "benchmark.json").read_text())
    meta["sha256"][file] = file_sha256(path / file)
    (path / "benchmark.json").write_text(json.dumps(meta))


def test_contents(tiny_benchmark: Benchmark) -> None:
    b = Benchmark.open(tiny_benchmark.path)
    assert (b.name, b.size, len(b.shapes), len(b.queries)) == ("tiny", SIZE, 8, 42)
    assert b.views.shape == (8, 12, SIZE, SIZE) and b.images.shape == (42, 4, SIZE, SIZE)
    assert b.amodal.shape == (42, SIZE, SIZE)
    assert b.points.shape == (8, 10_000, 3) and b.points.dtype == np.float16
    assert b.voxels.shape == (8, 128**3 // 8) and {b.views.dtype, b.images.dtype} == {np.dtype(np.uint8)}
    assert isinstance(b.views, np.memmap) and not b.views.flags.writeable
    assert b.mesh_path("odd/corner").read_bytes()[:4] == b"glTF"
    assert b.protocol.elevation == 20
    assert b.queries["seen"].dtype == bool and list(b.queries.index) == list(range(42))
    assert b.categories == ["box", "odd", "round"]


def test_rows_labels_and_relevance(tiny_benchmark: Benchmark) -> None:
    b = tiny_benchmark
    test = b.rows("test")
    assert (b.queries["split"][test] == "test").all() and len(test) == 5 + 2 * 3
    assert sorted([*b.rows("train"), *b.rows("val"), *test]) == list(b.rows("all")) == list(range(42))
    assert sorted([*b.rows("test", seen=True), *b.rows("test", seen=False)]) == list(test)
    assert set(b.queries["category"][b.rows(seen=False)]) == {"odd"}
    relevant, group = b.relevant(test), b.group_relevant(test)
    for i, row in enumerate(test):
        own = b.queries["shape_id"][row]
        assert list(b.shapes["shape_id"][relevant[i]]) == [own]
        variants = {"odd/corner", "odd/corner-long"} if own.startswith("odd") else {own}
        assert set(b.shapes["shape_id"][group[i]]) == variants
    named = [b.categories[c] for c in b.query_category(test)]
    assert named == list(b.queries["category"][test])
    assert [b.categories[c] for c in b.shape_category()] == list(b.shapes["category"])
    with pytest.raises(BenchmarkError, match="unknown split 'exam'"):
        b.rows("exam")


def test_several_shapes_may_count_as_right(tmp_path: Path) -> None:
    writer = _writer(tmp_path / "b")
    for i in range(3):
        writer.add_shape(f"s{i}", "thing", _views(i))
    writer.add_query("q", "s2|s0", "thing", _image(0), split="test")
    assert writer.finish().relevant(np.array([0])).tolist() == [[True, False, True]]


def test_hash_names_the_contents(tiny_benchmark: Benchmark, tmp_path: Path) -> None:
    same, other = write_tiny_benchmark(tmp_path / "same"), write_tiny_benchmark(tmp_path / "other", photos=5)
    assert same.hash == tiny_benchmark.hash != other.hash
    for file in ("views.npy", "queries.npy", "shapes.csv", "queries.csv", "benchmark.json"):
        assert (same.path / file).read_bytes() == (tiny_benchmark.path / file).read_bytes()


def test_optional_arrays(tmp_path: Path) -> None:
    writer = _writer(tmp_path / "b")
    writer.add_shape("a", "thing", _views(0))
    b = writer.finish()
    assert len(b.queries) == 0 and b.images.shape == (0, 4, 8, 8) and len(b.rows("test")) == 0
    for name in ("points", "voxels", "amodal"):
        with pytest.raises(MissingArrayError, match=f"no {name}"):
            getattr(b, name)
    with pytest.raises(MissingArrayError, match="no mesh of shape 'a'"):
        b.mesh_path("a")


def test_missing_benchmark(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"nowhere: no prepared benchmark here[\s\S]*cmic prepare"):
        Benchmark.open(tmp_path / "nowhere")


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["views.npy", "queries.npy", "amodal.npy", "points.npy", "voxels.npy"])
def test_truncated_array(copy: Path, name: str, verify: bool) -> None:
    os.truncate(copy / name, (copy / name).stat().st_size - 1)
    with pytest.raises(BenchmarkError, match=rf"{name}: (sha256|is truncated)"):
        Benchmark.open(copy, verify=verify)
    os.truncate(copy / name, 40)
    with pytest.raises(BenchmarkError, match=rf"{name}: "):
        Benchmark.open(copy, verify=verify)


@pytest.mark.parametrize("name", ["views.npy", "queries.npy", "amodal.npy", "points.npy", "voxels.npy"])
def test_one_flipped_bit(copy: Path, name: str) -> None:
    with (copy / name).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    with pytest.raises(BenchmarkError, match=rf"{name}: sha256 is"):
        Benchmark.open(copy)


@pytest.mark.parametrize("name", ["views.npy", "queries.npy", "points.npy", "shapes.csv", "queries.csv"])
@pytest.mark.parametrize("verify", [True, False])
def test_missing_file(copy: Path, name: str, verify: bool) -> None:
    (copy / name).unlink()
    with pytest.raises(BenchmarkError, match=rf"{name}: is missing"):
        Benchmark.open(copy, verify=verify)


def test_array_of_another_kind(copy: Path) -> None:
    np.save(copy / "views.npy", np.zeros((8, 12, SIZE, SIZE), np.float32))
    _rehash(copy, "views.npy")
    with pytest.raises(BenchmarkError, match=r"views\.npy: is float32 .* instead of uint8"):
        Benchmark.open(copy)
    np.save(copy / "views.npy", np.zeros((7, 12, SIZE, SIZE), np.uint8))
    _rehash(copy, "views.npy")
    with pytest.raises(BenchmarkError, match=r"views\.npy: is uint8 \(7, "):
        Benchmark.open(copy)
    np.save(copy / "views.npy", np.array([{}]), allow_pickle=True)
    _rehash(copy, "views.npy")
    with pytest.raises(BenchmarkError, match=r"views\.npy: "):
        Benchmark.open(copy)


def test_damaged_description(copy: Path) -> None:
    good = (copy / "benchmark.json").read_text()
    for bad in (
        good[: len(good) // 2],
        "[]",
        "{}",
        good.replace('"fov"', '"lens"'),
        good.replace('"format": 1', '"format": 9'),
    ):
        (copy / "benchmark.json").write_text(bad)
        with pytest.raises(BenchmarkError, match=r"benchmark\.json: "):
            Benchmark.open(copy)


@pytest.mark.parametrize(
    ("table", "column", "value", "problem"),
    [
        ("queries.csv", "shape_id", "box/none", "shape 'box/none' is not in shapes.csv"),
        ("queries.csv", "shape_id", "box/flat|box/none", "shape 'box/none' is not in shapes.csv"),
        ("queries.csv", "query_id", "box__flat__01", "query_id 'box__flat__01' occurs twice"),
        ("queries.csv", "split", "exam", "unknown split 'exam'"),
        ("queries.csv", "seen", "False", "marked unseen, but a training photo shows group 'box/flat'"),
        ("queries.csv", "seen", "yes", "cannot be read"),
        ("queries.csv", "photo", "box/flat-2.jpg", "photo 'box/flat-2.jpg' is in the training split and in another"),
        ("shapes.csv", "shape_id", "box/tall", "shape_id 'box/tall' occurs twice"),
    ],
)
def test_contradictions_between_tables(copy: Path, table: str, column: str, value: str, problem: str) -> None:
    _rewrite(copy, table, column, value)
    with pytest.raises(BenchmarkError, match=problem):
        Benchmark.open(copy)


def test_variants_do_not_straddle_seen_and_unseen(copy: Path) -> None:
    _rewrite(copy, "shapes.csv", "group", "box/flat", row=6)  # odd/corner, unseen, becomes a variant of a seen shape
    with pytest.raises(BenchmarkError, match="a training photo shows group 'box/flat'"):
        Benchmark.open(copy)


def test_table_of_another_length(copy: Path) -> None:
    frame = pd.read_csv(copy / "queries.csv", dtype=str, keep_default_na=False)
    frame.iloc[:-1].to_csv(copy / "queries.csv", index=False)
    _rehash(copy, "queries.csv")
    with pytest.raises(BenchmarkError, match=r"queries\.csv: 41 rows, but benchmark\.json says 42"):
        Benchmark.open(copy)


def test_views_that_show_nothing(copy: Path, tmp_path: Path) -> None:
    views = np.lib.format.open_memmap(copy / "views.npy", mode="r+")
    views[2], views[3] = views[2, 0], 255  # a round shape looks the same from everywhere
    views.flush()
    _rehash(copy, "views.npy")
    with pytest.raises(BenchmarkError, match="the 12 views of shape 'round/cone' are empty"):
        Benchmark.open(copy)
    with pytest.raises(BenchmarkError, match="are empty"):
        _writer(tmp_path / "b").add_shape("a", "thing", np.full((12, 8, 8), 255, np.uint8))


def test_verification_of_100_megabytes_takes_less_than_a_second(tmp_path: Path) -> None:
    writer = _writer(tmp_path / "b", size=200)
    views = np.random.default_rng(0).integers(0, 256, (12, 200, 200), dtype=np.uint8)
    for i in range(210):
        writer.add_shape(f"s{i}", "thing", views + np.uint8(i))
    path = writer.finish().path
    seconds = []
    for _ in range(5):  # the best of five: other work on the machine is not the point
        start = time.perf_counter()
        Benchmark.open(path)
        seconds.append(time.perf_counter() - start)
    assert (path / "views.npy").stat().st_size > 100e6 and min(seconds) < 1


def test_interrupted_writing_goes_on(tmp_path: Path) -> None:
    whole = _writer(tmp_path / "whole")
    for i in range(4):
        whole.add_shape(f"s{i}", "thing", _views(i), points=np.full((10_000, 3), i), mesh=b"glTF")
        whole.add_query(f"q{i}", f"s{i}", "thing", _image(i), split="test", amodal=_image(i)[0])
    expected = whole.finish()

    first = _writer(tmp_path / "b")
    for i in range(2):
        first.add_shape(f"s{i}", "thing", _views(i), points=np.full((10_000, 3), i), mesh=b"glTF")
    assert not (tmp_path / "b").exists()
    first.close()
    with (first.partial / "views.npy.part").open("ab") as file:  # cut off in the middle of the third shape
        file.write(b"half of a view")
    with (first.partial / "shapes.jsonl").open("ab") as file:
        file.write('{"shape_id": "s2", "category": "ü'.encode()[:-1])
    second = _writer(tmp_path / "b")
    assert [second.needs_shape(f"s{i}") for i in range(4)] == [False, False, True, True]
    for i in range(4):
        if second.needs_shape(f"s{i}"):
            second.add_shape(f"s{i}", "thing", _views(i), points=np.full((10_000, 3), i), mesh=b"glTF")
        if second.needs_query(f"q{i}"):
            second.add_query(f"q{i}", f"s{i}", "thing", _image(i), split="test", amodal=_image(i)[0])
    resumed = second.finish()
    assert resumed.hash == expected.hash
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "whole"]
    assert (resumed.views[2] == _views(2)).all() and (resumed.images[3] == _image(3)).all()


def test_a_finished_benchmark_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = set[int](), os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.add(os.fstat(descriptor).st_ino), fsync(descriptor)))
    made = write_tiny_benchmark(tmp_path / "tiny")
    assert len(list((made.path / "meshes").rglob("*.glb"))) == 8
    assert {path.stat().st_ino for path in (tmp_path, made.path, *made.path.rglob("*"))} <= synced


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    with _writer(tmp_path / "b", extra={"seed": 1}) as first:
        first.add_shape("s", "thing", _views(0))
    for changes, said in (({"size": 9}, "size was 8, now 9"), ({"extra": {"seed": 2}}, "seed was 1, now 2")):
        with pytest.raises(BenchmarkError, match=rf"\.b\.partial: .*{said}[\s\S]*remove the folder"):
            _writer(tmp_path / "b", **{"extra": {"seed": 1}, **changes})
    with _writer(tmp_path / "b", extra={"seed": 1}) as again:
        assert not again.needs_shape("s")
        assert again.finish().shapes.shape_id.tolist() == ["s"]


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    first = _writer(tmp_path / "b")
    first.add_shape("a", "thing", _views(0))
    with pytest.raises(BenchmarkError, match=r"another run is at work here: process \d+"):
        _writer(tmp_path / "b")
    first.add_shape("b", "thing", _views(1))
    made = first.finish()
    assert [(made.views[i] == _views(i)).all() for i in range(2)] == [True, True]
    assert {path.name for path in made.path.iterdir()} == {
        "benchmark.json", "shapes.csv", "queries.csv", "views.npy", "queries.npy"
    }  # fmt: skip


def test_what_is_made_of_something_else_is_made_again_and_what_nobody_wants_is_dropped(tmp_path: Path) -> None:
    with _writer(tmp_path / "b") as first:
        for i, name in enumerate(("a", "b", "c", "d")):
            assert first.needs_shape(name, origin=f"{name} of monday")
            first.add_shape(name, "thing", _views(i), mesh=name.encode())
    with _writer(tmp_path / "b") as second:
        origins = {"d": "d of monday", "c": "c of tuesday", "a": "a of monday"}
        assert [second.needs_shape(name, origin) for name, origin in origins.items()] == [False, True, False]
        second.add_shape("c", "thing", _views(9), mesh=b"new")
        made = second.finish()
    assert made.shapes.shape_id.tolist() == ["d", "c", "a"]
    for row, seed in enumerate((3, 9, 0)):
        np.testing.assert_array_equal(made.views[row], _views(seed))
    assert made.mesh_path("c").read_bytes() == b"new" and not (made.path / "meshes/b.glb").exists()


def test_what_is_seen_is_known_at_the_end(tmp_path: Path) -> None:
    with _writer(tmp_path / "b") as writer:
        for i, group in enumerate(("g", "g", "", "elsewhere")):
            writer.add_shape(f"s{i}", "thing", _views(i), group=group)
        for i, (ids, split) in enumerate((("s1", "test"), ("s2", "val"), ("s2|s0", "test"), ("s3", "test"))):
            writer.add_query(f"q{i}", ids, "thing", _image(i), split=split)
        writer.add_query("q4", "s0", "thing", _image(4), split="train")
        assert writer.finish(trained=["elsewhere"]).queries.seen.tolist() == [True, False, True, True, True]


def test_a_name_that_cannot_be_given_leaves_all_that_the_next_call_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path, target: Path) -> Path:
        if path.name == ".b.partial":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return rename(path, target)

    rename = Path.rename
    with _writer(tmp_path / "b") as writer:
        writer.add_shape("a", "thing", _views(0))
        writer.add_query("q", "a", "thing", _image(0), split="test")
        monkeypatch.setattr(Path, "rename", fails)
        with pytest.raises(StorageError):
            writer.finish(["x: is missing"])
        monkeypatch.undo()
    with _writer(tmp_path / "b") as again:
        assert not again.needs_shape("a") and not again.needs_query("q") and again.needs_query("r")
        again.add_query("r", "a", "thing", _image(1), split="test", amodal=_image(1)[0])
        made = again.finish()
    assert not (made.path / "left_out.txt").exists()
    np.testing.assert_array_equal(made.images, [_image(0), _image(1)])
    np.testing.assert_array_equal(made.amodal, [np.zeros((8, 8)), _image(1)[0]])


def test_an_array_that_is_too_long_is_refused(copy: Path) -> None:
    with (copy / "views.npy").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BenchmarkError, match=r"views\.npy: .* bytes are not uint8"):
        Benchmark.open(copy, verify=False)


def test_what_training_may_know_outlives_a_copy(tiny_benchmark: Benchmark) -> None:
    blind = replace(replace(tiny_benchmark.without_test_labels()), meta=tiny_benchmark.meta)
    assert blind.categories == tiny_benchmark.categories
    assert np.array_equal(blind.photographed, tiny_benchmark.photographed)


def test_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    writer = _writer(tmp_path / "b")
    writer.add_shape("a", "thing", _views(0), points=np.zeros((10_000, 3)))
    for shape_id in ("", "/etc", "../x", "a//b", "a|b", "a/./b", "a\nb"):
        with pytest.raises(BenchmarkError, match="cannot be a shape id"):
            writer.add_shape(shape_id, "thing", _views(1))
    with pytest.raises(BenchmarkError, match="'a' was added before"):
        writer.add_shape("a", "thing", _views(1), points=np.zeros((10_000, 3)))
    with pytest.raises(BenchmarkError, match=r"'b' has no points, unlike those before"):
        writer.add_shape("b", "thing", _views(1))
    with pytest.raises(BenchmarkError, match=r"'b': points.npy takes \(10000, 3\), not \(5, 3\)"):
        writer.add_shape("b", "thing", _views(1), points=np.zeros((5, 3)))
    with pytest.raises(BenchmarkError, match=r"views.npy takes \(12, 8, 8\)"):
        writer.add_shape("b", "thing", _views(1)[:11], points=np.zeros((10_000, 3)))
    with pytest.raises(BenchmarkError, match="unknown split 'exam'"):
        writer.add_query("q", "a", "thing", _image(0), split="exam")
    assert len(writer.finish().shapes) == 1


def test_a_contradiction_keeps_what_was_written(tmp_path: Path) -> None:
    writer = _writer(tmp_path / "b")
    writer.add_shape("a", "thing", _views(0))
    writer.add_query("q", "b", "thing", _image(0), split="test")
    with pytest.raises(BenchmarkError, match="shape 'b' is not in"):
        writer.finish()
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == [".b.partial"]
    with _writer(tmp_path / "b") as again:
        assert not again.needs_shape("a") and again.needs_query("q", origin="corrected")
        again.add_query("q", "a", "thing", _image(0), split="test")
        assert again.finish().queries.shape_id.tolist() == ["a"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda partial: os.truncate(partial / "views.npy.part", 200),
        lambda partial: (partial / "shapes.jsonl").write_bytes(bytes(50) + b"\n"),
        lambda partial: (partial / "shapes.jsonl").write_text("[1]\n"),
    ],
    ids=["array lost", "journal of zeros", "no rows"],
)
def test_what_a_loss_of_power_spoilt_is_started_anew(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    first = _writer(tmp_path / "b")
    for i in range(2):
        first.add_shape(f"s{i}", "thing", _views(i))
    first.close()
    damage(first.partial)
    second = _writer(tmp_path / "b")
    assert second.needs_shape("s0") and second.needs_shape("s1")
    second.add_shape("s0", "thing", _views(0))
    assert np.array_equal(second.finish().views[0], _views(0))


def test_existing_folder_is_left_alone(copy: Path, tmp_path: Path) -> None:
    before = file_sha256(copy / "benchmark.json")
    with pytest.raises(BenchmarkError, match="exists already"):
        _writer(copy)
    assert file_sha256(copy / "benchmark.json") == before
    (tmp_path / "empty").mkdir()
    writer = _writer(tmp_path / "empty")
    writer.add_shape("a", "thing", _views(0))
    assert len(writer.finish().shapes) == 1


def test_a_full_disk_at_the_end_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    writer = _writer(tmp_path / "b")
    writer.add_shape("a", "thing", _views(0))
    monkeypatch.setattr(benchmark_writer, "file_sha256", full)
    with pytest.raises(StorageError, match=r"b: cannot be written \(No space left on device\)[\s\S]*free some space"):
        writer.finish()
    monkeypatch.undo()
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == [".b.partial"]
    again = _writer(tmp_path / "b")
    assert not again.needs_shape("a") and again.finish().shapes.shape_id.tolist() == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("file", ["views.npy.part", "shapes.jsonl", "a.glb", "queries.npy.part"])
def test_a_disk_that_fills_up_on_the_way_costs_no_more_than_what_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    really_open = Path.open

    def fills_up(path: Path, *args: object, **kwargs: object) -> object:
        if path.name == file and (args or kwargs):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return really_open(path, *args, **kwargs)

    writer = _writer(tmp_path / "b")
    monkeypatch.setattr(Path, "open", fills_up)
    with pytest.raises(StorageError, match="No space left on device"):
        writer.add_shape("a", "thing", _views(0), mesh=b"glTF")
        writer.add_query("q", "a", "thing", _image(0), split="test")
    monkeypatch.undo()
    writer.close()
    again = _writer(tmp_path / "b")
    assert again.needs_shape("a") == (file != "queries.npy.part") and again.needs_query("q")
    if again.needs_shape("a"):
        again.add_shape("a", "thing", _views(0), mesh=b"glTF")
    again.add_query("q", "a", "thing", _image(0), split="test")
    made = again.finish()
    np.testing.assert_array_equal(made.views[0], _views(0))
    np.testing.assert_array_equal(made.images[0], _image(0))


@pytest.mark.parametrize("shape_id", ["../x", "/etc/x", "a/../../x", "", "a\\b"])
def test_shape_ids_that_lead_out_are_refused(copy: Path, shape_id: str) -> None:
    _rewrite(copy, "shapes.csv", "shape_id", shape_id)
    with pytest.raises(BenchmarkError, match=r"shapes\.csv"):
        Benchmark.open(copy, verify=False)


@pytest.mark.parametrize("name", ["views.npy", "shapes.csv", "meshes"])
def test_links_out_of_the_folder_are_refused(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BenchmarkError, match="leads out of"):
        Benchmark.open(copy, verify=False).mesh_path("box/flat")


def test_names_of_other_files_in_the_list_of_hashes_are_refused(copy: Path) -> None:
    meta = json.loads((copy / "benchmark.json").read_text())
    meta["sha256"]["../../secret"] = "0" * 64
    (copy / "benchmark.json").write_text(json.dumps(meta))
    with pytest.raises(BenchmarkError, match=r"lists the file '\.\./\.\./secret'"):
        Benchmark.open(copy)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("kind", ["shapes", "queries"])
def test_a_really_full_disk_keeps_what_is_complete(tmp_path: Path, kind: str) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.decode().strip()}")
    try:
        writer = _writer(tmp_path / "b")
        with pytest.raises(StorageError, match="No space left on device"):
            for i in range(2000):
                if kind == "shapes":
                    writer.add_shape(f"s{i}", "thing", _views(i))
                else:
                    writer.add_query(f"q{i}", "s", "thing", _image(i), split="test")
        writer.close()
        again = _writer(tmp_path / "b")  # opens on the full disk as well
        needs = again.needs_shape if kind == "shapes" else again.needs_query
        done = [not needs(f"{kind[0]}{n}") for n in range(i + 1)]
        again.close()
        assert done == [True] * i + [False]
        journal = (again.partial / f"{kind}.jsonl").read_bytes()
        assert journal.count(b"\n") == i and journal.endswith(b"\n")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
