"""The answer of ``cmic find`` as one HTML file that needs no network: photos, shapes, views, links, models to turn."""

import base64
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path

import numpy as np

from ..benchmark import Benchmark
from ..errors import BenchmarkError
from ..io.files import read_limited
from ..io.formats.gltf import read_own
from .page import HERE, MODEL_LIMIT, STYLE, Pictures, data_uri, photo_part, ranking, view_part
from .retriever import Answer, Found

SOLIDS = 5
"""Shapes of each answer whose model can be turned."""


def answers_page(answers: Sequence[Answer], gallery: Benchmark, files: Mapping[str, Path], notes: Sequence[str]) -> str:
    """Return a whole page of answers from a gallery whose shapes were made of ``files``; ``notes`` are shown last."""
    pictures, solids = Pictures(gallery), dict[str, str]()
    body = "".join(_answer(answer, gallery, files, pictures, solids) for answer in answers)
    left = "".join(f"<li>{escape(note)}</li>" for note in notes)
    if notes:
        body += f"<details><summary>Not taken: {len(notes)}</summary><ul>{left}</ul></details>"
    title = f"{', '.join(answer.question.name for answer in answers)} in {gallery.name}"
    blocks = "".join(
        f'<script type="application/json" id="{key}">{text}</script>' for key, text in sorted(solids.items())
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>{STYLE}</head>"
        f'<body class="cmic-page"><main class="cmic"><h1>{escape(gallery.name)}: {len(gallery.shapes)} shapes</h1>'
        f"{body}</main>{blocks}<script>{(HERE / 'solid.js').read_text('utf-8')}</script></body></html>\n"
    )


def _answer(
    answer: Answer, gallery: Benchmark, files: Mapping[str, Path], pictures: Pictures, solids: dict[str, str]
) -> str:
    with ThreadPoolExecutor() as pool:  # most of it encodes pictures, several at a time
        parts = pool.map(lambda each: _found(each, gallery, files[each.shape_id], pictures, solids), answer.found)
        found = "".join(parts)
    return (
        f'<section class="cmic-columns"><div>{photo_part(answer, pictures)}</div>'
        f"<div><h2>Shapes, best first</h2>{ranking(answer, pictures)}{found}</div></section>"
    )


def _found(each: Found, gallery: Benchmark, file: Path, pictures: Pictures, solids: dict[str, str]) -> str:
    best = int(each.weights.argmax())
    azimuths = tuple(gallery.protocol.azimuths)
    name = escape(each.shape_id)
    large = (
        f'<figure><img src="{data_uri(gallery.views[each.row, best], gallery.size)}" '
        f'alt="{name} from {azimuths[best]:.0f} degrees"><figcaption>The view that counted most.</figcaption></figure>'
    )
    if each.rank <= SOLIDS:
        key = f"solid-{each.row}"
        if key not in solids:
            solids[key] = solid_json(gallery.mesh_path(each.shape_id))
        large += (
            f'<figure><canvas data-solid="{key}" class="cmic-turn" tabindex="0" role="img" '
            f'aria-label="3D model of {name}; the arrow keys turn it"></canvas>'
            "<figcaption>Turn it with the mouse, by touch or with the arrow keys.</figcaption></figure>"
        )
    return (
        f'<details class="cmic-found"{" open" if each.rank == 1 else ""}><summary>{each.rank}. {name}, '
        f"score {each.score:.3f}</summary>"
        f'<p><a href="{escape(file.resolve().as_uri())}">{escape(str(file))}</a></p>'
        f'<div class="cmic-large">{large}</div>{view_part(each, azimuths, pictures)}</details>'
    )


def solid_json(glb: Path) -> str:
    """Return a mesh as JSON: base64 of int16 (F, 3, 3) corners, in 1/16384, and of uint8 (F, 3) colours."""
    data = read_limited(glb, MODEL_LIMIT, BenchmarkError)
    try:
        corners, colors = read_own(data)
        if not len(corners) or not np.isfinite(corners).all():
            raise ValueError("no faces, NaN or Inf")
    except Exception as error:  # a stranger's file fails in many ways
        problem = f"this is not a mesh that the preparation wrote ({type(error).__name__}: {error!s:.100})"
        raise BenchmarkError(problem, path=glb, fix="prepare the benchmark again") from None
    middle = (corners.min(axis=(0, 1)) + corners.max(axis=(0, 1))) / 2
    reach = np.linalg.norm(corners - middle, axis=2).max() or 1.0
    quantised = np.rint((corners - middle) / (2 * reach) * 16384).astype("<i2")
    return json.dumps({name: base64.b64encode(np.ascontiguousarray(a).tobytes()).decode() for name, a in
                       (("corners", quantised), ("colors", colors))})  # fmt: skip
