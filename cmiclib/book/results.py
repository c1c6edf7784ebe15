"""Stored results: compare a finished reproduction with them, and write the README's table from them.

``data/results/demo.json`` holds ``metrics`` (as in ``outputs/demo/metrics.json``), ``tolerances`` (a metric's dotted
name → the largest difference that counts as agreement), and the date, machine and hashes of the run they come from.
"""

from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BookError
from ..io.files import read_json

BEGIN, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"
ROWS = {
    "seen": "CMIC, shapes seen in training",
    "unseen": "CMIC, unseen shapes",
    "untrained": "untrained network, seen shapes",
    "untrained_unseen": "untrained network, unseen shapes",
    "untrained_cells": "untrained, 3 × 3 cells, seen shapes",
    "untrained_cells_unseen": "untrained, 3 × 3 cells, unseen shapes",
    "prior": "category prior, seen shapes",
    "chance": "chance, seen shapes",
}
COLUMNS = {"top1": "Top-1", "top10": "Top-10", "category": "Category", "map10": "mAP@10", "mrr": "MRR"}


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


def read_results(path: Path) -> dict[str, Any]:
    """Read a JSON file of results.

    Raises:
        BookError: it is missing or not JSON.
    """
    if not path.is_file():
        raise BookError("this file of results does not exist", path=path, fix="run `make reproduce` first")
    return read_json(path, BookError, fix="run `make reproduce` again")


def compare(measured: dict[str, Any], stored: dict[str, Any]) -> list[Comparison]:
    """Compare metrics with stored ones, for every metric that has a tolerance.

    Args:
        measured: nested metrics, such as ``outputs/demo/metrics.json``.
        stored: ``data/results/demo.json``.
    """
    return [
        Comparison(name, lookup(measured, name), stored_value(stored, name), tolerance)
        for name, tolerance in stored["tolerances"].items()
    ]


def stored_value(stored: dict[str, Any], name: str) -> float:
    """Return a stored metric by its dotted name.

    Raises:
        BookError: it has a tolerance but no value.
    """
    value = lookup(stored["metrics"], name)
    if value is None:
        raise BookError(f"the stored results have a tolerance but no value for '{name}'", fix="correct data/results")
    return value


def lookup(metrics: dict[str, Any], name: str) -> float | None:
    """Return ``metrics["seen"]["top1"]`` for ``seen.top1``, or None when it is not there."""
    value: Any = metrics
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def readme_table(stored: dict[str, Any]) -> str:
    """Return the README's table in Markdown: percentages with one decimal, and where they were measured."""
    metrics, environment = stored["metrics"], stored["environment"]
    lines = ["| % | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for part, title in ROWS.items():
        cells = [lookup(metrics, f"{part}.{column}") for column in COLUMNS]
        lines.append(f"| {title} | " + " | ".join("–" if v is None else f"{100 * v:.1f}" for v in cells) + " |")
    lines += [
        "",
        f"{lookup(metrics, 'seen.queries')} photos of seen and {lookup(metrics, 'unseen.queries')} of unseen shapes "
        f"against a gallery of {metrics['gallery_size']}; benchmark `{metrics['benchmark']}`, profile "
        f"`{metrics['profile']}`, {environment['date']}, {environment['processor']}, {environment['cores']} cores, "
        f"accelerator: {environment['accelerator']}.",
    ]
    return "\n".join(lines)


def with_table(readme: str, stored: dict[str, Any]) -> str:
    """Return the README's text with its table replaced.

    Raises:
        BookError: the two marks that enclose the table are not there.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BookError("README.md lacks the marks around its table of results", fix=f"put in {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{readme_table(stored)}\n{END}{after}"


def snapshot(outputs: Path, tolerances: dict[str, float]) -> dict[str, Any]:
    """Return what ``data/results/<profile>.json`` holds, from a finished reproduction in ``outputs/<profile>``."""
    record = read_results(outputs / "provenance.json")
    return {
        "metrics": read_results(outputs / "metrics.json"),
        "tolerances": tolerances,
        "environment": record["environment"],
        "hashes": record["hashes"],
        "seconds": {name: entry["seconds"] for name, entry in record["chapters"].items()},
    }
