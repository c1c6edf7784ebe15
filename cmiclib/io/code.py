"""Where this library lies, and a hash of the code that a result depends on, without its prose."""

import ast
import hashlib
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
_CHECKOUT, _INSTALLED = PACKAGE.parent / "data" / "weights", Path(sysconfig.get_path("data"), "share/cmiclib/weights")
WEIGHTS = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED
"""Runs that come with this library, in a checkout or beside the installed package; nothing is written there."""


def code_digest(names: Iterable[str]) -> str:
    """Hash the code of rooms and modules of this package, such as ``["training", "losses"]``, without their prose.

    The hash covers the syntax tree without comments and docstrings, so that a better explanation retrains nothing.
    """
    files = set[Path]()
    for name in names:
        found = {file for file in (*(PACKAGE / name).rglob("*.py"), PACKAGE / f"{name}.py") if file.is_file()}
        if not found:
            raise ValueError(f"there is no code named {name}")
        files |= found
    texts = [f"{file.relative_to(PACKAGE).as_posix()} {code_text(file)}" for file in sorted(files)]
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
