"""The library reference: every module is on one of its pages, and every docstring is valid reStructuredText.

Sphinx would say the second, too, but only after half a minute of building.
"""

import functools
import importlib
import inspect
import io
import re

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import roles
from sphinx.ext.napoleon import Config, GoogleDocstring
from toybook import REPOSITORY

ROOMS = re.findall(r"^   (cmiclib\S*)$", (REPOSITORY / "book/api.md").read_text("utf-8"), re.MULTILINE)
TEMPLATE = (REPOSITORY / "book/_templates/room.rst").read_text("utf-8")


def on_page(room: str) -> list[str]:
    """The modules on a room's page: itself and what lies in it, but for what the template leaves to other pages."""
    folder = REPOSITORY / room.replace(".", "/")
    names = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    return [room, *(f"{room}.{name}" for name in sorted(names) if name != "__init__" and f'"{name}"' not in TEMPLATE)]


LISTED = [module for room in ROOMS for module in on_page(room)]


def test_every_module_is_on_one_page() -> None:
    files = (REPOSITORY / "cmiclib").rglob("*.py")
    names = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__") for path in files}
    documented = {name for name in names if not name.startswith("cmiclib.cli")}  # the command documents itself
    assert sorted(LISTED) == sorted(documented - {"cmiclib"})


def docstrings(module_name: str) -> list[tuple[str, str]]:
    """Names and docstrings of a module, its public functions and classes, and their public members."""
    module = importlib.import_module(module_name)
    found = [(module_name, module)]
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", None) == module_name and not name.startswith("_"):
            found.append((f"{module_name}.{name}", thing))
            if inspect.isclass(thing):
                members = ((key, value) for key, value in vars(thing).items() if not key.startswith("_"))
                found += [(f"{module_name}.{name}.{key}", value) for key, value in members]
    documented = (type(inspect), type, property, functools.cached_property, classmethod, staticmethod)
    return [(name, inspect.getdoc(t) or "") for name, t in found if isinstance(t, documented) or inspect.isroutine(t)]


def complaints(text: str) -> str:
    """What docutils says about a docstring in Google's style."""
    for role in ("class", "func", "meth", "mod", "attr", "data", "exc"):
        roles.register_local_role(role, lambda *arguments: ([nodes.inline()], []))
    stream = io.StringIO()
    settings = {"report_level": 2, "warning_stream": stream, "halt_level": 5}
    publish_doctree(str(GoogleDocstring(text, Config(napoleon_use_ivar=True))), settings_overrides=settings)
    return stream.getvalue()


@pytest.mark.parametrize("module", LISTED)
def test_docstrings_are_valid(module: str) -> None:
    wrong = {name: said for name, text in docstrings(module) if (said := complaints(text))}
    assert wrong == {}


@pytest.mark.parametrize("module", LISTED)
def test_no_attribute_is_described_twice(module: str) -> None:
    """Sphinx documents what has a docstring of its own, so a class's text must not list it again."""
    for name, thing in vars(importlib.import_module(module)).items():
        if inspect.isclass(thing) and thing.__module__ == module:
            listed = inspect.cleandoc(thing.__doc__ or "").partition("Attributes:")[2]
            fields = set(re.findall(r"^    (\w+): ", listed, re.MULTILINE))
            own = {
                key for key, value in vars(thing).items() if inspect.isroutine(value) or inspect.isdatadescriptor(value)
            }
            assert not fields & own, name


def test_the_check_would_notice() -> None:
    assert "substitution" in complaints("Several joined by |.")
    assert complaints("Several joined by ``|``; see :class:`Config`.\n\nArgs:\n    a: one.\n") == ""
