"""Which code a chapter depends on: the modules that it imports and those that they import, read from their text.

A name is followed through the re-exports of packages to the module that defines it: a chapter that uses
``figures.roofline`` depends on ``figures/speed.py`` and on no other figure. Imports inside functions count; imports
under ``if TYPE_CHECKING`` do not. Where the text does not say what is imported, everything that it could be counts.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

from ..io.code import PACKAGE, code_text

Name = tuple[str, str | None]  # a module and a name in it; None stands for the whole module


class Library:
    """The modules of the package in a folder, read once."""

    def __init__(self, package: Path = PACKAGE):
        self.root, self.name = package.parent, package.name
        self.file, self.tree, self.bound = cache(self._file), cache(self._tree), cache(self._bound)
        self.uses, self.code = cache(self._uses), cache(code_text)

    def digest(self, text: str) -> str:
        """Hash the code that a script depends on, without comments and docstrings; what is not Python needs all."""
        modules, names = self.closure(text)
        files = {file for module in modules if (file := self.file(module))}
        data = {path for file in files for path in file.parent.iterdir() if path.suffix not in (".py", ".pyc")}
        parts = [(path, self.code(path)) for path in sorted(files)]
        parts += [(path, repr(path.read_bytes())) for path in sorted(data) if path.is_file()]  # styles and scripts
        text = "".join(f"{path.relative_to(self.root).as_posix()} {part}" for path, part in parts)
        return hashlib.sha256(f"{sorted(names)}{text}".encode()).hexdigest()[:16]

    def closure(self, text: str) -> tuple[set[str], set[tuple[str, str]]]:
        """Return the modules that a script depends on, and for each re-exported name the module that defines it."""
        try:
            waiting = self._references(ast.parse(text), "", is_package=False)
        except SyntaxError:  # a magic command, for example
            waiting = {(module, None) for module in self._below(self.name)}
        modules, names, followed = set[str](), set[tuple[str, str]](), set[Name]()
        while waiting:
            asked = waiting.pop()
            if asked in followed:
                continue
            followed.add(asked)
            module, name = self._defined(*asked)
            if (module, name) != asked:
                names.add((".".join(part for part in asked if part), module))
                waiting.add((module, name))
            elif module not in modules:
                modules.add(module)
                waiting |= self.uses(module)
            parents = [module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)]
            waiting |= {(parent, None) for parent in parents if self._acts(parent)}
        return modules, names

    def _file(self, module: str) -> Path | None:
        """Return a module's file, or None where there is none."""
        path = self.root.joinpath(*module.split("."))
        files = (path / "__init__.py", path.with_suffix(".py"))
        return next((file for file in files if file.is_file()), None)

    def _is_package(self, module: str) -> bool:
        return (file := self.file(module)) is not None and file.name == "__init__.py"

    def _below(self, package: str) -> list[str]:
        """Return every module of a package."""
        files = self.root.joinpath(*package.split(".")).rglob("*.py")
        parts = (file.relative_to(self.root).with_suffix("").parts for file in files)
        return [".".join(part).removesuffix(".__init__") for part in parts]

    def _tree(self, module: str) -> ast.Module:
        file = self.file(module)
        return ast.parse(file.read_text("utf-8") if file else "")

    def _bound(self, package: str) -> dict[str, Name]:
        """Return what the ``__init__`` of a package imports, by the name that it gives it."""
        found: dict[str, Name] = {}
        for node in _nodes(self.tree(package)):
            if isinstance(node, ast.ImportFrom):
                base = _absolute(node, package, is_package=True)
                found |= {alias.asname or alias.name: self._member(base, alias.name) for alias in node.names}
        return found

    def _member(self, base: str, name: str) -> Name:
        """Return what ``from base import name`` gives: a module, or a name in a module."""
        if name == "*":
            return base, None
        if self.file(f"{base}.{name}") and not (self._is_package(base) and _defines(self.tree(base), name)):
            return f"{base}.{name}", None
        return base, name

    def _defined(self, module: str, name: str | None) -> Name:
        """Follow one re-export of a package; what is defined in its ``__init__`` depends on all of it."""
        if name is None or not self._is_package(module):
            return module, None
        if name in self.bound(module) and not _defines(self.tree(module), name):
            base, origin = self.bound(module)[name]
            return (base, origin) if base.split(".")[0] == self.name else (module, None)
        return self._member(module, name) if self.file(f"{module}.{name}") else (module, None)

    def _acts(self, package: str) -> bool:
        """Tell whether importing a package does more than define names, so that its submodules depend on it."""
        return not all(_only_defines(node) for node in self.tree(package).body)

    def _uses(self, module: str) -> set[Name]:
        return self._references(self.tree(module), module, self._is_package(module))

    def _references(self, tree: ast.Module, module: str, is_package: bool) -> set[Name]:
        """Return what a module or script uses of the package."""
        found, package = set[Name](), module if is_package else module.rpartition(".")[0]
        nodes = list(_nodes(tree))
        for node in nodes:
            if isinstance(node, ast.Import):
                found |= {(alias.name, None) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = _absolute(node, module, is_package)
                for alias in node.names:
                    member = self._member(base, alias.name)
                    used = _attributes(nodes, alias.asname or alias.name) if self._is_package(member[0]) else None
                    known = used is not None and member[1] is None and alias.name != "*"
                    found |= {(member[0], name) for name in used or ()} if known else {member}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # such as `python -m …`
                if node.value.startswith(f"{self.name}.") and node.value.replace(".", "").isidentifier():
                    found.add((node.value, None))
            elif isinstance(node, ast.Call) and _imports_by_name(node):
                found |= {(name, None) for name in self._below(package or self.name)}
        return {(base, name) for base, name in found if base.split(".")[0] == self.name and self.file(base)}


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that can run."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        yield (node := waiting.pop())
        waiting += [child for child in ast.iter_child_nodes(node) if not _only_for_types(child)]


def _only_defines(node: ast.stmt) -> bool:
    quiet = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.AnnAssign
    named = isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets)
    prose = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return named or prose or isinstance(node, quiet) or _only_for_types(node)


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not node.orelse


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    return ".".join([*parts[: len(parts) - node.level + is_package], *([node.module] if node.module else [])])


def _attributes(nodes: list[ast.AST], name: str) -> set[str] | None:
    """Return the attributes that a text reads of a name, or None where it uses the name in another way as well."""
    read = [node.attr for node in nodes if isinstance(node, ast.Attribute) and _is(node.value, name)]
    return set(read) if sum(_is(node, name) for node in nodes) == len(read) else None


def _is(node: ast.AST, name: str) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and node.id == name


def _defines(tree: ast.Module, name: str) -> bool:
    """Tell whether a module defines a name itself."""
    blocks = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    parts = [part for node in tree.body if node not in blocks for part in ast.walk(node)]
    stored = any(_is(part, name) and isinstance(part.ctx, ast.Store) for part in parts)
    return stored or any(block.name == name for block in blocks)


def _imports_by_name(node: ast.Call) -> bool:
    """Tell whether a call imports a module whose name the text does not give."""
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return function in ("import_module", "__import__") and not all(isinstance(a, ast.Constant) for a in node.args)
