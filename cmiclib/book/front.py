"""The first page, of the README and of the report: what holds and what does not, and one table, from stored results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import BookError
from .tables import lookup, read_results

BEGIN, END = "<!-- {}: written by `make readme` -->", "<!-- end of the {} -->"
MASKS = {"given": "exact mask", "automatic": "box, GrabCut", "box": "box alone"}
FRESH = "unseen, fresh"
"""Unseen shapes, in runs of their own, that chose no setting but the fixed numbers."""


def summary(metrics: dict[str, Any], results: Path) -> list[str]:
    """Return what holds, what does not and what was not tested, in five sentences that are computed.

    ``metrics`` is what ``metrics.json`` holds, ``results`` the folder of stored results; where something is not there,
    its sentence is missing.
    """
    seen, unseen, gains = metrics["seen"], metrics.get("unseen", {}), metrics.get("gains", {})
    fresh = _parts(repeated(metrics, results), "fresh").get(("unseen", "given"), ())
    boxes = metrics.get("masks", {}).get("box", {})
    boxed = boxes.get("seen", {}).get("trained")
    told = [
        f"With exact masks, the photo's own model comes first for {_share(seen, 'top1')} of the photos of shapes that "
        f"training saw, and among the first ten for {_share(seen, 'top10')}, in a gallery of {metrics['gallery_size']}"
        + (f"; with a box alone it comes first for {_share(boxed, 'top1')}." if boxed else ".")
    ]
    rivals = [kind for kind in ("untrained", "untrained_cells") if len(gains.get(f"{kind}_unseen", ())) == 3]
    if rivals:
        best = max(rivals, key=lambda kind: metrics[f"{kind}_unseen"]["top1"])
        sentence = (
            f"For shapes that training never saw, with exact masks, it comes first for {_share(unseen, 'top1')} and is "
            f"among the first ten for {_share(unseen, 'top10')}: {_judged(gains[f'{best}_unseen'])}, over the better "
            "of two networks with ImageNet's weights alone"
        )
        alone = boxes.get("unseen", {})
        if len(alone.get("gain", ())) == 3:
            sentence += f"; with a box alone it is {_share(alone['trained'], 'top1')}: {_judged(alone['gain'])}"
        if fresh:
            sentence += (
                f"; for other unseen shapes, which chose no setting but the fixed numbers, it is "
                f"{_share(fresh[0]['trained'], 'top1')}: {_judged(fresh[0]['gain'])}"
            )
        told.append(f"{sentence}.")
    stored = read_results(results / "real_photos.json") if (results / "real_photos.json").is_file() else {"rows": []}
    real = {row["photos"]: row for row in stored["rows"] if row["model"] == "trained"}
    if {"CAD mask", "no mask"} <= real.keys():
        masked, bare = real["CAD mask"], real["no mask"]
        told.append(
            f"On real photographs, weights that were trained on renderings of Pix3D's models find the right model "
            f"first for {_share(masked, 'top1')} of {masked['queries']} photos with a perfect mask, and for "
            f"{_share(bare, 'top1')} of {bare['queries']} other photos, crops without a mask."
        )
    told.append(
        "The photos of `sweethome` are synthetic and show exactly the meshes of the gallery, which is easier than real "
        "photos: do not compare its figures with published ones."
    )
    card = "" if (results / "gpu.json").is_file() else ", and nothing was run on a GPU"
    told.append(f"The paper's own recipe (`PROFILE=paper`) was not run to its end here{card}.")
    return told


def _judged(gain: Sequence[float]) -> str:
    value, low, high = gain
    verdict = "no measurable gain" if low <= 0 <= high else "a gain" if value > 0 else "a loss"
    return f"{verdict}, {100 * value:+.1f} points of Top-1 ({100 * low:+.1f} to {100 * high:+.1f})"


def _share(figures: dict[str, Any], name: str) -> str:
    low, high = (figures.get(name + end) for end in ("_low", "_high"))
    between = "" if low is None or high is None else f" ({100 * low:.0f} to {100 * high:.0f})"
    return f"{100 * figures[name]:.0f} %{between}"


def repeated(metrics: dict[str, Any], results: Path) -> list[dict[str, Any]]:
    """Return the stored runs with other seeds and other unseen shapes, if they have the settings of ``metrics``.

    `tools/measure/measure_seeds.py` writes them to ``results``.
    """
    path = results / "seeds.json"
    stored = read_results(path) if path.is_file() else {}
    same = all(stored.get(name) == metrics.get(name) for name in ("config", "benchmark_hash"))
    return stored.get("runs", []) if same else []


def _parts(runs: Sequence[dict[str, Any]], split: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the figures of each part and kind of mask, one of each run."""
    figures: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        for row in run["rows"] if run["split"] == split else ():
            figures.setdefault((row["part"], row["given"]), []).append(row)
    return figures


