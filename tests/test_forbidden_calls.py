"""The rules of ruff that SECURITY.md names find every call that would run what a file says."""

import re
import subprocess
import sys

import pytest
from toybook import REPOSITORY

IMPORTS = """
import builtins, dill, joblib, json, marshal, os, pickle, shelve, shutil, subprocess, tarfile
import numpy as np, pandas as pd, scipy.io, torch, torch as t, trimesh, yaml
from PIL import Image
"""
RUNS_CODE = [
    "pickle.load(file)", "pickle.loads(data)", "pickle.Unpickler(file).load()", "dill.load(file)", "shelve.open(path)",
    "marshal.load(file)", "pd.read_pickle(path)", "yaml.load(text)", "yaml.load(text, Loader=yaml.Loader)",
    "eval(text)", "exec(text)", "builtins.eval(text)", "os.system(command)", "os.popen(command)",
    "subprocess.run(command, shell=True)", "call(command, shell=True)", "tarfile.open(path).extractall(folder)",
]  # fmt: skip
HAS_ONE_PLACE = [
    "from pickle import load", "from pickle import *", "read = pickle.load", "joblib.load(path)",
    "from pandas import read_pickle", "torch.load(path)", "torch.load(path, weights_only=True)", "t.load(path)",
    "from torch import load", "from torch import *", "torch.jit.load(path)", "np.load(path)",
    "np.load(path, **options)", "from numpy import load", "from numpy import *", "np.memmap(path)",
    "yaml.full_load(text)", "yaml.unsafe_load(text)", "shutil.unpack_archive(path)", "Image.open(path)",
    "trimesh.load(path)", "trimesh.load_mesh(path)", "trimesh.load_scene(path)", "scipy.io.loadmat(path)",
    "pd.read_csv(path)", "json.load(file)", "json.dump(values, file)", "os.replace(a, b)",
]  # fmt: skip
HARMLESS = [
    "model.eval()", "yaml.safe_load(text)", "pickle.dumps(x)", "joblib.Parallel(2)", "re.compile(x)",
    "json.loads(text)", "subprocess.run(command)",
]  # fmt: skip


@pytest.mark.parametrize("folder", ["cmiclib/index", "book", "tools/measure", "tests/index"])
def test_ruff_finds_forbidden_calls_and_no_others(folder: str) -> None:
    lines = [*IMPORTS.splitlines(), *RUNS_CODE, *HAS_ONE_PLACE, *HARMLESS]
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", f"--stdin-filename={folder}/x.py", "-"]
    asked = subprocess.run(command, input="\n".join(lines), cwd=REPOSITORY, capture_output=True, text=True)
    found = {lines[int(number) - 1] for number in re.findall(r"x\.py:(\d+):\d+: (?:S\d|TID251|F403)", asked.stdout)}
    found -= set(IMPORTS.splitlines())
    if folder.startswith("tests"):  # they may read the files that they wrote
        assert found >= set(RUNS_CODE) and not found & set(HARMLESS)
    else:
        assert found == {*RUNS_CODE, *HAS_ONE_PLACE}
