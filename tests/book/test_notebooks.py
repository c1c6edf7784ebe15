"""Pairs of script and notebook: derived, stable, without outputs in git, and saved together in JupyterLab."""

import copy
import difflib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toybook import REPOSITORY, make_book

from cmiclib.book import notebooks
from cmiclib.book.chapters import pages, read_book


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return make_book(tmp_path) / "book"


def executed(notebook: dict) -> dict:
    """The same notebook as Jupyter would save it after a run."""
    saved = copy.deepcopy(notebook)
    for number, cell in enumerate(saved["cells"]):
        cell["id"] = f"random-{number}"
        if cell["cell_type"] == "code":
            cell["execution_count"] = number
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["secret\n"]}]
            cell["metadata"]["execution"] = {"iopub.busy": "2026-01-01T00:00:00Z"}
    saved["metadata"]["language_info"] = {"name": "python", "version": "3.13.0"}
    return saved


def test_cleaning_undoes_all_that_a_run_adds(book: Path) -> None:
    notebook = notebooks.derive(book / "first.py")
    assert notebooks.dumps(notebooks.clean(executed(notebook))) == notebooks.dumps(notebook)


def test_derived_notebooks_keep_tags_needs_and_kernel(book: Path) -> None:
    notebook = notebooks.derive(book / "second.py")
    assert notebook["metadata"]["cmic"] == {"needs": ["first"], "inputs": []}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert [cell["metadata"].get("tags") for cell in notebook["cells"]].count(["parameters"]) == 1


def test_editing_one_cell_changes_one_id(book: Path) -> None:
    before = notebooks.derive(book / "first.py")
    script = book / "first.py"
    script.write_text(script.read_text().replace("COUNT = 2", "COUNT = 3") + "\n# %%\n1\n\n# %%\n1\n")
    after = notebooks.derive(script)
    ids = [[cell["id"] for cell in notebook["cells"]] for notebook in (before, after)]
    assert len(set(ids[1])) == len(ids[1]), "cells of the same text need different ids"
    assert len(set(ids[0]) - set(ids[1])) == 1


def test_sync_writes_what_differs_and_leaves_outputs_alone(book: Path) -> None:
    assert {path.name for path in notebooks.sync(book)} == {"first.ipynb", "second.ipynb", "third.ipynb"}
    saved = json.dumps(executed(notebooks.derive(book / "first.py")))
    (book / "first.ipynb").write_text(saved)
    assert notebooks.sync(book) == []
    assert (book / "first.ipynb").read_text() == saved


def test_drift_is_named(book: Path) -> None:
    notebooks.sync(book)
    assert notebooks.drift(book) == []
    with (book / "second.py").open("a") as file:
        file.write("\n# %%\n2\n")
    (book / "third.py").unlink()
    assert notebooks.drift(book) == ["second.ipynb is not what second.py says", "third.ipynb has no script"]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_git_never_gets_outputs(book: Path) -> None:
    root = book.parent
    git(root, "init", "-q")
    (root / ".gitattributes").write_text((REPOSITORY / ".gitattributes").read_text())
    git(root, "config", "filter.notebook.clean", f"'{sys.executable}' '{REPOSITORY}/cmiclib/book/notebooks.py' clean")
    notebook = notebooks.derive(book / "first.py")
    (book / "first.ipynb").write_text(json.dumps(executed(notebook)))
    git(root, "add", ".")
    assert git(root, "show", ":book/first.ipynb") == notebooks.dumps(notebook)
    assert notebooks.drift(book) == ["second.ipynb is missing", "third.ipynb is missing"]


def test_outputs_that_reached_git_without_the_filter_are_found(book: Path) -> None:
    notebooks.sync(book)
    (book / "first.ipynb").write_text(json.dumps(executed(notebooks.derive(book / "first.py"))))
    git(book.parent, "init", "-q")
    git(book.parent, "add", ".")
    assert notebooks.drift(book) == ["first.ipynb is in git with outputs or with other cell ids than its text gives"]


def test_saving_in_jupyterlab_writes_both(book: Path) -> None:
    from jupyter_server.services.contents.largefilemanager import LargeFileManager
    from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class

    (book.parent / "jupytext.toml").write_text((REPOSITORY / "jupytext.toml").read_text())
    notebooks.sync(book)
    manager = build_sync_jupytext_contents_manager_class(LargeFileManager)(root_dir=str(book.parent))
    model = manager.get("book/first.ipynb")
    model["content"]["cells"][-1]["source"] += "\nprint('added in the browser')"
    model["content"] = executed(model["content"])
    manager.save(model, "book/first.ipynb")
    script = (book / "first.py").read_text()
    assert "added in the browser" in script and "secret" not in script
    assert "secret" in (book / "first.ipynb").read_text()
    assert notebooks.drift(book) == []
    header = script.split("# %%")[0]
    assert "needs" in header and "kernelspec" in header and "jupytext_version" not in header


