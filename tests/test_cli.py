"""The command `cmic`: the whole way from a benchmark to an answer, and one clear message for each mistake."""

import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
import typer
from PIL import Image
from released_archive import write_archive
from toybook import make_book, write_chapter
from typer.testing import CliRunner

from cmiclib.book import runner
from cmiclib.cli import app
from cmiclib.cli.book import parse_parameter
from cmiclib.cli.common import SHIPPED
from cmiclib.errors import ConfigError
from cmiclib.index import ShapeIndex
from cmiclib.sources import PrepareOptions
from cmiclib.sources.shapenet import prepare_shapenet

CMIC = str(Path(sys.executable).parent / "cmic")
TINY = ["model.image_size=32", "train.batch=5", "train.steps=4", "train.eval_every=2", "train.log_every=1"]


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run_folder(tiny_benchmark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    result = invoke("train", "--benchmark", tiny_benchmark.path, "--output", path, "--profile", "smoke", *TINY)
    assert result.exit_code == 0, result.output
    return path


def test_train_writes_a_run_with_the_overrides(run_folder: Path) -> None:
    assert json.loads((run_folder / "config.json").read_text())["train"]["steps"] == 4


def test_evaluate_writes_flat_figures(run_folder: Path, tiny_benchmark, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    result = invoke("evaluate", "--run", run_folder, "--benchmark", tiny_benchmark.path, "--json", file)
    assert result.exit_code == 0, result.output
    figures = json.loads(file.read_text())
    assert {"top1", "top10", "category", "map10", "mrr", "queries", "top1_low", "top1_high"} <= set(figures)
    assert figures["gallery_size"] == len(tiny_benchmark.shapes)
    assert figures["queries"] == len(tiny_benchmark.rows("test"))


def test_a_run_that_nobody_named_is_named_in_the_output(tiny_benchmark, tmp_path: Path) -> None:
    result = invoke("index", "--benchmark", tiny_benchmark.path, "--output", tmp_path / "tiny.safetensors")
    assert result.exit_code == 0, result.output
    assert f"weights: {SHIPPED}" in result.stderr.replace("\n", "")
    assert ShapeIndex.load(tmp_path / "tiny.safetensors").shape_ids == tiny_benchmark.shapes.shape_id.tolist()


def test_commands_know_the_shipped_benchmark_by_name(run_folder: Path, monkeypatch, tiny_benchmark) -> None:
    monkeypatch.setattr("cmiclib.sources.sweethome.open_sweethome", lambda: tiny_benchmark)
    assert invoke("evaluate", "--run", run_folder, "--benchmark", "sweethome").exit_code == 0


def test_the_released_modes_print_a_table_and_write_the_total(run_folder: Path, tiny_benchmark, tmp_path: Path) -> None:
    file, common = tmp_path / "total.json", ["evaluate", "--run", run_folder, "--benchmark", tiny_benchmark.path]
    result = invoke(*common, "--mode", "full", "--json", file)
    assert result.exit_code == 0, result.output
    assert {"box", "round", "odd", "total"} <= set(result.output.replace("│", " ").split())
    total = json.loads(file.read_text())
    assert set(total) == {"top1", "top10", "category", "d_hau", "d_iou", "queries", "gallery_size"}
    assert total["queries"] == len(tiny_benchmark.rows("test"))
    other = invoke(*common, "--mode", "shapenet", "--gallery", tiny_benchmark.path, "--json", file)
    assert other.exit_code == 0, other.output
    assert set(json.loads(file.read_text())) == {"d_hau", "d_iou", "queries", "gallery_size"}
    assert "--gallery" in invoke(*common, "--mode", "shapenet").output


def test_a_gallery_without_a_mode_is_searched_as_an_unseen_repository(run_folder: Path, tiny_benchmark, tmp_path: Path):
    file = tmp_path / "unseen.json"
    common = ["evaluate", "--run", run_folder, "--benchmark", tiny_benchmark.path, "--gallery", tiny_benchmark.path]
    result = invoke(*common, "--json", file)
    assert result.exit_code == 0, result.output
    measured = ["category", "d_hau", "d_iou", "given_d_hau", "given_d_iou"]
    expected = {f"{name}{end}" for name in measured for end in ("", "_low", "_high")}
    figures = json.loads(file.read_text())
    assert set(figures) == expected | {"queries", "left_out", "gallery_size"}
    assert invoke(*common, "--mode", "shapenet", "--json", file).exit_code == 0
    released = json.loads(file.read_text())
    assert released["d_hau"] == pytest.approx(figures["given_d_hau"])
    assert released["d_iou"] == pytest.approx(figures["given_d_iou"])


def test_untrained_networks_are_evaluated_by_name(tiny_benchmark, tmp_path: Path) -> None:
    file, common = tmp_path / "untrained.json", ["evaluate", "--benchmark", tiny_benchmark.path]
    names = ["--untrained", "test_vit"]
    result = invoke(*common, *names, "--init", "random", "--json", file)
    assert result.exit_code == 0, result.output
    kinds = json.loads(file.read_text())["test_vit"]
    assert [*kinds] == ["untrained", "untrained_cells"]
    assert all(0 <= figures["top1"] <= figures["top10"] <= 1 for figures in kinds.values())
    result = invoke(*common, *names, "--mode", "full")
    assert result.exit_code == 2 and "--untrained excludes" in result.output
    result = invoke(*common, *names)  # without a tag: ImageNet's weights of torchvision, which has no such network
    assert result.exit_code == 2 and "model.init=timm" in result.output


def test_a_gallery_without_photos_cannot_be_evaluated(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "root/03001627/c1").mkdir(parents=True)
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "root/03001627/c1/model.obj")
    prepare_shapenet(
        tmp_path / "root", tmp_path / "out", PrepareOptions(size=32, jobs=1, progress=False), synsets="chair"
    )
    result = invoke("evaluate", "--run", run_folder, "--benchmark", tmp_path / "out")
    assert result.exit_code == 2 and "no photos in split 'test'" in result.stderr


def test_the_released_archive_is_prepared_and_its_checkpoint_checked(tiny_benchmark, tmp_path: Path) -> None:
    archive = write_archive(tiny_benchmark, tmp_path / "pix3d")
    result = invoke("prepare", "release", "--input", archive, "--output", tmp_path / "out", "--size", 32)
    assert result.exit_code == 0, result.output
    assert "8 shapes and 42 photos" in result.output
    (tmp_path / "model.pt").write_bytes(b"something")
    refused = invoke("convert", tmp_path / "model.pt", "--output", tmp_path / "run")
    assert refused.exit_code == 2 and "not a file of Jittor" in refused.output and not (tmp_path / "run").exists()


def test_shapenet_is_prepared_and_tells_what_it_left_out(tmp_path: Path) -> None:
    for name in ("c1", "c2"):
        (tmp_path / "root/03001627" / name).mkdir(parents=True)
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "root/03001627/c1/model.obj")
    common = ["prepare", "shapenet", "--input", tmp_path / "root", "--output", tmp_path / "out", "--size", 32]
    refused = invoke(*common, "--synsets", "chair")
    assert refused.exit_code == 2 and "c2: no model.obj" in refused.stderr and not (tmp_path / "out").exists()
    result = invoke(*common, "--synsets", "chair", "--jobs", 1, "--allow-missing")
    assert result.exit_code == 0, result.output
    assert "1 shapes and 0 photos: " in result.stdout
    assert "1 item left out" in result.stderr and "c2: no model.obj" in result.stderr


