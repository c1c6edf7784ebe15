"""Results as tables: read, compared with the stored ones, shown in the book.

Measured results (``metrics.json``) and published ones (``data/results/published.json``) get the same columns, so that
they can stand one above the other: ``method``, ``kind`` ("measured" or "published"), and for each metric its value
and, where known, ``_low`` and ``_high``, all in [0, 1]. ``data/results/demo.json`` holds ``metrics``, ``tolerances`` (a
metric's dotted name → the largest difference that counts as agreement), and the date, machine and hashes of their run.
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..errors import BookError
from ..io.files import read_json

EVALUATION = "07_evaluation"  # the chapter that writes metrics.json
EFFORT = ["user_seconds", "system_seconds", "page_faults"]  # of a chapter's kernel, in the record of a run
ROWS = {
    "seen": "CMIC, seen shapes",
    "unseen": "CMIC, unseen shapes",
    "learnt": "learnt numbers alone, seen shapes",
    "learnt_unseen": "learnt numbers alone, unseen shapes",
    "untrained": "untrained network, seen shapes",
    "untrained_unseen": "untrained network, unseen shapes",
    "untrained_cells": "untrained, 3 × 3 cells, seen shapes",
    "untrained_cells_unseen": "untrained, 3 × 3 cells, unseen shapes",
    "prior": "category prior",
    "chance": "chance",
}
NOT_RUN = "not run: needs a download"
DOWNLOADED = {
    "vit_small_patch14_dinov2.lvd142m": "DINOv2, ViT-S/14", "vit_base_patch16_siglip_224.webli": "SigLIP, ViT-B/16",
    "vit_base_patch16_clip_224.openai": "CLIP, ViT-B/16",
}  # fmt: skip
COLUMNS = {"top1": "Top-1", "top10": "Top-10", "category": "Category", "map10": "mAP@10", "mrr": "MRR"}


def read_results(path: Path) -> dict[str, Any]:
    """Read a JSON file of results; BookError if it is missing or damaged."""
    if not path.is_file():
        raise BookError("this file of results does not exist", path=path, fix="run `make reproduce` first")
    return read_json(path, BookError, fix="run `make reproduce` again")


def read_metrics(outputs: Path) -> dict[str, Any]:
    """Return ``metrics.json`` of ``outputs/<profile>``, if the last evaluation there wrote it.

    BookError: the chapter on evaluation did not end well, is stale, or ran with other settings or data.
    """
    metrics, entry = read_results(outputs / "metrics.json"), _entries(outputs).get(EVALUATION, {})
    hashes, again = entry.get("hashes", {}), "run `make reproduce`"
    if entry.get("status") != "ok" or entry.get("stale"):
        state = "was made with an older state" if entry.get("stale") else f"has the status '{entry.get('status')}'"
        raise BookError(f"the chapter {EVALUATION} {state}, so metrics.json may be old", path=outputs, fix=again)
    for name, ours, theirs in (("configuration", "config", "config"), ("benchmark", "benchmark_hash", "benchmark")):
        if metrics.get(ours) != hashes.get(theirs):
            message = f"metrics.json was measured with another {name} than the last {EVALUATION}"
            raise BookError(message, path=outputs / "metrics.json", fix=again)
    return metrics


def snapshot(outputs: Path, tolerances: dict[str, float], chapters: Iterable[str]) -> dict[str, Any]:
    """Return what ``data/results/<profile>.json`` holds, from a finished reproduction in ``outputs/<profile>``.

    BookError: a chapter did not end well or is stale, or the metrics are of another run.
    """
    metrics, entries = read_metrics(outputs), _entries(outputs)
    if missing := [c for c in chapters if entries.get(c, {}).get("status") != "ok" or entries[c].get("stale")]:
        problem = f"these chapters did not run with the present state: {', '.join(missing)}"
        raise BookError(problem, path=outputs, fix="run `make reproduce` for the whole book first")
    made, seconds = entries[EVALUATION], {name: entry["seconds"] for name, entry in entries.items()}
    effort = {name: {key: entry[key] for key in EFFORT if key in entry} for name, entry in entries.items()}
    kept = {"environment": made["environment"], "hashes": made["hashes"], "seconds": seconds, "effort": effort}
    return {"metrics": metrics, "tolerances": tolerances, **kept}


def effort_table(stored: dict[str, Any]) -> pd.DataFrame:
    """Return where the time of a stored reproduction went: a row for each chapter, the longest first."""
    rows = pd.DataFrame.from_dict(stored.get("effort", {}), orient="index").reindex(stored["seconds"], columns=EFFORT)
    rows.insert(0, "minutes", pd.Series(stored["seconds"]) / 60)
    rows["page_faults"] /= 1e6
    rows.columns = pd.Index(["minutes", "CPU s, own code", "CPU s, system", "million page faults"])
    return rows.sort_values("minutes", ascending=False)


def _entries(outputs: Path) -> dict[str, dict[str, Any]]:
    record = read_results(outputs / "provenance.json")
    entries = record.get("chapters") if isinstance(record, dict) else None
    if not isinstance(entries, dict):
        raise BookError("this is not the record of a run", path=outputs / "provenance.json", fix="run `make reproduce`")
    return entries


class Comparison(NamedTuple):
    """One metric: what was measured now, what is stored, and how far they may lie apart."""

    metric: str
    measured: float | None
    stored: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance; a metric that was not measured never agrees."""
        return self.measured is not None and abs(self.measured - self.stored) <= self.tolerance


