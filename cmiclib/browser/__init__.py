"""The query browser: a photo in, ranked shapes out, with the reason.

:mod:`.retriever` answers, :mod:`.page` and :mod:`.pictures` show an answer as HTML; :mod:`.widget` is live in Jupyter,
:mod:`.app` on its own, :mod:`.static` inside the report.
"""

from .static import static_page
from .widget import QueryBrowser

__all__ = ["QueryBrowser", "static_page"]
