"""What the app searches with: the run that was asked for, else the reader's newest one, else the shipped model."""

import json
import os
import shutil

import pytest

from cmiclib.browser import app
from cmiclib.errors import BenchmarkError, ConfigError
from cmiclib.io.atomic import write_json
from cmiclib.training.run import save_weights


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
    monkeypatch.setattr(app, "unpack", lambda path, gallery: pytest.fail("the shipped model was taken"))
    return tmp_path / "outputs"


def change(path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_newest_run_with_its_benchmark_is_taken_and_named(outputs, tiny_benchmark):
    browser, words = app.open_browser()
    assert words == "Your newest run, second of 2026-11-22"
    assert browser.retriever.gallery.hash == tiny_benchmark.hash and browser.answer is not None


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
    browser, words = app.open_browser(str(outputs / "demo/runs/first"))
    assert words == "The run first" and browser.retriever.gallery.hash == tiny_benchmark.hash
    browser, words = app.open_browser(str(outputs / "demo/runs/first"), str(tiny_benchmark.path))
    assert words == "The run first" and browser.answer is not None
    with pytest.raises(ConfigError, match="needs a run"):
        app.open_browser(None, str(tiny_benchmark.path))


def test_a_run_whose_benchmark_is_not_here_says_so(outputs):
    change(outputs / "demo/runs/first/data.json", hash="of data that are gone")
    with pytest.raises(BenchmarkError, match=r"first: the benchmark of this run is not here\n.*--benchmark DIR"):
        app.open_browser(str(outputs / "demo/runs/first"))


def test_a_converted_checkpoint_searches_the_shipped_gallery_and_says_so(outputs, retriever, monkeypatch):
    (outputs / "demo/runs/first/data.json").unlink()
    monkeypatch.setattr(app, "open_sweethome", lambda: retriever.gallery)
    browser, words = app.open_browser(str(outputs / "demo/runs/first"))
    assert words == "The converted checkpoint first, which names no benchmark, in the shipped gallery"
    assert browser.retriever.gallery is retriever.gallery


def test_without_a_run_the_shipped_model_is_taken_and_named(outputs, retriever, monkeypatch):
    shutil.rmtree(outputs)
    monkeypatch.setattr(app, "open_sweethome", lambda: retriever.gallery)
    monkeypatch.setattr(app, "unpack", lambda path, gallery: (retriever, {"trained": {"date": "2026-01-02"}}))
    browser, words = app.open_browser()
    assert "own model of 2026-01-02" in words and "not trained yet" in words
    assert browser.retriever.index is retriever.index


def test_its_page_asks_no_other_server():
    folder = app.TEMPLATES / "voila/templates/cmic"
    assert json.loads((folder / "conf.json").read_text()) == {"base_template": "lab"}
    assert "http" not in (folder / "index.html.j2").read_text()
