"""Publishing: what is fetched, staged and built, and what is said when that fails. The HTML itself: test_html.py."""

import base64
import dataclasses
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from toybook import REPOSITORY, make_book

from cmiclib.book import publish
from cmiclib.book.publish import Package
from cmiclib.errors import BookError


def make_archive(path: Path, files: dict[str, str]) -> Package:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    return Package("thing", "1.2.3", integrity, "package/dist/", "folder/thing", ("main.js", "fonts/*"))


def fake_npm(folder: Path, script: str) -> str:
    path = folder / "npm"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    package = make_archive(tmp_path / "thing.tgz", {"main.js": "1", "fonts/a/b.woff": "2", "other.js": "3"})
    monkeypatch.setattr(publish, "VENDOR", (package,))
    npm = fake_npm(tmp_path, f'cp "{tmp_path}/thing.tgz" "$5"; echo thing.tgz')
    monkeypatch.setattr(publish, "find_npm", lambda: npm)
    return package


def test_vendor_holds_the_listed_files_once(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert publish.fetch_vendor(tmp_path)
    folder = tmp_path / "vendor/folder/thing"
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == ["fonts/a/b.woff", "main.js"]
    assert not publish.fetch_vendor(tmp_path)
    monkeypatch.setattr(publish, "VENDOR", (dataclasses.replace(package, files=("main.js",)),))
    assert publish.fetch_vendor(tmp_path), "another list of files is fetched again"


def test_another_checksum_is_refused(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "VENDOR", (dataclasses.replace(package, integrity="sha512-AAAA"),))
    with pytest.raises(BookError, match=r"thing@1\.2\.3 has checksum sha512-.*, not sha512-AAAA"):
        publish.fetch_vendor(tmp_path)
    assert not (tmp_path / "vendor/packages.json").exists()


def test_no_network_is_an_error_that_says_how_and_the_old_files_stay(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert publish.fetch_vendor(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "vendor").rglob("*") if path.is_file()}
    monkeypatch.setattr(publish, "VENDOR", (dataclasses.replace(package, files=("main.js",)),))
    npm = fake_npm(tmp_path, "echo 'npm error network ENOTFOUND' >&2; exit 1")
    monkeypatch.setattr(publish, "find_npm", lambda: npm)
    with pytest.raises(BookError, match=r"thing@1.2.3 \(npm error network ENOTFOUND\)[\s\S]*make vendor"):
        publish.fetch_vendor(tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "vendor").rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob(".vendor-*"))


def test_of_two_processes_one_fetches(package: Package, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(publish.fetch_vendor, [tmp_path] * 2)) == [False, True]


