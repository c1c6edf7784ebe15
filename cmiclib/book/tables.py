"""Long tables for the report: folded up until wanted, and searched without a kernel."""

from html import escape

import pandas as pd

_FILTER = (
    "for (const row of this.parentElement.querySelectorAll('tbody tr'))"
    " row.hidden = !row.textContent.toLowerCase().includes(this.value.toLowerCase())"
)


def searchable(table: pd.DataFrame, summary: str) -> str:
    """Return HTML of a table that opens on a click, with a field that hides the rows without the typed text.

    Args:
        table: shown without its index; texts are escaped.
        summary: the line to click on.
    """
    body = table.to_html(index=False, border=0, max_rows=None).replace("<table", '<table style="font-size: 85%"')
    return (
        f"<details><summary>{escape(summary)}</summary>"
        f'<input type="search" placeholder="type to search" aria-label="search this table" oninput="{_FILTER}">'
        f'<div style="max-height: 28em; overflow: auto">{body}</div></details>'
    )
