"""Which code a chapter depends on: a small library of every kind of import, and the real library."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from toybook import REPOSITORY

from cmiclib.book.imports import Library

FILES = {
    "__init__.py": "",
    "base.py": "def low():\n    return 1\n",
    "other.py": "from .base import low\n\nVALUE = 1\n",
    "heavy.py": "VALUE = 1\n",
    "typed.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .heavy import VALUE\n\ndef typed():\n    pass\n"
    ),
    "lazy.py": "def lazy():\n    from . import heavy\n    return heavy.VALUE\n",
    "dynamic.py": 'import importlib\n\ndef load(name):\n    return importlib.import_module(f"lib.{name}")\n',
    "named.py": 'COMMAND = ["python", "-m", "lib.heavy"]\n',
    "plots/__init__.py": "from .bars import bars\nfrom .lines import lines as curves\n\n__all__ = ['bars', 'curves']\n",
    "plots/bars.py": "from .style import COLOR\n\ndef bars():\n    return COLOR\n",
    "plots/lines.py": "def lines():\n    pass\n",
    "plots/style.py": "COLOR = 'red'\n",
    "room/__init__.py": "from ..base import low\n\ndef own():\n    return low()\n",
    "room/part.py": "X = 1\n",
    "patches/__init__.py": "import math\nfrom .. import heavy\n\nmath.secret = heavy.VALUE\n",
    "patches/inner.py": "Y = 1\n",
    "page/__init__.py": "",
    "page/static.py": "from pathlib import Path\n\nSCRIPT = Path(__file__).with_name('page.js')\n",
    "page/page.js": "let x = 1;\n",
}
USES = {
    "from lib.base import low": {"base"},
    "from lib.other import VALUE": {"other", "base"},
    "from lib import plots\nplots.bars()": {"plots.bars", "plots.style"},
    "from lib import plots\nplots.curves()": {"plots.lines"},
    "from lib import plots as p\np.bars(), p.curves()": {"plots.bars", "plots.lines", "plots.style"},
    "from lib import plots\nprint(plots)": {"plots", "plots.bars", "plots.lines", "plots.style"},
    "import lib.plots": {"plots", "plots.bars", "plots.lines", "plots.style"},
    "from lib.plots import *": {"plots", "plots.bars", "plots.lines", "plots.style"},
    "from lib.plots import curves": {"plots.lines"},
    "from lib.plots import style": {"plots.style"},
    "from lib.room import own": {"room", "base"},
    "from lib.room import low": {"base"},
    "from lib.room.part import X": {"room.part"},
    "from lib.patches.inner import Y": {"patches.inner", "patches", "heavy"},
    "from lib.typed import typed": {"typed"},
    "from lib.lazy import lazy": {"lazy", "heavy"},
    "from lib.named import COMMAND": {"named", "heavy"},
    "def cell():\n    from lib.base import low": {"base"},
    "import numpy as np\nnp.ones(3)": set(),
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(text)
    return tmp_path / "lib"


@pytest.mark.parametrize("text", USES)
def test_a_script_depends_on_what_it_imports_and_on_what_that_imports(package: Path, text: str) -> None:
    modules, _ = Library(package).closure(text)
    assert modules == {f"lib.{name}" for name in USES[text]}


@pytest.mark.parametrize("text", ["from lib.dynamic import load", "!pip install something"])
def test_where_the_text_does_not_say_what_is_imported_everything_counts(package: Path, text: str) -> None:
    modules, _ = Library(package).closure(text)
    assert {f"lib.{name.removesuffix('.py').replace('/', '.')}" for name in FILES if name.count("_") == 0} - {
        "lib.page.page.js"
    } <= modules


def test_comments_and_docstrings_do_not_count_and_code_does(package: Path) -> None:
    text = "from lib import plots\nplots.bars()"
    before = Library(package).digest(text)
    (package / "plots/bars.py").write_text(f'"""Bars."""\n# More.\n{FILES["plots/bars.py"]}')
    (package / "plots/lines.py").write_text("def lines():\n    return 1\n")
    assert Library(package).digest(text) == before
    (package / "plots/style.py").write_text("COLOR = 'blue'\n")
    assert Library(package).digest(text) != before


def test_a_name_that_comes_from_another_module_now_counts(package: Path) -> None:
    text = "from lib import plots\nplots.bars(), plots.curves()"
    (package / "plots/lines.py").write_text("def lines():\n    pass\n\n\ndef bars():\n    pass\n")
    before = Library(package).digest(text)
    (package / "plots/__init__.py").write_text("from .lines import bars\nfrom .lines import lines as curves\n")
    assert Library(package).digest(text) != before


def test_scripts_and_styles_beside_a_module_count(package: Path) -> None:
    before = Library(package).digest("from lib.page import static")
    (package / "page/page.js").write_text("let x = 2;\n")
    assert Library(package).digest("from lib.page import static") != before


CHAPTERS = {path.stem: path.read_text("utf-8") for path in sorted((REPOSITORY / "book").glob("*.py"))}


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], set[str]]:
    """Tell which chapters' code hash changes when a text is added to a module of a copy of the library."""
    copy = tmp_path_factory.mktemp("copy") / "cmiclib"
    shutil.copytree(REPOSITORY / "cmiclib", copy, ignore=shutil.ignore_patterns("__pycache__"))
    library = Library(copy)
    before = {name: library.digest(text) for name, text in CHAPTERS.items()}

    def changed(module: str, more: str) -> set[str]:
        path = copy / module
        text = path.read_text("utf-8")
        path.write_text(text + more, "utf-8")
        library = Library(copy)
        after = {name: library.digest(chapter) for name, chapter in CHAPTERS.items()}
        path.write_text(text, "utf-8")
        return {name for name in CHAPTERS if after[name] != before[name]}

    return changed


def test_a_figure_reruns_exactly_the_chapters_that_use_it(changed) -> None:
    assert changed("figures/speed.py", "\nNEW = 1\n") == {"12_scale"}
    assert changed("figures/ablations.py", "\nNEW = 1\n") == {"08_ablations"}
    assert changed("figures/style.py", "\nNEW = 1\n") == set(CHAPTERS)


def test_prose_reruns_nothing(changed) -> None:
    for module in ("figures/style.py", "book/__init__.py"):
        assert changed(module, '\n# A comment.\n"""A text."""\n') == set(), module


def test_the_data_chapters_do_not_depend_on_training(changed) -> None:
    dependent = changed("training/loop.py", "\nNEW = 1\n")
    assert not dependent & {"01_data", "02_views", "03_colour_transfer", "05_losses"}
    assert {"06_training", "07_evaluation", "intro"} <= dependent


def test_the_page_of_the_browser_reruns_its_chapter(changed) -> None:
    assert changed("browser/static.js", "\n// more\n") == {"13_query_browser"}