def mask_table(metrics: dict[str, Any], results: Path) -> pd.DataFrame:
    """Return what comes first with each kind of mask, trained and untrained, and their paired difference, in per cent.

    The untrained network is the better of the two, with 3 × 3 cells. The last column is over the seeds that were run:
    mean, lowest and highest. Where a cell is not in ``metrics`` nor in ``results``: not run.
    """
    runs = repeated(metrics, results)
    again, fresh = _parts(runs, "reported"), _parts(runs, "fresh")
    rows = {}
    for part, end in (("seen", ""), ("unseen", "_unseen")):
        rival = f"untrained_cells{end}"
        exact: dict[str, Any] = {"trained": metrics.get(part), "untrained": metrics.get(rival)}
        exact["gain"] = metrics.get("gains", {}).get(rival)
        for kind, title in MASKS.items():
            made = exact if kind == "given" else metrics.get("masks", {}).get(kind, {}).get(part, {})
            rows[part, title] = _mask_row(made, again.get((part, kind), ()))
    for kind, title in MASKS.items() if fresh else ():
        made = fresh.get(("unseen", kind), [])
        rows[FRESH, title] = _mask_row(made[0] if made else {}, made)
    columns = [f"Top-1, {name}" for name in ("trained", "untrained", "difference")]
    columns += ["Top-10, trained", "Top-10, untrained", "Top-1, seeds"]
    return pd.DataFrame.from_dict(rows, orient="index")[columns].rename_axis(["shapes", "given"])


def _mask_row(made: dict[str, Any], again: Sequence[dict[str, Any]]) -> dict[str, str]:
    row = {"Top-1, difference": _difference(made.get("gain")), "Top-1, seeds": "not run"}
    for metric, name in (("top1", "Top-1"), ("top10", "Top-10")):
        for side in ("trained", "untrained"):
            value = (made.get(side) or {}).get(metric)
            row[f"{name}, {side}"] = "not run" if value is None else f"{100 * value:.1f}"
    if again:
        values = [100 * run["trained"]["top1"] for run in again]
        ends = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
        row["Top-1, seeds"] = f"{len(values)}: {sum(values) / len(values):.1f}{ends}"
    return row


def _difference(gain: Sequence[float] | None) -> str:
    if not gain:
        return "not run"
    value, *ends = (f"{100 * share:+.1f}" for share in gain)
    return value + (f" ({' to '.join(ends)})" if ends else "")


def readme_table(stored: dict[str, Any], results: Path) -> str:
    """Return the README's table in Markdown: percentages with one decimal, and where they were measured."""
    metrics, environment = stored["metrics"], stored["environment"]
    table = mask_table(metrics, results)
    lines = ["| " + " | ".join(["shapes", "given", *table.columns]) + " |", "|---|---|" + "---:|" * table.shape[1]]
    lines += [
        f"| {' | '.join(at)} | {' | '.join(row)} |" for at, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    guesses = {"chance": "a random order finds", "prior": "the most photographed category first finds"}
    said = ", ".join(f"{how} {100 * metrics[key]['top1']:.1f}" for key, how in guesses.items() if key in metrics)
    lines += [
        "",
        f"Per cent of {lookup(metrics, 'seen.queries')} photos of seen and {lookup(metrics, 'unseen.queries')} of "
        f"unseen shapes against a gallery of {metrics['gallery_size']}{f'; {said}' if said else ''}. Differences are "
        "of the same photos, with 95 % intervals over shapes. *Untrained*: ImageNet's weights alone, averaged in 3 × 3 "
        "cells. *Seeds*: how many trainings, their mean, the lowest and the highest. Nothing given: not run, because "
        "the photos are squares around the object. "
        f"Benchmark `{metrics['benchmark']}`, profile `{metrics['profile']}`, {environment['date']}, "
        f"{environment['processor']}, {environment['cores']} cores, accelerator: {environment['accelerator']}.",
    ]
    return "\n".join(lines)


def chosen(metrics: dict[str, Any], results: Path) -> str:
    """Return how the demo's settings were chosen, and what that means for its figures on unseen shapes."""
    path = results / "candidates.json"
    many = f"{len(read_results(path)['frozen']['rows'])} candidates" if path.is_file() else "its candidates"
    return (
        f"The settings were not chosen blindly. Of {many} the demo is the one with the best Top-1 on validation photos "
        "of the unseen shapes. The reported test photos show the same shapes, so the figures on unseen shapes are "
        "somewhat too good. The demo differs from this candidate in two ways: it makes fewer augmented copies of each "
        "picture, and it adds the untrained features (the fixed numbers) to each vector. The fixed numbers were chosen "
        "on training shapes that were left out in turn. Test photos chose nothing. "
        + (
            "The row *unseen, fresh* is about other shapes, held out in a run of their own. In all earlier runs they "
            "were training shapes, so they helped to choose the fixed numbers, but not the candidate."
            if _parts(repeated(metrics, results), "fresh")
            else "No fresh shapes were held out."
        )
    )


def commands(stored: dict[str, Any]) -> str:
    """Return the two commands in Markdown, with the time that the chapters took together in the stored run."""
    minutes, cores = sum(stored["seconds"].values()) / 60, stored["environment"]["cores"]
    return (
        f"```\nmake reproduce    # trains, evaluates, writes the report; its chapters took {minutes:.0f} minutes, "
        f"added up, on {cores} CPU cores\nmake test         # the tests; some ten minutes\n```"
    )


def with_table(readme: str, results: Path) -> str:
    """Return the README's text with its results, of a folder of stored ones; BookError if the marks are missing."""
    stored = read_results(results / "demo.json")
    told = "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(summary(stored["metrics"], results), 1))
    table = f"{readme_table(stored, results)}\n\n{chosen(stored['metrics'], results)}"
    texts = {"sentences": told, "commands": commands(stored), "table": table}
    for part, text in texts.items():
        before, begin, rest = readme.partition(BEGIN.format(part))
        _, end, after = rest.partition(END.format(part))
        if not begin or not end:
            marks = f"{BEGIN.format(part)} and {END.format(part)}"
            raise BookError(f"README.md lacks the marks around its {part}", fix=f"put in {marks}")
        readme = f"{before}{begin}\n{text}\n{end}{after}"
    return readme
