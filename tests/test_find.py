"""`cmic find`: photos, a folder of meshes, a table, a page and JSON."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from typer.testing import CliRunner

from cmiclib.cli import app


def find(*arguments: object):
    return CliRunner().invoke(app, ["find", *map(str, arguments)])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("find") / "models"
    for name, mesh in (
        ("chair/box.obj", trimesh.creation.box((1, 2, 1))),
        ("chair/tall.glb", trimesh.creation.box((1, 4, 1))),
        ("lamp/cone.stl", trimesh.creation.cone(1, 2, sections=6)),
        ("lamp/ball.ply", trimesh.creation.icosphere(1)),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        mesh.export(root / name)
    (root / "lamp" / "page.obj").write_text("<!doctype html><html></html>")
    return root


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.full((60, 80, 3), 230, np.uint8)
    pixels[20:50, 30:50] = (180, 40, 30)
    Image.fromarray(pixels).save(tmp_path / "kitchen <1>.png")
    return tmp_path / "kitchen <1>.png"


@pytest.fixture
def common(untrained_run, models: Path, tmp_path: Path) -> list[object]:
    return [
        "--shapes", models, "--run", untrained_run.path, "--cache", tmp_path / "cache", "--jobs", "1",
        "--html", tmp_path / "answer.html",
    ]  # fmt: skip


def test_the_answer_names_files_and_shows_them_on_one_page(common, models, photo, tmp_path):
    told, drawn = tmp_path / "answer.json", tmp_path / "answer.png"
    result = find(photo, *common, "--box", "28,18,52,52", "--json", told, "--png", drawn)
    assert result.exit_code == 0, result.output
    assert "page.obj" in result.output and "HTML" in result.output
    (answer,) = json.loads(told.read_text())
    assert answer["photo"] == str(photo)
    assert sorted(each["file"] for each in answer["results"]) == sorted(
        str(models / name) for name in ("chair/box.obj", "chair/tall.glb", "lamp/ball.ply", "lamp/cone.stl")
    )
    scores = [each["score"] for each in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    page = (tmp_path / "answer.html").read_text("utf-8")
    assert "kitchen &lt;1&gt;.png" in page and "kitchen <1>" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|file:)""", page)  # nothing from elsewhere
    assert page.count("<canvas") == 4
    assert (models / "chair/box.obj").resolve().as_uri() in page
    assert Image.open(drawn).width > 300


def test_the_model_on_the_page_is_the_mesh(common, photo, tmp_path):
    assert find(photo, *common, "--category", "lamp").exit_code == 0
    page = (tmp_path / "answer.html").read_text("utf-8")
    solids = [json.loads(text) for text in re.findall(r'json" id="solid-\d+">(.*?)</script>', page)]
    counts = {len(base64.b64decode(solid["colors"])) // 3 for solid in solids}
    assert counts == {12, 80}  # a cone of six sides with its base, a ball
    ball = next(solid for solid in solids if len(base64.b64decode(solid["colors"])) == 240)
    corners = np.frombuffer(base64.b64decode(ball["corners"]), "<i2").reshape(-1, 3)
    assert np.linalg.norm(corners, axis=1) == pytest.approx(8192, abs=3)


def test_several_photos_share_one_gallery(common, photo, tmp_path):
    other = tmp_path / "other.png"
    Image.open(photo).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other)
    result = find(photo, other, *common, "--top", "2", "--json", tmp_path / "answer.json")
    assert result.exit_code == 0, result.output
    answers = json.loads((tmp_path / "answer.json").read_text())
    assert [len(answer["results"]) for answer in answers] == [2, 2]


@pytest.mark.parametrize(
    "extra, message",
    [
        (["--category", "sofa"], "no shapes of the category 'sofa'"),
        (["--box", "1,2,3"], "not a box"),
        (["--box", "0,0,inf,9"], "not a box"),
        (["--box", "nan,0,9,9"], "not a box"),
        (["--box", "500,500,600,600"], "box"),
        (["--up", "+y", "--front", "-y"], "parallel"),
    ],
)
def test_mistakes_have_one_message_and_write_no_page(common, photo, tmp_path, extra, message):
    result = find(photo, *common, *extra)
    assert result.exit_code == 2 and message in result.output, result.output
    assert not (tmp_path / "answer.html").exists()
    assert "shapes:" not in result.output  # nothing was rendered


