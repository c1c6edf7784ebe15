"""A small book in a temporary folder: what the runner and the HTML are tested on."""

import shutil
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

HEADER = """# ---
# jupyter:
#   cmic:
#     needs: [{needs}]
#     inputs: [{inputs}]
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Chapter {name}

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
"""
BODY = """
# %%
from pathlib import Path

folder = Path(OUTPUTS) / PROFILE
folder.mkdir(parents=True, exist_ok=True)
with (folder / "ran.txt").open("a") as file:
    file.write(f"{name}\\n")
"""
TOC = "format: jb-book\nroot: first\nchapters:\n  - file: second\n  - file: third\n  - file: page\n"


def write_chapter(root: Path, name: str, body: str = BODY, needs: str = "", more: str = "", inputs: str = "") -> None:
    text = HEADER.format(needs=needs, inputs=inputs, name=name) + more + "\n" + body.replace("{name}", name)
    (root / "book" / f"{name}.py").write_text(text, "utf-8")


def make_book(root: Path) -> Path:
    """Three chapters, of which the second needs the first, and a page."""
    (root / "book").mkdir()
    shutil.copy(REPOSITORY / "_config.yml", root)
    (root / "_toc.yml").write_text(TOC, "utf-8")
    (root / "book" / "page.md").write_text("# A page\n\nText only.\n\n```{bibliography}\n```\n", "utf-8")
    shutil.copy(REPOSITORY / "book" / "favicon.svg", root / "book")
    shutil.copy(REPOSITORY / "book" / "references.bib", root / "book")
    write_chapter(root, "first", more="COUNT = 2\n")
    write_chapter(root, "second", needs="first")
    write_chapter(root, "third")
    return root
