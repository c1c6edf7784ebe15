"""No file is ever run: nothing in this repository reads pickles freely, evaluates text or unpacks archives by name."""

import ast
import subprocess
from pathlib import Path

import pytest
from toybook import REPOSITORY

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
READS = {"load", "loads", "open", "Unpickler", "_Unpickler", "read_pickle"}
ALLOWED = {("cmiclib/io/pickles.py", "pickle._Unpickler")}
"""The reader that asks for every class, see there; it is what all pickles go through."""
HOMES = {
    "trimesh.load": "cmiclib/io/meshes.py",
    "trimesh.load_mesh": "cmiclib/io/meshes.py",
    "trimesh.load_scene": "cmiclib/io/meshes.py",
    "Image.open": "cmiclib/io/images.py",
    "loadmat": "cmiclib/sources/pix3d/frames.py",
    "np.load": "cmiclib/evaluation/parity.py",
    "np.memmap": "cmiclib/io/files.py",
    "pd.read_csv": "cmiclib/io/files.py",
}
"""In the library these stand in one module each, with limits."""
OWN_IMAGE = {
    ("cmiclib/sources/rendered/photo.py", "Image.open"),  # a JPEG that the line before wrote into memory
    ("cmiclib/browser/pictures.py", "Image.open"),  # a figure that the line before wrote into memory
    ("cmiclib/browser/upload.py", "Image.open"),  # uploads have their own, tighter limits
}


NAMES = {"torch": {"torch"}, "numpy": {"np", "numpy"}}
"""What this repository calls the modules whose ``load`` is watched; under another name it would not be."""


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def value_of(call: ast.Call, name: str) -> object:
    """The constant that a keyword has; ... where it is no constant, or comes with others by **."""
    for keyword in call.keywords:
        if keyword.arg in (name, None):
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else ...
    return None


def faults(text: str, where: str) -> list[str]:
    """What a script must not do, one line for each place."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module in PICKLES:
            found += [f"{node.module}.{a.name}" for a in node.names if a.name in READS or a.name == "*"]
        if isinstance(node, ast.Attribute) and node.attr in READS and dotted(node.value).split(".")[0] in PICKLES:
            found.append(dotted(node))
        if isinstance(node, ast.Attribute) and node.attr in ("read_pickle", "extractall", "unpack_archive"):
            found.append(dotted(node))
        if isinstance(node, ast.ImportFrom) and any(a.name in ("read_pickle", "unpack_archive") for a in node.names):
            found.append(f"{node.module}: read_pickle or unpack_archive")
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "numpy"):  # a bare name hides whose it is
            found += [f"{node.module}.{a.name}" for a in node.names if a.name in ("load", "*")]
        if isinstance(node, ast.Import):
            renamed = [a for a in node.names if a.name in NAMES and (a.asname or a.name) not in NAMES[a.name]]
            found += [f"{a.name} as {a.asname}" for a in renamed]
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        last = name.split(".")[-1]
        if name in ("eval", "exec", "compile", "os.system", "os.popen", "builtins.eval", "builtins.exec"):
            found.append(name)
        if (
            last == "load"
            and name.startswith(("torch.", "np.", "numpy."))
            and (
                value_of(node, "weights_only") is not True
                if name.startswith("torch")
                else value_of(node, "allow_pickle") or len(node.args) > 2  # the third is allow_pickle
            )
        ):
            found.append(name)
        if name in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"):
            found.append(name)
        if any(keyword.arg == "shell" for keyword in node.keywords):
            found.append(f"{name} through a shell")
    return [f"{where}: {what}" for what in found if (where, what) not in ALLOWED]


def misplaced(text: str, where: str) -> list[str]:
    """Readers of the library that stand outside the module with their limits."""
    calls = {dotted(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}
    known = {name for name, home in HOMES.items() if home != where} - {
        name for module, name in OWN_IMAGE if module == where
    }
    return [f"{where}: {name} belongs into {HOMES[name]}" for name in sorted(calls & known)]


def scripts() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=REPOSITORY, capture_output=True, text=True
    )
    if listed.returncode == 0:
        return [REPOSITORY / name for name in listed.stdout.splitlines() if (REPOSITORY / name).is_file()]
    parts = ("book", "cmiclib", "tests", "tools")
    return [path for part in parts for path in (REPOSITORY / part).rglob("*.py")]


def test_nothing_in_the_repository_runs_what_a_file_says() -> None:
    paths = scripts()
    assert {path.relative_to(REPOSITORY).parts[0] for path in paths} >= {"book", "cmiclib", "tests", "tools"}
    assert [line for path in paths for line in faults(path.read_text("utf-8"), str(path.relative_to(REPOSITORY)))] == []


def test_the_library_reads_each_kind_of_file_in_one_place() -> None:
    paths = [path for path in scripts() if path.is_relative_to(REPOSITORY / "cmiclib")]
    assert [p for path in paths for p in misplaced(path.read_text("utf-8"), str(path.relative_to(REPOSITORY)))] == []


@pytest.mark.parametrize(
    "line",
    [
        "pickle.load(file)", "pickle.loads(data)", "from pickle import load", "from pickle import *",
        "read = pickle.load", "joblib.load(path)", "pd.read_pickle(path)", "from pandas import read_pickle",
        "torch.load(path)", "torch.load(path, weights_only=False)", "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)", "np.load(path, allow_pickle=flag)", "np.load(path, **options)",
        "numpy.load(path, allow_pickle=1)", "yaml.load(text)", "yaml.load(text, Loader=yaml.Loader)", "eval(text)",
        "from torch import load", "from numpy import load", "from numpy import *", "import torch as t",
        "import numpy as n", "np.load(path, None, True)", "exec(text)",
        "archive.extractall(folder)", "shutil.unpack_archive(path)",
        "subprocess.run(command, shell=True)", "os.system(command)",
    ],
)  # fmt: skip
def test_the_search_finds(line: str) -> None:
    assert faults(line, "x.py")


@pytest.mark.parametrize(
    "line",
    [
        "model.eval()", "torch.load(path, weights_only=True)", "np.load(path, allow_pickle=False)", "np.load(path)",
        "yaml.safe_load(text)", "pickle.dumps(x)", "joblib.Parallel(2)", "re.compile(x)", "from pickle import dumps",
    ],
)  # fmt: skip
def test_the_search_leaves_alone(line: str) -> None:
    assert faults(line, "x.py") == []


def test_a_reader_outside_its_module_is_found() -> None:
    assert misplaced("Image.open(path)", "cmiclib/index/query.py")
    assert not misplaced("Image.open(path)", "cmiclib/io/images.py")