def test_one_bad_photo_of_several_is_named_and_costs_itself_only(common, photo, tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    result = find(tmp_path / "bad.jpg", photo, *common, "--json", tmp_path / "answer.json")
    assert result.exit_code == 0, result.output
    assert "not taken" in result.output and "bad.jpg" in result.output
    (answer,) = json.loads((tmp_path / "answer.json").read_text())
    assert answer["photo"] == str(photo) and "bad.jpg" in (tmp_path / "answer.html").read_text("utf-8")


def test_the_opacity_of_a_cut_out_is_its_mask(common, photo, tmp_path):
    picture = Image.open(photo).convert("RGBA")
    pixels = np.array(picture)
    pixels[..., 3] = 255 * (pixels[..., 1] < 100)
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    result = find(tmp_path / "cut.png", *common, "--json", tmp_path / "answer.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "answer.json").read_text())[0]["mask"] == "given"


def test_a_box_belongs_to_one_photo(common, photo):
    result = find(photo, photo, *common, "--box", "0,0,9,9")
    assert result.exit_code == 2 and "one photo" in result.output


def test_a_photo_that_is_missing_is_said_before_anything_is_rendered(common, tmp_path):
    result = find(tmp_path / "nowhere.jpg", *common)
    assert result.exit_code == 2 and "nowhere.jpg" in result.output
    assert not (tmp_path / "cache").exists()


def test_the_app_takes_a_folder_of_meshes(untrained_run, models, monkeypatch, tmp_path):
    calls: list[tuple] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("cmiclib.browser.app.serve", lambda *given: calls.append(given))
    options = ["--shapes", str(models), "--run", str(untrained_run.path), "--port", "0", "--no-tab"]
    result = CliRunner().invoke(app, ["app", *options])
    assert result.exit_code == 0, result.output
    assert "not taken" in result.output and "page.obj" in result.output
    ((retriever, words, listener, tab),) = calls
    listener.close()
    assert len(retriever.index) == 4 and untrained_run.path.name in words and tab is False
    assert not list(untrained_run.path.glob("index-*"))
    both = CliRunner().invoke(app, ["app", "--shapes", str(models), "--benchmark", str(models)])
    assert both.exit_code == 2 and "one of the two" in both.output


def test_a_second_call_loads_only_what_it_needs(common, photo):
    assert find(photo, *common).exit_code == 0
    code = """
import sys
from cmiclib.cli import app
app(sys.argv[1:], standalone_mode=False)
slow = {"trimesh", "embreex", "scipy", "sklearn", "numba", "matplotlib", "kornia", "IPython", "ipywidgets"}
print(sorted(slow & set(sys.modules)), file=sys.stderr)
"""
    command = [sys.executable, "-c", code, "find", str(photo), *map(str, common)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "[]", done.stderr


def test_odd_names_are_shown_as_they_are(common, models, tmp_path, photo):
    odd = tmp_path / "odd" / "chair"
    odd.mkdir(parents=True)
    name = "a [bold]name <b>&\"quoted'" + "long" * 30 + ".stl"
    (odd / name).write_bytes((models / "lamp/cone.stl").read_bytes())
    result = find(photo, "--shapes", odd.parent, *common[2:])
    assert result.exit_code == 0, result.output
    told = "".join(line.split("│")[3].strip() for line in result.output.splitlines() if line.count("│") == 6)
    assert "[bold]name" in told and told.endswith("long.stl")
    page = (tmp_path / "answer.html").read_text("utf-8")
    assert "<b>&" not in page and page.count("&lt;b&gt;&amp;&quot;quoted&#x27;") > 5


def test_a_photo_whose_name_is_not_utf_8(common, photo, tmp_path):
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    Path(strange).write_bytes(photo.read_bytes())
    result = find(strange, *common, "--category", "lamp", "--json", tmp_path / "answer.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "answer.json").read_text("utf-8"))[0]["photo"] == strange


def test_a_database_made_of_the_folder_is_searched(common, untrained_run, photo, tmp_path):
    pytest.importorskip("lancedb")
    answers = []
    for more in ([], ["--index", tmp_path / "database", "--exact"]):
        if more:  # the kept folder is a benchmark like any other
            (gallery,) = (tmp_path / "cache/galleries").iterdir()
            made = ["index", "--run", untrained_run.path, "--benchmark", gallery, "--changed", "--engine", "lance"]
            result = CliRunner().invoke(app, [*map(str, made), "--output", str(tmp_path / "database")])
            assert result.exit_code == 0, result.output
        result = find(photo, *common, *more, "--json", tmp_path / "answer.json")
        assert result.exit_code == 0, result.output
        answers.append(json.loads((tmp_path / "answer.json").read_text())[0])
    assert [each["file"] for each in answers[0]["results"]] == [each["file"] for each in answers[1]["results"]]
    assert (answers[1]["certified"], answers[1]["visited"]) == (True, 4)
