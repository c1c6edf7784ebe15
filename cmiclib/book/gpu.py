"""``data/results/gpu.json``, which ``make gpu-report`` writes on a machine with a GPU, as sentences and tables.

Where the file is missing, everything here says that nothing was run on a GPU.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from ..config import profile
from .tables import read_results

Report = dict[str, Any]
PARTS = {
    "card": "the card's rates", "tests": "tests", "step": "training steps", "embed": "embedding", "search": "search",
    "train": "training",
}  # fmt: skip
NOT_RUN = "**Not run on a GPU.** `make gpu-report` measures one in seven minutes."


def read_gpu(root: Path) -> Report | None:
    """Return the stored report, or None where there is none."""
    path = root / "data" / "results" / "gpu.json"
    return read_results(path) if path.is_file() else None


def cases(report: Report | None, part: str) -> dict[str, dict[str, Any]]:
    """Return what a part measured, by the name of the case; without cases that failed or were skipped."""
    found = (report or {}).get("parts", {}).get(part, {}).get("cases", {})
    return {name: case for name, case in found.items() if "seconds" in case}


def rates(report: Report | None) -> dict[str, float]:
    """Return the card's measured rates: operations a second of ``bf16``, ``tf32`` and ``fp32``, bytes a second."""
    return {
        name: case.get("operations", case.get("bytes", 0)) / case["seconds"]["median"]
        for name, case in cases(report, "card").items()
    }


def where(report: Report) -> str:
    """Name the card, the date and the versions."""
    about = report["parts"].get("card", {}).get("environment", {})
    on, torch = about.get("accelerator", "an unknown card"), about.get("versions", {}).get("torch", "?")
    if report.get("smoke") or about.get("device") == "cpu":
        on = "no GPU: a trial at tiny sizes on a CPU, whose figures mean nothing"
    driver = f", driver {about['driver_version']}" if "driver_version" in about else ""
    return f"{on}, {about.get('date', 'no date')}, PyTorch {torch}{driver}"


def gpu_line(report: Report | None) -> str:
    """Say in one line what was measured on a GPU."""
    if report is None:
        return NOT_RUN
    said = []
    if case := cases(report, "step").get("bf16"):
        sizes = f"{case['photos']} photos, {case['views']} views of {case['size']} px"
        said.append(f"a step of the paper's profile takes {1e3 * case['seconds']['median']:.0f} ms in bf16 ({sizes})")
    if case := cases(report, "search").get("float32, 1"):
        said.append(f"one query against {case['shapes']:,} shapes takes {1e3 * case['seconds']['median']:.1f} ms")
    return f"On a GPU ({where(report)}): {'; '.join(said) or 'nothing was measured'}."


def gpu_about(report: Report | None) -> str:
    """Say which card it was, how fast it is, how the tests went, and what was left out and why."""
    if report is None:
        return NOT_RUN
    fast, sentences = rates(report), [f"Measured on {where(report)}."]
    if {"bf16", "tf32", "fp32", "copy", "sum"} <= fast.keys():
        sentences.append(
            f"Measured limits: {fast['bf16'] / 1e12:.0f} · 10¹² operations a second in bf16, "
            f"{fast['tf32'] / 1e12:.0f} in TF32, {fast['fp32'] / 1e12:.0f} in fp32; {fast['copy'] / 1e12:.2f} TB a "
            f"second copied (read and written), {fast['sum'] / 1e12:.2f} read."
        )
    if outcome := report["parts"].get("tests", {}).get("outcome"):
        failed = outcome["failures"] + outcome["errors"]
        passed = outcome["tests"] - failed - outcome["skipped"]
        sentences.append(f"Tests that need a GPU: {passed} passed, {failed} failed, {outcome['skipped']} skipped.")
    missing = _left_out(report)
    return " ".join(sentences) + (f" Not measured: {'; '.join(missing)}." if missing else "")


def _left_out(report: Report) -> list[str]:
    """Name the parts and cases that failed or were skipped, each with the last line of its reason."""
    lines = []
    for part, title in PARTS.items():
        entry = report["parts"].get(part, {"status": "not asked for"})
        if entry["status"] != "done":
            lines.append(f"{title} ({entry['status']}: {_short(entry.get('error', ''))})")
        for name, case in entry.get("cases", {}).items():
            if "seconds" not in case:
                lines.append(f"{title}, {name} ({_short(case.get('skipped') or case.get('error', ''))})")
    return lines


def _short(reason: str) -> str:
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return (lines or ["no reason given"])[-1][:160].rstrip(".")


