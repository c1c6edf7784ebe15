"""What the app searches with: the run that was asked for, else the reader's newest one, else the shipped model."""

import copy
import dataclasses
import json
import os
import shutil
import signal
import time
import urllib.request

import numpy as np
import pytest
import torch
import trimesh
from live import free_port, start
from typer.testing import CliRunner

from cmiclib.browser import app
from cmiclib.cli import app as commands
from cmiclib.errors import BenchmarkError, CheckpointError, ConfigError
from cmiclib.index import ShapeIndex
from cmiclib.index.cache import photo_vectors
from cmiclib.io.atomic import write_json
from cmiclib.training.run import Run, save_weights


@pytest.fixture
def outputs(tmp_path, index, tiny_benchmark, monkeypatch):
    """Two finished runs, the smoke one newer, and none of the shipped model."""

    class Shipped:
        hash = "of the shipped benchmark"

    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "tiny").symlink_to(tiny_benchmark.path, target_is_directory=True)
    (tmp_path / "prepared" / "damaged").mkdir()
    (tmp_path / "prepared" / "damaged" / "benchmark.json").write_text("{")
    for age, name in enumerate(("smoke/runs/second", "demo/runs/first")):
        folder = tmp_path / "outputs" / name
        folder.mkdir(parents=True)
        write_json(folder / "config.json", index.config.model_dump(mode="json"))
        write_json(folder / "data.json", {"hash": tiny_benchmark.hash})
        write_json(folder / "environment.json", {"date": "2026-11-22"})
        save_weights(folder / "model.safetensors", index.model)
        os.utime(folder / "environment.json", (1e9 - age, 1e9 - age))
    monkeypatch.setattr(app, "open_sweethome", Shipped)
    monkeypatch.setattr(app, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(app, "PREPARED", tmp_path / "prepared")
    monkeypatch.setattr(app, "shipped_retriever", lambda path, gallery: pytest.fail("the shipped model was taken"))
    return tmp_path / "outputs"


def change(path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_newest_run_with_its_benchmark_is_taken_and_named(outputs, tiny_benchmark):
    found, words = app.open_retriever()
    assert words == "Your newest run, second of 2026-11-22"
    assert found.gallery.hash == tiny_benchmark.hash and len(found.rows)


def unfinished(run):
    (run / "environment.json").unlink()


def without_weights(run):
    (run / "model.safetensors").unlink()


def without_benchmark(run):
    change(run / "data.json", hash="of data that are gone")


def damaged(run):
    (run / "config.json").write_text("{")


def dateless(run):
    (run / "environment.json").write_text("[]")


def of_a_variant(run):
    change(run / "data.json", hash="that of three views")


@pytest.mark.parametrize(
    "spoil", [unfinished, without_weights, without_benchmark, damaged, dateless, of_a_variant, shutil.rmtree]
)
def test_a_run_that_cannot_be_shown_is_passed_over(outputs, spoil):
    folder = outputs / "smoke/runs/second"
    made = (folder / "environment.json").stat().st_mtime
    spoil(folder)
    if (folder / "environment.json").exists():
        os.utime(folder / "environment.json", (made, made))
    run, _ = app.newest_run(app.open_sweethome(), outputs, app.PREPARED)
    assert run.path.name == "first"


def test_a_run_that_is_named_comes_before_a_newer_one(outputs, tiny_benchmark):
    found, words = app.open_retriever(str(outputs / "demo/runs/first"))
    assert words == "The run first" and found.gallery.hash == tiny_benchmark.hash
    found, words = app.open_retriever(str(outputs / "demo/runs/first"), str(tiny_benchmark.path))
    assert words == "The run first" and len(found.rows)
    with pytest.raises(ConfigError, match="needs a run"):
        app.open_retriever(None, str(tiny_benchmark.path))


def test_a_run_whose_test_photos_were_embedded_has_its_map_laid_out_once(outputs, tiny_benchmark, monkeypatch):
    path = outputs / "demo/runs/first"
    found, _ = app.open_retriever(str(path))
    assert found.known_atlas is None, "nothing has embedded the photos yet"
    photo_vectors(Run.open(path), found.index, tiny_benchmark, "test")
    found, _ = app.open_retriever(str(path))
    assert found.known_atlas.is_photo.sum() == len(found.vectors) == len(tiny_benchmark.rows("test"))
    monkeypatch.setattr("sklearn.manifold.TSNE", None)
    again, _ = app.open_retriever(str(path))
    np.testing.assert_array_equal(again.known_atlas.places, found.known_atlas.places)


def test_a_run_whose_benchmark_is_not_here_says_so(outputs):
    change(outputs / "demo/runs/first/data.json", hash="of data that are gone")
    with pytest.raises(BenchmarkError, match=r"first: the benchmark of this run is not here\n.*--benchmark DIR"):
        app.open_retriever(str(outputs / "demo/runs/first"))


def test_a_converted_checkpoint_searches_the_shipped_gallery_and_says_so(outputs, retriever, monkeypatch):
    (outputs / "demo/runs/first/data.json").unlink()
    monkeypatch.setattr(app, "open_sweethome", lambda: retriever.gallery)
    found, words = app.open_retriever(str(outputs / "demo/runs/first"))
    assert words == "The converted checkpoint first, which names no benchmark, in the shipped gallery"
    assert found.gallery is retriever.gallery


def test_without_a_run_the_shipped_model_is_taken_and_named(outputs, retriever, monkeypatch):
    shutil.rmtree(outputs)
    monkeypatch.setattr(app, "open_sweethome", lambda: retriever.gallery)
    monkeypatch.setattr(app, "shipped_retriever", lambda path, gallery: retriever)
    monkeypatch.setattr(retriever.index, "about", {"trained": {"date": "2026-01-02"}})
    found, words = app.open_retriever()
    assert "own model of 2026-01-02" in words and "not trained yet" in words
    assert found.index is retriever.index


@pytest.fixture
def small(retriever, tmp_path):
    """The tiny index with what the shipped file holds."""
    index = copy.copy(retriever.index)
    index.about = {"benchmark": retriever.gallery.hash, "trained": {"date": "today"}}
    index.extra = {"photos": retriever.embed_photos().half(), "places": torch.from_numpy(retriever.atlas.places)}
    index.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_shipped_model_answers_as_the_one_it_was_made_from(small, retriever, tiny_benchmark):
    found = app.shipped_retriever(small, tiny_benchmark)
    for row in retriever.rows:
        expected, answer = (each.answer(each.stored(int(row))) for each in (retriever, found))
        scores = [{each.shape_id: each.score for each in one.found} for one in (expected, answer)]
        assert scores[1] == pytest.approx(scores[0], abs=1e-6)
    for name in ("places", "category", "is_photo", "rows"):
        np.testing.assert_array_equal(getattr(found.atlas, name), getattr(retriever.atlas, name))
    torch.testing.assert_close(found.atlas.points, retriever.atlas.points, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.vectors, retriever.vectors, atol=2e-3, rtol=0)  # kept in float16


def test_a_shipped_model_of_another_benchmark_or_without_its_map_is_refused(small, retriever, tiny_benchmark, tmp_path):
    index = ShapeIndex.load(small)
    for name in ("photos", "places"):
        part = copy.copy(index)
        part.extra = {key: value[:2] for key, value in index.extra.items() if key != name}
        part.save(tmp_path / "other.safetensors")
        with pytest.raises(CheckpointError, match="not a complete model"):
            app.shipped_retriever(tmp_path / "other.safetensors", tiny_benchmark)
    queries = tiny_benchmark.meta["sha256"] | {"queries.csv": "0" * 64}
    other = dataclasses.replace(tiny_benchmark, meta=tiny_benchmark.meta | {"sha256": queries})
    with pytest.raises(CheckpointError, match="another state of the benchmark"):
        app.shipped_retriever(small, other)
    with pytest.raises(CheckpointError, match="cannot be read"):
        app.shipped_retriever(tmp_path / "missing", tiny_benchmark)


def test_a_run_whose_benchmark_has_changed_is_refused(outputs, tiny_benchmark):
    change(outputs / "demo/runs/first/data.json", benchmark=tiny_benchmark.name, hash="as it was")
    with pytest.raises(BenchmarkError, match="has changed since the run was trained"):
        app.open_retriever(str(outputs / "demo/runs/first"), str(tiny_benchmark.path))


def test_a_taken_port_is_said_before_anything_else_is_done(tiny_benchmark):
    with app.listen(0) as taken:
        port = taken.getsockname()[1]
        assert taken.getsockname()[0] == "127.0.0.1"
        started = time.perf_counter()
        result = CliRunner().invoke(commands, ["app", "--port", str(port), "--shapes", "nowhere"])
        assert time.perf_counter() - started < 10  # torch is imported
        assert result.exit_code == 2 and f"port {port}" in result.output and "--port 8867" in result.output
    app.listen(port).close()
    for wrong in (70_000, -1):
        with pytest.raises(ConfigError, match="cannot be used"):
            app.listen(wrong)


def test_an_index_that_is_there_is_searched_instead_of_a_run(index, tiny_benchmark, tmp_path):
    index.save(tmp_path / "x.index")
    found, words = app.open_retriever(None, str(tiny_benchmark.path), str(tmp_path / "x.index"))
    assert words.startswith("The index ") and found.index.shape_ids == index.shape_ids


def test_the_command_takes_the_name_of_the_shipped_gallery(outputs, tiny_benchmark, monkeypatch):
    asked: list[tuple] = []
    monkeypatch.setattr("cmiclib.sources.sweethome.open_sweethome", lambda: tiny_benchmark)
    monkeypatch.setattr(app, "open_retriever", lambda *given: asked.append(given) or ("retriever", "words"))
    monkeypatch.setattr(app, "serve", lambda *given: None)
    options = ["--run", str(outputs / "demo/runs/first"), "--benchmark", "sweethome", "--port", "0", "--no-tab"]
    result = CliRunner().invoke(commands, ["app", *options])
    assert result.exit_code == 0, result.output
    assert asked == [(options[1], str(tiny_benchmark.path), None)]


def test_the_processes_that_rendered_meshes_end_with_the_app(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("a", "b"):
        (tmp_path / "meshes" / name).mkdir(parents=True)
        trimesh.creation.box((1, 2, len(name) + ord(name) / 50)).export(tmp_path / "meshes" / name / "box.stl")
    port = free_port()
    options = ["--shapes", str(tmp_path / "meshes"), "--run", str(tiny_run), "--port", str(port), "--no-tab"]
    server = start(["-m", "cmiclib.cli", "app", *options], tmp_path, f"http://127.0.0.1:{port}/")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=120) as reply:
        assert reply.status == 200
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) != 0
    for _ in range(20):  # their parent is gone; the system lays them to rest
        try:
            os.killpg(server.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a process is left")
