"""Importing the library changes nothing for the rest of the process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cmiclib import browser
from cmiclib.browser import static, widget

STATE = """
import hashlib, json, locale, logging, os, pickle, random, signal, sys, warnings
import cv2, matplotlib, numpy, pandas, torch
from PIL import EpsImagePlugin, Image, ImageFile

def state():
    digest = lambda value: hashlib.sha256(pickle.dumps(value)).hexdigest()
    return {
        "Ghostscript": repr(EpsImagePlugin.gs_binary),
        "Pillow": repr((Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)),
        "warnings": repr(warnings.filters),
        "matplotlib": digest(sorted((name, repr(value)) for name, value in matplotlib.rcParams.items())),
        "random": digest(random.getstate()),
        "numpy's random": digest(numpy.random.get_state()),
        "numpy": repr((numpy.geterr(), numpy.get_printoptions())),
        "pandas": repr(pandas.get_option("display.max_rows")) + repr(pandas.get_option("display.precision")),
        "torch's random": digest(torch.get_rng_state().numpy().tobytes()),
        "torch": repr((torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
                       torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
                       torch.backends.cudnn.benchmark)),
        "OpenCV": repr(cv2.getNumThreads()),
        "logging": repr((logging.root.level, logging.root.handlers)),
        "environment": digest(sorted(os.environ.items())),
        "locale": repr(locale.setlocale(locale.LC_ALL)),
        "signals": repr([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]),
        "path": repr(sys.path),
        "hooks": repr((sys.excepthook, sys.displayhook)),
    }
"""
LIBRARY = """
import pkgutil
import cmiclib

def load():
    for module in pkgutil.walk_packages(cmiclib.__path__, "cmiclib."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


@pytest.mark.slow
def test_importing_every_module_changes_no_state_of_the_process() -> None:
    """Other libraries may change theirs when they are first imported, so they are imported before."""

    def python(code: str) -> str:
        return subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, check=True).stdout

    used = python(f"import importlib, json, sys\n{LIBRARY}\nload()\nprint(json.dumps(list(sys.modules)))")
    others = [name for name in json.loads(used.splitlines()[-1]) if name.split(".")[0] not in ("cmiclib", "__main__")]
    first = (
        "import contextlib, importlib, json\n"
        f"for name in {others!r}:\n    with contextlib.suppress(Exception):\n        importlib.import_module(name)\n"
    )
    then = "before = state()\nload()\nprint(json.dumps([before, state()]))"
    before, after = json.loads(python(f"{first}{STATE}{LIBRARY}{then}").splitlines()[-1])
    assert before == after


@pytest.mark.parametrize("statement", ["import cmiclib.browser", "from cmiclib import figures"])
def test_what_is_imported_often_imports_no_torch(statement: str) -> None:
    code = f"import sys\n{statement}\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_reading_chapters_builds_no_grammar_of_addresses() -> None:
    code = """
import sys
from pathlib import Path
from cmiclib.book.chapters import read_chapter
read_chapter(Path("book/01_data.py"))
import nbformat
nbformat.validate(nbformat.v4.new_notebook())
print("lark" in sys.modules)
"""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == "False\n"


def test_the_browsers_names_are_found_and_others_are_not() -> None:
    assert browser.QueryBrowser is widget.QueryBrowser and browser.static_page is static.static_page
    with pytest.raises(AttributeError, match=r"'cmiclib\.browser' has no attribute 'missing'"):
        browser.missing  # noqa: B018
