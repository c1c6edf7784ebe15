"""The index in a LanceDB database: it answers as the index in memory does, and loses and doubles nothing."""

import os
import random
import signal
import subprocess
import sys
import time

import lance_writer
import numpy as np
import pytest
import torch
from lance_writer import DIM, VIEWS, block
from torch.nn import functional as F

from cmiclib.config import Config, ModelConfig
from cmiclib.engine.distributed import Processes
from cmiclib.errors import BenchmarkError, CheckpointError, StorageError
from cmiclib.index import ShapeIndex
from cmiclib.model import build_model

pytest.importorskip("lancedb")
lance = pytest.importorskip("cmiclib.index.lance")

CONFIG = Config(
    model=ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random")
)


def in_memory(shapes=300, d=16, seed=0):
    """Shapes around a few centres, so that bounds matter; the vectors are those that float16 holds."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(20, 1, d, generator=generator)
    views = centres[torch.randint(20, (shapes,), generator=generator)] + torch.randn(shapes, 4, d, generator=generator)
    views = F.normalize(F.normalize(views, dim=-1).half().float(), dim=-1)
    weight = torch.randn(d, d, generator=generator)
    return ShapeIndex.from_arrays(views.numpy(), weight.numpy(), [f"it's/{i}" for i in range(shapes)])


def questions(count=7, d=16, seed=1):
    return F.normalize(torch.randn(count, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def stored(path, index, parts=3):
    database = lance.LanceIndex.create(path, index)
    for part in np.array_split(np.arange(len(index)), parts):
        database.append([index.shape_ids[i] for i in part], index.views[part], part.tolist())
    return database


def test_it_answers_as_the_index_in_memory(tmp_path):
    index, query = in_memory(), questions()
    stored(tmp_path / "x", index)
    database, expected = ShapeIndex.load(tmp_path / "x"), index.search(query, 10)
    assert isinstance(database, lance.LanceIndex) and len(database) == len(index) == 300
    for found in (database.search(query, 10), database.search(query, 10, exact=True)):
        assert found.ids == expected.ids and all(found.certified)
        torch.testing.assert_close(found.scores, expected.scores, atol=2e-6, rtol=0)
        torch.testing.assert_close(found.weights, expected.weights, atol=2e-6, rtol=0)
    torch.testing.assert_close(database.scores(query), index.scores(query), atol=2e-6, rtol=0)
    assert torch.equal(database.rank(query, 10)[0], index.rank(query, 10)[0])
    assert database.shape_ids == index.shape_ids
    torch.testing.assert_close(database.views, index.views, atol=1e-4, rtol=0)
    rows = torch.tensor([[5, 0, 5]] * len(query))
    torch.testing.assert_close(database.view_weights(query, rows), index.view_weights(query, rows), atol=2e-6, rtol=0)
    assert database.search(query[:0]).scores.shape == (0, 10) and database.rank(query[:0])[0].shape == (0, 10)


@pytest.mark.parametrize("fusion", ["attention", "mean", "max"])
def test_a_certificate_is_given_only_to_the_answer_of_a_full_search(tmp_path, fusion, monkeypatch):
    monkeypatch.setattr(ShapeIndex, "fusion", fusion)
    index, query = in_memory(), questions(20)
    database, expected = stored(tmp_path / "x", index), index.search(query, 10)
    seen = set()
    for candidates in (10, 40, 120, 250):
        few = database.search(query, 10, candidates=candidates)
        seen |= {*few.certified}
        assert set(few.visited) == {candidates}
        for certified, found, right in zip(few.certified, few.ids, expected.ids, strict=True):
            assert found == right or not certified
        whole = database.search(query, 10, exact=True, candidates=candidates)
        assert whole.ids == expected.ids and all(whole.certified)
        assert whole.visited == [candidates if certified else 300 for certified in few.certified]
    assert seen == {True, False}


def test_what_the_engine_says_of_a_bound_is_checked(tmp_path, monkeypatch):
    index, query = in_memory(), questions()
    database = stored(tmp_path / "x", index)
    monkeypatch.setattr(lance, "ROUNDING", 0.0)  # as if every bound of the engine were off
    assert not any(database.search(query, 10, candidates=299).certified)


def test_queries_of_any_length_and_of_length_zero(tmp_path):
    index, query = (
        in_memory(),
        torch.cat([3 * questions(4), torch.zeros(1, 16), 1e-9 * questions(1), 1e6 * questions(1)]),
    )
    database, expected = stored(tmp_path / "x", index), index.search(query, 3)
    found = database.search(query, 3, exact=True)
    assert found.ids == expected.ids and all(found.certified)
    torch.testing.assert_close(found.scores, expected.scores, atol=5e-6, rtol=1e-6)


def test_an_empty_database_finds_nothing(tmp_path):
    database = lance.LanceIndex.create(tmp_path / "x", in_memory())
    found = database.search(questions(2), 5)
    assert (found.ids, found.certified, found.scores.shape, found.weights.shape) == (
        [[], []],
        [True] * 2,
        (2, 0),
        (2, 0, 4),
    )
    assert database.scores(questions(2)).shape == database.rank(questions(2), 5)[0].shape == (2, 0)


def test_of_equal_scores_the_lower_row_comes_first(tmp_path):
    index, query = in_memory(), questions()
    index.views[[2, 40, 150, 299]] = F.normalize(query[0].half().float(), dim=0)
    database = lance.LanceIndex.create(tmp_path / "x", index)
    for part in (range(150, 300), range(150)):  # the later rows are written first
        database.append([index.shape_ids[i] for i in part], index.views[list(part)], list(part))
    wanted = [index.shape_ids[i] for i in (2, 40, 150)]
    assert database.search(query[:1], 3).ids == database.search(query[:1], 3, exact=True).ids == [wanted]
    assert database.rank(query[:1], 3)[0].tolist() == [[2, 40, 150]]


def test_shapes_are_added_replaced_and_deleted_and_earlier_versions_stay(tmp_path):
    index, other, query = in_memory(), in_memory(5, seed=9), questions()
    database, reader = stored(tmp_path / "x", index), ShapeIndex.load(tmp_path / "x")
    before, expected = database.versions()[-1], index.search(query, 10).ids
    assert database.append(index.shape_ids[:50], index.views[:50]) == 0  # written once
    new = [f"new/{i}" for i in range(5)]
    assert database.append(new, other.views) == 5
    assert reader.shape_ids == index.shape_ids + new and len(reader) == 305
    assert reader.search(other.views[2, :1], 1).ids == [["new/2"]]  # found at once, by who had opened it before
    assert database.append(["new/0"], other.views[2:3]) == 1
    places = [reader.shape_ids.index(f"new/{i}") for i in (0, 2)]
    torch.testing.assert_close(*reader.views[places])
    database.delete(["it's/7", *new])
    assert reader.shape_ids == index.shape_ids[:7] + index.shape_ids[8:]
    old = lance.LanceIndex.load(tmp_path / "x", version=before)
    assert old.search(query, 10).ids == expected and old.shape_ids == index.shape_ids


@pytest.mark.parametrize("broken", ["nan", "length", "names", "views"])
def test_vectors_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path, broken):
    index = in_memory()
    database, views, names = stored(tmp_path / "x", index), index.views[:2].clone(), ["a", "b"]
    if broken == "names":
        names = ["a", "a"]
    elif broken == "views":
        views = views[:, :3]
    else:
        views[1, 2] = torch.nan if broken == "nan" else 2 * views[1, 2]
    with pytest.raises(ValueError):
        database.append(names, views)
    assert len(database) == 300


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(CONFIG.model).eval()


def test_each_process_writes_its_share_and_what_is_there_is_passed_over(tmp_path, model, tiny_benchmark, monkeypatch):
    index = ShapeIndex.build(model, tiny_benchmark, CONFIG)
    shapes = len(index)
    monkeypatch.setattr(lance, "AT_ONCE", 2)
    database = lance.LanceIndex.create(tmp_path / "x", index)
    with pytest.raises(BenchmarkError, match=f"{shapes} shapes, the index 0"):
        database.check_gallery(tiny_benchmark)
    second = database.embed_share(model, tiny_benchmark, CONFIG, Processes(1, 2))  # the later part comes first
    assert 0 < second < shapes
    again = lance.LanceIndex.create(tmp_path / "x", index)
    assert again.embed_share(model, tiny_benchmark, CONFIG) == shapes - second
    assert again.embed_share(model, tiny_benchmark, CONFIG) == 0
    opened = ShapeIndex.load(tmp_path / "x")
    opened.check_gallery(tiny_benchmark)
    photos = tiny_benchmark.images[:4]
    torch.testing.assert_close(opened.embed(photos), index.embed(photos))
    torch.testing.assert_close(opened.scores(index.embed(photos)), index.scores(index.embed(photos)), atol=1e-3, rtol=0)
    opened.append(["zz"], index.views[:1])
    with pytest.raises(BenchmarkError, match=f"{shapes} shapes, the index {shapes + 1}"):
        opened.check_gallery(tiny_benchmark)


def test_another_encoder_does_not_write_into_it_and_other_pictures_are_noticed(tmp_path, model, tiny_benchmark):
    index = ShapeIndex.build(model, tiny_benchmark, CONFIG)
    database = lance.LanceIndex.create(tmp_path / "x", index)
    database.append(index.shape_ids, index.views, range(len(index)), ["of other pictures"] * len(index))
    with pytest.raises(BenchmarkError, match="views have changed"):
        database.check_gallery(tiny_benchmark)
    torch.manual_seed(1)
    other = ShapeIndex.build(build_model(CONFIG.model).eval(), tiny_benchmark, CONFIG)
    with pytest.raises(CheckpointError, match="another encoder"):
        lance.LanceIndex.create(tmp_path / "x", other)


def test_what_is_no_whole_database_is_one_error(tmp_path):
    (tmp_path / "x" / "head.lance").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name in ("x", "empty", "nothing"):
        with pytest.raises(CheckpointError, match="cmic index"):
            ShapeIndex.load(tmp_path / name)
    lance.LanceIndex.create(tmp_path / "y", in_memory())
    (tmp_path / "y" / "shapes.lance").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="not a complete index"):
        ShapeIndex.load(tmp_path / "y")


def test_a_write_that_fails_is_one_error_and_leaves_what_is_there(tmp_path, monkeypatch):
    index = in_memory()
    old = lance.LanceIndex.load(tmp_path / "x", version=stored(tmp_path / "x", index).versions()[-1])
    with pytest.raises(StorageError, match="writing failed"):
        old.delete(index.shape_ids[:1])  # an earlier version is only read
    assert len(ShapeIndex.load(tmp_path / "x")) == 300


@pytest.mark.slow
def test_of_two_writers_one_is_killed_ten_times_and_no_shape_is_lost_or_doubled(tmp_path):
    blocks, generator, going = 40, random.Random(time.time_ns()), tmp_path / "going"
    going.touch()
    database = lance.LanceIndex.create(tmp_path / "x", ShapeIndex(torch.zeros(0, VIEWS, DIM), torch.eye(DIM), []))
    database.append(["first"], F.normalize(torch.ones(1, VIEWS, DIM), dim=-1), [-1])
    before = database.versions()[-1]

    def start(writer):
        command = [sys.executable, lance_writer.__file__, str(tmp_path / "x"), str(writer), str(blocks), str(going)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def names():
        return database.table.search().select(["shape_id"]).to_arrow()["shape_id"].to_pylist()

    survivor = start(0)  # it writes from before the first kill until after the last
    survivor.stdout.readline()
    for _ in range(10):
        victim = start(1)
        victim.stdout.readline()
        time.sleep(generator.uniform(0, 0.4))
        assert (victim.poll(), survivor.poll()) == (None, None)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        assert lance.LanceIndex.load(tmp_path / "x", version=before).shape_ids == ["first"]
        now = names()
        assert len(now) == len(set(now))
    going.unlink()
    victim = start(1)
    numbers = [1 + int(process.communicate()[0].split()[-1]) for process in (survivor, victim)]
    assert (survivor.returncode, victim.returncode, numbers[1]) == (0, 0, blocks)
    written = [block(writer, number)[:2] for writer in (0, 1) for number in range(numbers[writer])]
    expected = {name: vectors for some, views in written for name, vectors in zip(some, views, strict=True)}
    assert sorted(names()) == sorted(["first", *expected])
    stored = dict(zip(database.shape_ids, database.views, strict=True))
    assert all((stored[name] - vectors).abs().max() < 1e-3 for name, vectors in expected.items())
    assert lance.LanceIndex.load(tmp_path / "x", version=before).shape_ids == ["first"]


@pytest.mark.parametrize("way", ["load", "create"])
def test_a_bucket_that_cannot_be_reached_is_one_clear_error(way, monkeypatch):
    import lancedb

    def fail(*given, **options):
        raise RuntimeError("lance error: Generic S3 error: Failed to resolve region\nmore")

    monkeypatch.setattr(lancedb, "connect", fail)
    with pytest.raises(StorageError, match=r"s3://nobody/x: the database cannot be reached .*region\)\n.*credentials"):
        getattr(lance.LanceIndex, way)("s3://nobody/x", *([in_memory(3)] if way == "create" else []))
