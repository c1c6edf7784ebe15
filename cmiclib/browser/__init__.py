"""The query browser: a photo in, ranked shapes out, with the reason.

:mod:`.retriever` answers, :mod:`.page` shows an answer as HTML; :mod:`.widget` is live in Jupyter, :mod:`.app` on its
own with :mod:`.server`, :mod:`.static` inside the report. This module imports nothing until a name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .static import static_page
    from .widget import QueryBrowser

__all__ = ["QueryBrowser", "static_page"]
HOMES = {"QueryBrowser": "widget", "static_page": "static"}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)