def test_the_configuration_loads_only_what_is_vendored() -> None:
    sphinx = yaml.safe_load((REPOSITORY / "_config.yml").read_text())["sphinx"]["config"]
    scripts = [sphinx["mathjax_path"], *sphinx["nb_ipywidgets_js"], sphinx["html_js_files"][0][0]]
    targets = {f"../vendor/{package.target}" for package in publish.VENDOR if package.files != publish.FONTS}
    assert {script.rpartition("/")[0] for script in scripts} == targets


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy book whose chapters "ran", with a build that only counts."""
    monkeypatch.setattr(publish, "fetch_vendor", lambda root: False)
    root = make_book(tmp_path)
    folder = root / "outputs/smoke"
    (folder / "notebooks").mkdir(parents=True)
    for name in ("first", "second", "third"):
        cells = [
            {"cell_type": "code", "metadata": {"tags": [tag]}, "source": [tag], "outputs": []}
            for tag in ("parameters", "injected-parameters")
        ]
        (folder / "notebooks" / f"{name}.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}}))
    chapters = {name: {"status": "ok", "key": name} for name in ("first", "second", "third")}
    (folder / "provenance.json").write_text(json.dumps({"chapters": chapters}))
    return root


def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    builds: list[bool] = []

    def build(folder: Path, strict: bool) -> None:
        builds.append(strict)
        (folder / "html").mkdir(exist_ok=True)
        (folder / "html/index.html").write_text("")

    monkeypatch.setattr(publish, "build", build)
    return builds


def test_html_is_built_when_something_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = count_builds(monkeypatch)
    assert publish.publish(root, "smoke") == (root / "outputs/smoke/html/index.html", True)
    assert publish.publish(root, "smoke") == (root / "outputs/smoke/html/index.html", False)
    (root / "book/page.md").write_text("# Another page\n")
    assert publish.publish(root, "smoke")[1]
    (root / "outputs/smoke/html/index.html").unlink()
    assert publish.publish(root, "smoke")[1]
    assert builds == [True] * 3


def test_results_may_lie_elsewhere(root: Path, tmp_path_factory, monkeypatch: pytest.MonkeyPatch) -> None:
    builds, elsewhere = count_builds(monkeypatch), tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(root / "outputs", elsewhere, dirs_exist_ok=True)
    page, built = publish.publish(root, "smoke", str(elsewhere))
    assert built and page == elsewhere / "smoke/html/index.html" and builds == [True]


def test_a_chapter_that_did_not_run_says_so_and_warnings_no_longer_stop_the_build(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = count_builds(monkeypatch)
    folder = root / "outputs/smoke"
    (folder / "notebooks/second.ipynb").unlink()
    record = json.loads((folder / "provenance.json").read_text())
    record["chapters"]["second"]["status"] = "skipped"
    (folder / "provenance.json").write_text(json.dumps(record))
    publish.publish(root, "smoke")
    assert builds == [False]
    assert "This chapter was not run here (skipped)" in (folder / "site/second.md").read_text()


def test_a_chapter_of_an_older_state_says_so_and_the_report_is_not_complete(root: Path) -> None:
    folder = root / "outputs/smoke"
    record = json.loads((folder / "provenance.json").read_text())
    assert publish.stage(root, folder, record)
    record["chapters"]["second"]["stale"] = True
    assert not publish.stage(root, folder, record)
    assert "older state of the code or data" in (folder / "site/second.ipynb").read_text()
    assert "older state" not in (folder / "site/first.ipynb").read_text()


@pytest.mark.parametrize("url", ["", "https://github.com/OWNER/NAME"])
def test_only_a_report_with_an_address_has_launch_buttons(root: Path, url: str) -> None:
    config = yaml.safe_load((root / "_config.yml").read_text())
    config["repository"]["url"] = url
    (root / "_config.yml").write_text(yaml.safe_dump(config))
    publish.stage(root, root / "outputs/smoke", {})
    staged = yaml.safe_load((root / "outputs/smoke/site/_config.yml").read_text())
    assert ("launch_buttons" in staged) == bool(url)
    assert staged["sphinx"] == config["sphinx"]


def test_every_page_of_an_experiment_names_its_overrides(root: Path) -> None:
    folder = root / "outputs/smoke"
    publish.stage(root, folder, {})
    assert "announcement" not in yaml.safe_load((folder / "site/_config.yml").read_text())["html"]
    publish.stage(root, folder, {"overrides": ["loss.tau=0.05", "model.init=<b>"]})
    said = yaml.safe_load((folder / "site/_config.yml").read_text())["html"]["announcement"]
    assert "<b>loss.tau=0.05, model.init=&lt;b&gt;</b>" in said
    record = {"chapters": {}}
    assert publish.html_key(root, folder, record) != publish.html_key(root, folder, record | {"overrides": ["a=1"]})


def old_report(root: Path) -> Path:
    html = root / "outputs/smoke/html"
    html.mkdir()
    (html / "index.html").write_text("the old report")
    return html


def jupyter_book(monkeypatch: pytest.MonkeyPatch, end: BaseException | int) -> None:
    """Stand in for Jupyter Book: write a page, then end with a status or an exception."""

    def run(command: list[str], **options) -> subprocess.CompletedProcess:
        built = Path(command[2]) / "_build/html"
        built.mkdir(parents=True)
        (built / "first.html").write_text("new")
        if isinstance(end, BaseException):
            raise end
        return subprocess.CompletedProcess(command, end, stdout="")

    monkeypatch.setattr(publish.subprocess, "run", run)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), 1, OSError("no room")])
def test_an_interrupted_build_leaves_the_old_report(root: Path, monkeypatch: pytest.MonkeyPatch, end) -> None:
    html = old_report(root)
    jupyter_book(monkeypatch, end)
    with pytest.raises((KeyboardInterrupt, BookError, OSError)):
        publish.publish(root, "smoke")
    assert [path.name for path in html.iterdir()] == ["index.html"]
    assert (html / "index.html").read_text() == "the old report"


def test_a_whole_report_takes_the_place_of_the_old_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html = old_report(root)
    (html / "gone.html").write_text("")
    jupyter_book(monkeypatch, 0)
    assert publish.publish(root, "smoke") == (html / "index.html", True)
    assert sorted(path.name for path in html.iterdir()) == ["first.html", "index.html"]
    assert 'url=first.html"' in (html / "index.html").read_text()
    assert not (html.parent / publish.OLD).exists() and not (html.parent / "site").exists()


def test_a_report_moved_aside_by_a_killed_build_comes_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html = old_report(root)
    html.rename(html.parent / publish.OLD)
    jupyter_book(monkeypatch, 1)
    with pytest.raises(BookError):
        publish.publish(root, "smoke")
    assert (html / "index.html").read_text() == "the old report"


def read(code: str, *tags: str) -> list[str]:
    """Return the tags that a code cell has in the report."""
    cell = {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": code.splitlines(keepends=True)}
    return publish.for_reading({"cells": [cell]})["cells"][0]["metadata"]["tags"]


def test_code_is_folded_but_where_it_is_the_lesson() -> None:
    assert read("x = 1\nx") == ["hide-input"]
    assert read("x = 1\nx", "lesson") == ["lesson"]
    assert read("%time x") == ["hide-input"]
    assert read("display(Markdown('a'), table)") == ["hide-input"]


@pytest.mark.parametrize("ending", ["", " if x else None", ' if x else Markdown("No.")'])
def test_code_that_only_writes_a_sentence_is_left_out(ending: str) -> None:
    assert read(f'x = 1\nMarkdown(f"It is {{x}}.") {ending}') == ["remove-input"]


def test_a_markdown_cell_stays_as_it_is() -> None:
    cell = {"cell_type": "markdown", "metadata": {}, "source": "# Title"}
    assert publish.for_reading({"cells": [cell]})["cells"] == [cell]


def test_staged_notebooks_show_the_values_used_not_the_defaults(root: Path) -> None:
    folder = root / "outputs/smoke"
    assert publish.stage(root, folder, json.loads((folder / "provenance.json").read_text()))
    cells = json.loads((folder / "site/first.ipynb").read_text())["cells"]
    assert [cell["metadata"]["tags"] for cell in cells] == [["injected-parameters", "hide-input"]]
    staged = {path.name for path in (folder / "site").iterdir()}
    assert {"_config.yml", "_toc.yml", "page.md", "references.bib", "first.ipynb", "extra"} <= staged
