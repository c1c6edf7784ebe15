"""What the book consists of: its chapters, what each of them needs, and which parameters each takes.

``_toc.yml`` lists the pages in reading order. A chapter is a script in ``book/``. Its header lists the chapters that
must run before it (``cmic: needs:``) and the files and folders it reads that no benchmark, run or needed chapter stands
for (``cmic: inputs:``, patterns below the root); ``cmic: alone: true`` says that it measures times, so that nothing may
run beside it. Its cell tagged ``parameters`` says what can be set.
"""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import BookError
from .notebooks import without_iri_grammar

SET_BY_OPTION = ("PROFILE", "BENCHMARK", "OUTPUTS")


@dataclass(frozen=True)
class Chapter:
    """One chapter as it stands in ``book/``."""

    name: str
    path: Path
    text: str
    needs: tuple[str, ...]
    inputs: tuple[str, ...]
    parameters: frozenset[str]
    alone: bool = False


def pages(root: Path) -> list[str]:
    """Return the names of all pages of ``_toc.yml`` in reading order, the ``.md`` pages among them."""

    def walk(entry: dict[str, Any]) -> list[str]:
        own = [entry.get("root") or entry["file"]] if "root" in entry or "file" in entry else []
        below = entry.get("parts", []) + entry.get("chapters", []) + entry.get("sections", [])
        return own + [name for child in below for name in walk(child)]

    return walk(yaml.safe_load((root / "_toc.yml").read_text("utf-8")))


def read_book(root: Path) -> list[Chapter]:
    """Return the chapters in an order to run them: what a chapter needs comes before it, else as they are read.

    BookError: a page without a file, a needed chapter that does not exist, or chapters that need one another.
    """
    waiting, folder = [], root / "book"
    for name in pages(root):
        if (folder / f"{name}.py").exists():
            waiting.append(read_chapter(folder / f"{name}.py"))
        elif not (folder / f"{name}.md").exists():
            problem, fix = "which is neither a .py nor a .md file", "write the file or take the line out of _toc.yml"
            raise BookError(f"_toc.yml lists '{name}', {problem}", path=folder, fix=fix)
    names = {chapter.name for chapter in waiting}
    for chapter in waiting:
        if unknown := sorted(set(chapter.needs) - names):
            problem, fix = "which _toc.yml does not list", "correct 'needs' in the chapter's header"
            raise BookError(f"needs {', '.join(unknown)}, {problem}", path=chapter.path, fix=fix)
    order: list[Chapter] = []
    while waiting:
        done = {chapter.name for chapter in order}
        ready = next((chapter for chapter in waiting if done.issuperset(chapter.needs)), None)
        if ready is None:
            circle = ", ".join(chapter.name for chapter in waiting)
            raise BookError(f"chapters need one another: {circle}", fix="correct 'needs' in their headers")
        waiting.remove(ready)
        order.append(ready)
    return order


def read_chapter(path: Path) -> Chapter:
    """Read a chapter's script: its header and its parameters."""
    without_iri_grammar()
    import jupytext

    text = path.read_text("utf-8")
    notebook = jupytext.reads(text, fmt="py:percent")
    header = notebook.metadata.get("cmic", {})
    parameters = {
        target.id
        for cell in notebook.cells
        if "parameters" in cell.metadata.get("tags", [])
        for statement in ast.parse(cell.source).body
        for target in (statement.targets if isinstance(statement, ast.Assign) else [])
        if isinstance(target, ast.Name)
    }
    needs, inputs = tuple(header.get("needs", [])), tuple(header.get("inputs", []))
    return Chapter(path.stem, path, text, needs, inputs, frozenset(parameters), bool(header.get("alone")))


def selected(book: list[Chapter], names: list[str]) -> list[Chapter]:
    """Return the named chapters and all that they need, in running order; without names, the whole book."""
    known = {chapter.name: chapter for chapter in book}
    wanted, waiting = set[str](), list(names or known)
    while waiting:
        name = waiting.pop()
        if name not in known:
            raise BookError(f"there is no chapter '{name}'", fix=f"use one of: {', '.join(known)}")
        wanted.add(name)
        waiting += known[name].needs
    return [chapter for chapter in book if chapter.name in wanted]


def check_parameters(chapters: list[Chapter], parameters: dict[str, Any]) -> None:
    """Refuse a parameter that no chapter takes; papermill would only warn, and run with the default."""
    known = frozenset[str]().union(*(chapter.parameters for chapter in chapters))
    for name, value in parameters.items():
        if name in SET_BY_OPTION:
            option = f"--{name.lower()}"
            raise BookError(f"the option {option} sets the parameter {name}", fix=f"write {option} {value}")
        if name not in known:
            raise BookError(f"no chapter takes a parameter '{name}'", fix=f"use one of: {', '.join(sorted(known))}")
        if name == "OVERRIDES" and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise BookError("OVERRIDES must be a list of changes", fix="write OVERRIDES=[loss.tau=0.05,train.seed=1]")
