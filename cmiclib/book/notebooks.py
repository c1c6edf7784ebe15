"""Scripts and notebooks of the book: derive one from the other, and keep outputs out of git.

``book/<chapter>.py`` (percent format) is the source; ``book/<chapter>.ipynb`` is derived from it. In git a notebook
has no outputs, no execution counts, and cell ids that follow from the cells' text, whatever JupyterLab saved: the clean
filter that ``make setup`` installs removes them. Git runs the filter often, and before anything is installed, so this
file is run as a script and imports jupytext only where it needs it.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

NOTEBOOK_METADATA = ("cmic", "kernelspec")
_CELL = re.compile(r"^(?=# %%)", re.MULTILINE)
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def clean(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook (as parsed JSON) as git keeps it: without outputs, and the same for the same cells.

    A cell's id is a hash of its kind, its text and how often that text came before, so that editing one cell
    changes one id.
    """
    cells, seen = [], dict[str, int]()
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        kind = f"{cell['cell_type']}\n{text}"
        seen[kind] = seen.get(kind, -1) + 1
        tags, digest = cell["metadata"].get("tags"), hashlib.sha256(f"{seen[kind]}\n{kind}".encode()).hexdigest()
        kept = {"cell_type": cell["cell_type"], "id": digest[:12], "metadata": {"tags": tags} if tags else {}}
        run: dict[str, Any] = {"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {}
        cells.append(kept | run | {"source": text.splitlines(keepends=True)})
    metadata = {key: notebook["metadata"][key] for key in NOTEBOOK_METADATA if key in notebook["metadata"]}
    metadata["kernelspec"] = KERNEL
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def dumps(notebook: dict[str, Any]) -> str:
    """Return the notebook's text as it stands in git."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def without_iri_grammar() -> None:
    """Keep `rfc3987_syntax` from being imported; call it before what imports jsonschema: jupytext, nbformat, papermill.

    At its import it builds a grammar of international addresses, which takes 2.5 seconds; without it jsonschema does
    not check them, and no notebook holds one.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None: not to be imported


def derive(script: Path) -> dict[str, Any]:
    """Return the clean notebook of a chapter's script."""
    without_iri_grammar()
    import jupytext

    return clean(json.loads(jupytext.writes(jupytext.read(script, fmt="py:percent"), fmt="ipynb")))


def keep_layout(old: str, new: str) -> str:
    """Return a script as jupytext writes it, ``new``, with the ``old`` header and cells where they say the same.

    What differs otherwise is the order and style of the header and the number of blank lines between cells.
    """
    import yaml

    (old_head, *old_cells), (new_head, *new_cells) = (_CELL.split(text) for text in (old, new))
    same = [yaml.safe_load(head.replace("# ---", "").replace("\n# ", "\n")) for head in (old_head, new_head)]
    kept = [old_head if same[0] == same[1] else new_head, *new_cells]
    was, now = ([cell.rstrip() for cell in cells] for cells in (old_cells, new_cells))
    for at, to, size in SequenceMatcher(None, was, now, autojunk=False).get_matching_blocks():
        kept[1 + to : 1 + to + size] = old_cells[at : at + size]
    return "".join(kept)


def keep_script(model: dict[str, Any], path: str, contents_manager: Any, **_: Any) -> None:
    """Let JupyterLab save a chapter's script so that only the edited cells change; a hook before each saving."""
    file = Path(contents_manager.root_dir) / path
    if model["type"] == "file" and file.suffix == ".py" and file.with_suffix(".ipynb").exists() and file.exists():
        model["content"] = keep_layout(file.read_text("utf-8"), model["content"])


def sync(book: Path) -> list[Path]:
    """Write the notebook of every script that differs from it in more than outputs; return what was written."""
    written = []
    for script in sorted(book.glob("*.py")):
        target, notebook = script.with_suffix(".ipynb"), derive(script)
        if not target.exists() or clean(json.loads(target.read_text("utf-8"))) != notebook:
            target.write_text(dumps(notebook), "utf-8")
            times = script.stat()
            # JupyterLab takes a newer one for edited elsewhere.
            os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
            written.append(target)
    return written


def drift(book: Path) -> list[str]:
    """Return one sentence for each chapter whose script and notebook do not agree, here or in git's index."""
    problems = []
    for script in sorted(book.glob("*.py")):
        target, notebook = script.with_suffix(".ipynb"), derive(script)
        if not target.exists():
            problems.append(f"{target.name} is missing")
        elif clean(json.loads(target.read_text("utf-8"))) != notebook:
            problems.append(f"{target.name} is not what {script.name} says")
        command = ["git", "show", f":./{target.name}"]
        staged = subprocess.run(command, cwd=book, capture_output=True, text=True, encoding="utf-8")
        if staged.returncode == 0 and staged.stdout != dumps(clean(json.loads(staged.stdout))):
            problems.append(f"{target.name} is in git with outputs or with other cell ids than its text gives")
    scripts = {script.stem for script in book.glob("*.py")}
    problems += [f"{path.name} has no script" for path in sorted(book.glob("*.ipynb")) if path.stem not in scripts]
    return problems


def main(arguments: list[str]) -> int:
    """Run ``clean`` (stdin to stdout), ``sync`` or ``check`` on ``book/``; return the exit status."""
    agree = "the notebooks agree with their scripts"
    match arguments:
        case ["clean"]:
            sys.stdout.buffer.write(dumps(clean(json.loads(sys.stdin.buffer.read()))).encode())
        case ["sync"]:
            print("\n".join(f"wrote {path}" for path in sync(Path("book"))) or agree)
        case ["check"]:
            problems = drift(Path("book"))
            print("\n".join(problems) or agree)
            if problems:
                print("  How to fix: make notebooks, then git add book", file=sys.stderr)
                return 1
        case _:
            print("usage: python cmiclib/book/notebooks.py clean|sync|check", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