@pytest.fixture(scope="module")
def index_file(run_folder: Path, tiny_benchmark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "gallery.index"
    result = invoke("index", "--run", run_folder, "--benchmark", tiny_benchmark.path, "--output", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A 90 × 70 photo of a yellow bar on blue."""
    pixels = np.full((70, 90, 3), (30, 60, 200), np.uint8)
    pixels[20:50, 30:60] = (240, 220, 40)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_without_an_index_the_shipped_model_is_searched_and_said(photo: Path, tmp_path: Path) -> None:
    found = invoke("search", photo, "--top", 2, "--json", tmp_path / "answers.json")
    assert found.exit_code == 0 and "shipped model" in found.output
    (answer,) = json.loads((tmp_path / "answers.json").read_text())
    assert len(answer["results"]) == 2 and "/" in answer["results"][0]["shape_id"]
    folder = invoke("search", tmp_path)
    assert folder.exit_code != 0 and "this is a folder" in folder.output


def test_index_and_search_answer_in_order(index_file: Path, photo: Path, tiny_benchmark, tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    found = invoke("search", photo, "--index", index_file, "--box", "5,5,75,60", "--top", 3, "--json", answers)
    assert found.exit_code == 0, found.output
    (answer,) = json.loads(answers.read_text())
    scores = [entry["score"] for entry in answer["results"]]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert {entry["shape_id"] for entry in answer["results"]} <= set(tiny_benchmark.shapes.shape_id)


SEARCHES = {
    "automatic mask from the box": ["--box", "20,10,70,60", "--auto-mask"],
    "whole photo, no mask": ["--no-mask"],
    "what stands alone on a plain ground as mask": [],
    "box, with a learnt silhouette": ["--box", "20,10,70,60"],
    "box, no mask": ["--box", "20,10,70,60", "--no-mask"],
}


@pytest.mark.parametrize("said", SEARCHES)
def test_search_says_what_marked_the_object(said: str, index_file: Path, photo: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    found = invoke("search", photo, "--index", index_file, "--json", answers, *SEARCHES[said])
    assert found.exit_code == 0, found.output
    assert f"({said})" in found.output.replace("\n", "") and json.loads(answers.read_text())[0]["object"] == said


def test_the_automatic_mask_is_saved_and_gives_the_same_answer_again(
    index_file: Path, photo: Path, tmp_path: Path
) -> None:
    mask, answers = tmp_path / "mask.png", [tmp_path / "first.json", tmp_path / "second.json"]
    first = invoke("search", photo, "--index", index_file, "--auto-mask", "--save-mask", mask, "--json", answers[0])
    assert first.exit_code == 0, first.output
    saved = np.asarray(Image.open(mask))
    assert saved.shape == (70, 90) and (saved > 0).sum() == pytest.approx(30 * 30, rel=0.05)
    second = invoke("search", photo, "--index", index_file, "--mask", mask, "--json", answers[1])
    assert f"mask {mask}" in second.output.replace("\n", "")
    results = [json.loads(file.read_text())[0]["results"] for file in answers]
    assert results[0] == results[1]
    refused = invoke("search", photo, "--index", index_file, "--auto-mask", "--save-mask", photo / "mask.png")
    assert refused.exit_code == 2 and "could not be written" in refused.stderr


MISTAKES = {
    "missing benchmark": (["train", "--benchmark", "none", "--output", "run"], "none"),
    "unknown key": (["train", "--benchmark", "none", "--output", "run", "loss.tua=1"], "unknown configuration key"),
    "unknown profile": (["train", "--benchmark", "none", "--output", "run", "--profile", "tiny"], "unknown profile"),
    "missing run": (["evaluate", "--run", "none", "--benchmark", "none"], "none"),
    "missing index": (["search", "photo.jpg", "--index", "none"], "cmic index"),
    "mask for two photos": (["search", "a.jpg", "b.jpg", "--index", "none", "--box", "0,0,1,1"], "one photo"),
    "two masks to save": (["search", "a.jpg", "b.jpg", "--index", "none", "--save-mask", "m.png"], "one photo"),
    "two ways to a mask": (["search", "a.jpg", "--index", "none", "--auto-mask", "--no-mask"], "--no-mask"),
    "no mask to save": (["search", "a.jpg", "--index", "none", "--save-mask", "m.png", "--no-mask"], "--no-mask"),
    "another sweethome without a folder": (["prepare", "sweethome", "--size", "64"], "--output"),
    "masks without photos": (
        ["prepare", "folder", "--input", ".", "--output", "out", "--masks", "m"],
        "leave out --masks",
    ),
    "not a book": (["reproduce"], "_toc.yml"),
    "nothing to verify": (["verify"], "_toc.yml"),
}


def test_what_is_wrong_is_said_before_a_gallery_is_embedded(
    run_folder: Path, tiny_benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmiclib.index.ShapeIndex.build", lambda *_, **__: pytest.fail("embedded"))
    common = ["evaluate", "--run", run_folder, "--benchmark", tiny_benchmark.path]
    for wrong, said in (
        (["--mode", "fast"], "unknown mode"),
        (["--split", "tset"], "tset"),
        (["--mode", "shapenet"], "--gallery"),
    ):
        result = invoke(*common, *wrong)
        assert result.exit_code == 2 and said in result.stderr


def test_a_result_is_written_into_a_new_folder_and_a_file_is_no_run_folder(
    run_folder: Path, tiny_benchmark, tmp_path: Path
) -> None:
    common = ["evaluate", "--run", run_folder, "--benchmark", tiny_benchmark.path]
    assert invoke(*common, "--json", tmp_path / "new/figures.json").exit_code == 0
    assert json.loads((tmp_path / "new/figures.json").read_text())["queries"] > 0
    (tmp_path / "file").touch()
    refused = invoke("train", "--benchmark", tiny_benchmark.path, "--output", tmp_path / "file", *TINY)
    assert refused.exit_code == 2 and "How to fix: " in refused.stderr and "Traceback" not in refused.output


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_message_and_status_2(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, said = MISTAKES[case]
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and said in result.stderr and "How to fix: " in result.stderr
    assert "Traceback" not in result.output


ENDING = """
import atexit, sys
from cmiclib import cli
class Last:
    def __del__(self):
        print("taken apart")
last = Last()
atexit.register(print, "last words")
"""
WORKERS = "from joblib import Parallel, delayed\nParallel(2)(delayed(abs)(number) for number in range(4))\n"
THREAD = "import threading, time\nthreading.Thread(target=lambda: (time.sleep(1), print('the work is done'))).start()\n"


@pytest.mark.parametrize(("asked", "status"), [("--help", 0), ("readme", 2)])
def test_a_command_ends_at_once_after_its_last_words(tmp_path: Path, asked: str, status: int) -> None:
    done = ended(f"{ENDING}cli.main()", asked, tmp_path)
    assert done.returncode == status and "last words" in done.stdout
    assert "taken apart" not in done.stdout


@pytest.mark.parametrize(("before", "last"), [(WORKERS, ""), (THREAD, "the work is done\n")])
def test_a_command_with_work_under_way_ends_when_that_is_done(tmp_path: Path, before: str, last: str) -> None:
    done = ended(f"{ENDING}{before}cli.app = lambda: sys.exit(3)\ncli.main()", "", tmp_path)
    assert (done.returncode, done.stdout) == (3, f"{last}last words\ntaken apart\n")


def test_a_command_whose_output_is_closed_ends_well(tmp_path: Path) -> None:
    code = f"import os, sys\nos.execv(sys.executable, [sys.executable, '-c', {f'{ENDING}cli.main()'!r}, '--help'])"
    shell = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(code)} >&- 2>&-"
    assert subprocess.run(["sh", "-c", shell], cwd=tmp_path, timeout=60).returncode == 0


def ended(code: str, asked: str, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *asked.split()]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_what_cannot_be_written_at_the_end_is_no_success(tmp_path: Path) -> None:
    code = "import sys\nfrom cmiclib import cli\ncli.app = lambda: (print('an answer'), sys.exit(0))\ncli.main()"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, env=buffered
        )
    assert done.returncode == 120 and "No space left" in done.stderr  # Python's own status


def test_the_installed_command_prints_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run([CMIC, "readme"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("K=5", 5),
        ("K=0.5", 0.5),
        ("K=true", True),
        ("K=chair", "chair"),
        ("K=a=b", "a=b"),
        ("K=no", "no"),
        ("K=[1, 2]", [1, 2]),
        ("K=[loss.tau=0.05]", ["loss.tau=0.05"]),
    ],
)
def test_parameters_keep_their_type(text: str, value: object) -> None:
    assert parse_parameter(text) == ("K", value)


def test_a_parameter_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="'K' is not NAME=VALUE"):
        parse_parameter("K")


def test_an_index_in_half_precision_is_smaller(tmp_path: Path, run_folder, tiny_benchmark, index_file) -> None:
    made = invoke(
        "index", "--run", run_folder, "--benchmark", tiny_benchmark.path, "--output", tmp_path / "half", "--half"
    )
    assert made.exit_code == 0, made.output
    assert (tmp_path / "half").stat().st_size < index_file.stat().st_size


def test_a_changed_benchmark_is_indexed_only_on_request(tmp_path: Path, run_folder, tiny_benchmark) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    known = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps(known | {"hash": "of another state"}))
    common = ["index", "--run", run, "--benchmark", tiny_benchmark.path, "--output", tmp_path / "x.index"]
    refused = invoke(*common)
    assert refused.exit_code == 2 and "has changed since" in refused.stderr
    assert invoke(*common, "--changed").exit_code == 0


def test_photos_of_a_benchmark_search_any_gallery(tmp_path: Path, index_file, tiny_benchmark) -> None:
    index, file = ShapeIndex.load(index_file), tmp_path / "answers.json"
    other = ShapeIndex(index.views[:3], index.attention, ["a", "b", "c"], index.model, index.config)
    other.save(tmp_path / "x.index")
    common = ["--benchmark", tiny_benchmark.path, "--json", file]
    done = invoke("search", tiny_benchmark.queries.query_id[0], "--index", tmp_path / "x.index", *common)
    assert done.exit_code == 0, done.stderr
    (answer,) = json.loads(file.read_text())
    assert {entry["shape_id"] for entry in answer["results"]} == {"a", "b", "c"}


def test_a_failed_chapter_ends_reproduce_with_its_name_after_the_report_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_benchmark
) -> None:
    from cmiclib.book import publish

    monkeypatch.chdir(make_book(tmp_path))
    monkeypatch.setattr(publish, "fetch_vendor", lambda root: False)
    monkeypatch.setattr(publish, "publish", lambda root, profile, outputs: (root / "index.html", True))
    errors = {"first": "ValueError: x"}
    monkeypatch.setattr(runner, "execute", lambda chapter, *_: runner.Ran(errors.get(chapter.name, ""), {}))
    result = invoke("reproduce", "--profile", "smoke", "--benchmark", tiny_benchmark.path)
    assert result.exit_code == 2
    assert "report: index.html" in result.stdout
    assert "failed: first; second needed them" in result.stderr
    assert "outputs/smoke/notebooks/first.ipynb" in result.stderr


def test_verify_compares_and_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_book(tmp_path)
    monkeypatch.chdir(root)
    (root / "data/results").mkdir(parents=True)
    (root / "outputs/demo").mkdir(parents=True)
    entry = {"key": "k", "status": "ok", "seconds": 1.0, "environment": {}, "hashes": {"config": "c"}}
    record = {"chapters": dict.fromkeys(("first", "second", "third", "07_evaluation"), entry)}
    (root / "outputs/demo/provenance.json").write_text(json.dumps(record))
    stored = {"metrics": {"seen": {"top1": 0.7}}, "tolerances": {"seen.top1": 0.02}}
    (root / "data/results/demo.json").write_text(json.dumps(stored))
    (root / "outputs/demo/metrics.json").write_text(json.dumps({"config": "c", "seen": {"top1": 0.65}}))
    result = invoke("verify")
    assert result.exit_code == 2 and "seen.top1" in result.stderr and "differs" in result.stdout
    assert invoke("verify", "--store").exit_code == 0
    assert invoke("verify").exit_code == 0
    (root / "outputs/demo/provenance.json").write_text("{}")
    for refused in (invoke("verify"), invoke("verify", "--store")):
        assert refused.exit_code == 2 and "not the record of a run" in refused.stderr


def test_the_report_of_a_profile_that_does_not_exist_or_never_ran_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_book(tmp_path)
    monkeypatch.chdir(root)
    for name, said in (("typo", "unknown profile 'typo'"), ("paper", "no chapter has run")):
        refused = invoke("book", "--profile", name)
        assert refused.exit_code == 2 and said in refused.stderr
    assert not (root / "outputs").exists()


def test_a_typo_in_an_override_is_an_error_within_three_seconds_and_touches_nothing(tmp_path: Path) -> None:
    root = make_book(tmp_path)
    write_chapter(root, "first", more="OVERRIDES = []\n")
    (root / "outputs/demo/html").mkdir(parents=True)
    (root / "outputs/demo/html/index.html").write_text("finished")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    command = [CMIC, "reproduce", "OVERRIDES=[loss.tua=0.05]"]
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    refused = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert refused.returncode == 2 and "unknown configuration key 'loss.tua'" in refused.stderr
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    # CPU seconds: other processes on the machine do not count.
    assert (ended.ru_utime + ended.ru_stime) - (began.ru_utime + began.ru_stime) < 3


@pytest.mark.parametrize("wrong", ["PROFILE=smoke", "BENCHMARK=other", "OUTPUTS=elsewhere"])
def test_reproduce_refuses_a_parameter_that_an_option_sets(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_book(tmp_path)
    monkeypatch.chdir(root)
    refused = invoke("reproduce", wrong)
    assert refused.exit_code == 2 and f"--{wrong.partition('=')[0].lower()}" in refused.stderr
    assert not (root / "outputs").exists() and not (root / "vendor").exists()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_a_terminal_without_utf_8_gets_replacements(tmp_path: Path, encoding: str) -> None:
    folder = tmp_path / "Möbel 椅子"
    folder.mkdir()
    trimesh.creation.box((1, 2, 3)).export(folder / "Regal → ß.obj")
    for options in (["--help"], ["prepare", "folder", "--input", folder, "--output", tmp_path / "出", "--size", 32]):
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        done = subprocess.run([CMIC, *map(str, options)], capture_output=True, env=environment)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    shown = "出" if encoding in ("utf-8", "ascii") else "?"  # click takes ASCII for a terminal that says nothing
    assert shown in done.stdout.decode("utf-8" if encoding == "ascii" else encoding)


def test_a_database_is_an_index_like_any_other(tmp_path: Path, run_folder, tiny_benchmark, photo) -> None:
    pytest.importorskip("lancedb")
    file, database, common = tmp_path / "x.index", tmp_path / "database", ["--benchmark", tiny_benchmark.path]
    made = ["index", "--run", run_folder, *common, "--output"]
    assert invoke(*made, file).exit_code == 0
    for _ in range(2):  # what is there is passed over
        result = invoke(*made, database, "--engine", "lance")
        assert result.exit_code == 0, result.output
        assert f"{len(tiny_benchmark.shapes)} shapes" in result.output
    answers, figures = [], []
    for index in (file, database):
        for options in ([], ["--exact"]):
            result = invoke("search", photo, "--index", index, *options, "--top", 3, "--json", tmp_path / "found.json")
            assert result.exit_code == 0, result.output
            assert "not proven" not in result.output
            (found,) = json.loads((tmp_path / "found.json").read_text())
            answers.append([each["shape_id"] for each in found["results"]])
            assert (found["certified"], found["visited"]) == (True, len(tiny_benchmark.shapes))
        result = invoke("evaluate", *common, "--index", index, "--json", tmp_path / "figures.json")
        assert result.exit_code == 0, result.output
        figures.append(json.loads((tmp_path / "figures.json").read_text()))
    assert all(ids == answers[0] for ids in answers)
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)


def test_an_answer_that_is_not_proven_says_so(tmp_path: Path, run_folder, tiny_benchmark, photo, monkeypatch) -> None:
    lance = pytest.importorskip("cmiclib.index.lance")
    pytest.importorskip("lancedb")
    common = ["--run", run_folder, "--benchmark", tiny_benchmark.path]
    assert invoke("index", *common, "--output", tmp_path / "x", "--engine", "lance").exit_code == 0
    monkeypatch.setattr(lance, "CANDIDATES", 1)
    search = ["search", photo, "--index", tmp_path / "x", "--top", 1]
    assert "the best of 1 candidates, not proven; --exact goes on" in " ".join(invoke(*search).output.split())
    assert "not proven" not in invoke(*search, "--exact").output


def test_an_address_is_no_place_for_a_file(tiny_benchmark) -> None:
    result = invoke("index", "--benchmark", tiny_benchmark.path, "--output", "s3://bucket/x")
    assert result.exit_code == 2 and "--engine lance" in result.stderr


def test_help_shows_every_bracket(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    pending = {"": typer.main.get_command(app)}
    while pending:
        name, command = pending.popitem()
        pending |= {f"{name} {sub}".strip(): each for sub, each in getattr(command, "commands", {}).items()}
        shown = re.sub(r"\s+", " ", invoke(*name.split(), "--help").output.replace("│", " "))
        for text in (command.help or "", *(getattr(option, "help", None) or "" for option in command.params)):
            for word in re.findall(r"\S*\\?\[\S+", text):
                assert word.replace("\\[", "[") in shown, f"cmic {name}: {word} is taken for a style"


def test_an_index_is_not_written_over_a_folder(tmp_path: Path, run_folder, tiny_benchmark) -> None:
    result = invoke("index", "--run", run_folder, "--benchmark", tiny_benchmark.path, "--output", tmp_path)
    assert result.exit_code == 2 and "name of a file" in result.stderr and "make room" not in result.stderr
