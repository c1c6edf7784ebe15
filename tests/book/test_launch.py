"""Chapters elsewhere: badges and first cells come from one address, and a chapter runs outside the repository."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from toybook import REPOSITORY, make_book

from cmiclib import book
from cmiclib.book import launch
from cmiclib.book.chapters import read_book, read_chapter
from cmiclib.errors import BookError

PUBLIC = "https://github.com/someone/shapes"


def set_url(root: Path, url: str) -> None:
    text = (root / "_config.yml").read_text()
    (root / "_config.yml").write_text(re.sub(r'url: "[^"]*"', f'url: "{url}"', text))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_book(tmp_path)
    (tmp_path / "README.md").write_text(f"# Title\n\n{launch.BEGIN}\n{launch.END}\n\nText.\n")
    return tmp_path


def test_the_repository_has_what_its_own_configuration_says() -> None:
    assert launch.write(REPOSITORY, check=True) == []
    for chapter in (REPOSITORY / "book").glob("*.py"):
        assert chapter.read_text().count('find_spec("cmiclib") is None') == 1, chapter.name
    assert launch.BEGIN in (REPOSITORY / "README.md").read_text()


def test_badges_and_cells_follow_the_address(root: Path) -> None:
    set_url(root, PUBLIC)
    assert {path.name for path in launch.write(root)} == {"README.md", "first.py", "second.py", "third.py"}
    assert launch.write(root) == []
    text = (root / "book/first.py").read_text()
    for link in (
        "https://colab.research.google.com/github/someone/shapes/blob/main/book/first.ipynb",
        "https://mybinder.org/v2/gh/someone/shapes/main?urlpath=lab/tree/book/first.ipynb",
        "https://vscode.dev/github/someone/shapes/blob/main/book/first.ipynb",
    ):
        assert f"]: {link}\n" in text
    assert f'"{PUBLIC}"' in text and text.index("# Chapter first") < text.index("Open in Colab") < text.index("PROFILE")
    assert text.count("Open in") == 3
    for picture in re.findall(r"\((_static/[^)]+)\)", text):
        assert (REPOSITORY / "book" / picture).is_file()
    readme = (root / "README.md").read_text()
    assert readme.count("Open in") == 3 and "book/_static/open-colab.svg" in readme and readme.endswith("\n\nText.\n")
    set_url(root, "")
    launch.write(root)
    assert "Open in" not in (root / "README.md").read_text() + (root / "book/first.py").read_text()


@pytest.mark.parametrize("url", ["https://example.org/a/b", "https://github.com/only", "git@github.com:a/b.git"])
def test_an_address_that_the_services_cannot_open_is_refused(root: Path, url: str) -> None:
    set_url(root, url)
    with pytest.raises(BookError, match=r"_config\.yml: .*not one at GitHub[\s\S]*OWNER/NAME"):
        launch.write(root)
    set_url(root, f"{PUBLIC}.git/")
    assert launch.repository(root).owner == "someone/shapes"


def test_another_address_runs_no_chapter_again(root: Path) -> None:
    before = [chapter.text for chapter in read_book(root)]
    for url in ("", PUBLIC):
        set_url(root, url)
        launch.write(root)
        assert [chapter.text for chapter in read_book(root)] == before
    assert launch.TAG not in read_chapter(REPOSITORY / "book/05_losses.py").text


@pytest.mark.parametrize("where", [None, launch.Repository(PUBLIC, "main", "someone/shapes")], ids=["none", "public"])
def test_what_it_writes_passes_the_projects_own_rules(where: launch.Repository | None) -> None:
    name = "14_published_benchmarks"
    text = launch.with_cells((REPOSITORY / f"book/{name}.py").read_text(), where, name)
    for command in (["check", "-q"], ["format", "-q"]):
        command = [Path(sys.executable).parent / "ruff", *command, "--stdin-filename", f"book/{name}.py", "-"]
        done = subprocess.run(command, input=text, text=True, capture_output=True, cwd=REPOSITORY)
        assert done.returncode == 0 and done.stdout in ("", text), done.stdout


def test_only_what_is_missing_or_too_old_is_installed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "pyproject.toml").write_text(
        '[project]\ndependencies = ["pillow>=1", "numpy>=9999", "no-such-thing>=1,<2", "voila>=9999"]\n'
    )
    (root / "requirements.lock").write_text("# pins\nnumpy==9999.1\nno-such-thing==1.5\npillow==1.0\nvoila==9999.0\n")
    assert launch.missing(root) == ["numpy==9999.1", "no-such-thing==1.5"]
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    with pytest.raises(BookError, match=r"numpy was replaced while in use[\s\S]*restart the kernel"):
        launch.install(root)
    assert ran[0][1:4] == ["-m", "pip", "install"] and ran[0][-2:] == ["numpy==9999.1", "no-such-thing==1.5"]
    assert launch.missing(REPOSITORY) == []


def test_the_library_finds_its_checkout_from_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert book.chapter_root() == REPOSITORY
    monkeypatch.setattr(book, "CHECKOUT", tmp_path)
    with pytest.raises(BookError, match=r"no _toc\.yml[\s\S]*change to the repository's root"):
        book.chapter_root()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A Python with every package of this one but cmiclib, as Colab's would be after the installation."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    (packages,) = (tmp_path / "bare").glob("lib/python*/site-packages")
    (packages / "all.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # its own .pth files are not read there
    return tmp_path / "bare/bin/python"


def run_cell(python: Path, folder: Path, text: str, more: str = "") -> subprocess.CompletedProcess:
    (cell,) = [part for part in launch.CELL.findall(text) if "[markdown]" not in part.partition("\n")[0]]
    folder.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [python, "-c", cell + more], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_first_cell_does_nothing_says_what_to_do_or_fetches(bare: Path, root: Path) -> None:
    text = (REPOSITORY / "book/05_losses.py").read_text()
    done = run_cell(Path(sys.executable), root / "a", text.replace('"cmiclib")', '"json")'))  # a library that is there
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    launch_only = launch.with_cells(text, None, "05_losses")
    done = run_cell(bare, root / "b", launch_only)
    assert done.returncode == 1
    assert "cmiclib is missing: open this in a checkout, after `make setup`" in done.stderr.splitlines()[-1]

    origin = root / "origin"
    for name in (
        "cmiclib/__init__.py",
        "cmiclib/book/launch.py",
        "cmiclib/errors.py",
        "pyproject.toml",
        "requirements.lock",
    ):
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, origin / name)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], cwd=origin, check=True)
    public = launch.with_cells(text, launch.Repository(origin.as_uri(), "main", ""), "05_losses")
    for _ in range(2):  # the second time it is there
        done = run_cell(bare, root / "c", public, "\nimport cmiclib\nprint(cmiclib.__file__)")
        assert done.stdout.strip() == str(root / "c/origin/cmiclib/__init__.py"), done.stderr


def test_a_chapter_runs_in_an_empty_folder(tmp_path: Path) -> None:
    """The library is there, the repository is not around: outputs go where they are said to go, nowhere else."""
    import nbformat
    import papermill

    from cmiclib.book.notebooks import derive

    (tmp_path / "empty").mkdir()
    notebook = nbformat.from_dict(derive(REPOSITORY / "book/05_losses.py"))
    values = {"PROFILE": "smoke", "OUTPUTS": str(tmp_path / "outputs")}
    done = papermill.execute_notebook(
        notebook, None, values, kernel_name="python3", cwd=tmp_path / "empty", progress_bar=False,
        extra_arguments=["--log-level=CRITICAL"],
    )  # fmt: skip
    assert all(output.output_type != "error" for cell in done.cells for output in cell.get("outputs", []))
    assert (tmp_path / "outputs/smoke").is_dir() and list((tmp_path / "empty").iterdir()) == []