def gpu_tables(report: Report | None) -> list[tuple[str, pd.DataFrame]]:
    """Return the tables of what was measured, each with its caption in Markdown; none without a report."""
    fast, tables = rates(report), []
    for part, index, row, digits, caption in (
        ("step", "step", _step, 1, _about_steps(report)),
        ("embed", "precision", _embedding, 0, ABOUT_EMBEDDING),
        ("search", "gallery, queries", _search, 6, ABOUT_SEARCH),
    ):
        if rows := [{index: name} | row(name, case, fast) for name, case in cases(report, part).items()]:
            tables.append((caption, pd.DataFrame(rows).set_index(index).round(digits)))
    return tables


def _milliseconds(times: dict[str, float]) -> dict[str, str]:
    middle, fastest, slowest = (f"{1e3 * times[key]:.3g}" for key in ("median", "min", "max"))
    return {"ms, median (fastest to slowest)": f"{middle} ({fastest} to {slowest})"}


def _step(name: str, case: dict[str, Any], fast: dict[str, float]) -> dict[str, Any]:
    seconds, limit = case["seconds"]["median"], fast.get("bf16" if name.startswith("bf16") else "tf32")
    return {
        "photos": case["photos"], "views": case["views"], **_milliseconds(case["seconds"]),
        "photos/s": case["photos"] / seconds, "views/s": case["views"] / seconds,
        "% of the card's products": 100 * case["operations"] / seconds / limit if limit else None,
        "% waiting for input": 100 * case["waiting"],
        "most memory, GB": case["peak_memory"] / 1e9 if "peak_memory" in case else None,
    }  # fmt: skip


def _embedding(name: str, case: dict[str, Any], fast: dict[str, float]) -> dict[str, Any]:
    return {
        "views": case["views"], "px": case["size"], **_milliseconds(case["seconds"]),
        "views/s": case["views"] / case["seconds"]["median"],
        "views/s, encoder alone": case["encoder_views"] / case["encoder_seconds"]["median"],
    }  # fmt: skip


def _search(name: str, case: dict[str, Any], fast: dict[str, float]) -> dict[str, Any]:
    """Return a search beside the least time that the card's measured limits allow."""
    product = fast.get("bf16" if name.startswith("bfloat16") and "one product" in name else "fp32")
    least = max(case["bytes"] / fast["sum"], case["operations"] / product) if product and "sum" in fast else None
    return {
        "shapes": case["shapes"], **_milliseconds(case["seconds"]), "least ms": 1e3 * least if least else None,
        "share of the limit, %": 100 * least / case["seconds"]["median"] if least else None,
        "same first ten": f"{case['same_top10']} of {case['checked']}", "largest error": case["largest_error"],
    }  # fmt: skip


ABOUT_EMBEDDING = (
    "**Embedding**: the views of a gallery go from the host's memory to the card and come back as vectors. Beside it, "
    "the encoder alone, on views that are on the card already."
)
ABOUT_SEARCH = (
    "**Search** for the first ten shapes, all vectors on the card. `least ms` follows from the measured rates of "
    "reading and multiplying. `one product` is another way to score, which reads the gallery once; only the report has "
    "it. Right first tens and errors are counted against brute force in double precision."
)


def _about_steps(report: Report | None) -> str:
    measured, total = cases(report, "step"), profile("paper").train.steps
    about = (report or {}).get("parts", {}).get("card", {}).get("environment", {})
    names = [name for name in ("fp32", "bf16", "bf16, compiled") if name in measured]
    hours = [f"{total * measured[name]['seconds']['median'] / 3600:.1f} hours in {name}" for name in names]
    tf32 = "Convolutions in fp32 run in TF32, which is PyTorch's own setting. "
    return (
        f"**Training steps** of the paper's profile. {tf32 if about.get('convolutions_in_tf32') else ''}"
        "`waiting for input`: by how much a step is longer than one whose input is on the card already."
        + (f" At this pace the profile's {total:,} steps take {', '.join(hours)}." if hours else "")
    )


def gpu_training(report: Report | None) -> str:
    """Say how far the paper's recipe came on the shipped benchmark; the empty string where it was not trained."""
    entry = (report or {}).get("parts", {}).get("train", {})
    if not entry.get("validation"):
        return ""
    last = entry["validation"][-1]
    start = "ImageNet's weights" if entry["init"] == "imagenet" else "random weights, as ImageNet's were not at hand"
    return (
        f"The paper's recipe with {', '.join(f'`{text}`' for text in entry['recipe'])}, from {start}, on the shipped "
        f"benchmark ({entry['photos']} photos, {entry['shapes']} shapes, {entry['size']} px, {entry['batch']} photos a "
        f"step): {last['step']:,} steps in {last['seconds']:.0f} s. Of {entry['validation_photos']} validation photos, "
        f"{100 * last['val.top1']:.1f} % find their own shape first and {100 * last['val.top10']:.1f} % among the "
        "first ten. The recipe asks for 90,000 steps; this is what the minutes allowed."
    )
