"""Measure how long the query browser takes for an answer, at the demo's scale, and store the medians.

    python tools/measure/measure_browser.py data/results/browser.json

The live widget is asked as a visitor asks it, with the model that the repository ships: choose a stored photo, or send
one of twelve million pixels. What is measured ends when ranking, views, model and map stand in the widget; the way to
the visitor's screen is not in it. Measure on a machine that does nothing else.
"""

import io
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cmiclib.browser import QueryBrowser
from cmiclib.browser.app import SHIPPED, shipped_retriever
from cmiclib.io.atomic import write_json
from cmiclib.io.provenance import environment
from cmiclib.sources.sweethome import open_sweethome

UPLOAD = (4000, 3000)  # pixels, as telephones take them
TIMES = 9
LIMITS = {"stored": 0.3, "upload": 2.0}
"""Seconds that the browser was made for, on two cores."""


def jpeg(photo: np.ndarray, size: tuple[int, int] = UPLOAD) -> bytes:
    """Return a photo, (H, W, 3) uint8, as a JPEG of so many pixels."""
    buffer = io.BytesIO()
    Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def send(browser: QueryBrowser, content: bytes, name: str) -> None:
    """Give the widget a file as the button for uploads does."""
    file = {"name": name, "type": "image/jpeg", "size": len(content), "content": memoryview(content)}
    browser.upload.value = (file | {"last_modified": datetime.now(UTC)},)


def seconds(ask: Callable[[int], None], browser: QueryBrowser, times: int) -> list[float]:
    """Return how long each of so many questions takes; two more come first, which warm up and do not count."""
    taken = []
    for number in range(times + 2):
        before, started = browser.answer, time.perf_counter()
        ask(number)
        taken.append(time.perf_counter() - started)
        if browser.problem.value or browser.answer is before:
            raise SystemExit(f"the browser did not answer: {browser.problem.value}")
    return [round(each, 4) for each in taken[2:]]


def measure(browser: QueryBrowser, times: int = TIMES, size: tuple[int, int] = UPLOAD) -> dict[str, Any]:
    """Return the seconds of stored photos and of uploads, with their medians.

    Args:
        browser: with its test photos embedded and its map laid out, as it is once somebody looked at the map.
        times: how many of each.
        size: of the uploads, in pixels.
    """
    rows = [row for _, row in browser.photo.options if row != browser.photo.value]
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, times + 2).round().astype(int)]
    photos = [jpeg(browser.retriever.stored(row).photo, size) for row in rows]
    stored = seconds(lambda number: setattr(browser.photo, "value", rows[number]), browser, times)
    upload = seconds(lambda number: send(browser, photos[number], f"{number}.jpg"), browser, times)
    return {
        "stored": {"median": float(np.median(stored)), "limit": LIMITS["stored"], "seconds": stored},
        "upload": {
            "median": float(np.median(upload)), "limit": LIMITS["upload"], "seconds": upload, "pixels": list(size),
            "megabytes": round(float(np.mean([len(photo) for photo in photos])) / 1e6, 2),
        },
    }  # fmt: skip


def main(target: str) -> None:
    """Measure and write the file of results."""
    retriever = shipped_retriever(SHIPPED, open_sweethome())
    known = {"vectors": retriever.vectors, "atlas": retriever.atlas}
    browser = QueryBrowser(retriever.index, retriever.gallery, **known)
    browser._show_map()  # it is laid out once; what comes after is what is measured
    shapes, photos = len(browser.retriever.index), len(browser.retriever.rows)
    about = {
        "shapes": shapes,
        "photos": photos,
        "model": f"the shipped one, of {retriever.index.about['trained']['date']}",
        "threads": torch.get_num_threads(),
    }
    result = {"environment": environment(), "measured": about, **measure(browser)}
    write_json(Path(target), result)
    for name, limit in LIMITS.items():
        most = max(result[name]["seconds"])
        print(f"{name}: median {result[name]['median']:.3f} s of {TIMES}, at most {most:.3f} s, the limit is {limit} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
