"""The runner: what is run again and what is not, failures, parameters, two runs at once."""

import json
from pathlib import Path

import nbformat
import pytest
from toybook import BODY, make_book, write_chapter

from cmiclib.book import runner
from cmiclib.book.chapters import read_book, selected
from cmiclib.config import profile
from cmiclib.errors import BookError, CMICError, ConfigError
from cmiclib.io.lock import alone


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_book(tmp_path)


class Kernel:
    """Stands in for papermill: notes what would run; a chapter in ``broken`` fails."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.parameters: dict[str, dict] = {}
        self.broken: set[str] = set()

    def __call__(self, chapter, parameters, target: Path, root: Path) -> runner.Ran:
        self.ran.append(chapter.name)
        self.parameters[chapter.name] = parameters
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("{}")
        return runner.Ran("ValueError: broken" if chapter.name in self.broken else "", {})


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(runner, "execute", kernel)
    return kernel


def run(root: Path, benchmark_hash: str = "hash", **options) -> runner.Result:
    options = {"profile": "smoke", "say": lambda line: None, "at_once": 1} | options
    return runner.reproduce(root, benchmark_hash=lambda: benchmark_hash, **options)


def edit(root: Path, name: str) -> None:
    path = root / "book" / f"{name}.py"
    path.write_text(path.read_text() + "\n# %%\n1 + 1\n")


def test_second_run_recomputes_nothing(root: Path, kernel: Kernel) -> None:
    assert run(root).ran == ["first", "second", "third"]
    kernel.ran.clear()
    result = run(root)
    assert (kernel.ran, result.ran, result.current) == ([], [], ["first", "second", "third"])


@pytest.mark.parametrize(
    ("edited", "again"), [("first", ["first", "second"]), ("second", ["second"]), ("third", ["third"])]
)
def test_an_edited_chapter_runs_again_with_those_that_need_it(
    root: Path, kernel: Kernel, edited: str, again: list[str]
) -> None:
    run(root)
    edit(root, edited)
    assert run(root).ran == again


def test_another_benchmark_other_packages_and_a_lost_notebook_run_again(
    root: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root)
    assert len(run(root, benchmark_hash="other").ran) == 3
    monkeypatch.setattr(runner, "package_versions", lambda: {"torch": "9.9"})
    assert len(run(root, benchmark_hash="other").ran) == 3
    (root / "outputs/smoke/notebooks/third.ipynb").unlink()
    assert run(root, benchmark_hash="other").ran == ["third"]


def test_new_published_results_run_the_chapters_that_show_them(root: Path, kernel: Kernel) -> None:
    write_chapter(root, "third", "\n# %%\npublished = 'data/results/published.json'\n")
    run(root)
    (root / "data/results").mkdir(parents=True)
    (root / "data/results/published.json").write_text("{}")
    assert run(root).ran == ["third"]
    assert run(root).ran == []


def test_only_the_chapters_that_import_an_edited_function_run_again(root: Path, kernel: Kernel) -> None:
    library = root / "cmiclib"
    library.mkdir()
    (library / "__init__.py").write_text("")
    (library / "tool.py").write_text('"""A tool."""\n\n\ndef use():\n    return 1\n')
    write_chapter(root, "third", "\n# %%\nfrom cmiclib.tool import use\n")
    assert len(run(root, library=library).ran) == 3
    (library / "tool.py").write_text('"""A better tool."""\n\n\ndef use():\n    """Use it."""\n    return 1\n')
    assert run(root, library=library).ran == []
    (library / "tool.py").write_text("def use():\n    return 2\n")
    assert run(root, library=library).ran == ["third"]


def test_a_changed_input_runs_the_chapters_whose_header_names_it(root: Path, kernel: Kernel) -> None:
    write_chapter(root, "third", inputs="tests/arrays, data/*/benchmark.json")
    run(root)
    for name in ("tests/arrays/deep/a.npz", "data/pix3d/benchmark.json"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("1")
        assert run(root).ran == ["third"]
        (root / name).write_text("2")
        assert run(root).ran == ["third"]
    (root / "data/pix3d/other.json").write_text("1")
    assert run(root).ran == []


def test_a_chapter_that_was_left_out_is_marked_when_its_inputs_changed(root: Path, kernel: Kernel) -> None:
    def stale() -> list[str]:
        chapters = runner.read_record(root / "outputs/smoke")["chapters"]
        return [name for name, entry in chapters.items() if entry.get("stale")]

    run(root)
    before = runner.read_record(root / "outputs/smoke")["chapters"]
    run(root, benchmark_hash="other", chapters=["third"])
    after = runner.read_record(root / "outputs/smoke")["chapters"]
    assert stale() == ["first", "second"]
    assert after["first"]["hashes"] == before["first"]["hashes"] != after["third"]["hashes"]
    assert run(root, benchmark_hash="other", chapters=["first"]).ran == ["first"]
    assert stale() == ["second"]
    run(root, chapters=["third"])
    assert stale() == ["first"], "the second is what the first state made"
    run(root)
    assert stale() == []


def test_overrides_are_part_of_the_configuration_and_checked_before_anything_is_touched(
    root: Path, kernel: Kernel
) -> None:
    write_chapter(root, "first", more="OVERRIDES = []\n")
    run(root)
    before = {path: path.read_bytes() for path in (root / "outputs").rglob("*") if path.is_file()}
    kernel.ran.clear()
    for value, said in ((["loss.tua=0.05"], "loss.tua"), (["train.steps=x"], "train.steps"), ("loss.tau=1", "list")):
        with pytest.raises(CMICError, match=said):
            run(root, parameters={"OVERRIDES": value})
    after = {path: path.read_bytes() for path in (root / "outputs").rglob("*") if path.is_file()}
    assert kernel.ran == [] and after == before
    result = run(root, parameters={"OVERRIDES": ["loss.tau=0.05"]})
    assert result.ran == ["first", "second"]
    chapters = runner.read_record(root / result.outputs / "smoke")["chapters"]
    assert chapters["first"]["hashes"]["config"] == profile("smoke", ["loss.tau=0.05"]).digest()
    assert chapters["second"]["hashes"]["config"] == profile("smoke").digest()


def test_an_experiment_has_its_own_outputs_and_the_baseline_keeps_its_bytes(root: Path, kernel: Kernel) -> None:
    write_chapter(root, "first", more="OVERRIDES = []\n")
    run(root)
    before = {path: path.read_bytes() for path in (root / "outputs/smoke").rglob("*") if path.is_file()}
    kernel.ran.clear()
    result = run(root, parameters={"OVERRIDES": ["loss.tau=0.05"]})
    assert result.outputs == f"outputs/experiments/{profile('smoke', ['loss.tau=0.05']).digest()}"
    assert kernel.ran == ["first", "second"], "the third, which the override does not reach, is copied"
    assert {kernel.parameters[name]["OUTPUTS"] for name in kernel.ran} == {result.outputs}
    folder = root / result.outputs / "smoke"
    assert (folder / "notebooks/third.ipynb").read_bytes() == before[root / "outputs/smoke/notebooks/third.ipynb"]
    record = runner.read_record(folder)
    assert record["overrides"] == ["loss.tau=0.05"] and set(record["chapters"]) == {"first", "second", "third"}
    assert {path: path.read_bytes() for path in (root / "outputs/smoke").rglob("*") if path.is_file()} == before
    kernel.ran.clear()
    assert run(root, parameters={"OVERRIDES": ["loss.tau=0.05"]}).ran == [], "it is up to date"
    run(root, parameters={"OVERRIDES": ["loss.tau=0.05"]}, chapters=["second"])
    assert not any("stale" in entry for entry in runner.read_record(folder)["chapters"].values())
    other = run(root, parameters={"OVERRIDES": ["loss.tau=0.06"]})
    assert other.outputs != result.outputs and run(root).ran == []


@pytest.mark.parametrize("name", ["PROFILE", "BENCHMARK", "OUTPUTS"])
def test_what_an_option_sets_cannot_be_set_as_a_parameter(root: Path, kernel: Kernel, name: str) -> None:
    with pytest.raises(BookError, match=f"the option --{name.lower()} sets the parameter {name}"):
        run(root, parameters={name: "smoke"})


def test_profiles_do_not_touch_each_other(root: Path, kernel: Kernel) -> None:
    run(root)
    assert len(run(root, profile="demo").ran) == 3
    assert run(root).ran == []
    assert kernel.parameters["third"] == {"PROFILE": "demo", "BENCHMARK": "sweethome", "OUTPUTS": "outputs"}


def test_a_parameter_goes_to_the_chapters_that_take_it(root: Path, kernel: Kernel) -> None:
    run(root)
    assert run(root, parameters={"COUNT": 5}).ran == ["first", "second"]
    assert kernel.parameters["first"]["COUNT"] == 5
    assert "COUNT" not in kernel.parameters["second"]


def test_unknown_parameter_profile_and_chapter_are_refused_before_anything_runs(root: Path, kernel: Kernel) -> None:
    with pytest.raises(BookError, match=r"'COUNTS'[\s\S]*use one of: BENCHMARK, COUNT, OUTPUTS, PROFILE"):
        run(root, parameters={"COUNTS": 5})
    with pytest.raises(ConfigError, match="unknown profile 'tiny'"):
        run(root, profile="tiny")
    with pytest.raises(BookError, match=r"no chapter 'fourth'[\s\S]*first, second, third"):
        run(root, chapters=["fourth"])
    assert kernel.ran == []
    assert not (root / "outputs").exists()


def test_a_chapter_alone_runs_with_what_it_needs(root: Path, kernel: Kernel) -> None:
    assert run(root, chapters=["second"]).ran == ["first", "second"]
    assert run(root).ran == ["third"]


def test_a_failure_skips_what_needs_it_and_the_rest_runs(root: Path, kernel: Kernel) -> None:
    kernel.broken = {"first"}
    lines: list[str] = []
    result = run(root, say=lines.append)
    assert (result.failed, result.skipped, result.ran) == (["first"], ["second"], ["third"])
    assert any("ValueError: broken" in line for line in lines)
    record = runner.read_record(root / "outputs/smoke")["chapters"]
    assert {name: entry["status"] for name, entry in record.items()} == {
        "first": "failed", "second": "skipped", "third": "ok"
    }  # fmt: skip
    kernel.broken = set()
    assert run(root).ran == ["first", "second"]


def test_a_run_that_was_killed_in_a_chapter_runs_it_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(chapter, parameters, target: Path, root: Path) -> runner.Ran:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("{}")
        if chapter.name == "second":
            raise KeyboardInterrupt
        return runner.Ran("", {})

    monkeypatch.setattr(runner, "execute", die)
    with pytest.raises(KeyboardInterrupt):
        run(root)
    monkeypatch.setattr(runner, "execute", lambda *_: runner.Ran("", {}))
    (root / "outputs/smoke/notebooks/third.ipynb").write_text("{}")
    assert run(root).ran == ["second", "third"]


def test_the_second_of_two_runs_says_who_holds_the_lock(root: Path, kernel: Kernel) -> None:
    import os

    with (
        alone(root / "outputs/smoke", BookError),
        pytest.raises(BookError, match=f"another run is at work here: process {os.getpid()}"),
    ):
        run(root)
    assert kernel.ran == []
    assert len(run(root).ran) == 3


def test_the_record_says_what_ran_where_and_how_long(root: Path, kernel: Kernel) -> None:
    run(root)
    record = json.loads((root / "outputs/smoke/provenance.json").read_text())
    entry = record["chapters"]["third"]
    assert entry["environment"]["versions"]["torch"]
    assert set(entry["hashes"]) == {"code", "packages", "config", "benchmark", "inputs"}
    assert entry["seconds"] >= 0 and entry["finished"].endswith("+00:00")


def test_the_record_holds_the_effort_of_each_kernel(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = {"user_seconds": 2.52, "system_seconds": 0.0, "page_faults": 3.0}
    monkeypatch.setattr(runner, "execute", lambda *_: runner.Ran("", used))
    run(root)
    assert runner.read_record(root / "outputs/smoke")["chapters"]["first"].items() >= {"user_seconds": 2.5}.items()


def test_chapters_that_are_up_to_date_count_as_done_and_take_no_time(root: Path, kernel: Kernel) -> None:
    run(root)
    record = json.loads((root / "outputs/smoke/provenance.json").read_text())
    for entry in record["chapters"].values():
        entry["seconds"] = 600.0
    (root / "outputs/smoke/provenance.json").write_text(json.dumps(record))
    edit(root, "third")
    lines: list[str] = []
    run(root, say=lines.append)
    assert lines[0].startswith("[ 3/3] third … (about 10 min left)")
    assert lines[-1] == "2 of 3 chapters are up to date"


def test_the_first_demo_expects_what_the_stored_run_took(root: Path) -> None:
    (root / "data/results").mkdir(parents=True)
    (root / "data/results/demo.json").write_text(json.dumps({"seconds": {"first": 60.0, "second": 5.0}}))
    done = {"first": {"status": "ok", "seconds": 40.0}, "second": {"status": "failed", "seconds": 1.0}}
    assert runner.expected_seconds(root, "demo", done) == {"first": 40.0, "second": 5.0}
    assert runner.expected_seconds(root, "smoke", {}) == {}
    (root / "data/results/demo.json").write_text("{")
    assert runner.expected_seconds(root, "demo", {}) == {}


def test_needs_come_first_and_else_the_order_of_reading_stays(root: Path) -> None:
    write_chapter(root, "first", needs="third")
    assert [chapter.name for chapter in read_book(root)] == ["third", "first", "second"]
    assert [chapter.name for chapter in selected(read_book(root), ["first"])] == ["third", "first"]


def test_circles_unknown_needs_and_missing_pages_are_named(root: Path) -> None:
    write_chapter(root, "first", needs="second")
    with pytest.raises(BookError, match="first, second"):
        read_book(root)
    write_chapter(root, "first", needs="zeroth")
    with pytest.raises(BookError, match="needs zeroth"):
        read_book(root)
    (root / "book/third.py").unlink()
    with pytest.raises(BookError, match="lists 'third'"):
        read_book(root)


def test_papermill_runs_chapters_with_their_parameters_and_keeps_a_failing_one(root: Path) -> None:
    write_chapter(root, "first", BODY + '\n# %%\nprint("count", COUNT)\n', more="COUNT = 2\n")
    write_chapter(root, "second", "\n# %%\nprint('before')\n\n# %%\nraise ValueError('wrong on purpose')\n")
    result = run(root, parameters={"COUNT": 7}, chapters=["first", "second"])
    assert (result.ran, result.failed) == (["first"], ["second"])
    assert (root / "outputs/smoke/ran.txt").read_text() == "first\n"
    first = nbformat.read(root / "outputs/smoke/notebooks/first.ipynb", 4)
    assert first.cells[-1].outputs[0].text == "count 7\n"
    second = nbformat.read(root / "outputs/smoke/notebooks/second.ipynb", 4)
    outputs = [output for cell in second.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any(output.get("text") == "before\n" for output in outputs)
    assert any(output.output_type == "error" and output.evalue == "wrong on purpose" for output in outputs)
