"""What a number was computed on: machine, versions, code and date."""

import ast
import hashlib
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGE = Path(__file__).parents[1]
PACKAGES = ("torch", "torchvision", "timm", "kornia", "numpy", "scipy", "trimesh", "embreex", "pandas", "papermill")


def environment() -> dict[str, str | int | dict[str, str]]:
    """Return the machine, the versions that matter and today's date (UTC), ready for JSON."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def code_digest(modules: Iterable[str]) -> str:
    """Hash modules of this package, such as ``["losses", "sources/sweethome"]``, but not their comments and prose.

    What is hashed is the syntax tree without docstrings, so that a better explanation retrains nothing.
    """
    digest = hashlib.sha256()
    for name in sorted(modules):
        tree = ast.parse((PACKAGE / f"{name}.py").read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                node.body = node.body[1:]
        digest.update(f"{name} {ast.dump(tree)}".encode())
    return digest.hexdigest()[:12]
