"""Describe what a number was computed on: machine, versions, code and date."""

import ast
import hashlib
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGE = Path(__file__).parents[1]
PACKAGES = ("torch", "torchvision", "timm", "kornia", "numpy", "scipy", "trimesh", "embreex", "pandas", "papermill")


def environment(device: "torch.device | None" = None) -> dict[str, str | int | dict[str, str]]:
    """Return the machine, the versions that matter and today's date (UTC), ready for JSON.

    ``accelerator`` is the name of the GPU that did the work, ``device``; default: the first GPU if there is one.
    """
    import torch

    on_gpu = torch.cuda.is_available() if device is None else device.type == "cuda"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "accelerator": torch.cuda.get_device_name(device) if on_gpu else "none",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on; a machine that only trains may lack some."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def code_digest(names: Iterable[str]) -> str:
    """Hash the code of rooms and modules of this package, such as ``["training", "losses"]``, without their prose.

    The hash covers the syntax tree without comments and docstrings, so that a better explanation retrains nothing.
    """
    files = {file for name in names for file in (*(PACKAGE / name).rglob("*.py"), PACKAGE / f"{name}.py")}
    texts = [f"{file.relative_to(PACKAGE).as_posix()} {code_text(file)}" for file in sorted(files) if file.is_file()]
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:12]


def code_text(file: Path) -> str:
    """Return the code of a Python file without comments and docstrings, written the same on every Python."""
    return _text(ast.parse(file.read_text("utf-8")))


def _text(node: Any) -> str:
    """Write a syntax tree as text; ``ast.dump`` names fields that not all versions of Python have."""
    if isinstance(node, list):
        return f"[{' '.join(_text(part) for part in node if not _is_prose(part))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
    return f"({type(node).__name__} {' '.join(f'{name}={_text(value)}' for name, value in fields)})"


def _is_prose(part: Any) -> bool:
    """Tell docstrings, and the strings that explain a constant, from code."""
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str)