def configured_manager(root: Path):
    """The contents manager that `make lab` has."""
    from jupyter_server.services.contents.largefilemanager import LargeFileManager
    from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class
    from traitlets.config import PyFileConfigLoader

    config = PyFileConfigLoader("jupyter_lab_config.py", str(REPOSITORY / ".jupyter")).load_config()
    return build_sync_jupytext_contents_manager_class(LargeFileManager)(root_dir=str(root), config=config)


def test_saving_an_unchanged_chapter_after_a_run_changes_no_byte_of_its_script_and_nothing_in_git(tmp_path) -> None:
    for name in ("book", "jupytext.toml", ".gitattributes"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("_*", "__pycache__"))
        else:
            shutil.copy2(source, tmp_path / name)
    notebooks.sync(tmp_path / "book")
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "filter.notebook.clean", f"'{sys.executable}' '{Path(notebooks.__file__)}' clean")
    git(tmp_path, "add", ".")
    before = {script: script.read_bytes() for script in (tmp_path / "book").glob("*.py")}
    manager = configured_manager(tmp_path)
    for script in before:
        model = manager.get(f"book/{script.stem}.ipynb")
        model["content"] = executed(model["content"])
        manager.save(model, f"book/{script.stem}.ipynb")
        assert "secret" in script.with_suffix(".ipynb").read_text()
    assert [script.name for script, text in before.items() if script.read_bytes() != text] == []
    assert git(tmp_path, "diff", "--name-only") == ""


def test_saving_an_edited_chapter_changes_the_edited_cell_only(tmp_path) -> None:
    (tmp_path / "book").mkdir()
    shutil.copy2(REPOSITORY / "jupytext.toml", tmp_path)
    script = tmp_path / "book" / "04_model.py"
    shutil.copy2(REPOSITORY / "book" / script.name, script)
    notebooks.sync(tmp_path / "book")
    manager = configured_manager(tmp_path)
    model, before = manager.get("book/04_model.ipynb"), script.read_text().splitlines()
    cell = next(
        cell for cell in model["content"]["cells"] if cell["cell_type"] == "code" and "import" in cell["source"]
    )
    cell["source"] += "\nprint('edited')"
    manager.save(model, "book/04_model.ipynb")
    changed = [line for line in difflib.ndiff(before, script.read_text().splitlines()) if line[0] in "+-"]
    assert changed == ["+ print('edited')"]


def test_the_file_browser_lists_a_chapter_once(book: Path) -> None:
    manager = configured_manager(REPOSITORY)
    listed = {entry["name"] for entry in manager.get("book")["content"]}
    assert "intro.ipynb" in listed and "04_model.ipynb" in listed and "api.md" in listed
    assert not [name for name in listed if name.endswith(".py")]
    assert "model.py" in {entry["name"] for entry in manager.get("cmiclib")["content"]}


@pytest.mark.parametrize("edited", [True, False])
def test_a_newer_notebook_is_replaced_only_where_its_cells_are_the_scripts(book: Path, edited: bool) -> None:
    from jupyter_server.services.contents.largefilemanager import LargeFileManager
    from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class
    from tornado.web import HTTPError

    (book.parent / "jupytext.toml").write_text((REPOSITORY / "jupytext.toml").read_text())
    script = (book / "second.py").read_text()
    (book / "second.py").write_text(script.replace("\n\n\n#", "\n\n#"))  # as jupytext writes it
    notebooks.sync(book)
    saved = json.loads((book / "second.ipynb").read_text())
    if edited:
        saved["cells"].insert(1, {"cell_type": "markdown", "id": "mine", "metadata": {}, "source": ["a note of mine"]})
    (book / "second.ipynb").write_text(json.dumps(executed(saved)))
    os.utime(book / "second.ipynb", (time.time() + 600,) * 2)
    manager = build_sync_jupytext_contents_manager_class(LargeFileManager)(root_dir=str(book.parent))
    if edited:
        with pytest.raises(HTTPError, match="more recent"):
            manager.get("book/second.ipynb")
        assert "a note of mine" in (book / "second.ipynb").read_text()
    else:
        assert "secret" in json.dumps(manager.get("book/second.ipynb")["content"])


def test_the_books_own_pairs_agree() -> None:
    assert notebooks.drift(REPOSITORY / "book") == []


def test_every_chapter_is_in_the_contents_and_takes_the_common_parameters() -> None:
    chapters = read_book(REPOSITORY)
    assert {path.stem for path in (REPOSITORY / "book").glob("*.py")} <= set(pages(REPOSITORY))
    for chapter in chapters:
        assert chapter.parameters >= {"PROFILE", "BENCHMARK", "OUTPUTS"}, chapter.name
