"""Where this library lies, and a hash of the code that a result depends on, without its prose."""

import ast
import hashlib
import json
import sys
import sysconfig
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from ..errors import StorageError
from .atomic import write_atomically

PACKAGE = Path(__file__).parents[1]
_CHECKOUT, _INSTALLED = PACKAGE.parent / "data" / "weights", Path(sysconfig.get_path("data"), "share/cmiclib/weights")
WEIGHTS = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED
"""Runs that come with this library, in a checkout or beside the installed package; nothing is written there."""


def code_digest(names: Iterable[str]) -> str:
    """Hash the code of rooms and modules of this package, such as ``["training", "losses"]``, without their prose.

    The hash covers the syntax tree without comments and docstrings, so that a better explanation retrains nothing. It
    is kept beside Python's compiled files and, like them, made again when a file has another size or time.
    """
    files = set[Path]()
    for name in names:
        found = {file for file in (*(PACKAGE / name).rglob("*.py"), PACKAGE / f"{name}.py") if file.is_file()}
        if not found:
            raise ValueError(f"there is no code named {name}")
        files |= found
    listed = sorted(files)
    stamps = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in (Path(__file__), *listed)]
    key, asked = (hashlib.sha256(json.dumps(facts).encode()).hexdigest() for facts in (stamps, sorted(map(str, files))))
    kept = Path(cache_from_source(str(PACKAGE / "__init__.py"))).with_name(f"code-{asked[:12]}.txt")
    with suppress(OSError, ValueError):
        known, digest = kept.read_text("ascii").split()
        if known == key:
            return digest
    texts = [f"{file.relative_to(PACKAGE).as_posix()} {code_text(file)}" for file in listed]
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()[:12]
    if not sys.dont_write_bytecode:
        with suppress(StorageError):
            write_atomically(kept, lambda temporary: temporary.write_text(f"{key} {digest}", "ascii"))
    return digest


def code_text(file: Path) -> str:
    """Return the code of a Python file without comments and docstrings, written the same on every Python."""
    parts = list[str]()
    _write(ast.parse(file.read_text("utf-8")), parts.append)
    return "".join(parts)


def _write(node: Any, write: Callable[[str], None]) -> None:
    """Write a syntax tree as text; ``ast.dump`` names fields that not all versions of Python have."""
    gap = ""
    if isinstance(node, list):
        write("[")
        for part in node:
            if not _is_prose(part):
                write(gap)
                _write(part, write)
                gap = " "
        write("]")
    elif isinstance(node, ast.AST):
        write(f"({type(node).__name__} ")
        for name in node._fields:
            value = getattr(node, name, None)
            if value is not None and value != []:
                write(f"{gap}{name}=")
                _write(value, write)
                gap = " "
        write(")")
    else:
        write(repr(node))


def _is_prose(part: Any) -> bool:
    """Tell docstrings, and the strings that explain a constant, from code."""
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str)
