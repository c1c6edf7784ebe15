"""Figures that answer to a hand: HTML with a few lines of script, which need neither a kernel nor a network."""

import html
import json
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image

from .caption import LEAST, drawn, in_figure, picture_tag, picture_uri
from .embedding import map_corners, on_picture
from .style import as_rgb

THUMBNAIL, ACROSS = 56, 32  # pixels of a side; pictures beside each other on a sheet
UNFRAMED = (
    "padding:0!important;border:0!important"  # a frame, which dark themes give to pictures, would move the points
)

# A script finds its own figure, because a page may show several.
SLIDER = """<script>(() => {
    const figure = document.currentScript.closest("figure"), cells = [...figure.querySelectorAll("td")];
    const steps = DATA, range = figure.querySelector("input");
    range.oninput = () => {
        const { tau, shown } = steps[range.value];
        figure.querySelector("output").textContent = tau;
        shown.forEach(([text, share], at) => {
            cells[at].textContent = text;
            cells[at].style.setProperty("--share", share + "%");
        });
    };
})()</script>"""

HOVER = """<script>(() => {
    const figure = document.currentScript.closest("figure"), box = figure.querySelector("[tabindex]");
    const [ring, card] = box.querySelectorAll("[hidden]"), { places, names, side, across } = DATA;
    const [picture, words] = card.children;
    let at = -1;
    const show = (point) => {
        at = point;
        ring.hidden = card.hidden = false;
        const [left, top] = places[at], onLeft = left < 50;
        ring.style.left = left + "%";
        ring.style.top = top + "%";
        card.style.left = onLeft ? left + 3 + "%" : "auto";
        card.style.right = onLeft ? "auto" : 103 - left + "%";
        card.style.top = Math.min(top, 75) + "%";
        picture.style.backgroundPosition = `${-side * (at % across)}px ${-side * Math.floor(at / across)}px`;
        words.textContent = names[at];
    };
    box.onpointermove = box.onpointerdown = (event) => {
        const frame = box.getBoundingClientRect();
        const apart = places.map(([left, top]) => Math.hypot(
            event.clientX - frame.left - (left * frame.width) / 100,
            event.clientY - frame.top - (top * frame.height) / 100,
        ));
        const least = Math.min(...apart);
        if (least < 20) show(apart.indexOf(least));
    };
    box.onpointerleave = box.onblur = () => { ring.hidden = card.hidden = true; };
    box.onkeydown = (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        show((at + step + places.length) % places.length);
        ring.scrollIntoView({ block: "nearest", inline: "center" });
    };
})()</script>"""


def temperature_slider(
    taus: Sequence[float], shares: np.ndarray, losses: np.ndarray, photos: Sequence[str], shapes: Sequence[str],
    target: np.ndarray, number: str, caption: str, start: int = 0,
) -> HTML:  # fmt: skip
    """Show each photo's softmax over the shapes, and its two losses, at a temperature that a slider chooses.

    For each of T ``taus``: ``shares`` (T, Q, N), which sum to 1 over the shapes, and ``losses`` (T, Q, 2), those of
    instance and category in nats. ``target`` (Q,) is the column of each photo's own shape, which stands in bold.
    ``start`` is the position of the temperature that is shown first.
    """
    steps: list[dict[str, Any]] = []
    for tau, rows, pairs in zip(taus, shares, losses, strict=True):
        shown: list[tuple[str, int]] = []  # text and bar of each cell
        for row, pair in zip(rows, pairs, strict=True):
            shown += [(f"{100 * share:.0f} %", round(100 * share)) for share in row.tolist()]
            shown += [(f"{loss:.2f}", 0) for loss in pair.tolist()]
        steps.append({"tau": f"{tau:.3g}", "shown": shown})
    fill = "background:linear-gradient(to right,rgba(0,114,178,.35) var(--share),transparent var(--share))"
    cells = iter(steps[start]["shown"])
    body = ""
    for photo, own in zip(photos, target, strict=True):
        body += f'<tr><th scope="row" style="text-align:left">{html.escape(photo)}</th>'
        for column in range(len(shapes) + 2):
            text, share = next(cells)
            bold = ";font-weight:bold" if column == own else ""
            body += f'<td style="--share:{share}%;{fill}{bold};text-align:right;min-width:4em">{text}</td>'
        body += "</tr>"
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in (*shapes, "instance loss", "category loss"))
    inside = (
        f'<label>τ = <output>{steps[start]["tau"]}</output> <input type="range" min="0" max="{len(steps) - 1}" '
        f'value="{start}" style="width:min(24em,90%);vertical-align:middle"></label>'
        f'<div style="overflow-x:auto"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )
    return in_figure(inside + _script(SLIDER, steps), number, caption)


def hover_map(
    figure: Figure, places: np.ndarray, names: Sequence[str], pictures: Sequence[np.ndarray], number: str,
    caption: str, alt: str,
) -> HTML:  # fmt: skip
    """Show a map, :func:`cmiclib.figures.embedding_map`, whose points show their picture under pointer and arrow keys.

    The n points have ``places`` (n, 2) in the axes' coordinates, a name and a picture each, as `style.show_image` takes
    it.
    """
    picture = drawn(figure)
    sheet = np.full((-(-len(pictures) // ACROSS) * THUMBNAIL, ACROSS * THUMBNAIL, 3), 255, np.uint8)
    for at, each in enumerate(pictures):
        top, left = (THUMBNAIL * part for part in divmod(at, ACROSS))
        small = cv2.resize(as_rgb(each), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        sheet[top : top + THUMBNAIL, left : left + THUMBNAIL] = small
    ring = "position:absolute;width:18px;height:18px;margin:-9px;border:3px solid #000;outline:1px solid #fff;"
    card = "position:absolute;background:#fff;color:#222;border:1px solid #767676;padding:4px;font-size:.75rem;"
    thumb = f"width:{THUMBNAIL}px;height:{THUMBNAIL}px;background:url({picture_uri(Image.fromarray(sheet), 'webp')})"
    inside = (
        '<div style="overflow-x:auto"><div tabindex="0" role="group" '
        'aria-label="Map; the arrow keys go from point to point" style="position:relative;'
        f'max-width:{picture.width}px;min-width:{LEAST * picture.width:.0f}px;touch-action:pan-x pan-y">'
        + picture_tag(picture, alt, f"width:100%;height:auto;margin:0;display:block;{UNFRAMED}")
        + f'<span hidden style="{ring}border-radius:50%;pointer-events:none"></span>'
        f'<div hidden style="{card}pointer-events:none;z-index:1"><div style="{thumb}"></div>'
        '<span role="status"></span></div></div></div>'
    )
    data = {
        "places": on_picture(map_corners(figure), places).round(2).tolist(), "names": list(names),
        "side": THUMBNAIL, "across": ACROSS,
    }  # fmt: skip
    return in_figure(inside + _script(HOVER, data), number, caption)


def _script(code: str, data: object) -> str:
    return code.replace("DATA", json.dumps(data, ensure_ascii=False).replace("</", "<\\/"))