def compare(measured: dict[str, Any], stored: dict[str, Any]) -> list[Comparison]:
    """Compare metrics with stored ones such as ``data/results/demo.json``, for every metric that has a tolerance.

    BookError: the stored metrics are of another benchmark, or lack one that has a tolerance.
    """
    if measured.get("benchmark_hash") != stored["metrics"].get("benchmark_hash"):
        raise BookError("the stored results are of other data", fix="compare results of the same benchmark")
    rows = []
    for name, tolerance in stored["tolerances"].items():
        value = lookup(stored["metrics"], name)
        if value is None:
            problem = f"the stored results have a tolerance but no value for '{name}'"
            raise BookError(problem, fix="correct data/results")
        rows.append(Comparison(name, lookup(measured, name), value, tolerance))
    return rows


def lookup(metrics: dict[str, Any], name: str) -> float | None:
    """Return ``metrics["seen"]["top1"]`` for ``seen.top1``, or None where it is missing."""
    value: Any = metrics
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def measured_table(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return one row for each result of ``metrics.json`` that `ROWS` names, in its order, with a ``label``."""
    rows = [{"method": title, "kind": "measured", **metrics[name]} for name, title in ROWS.items() if name in metrics]
    table = pd.DataFrame(rows)
    return table.assign(label=table.method + " (" + table.queries.map(str) + " photos)")


def downloaded_table(path: Path) -> pd.DataFrame:
    """Return rows for each network of `DOWNLOADED`: what `cmic evaluate --untrained` stored, or that it did not run."""
    stored, rows = read_results(path) if path.is_file() else {}, {}
    for name, title in DOWNLOADED.items():
        for kind, of in (("untrained", "whole picture"), ("untrained_cells", "3 × 3 cells")):
            figures = stored.get(name, {}).get(kind)
            table = pd.DataFrame([figures or {}])
            rows[title, of] = percent(table).loc[0] if figures else dict.fromkeys(COLUMNS.values(), NOT_RUN)
    return pd.DataFrame(rows).T


def published_table(path: Path) -> pd.DataFrame:
    """Return the published figures, one row a method and benchmark, with year, title in print, source and mark."""
    stored = read_results(path)
    table = pd.DataFrame(stored["rows"]).assign(kind="published")
    return table.assign(title=table.benchmark.map(stored["benchmarks"]))


def percent(table: pd.DataFrame, metrics: Sequence[str] = tuple(COLUMNS)) -> pd.DataFrame:
    """Return each metric in per cent, with its interval where there is one: ``83.1 (80.2 to 85.9)``; else a dash.

    The table has a column for each metric and, where known, ``_low`` and ``_high``, in [0, 1].
    """
    rows = table.to_dict("records")
    cells = {COLUMNS.get(name, name): [_cell(row, name) for row in rows] for name in metrics}
    return pd.DataFrame(cells, index=table.index)


def _cell(row: dict[Any, Any], name: str) -> str:
    value, low, high = (row.get(name + end, np.nan) for end in ("", "_low", "_high"))
    if pd.isna(value):
        return "–"
    return f"{100 * value:.1f}" + ("" if pd.isna(low) else f" ({100 * low:.1f} to {100 * high:.1f})")


_FILTER = (
    "for (const row of this.parentElement.querySelectorAll('tbody tr'))"
    " row.hidden = !row.textContent.toLowerCase().includes(this.value.toLowerCase())"
)


def searchable(table: pd.DataFrame, summary: str) -> str:
    """Return HTML of a table that opens with a click on ``summary``; a field hides the rows without the typed text."""
    body = table.to_html(index=False, border=0, max_rows=None).replace("<table", '<table style="font-size: 85%"')
    return (
        f"<details><summary>{escape(summary)}</summary>"
        f'<input type="search" placeholder="type to search" aria-label="search this table" oninput="{_FILTER}">'
        f'<div style="max-height: 28em; overflow: auto">{body}</div></details>'
    )
