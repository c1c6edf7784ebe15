"""Figures as a reader sees them: a number, a caption that says what follows, and a text for who cannot see them."""

import base64
import html
import io
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
from IPython.display import HTML
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase
from PIL import Image

LEAST = 0.6  # of a picture's width: letters of 10 points stay 9 pixels high; a wider picture scrolls in its box


def captioned(figure: Figure, number: str, caption: str, alt: str, cut: bool = True) -> HTML:
    """Return a figure as HTML, for JupyterLab and the report alike: the picture, its number and its caption.

    ``number`` is "4.2" for the second figure of chapter 4; ``caption`` begins with what the figure shows and ends with
    what follows from it, and may hold computed numbers; ``alt`` describes the picture to somebody who cannot see it.
    Panels that stand side by side become pictures of their own, which a narrow screen puts below each other; without
    ``cut`` they stay together, for rows that belong together, and the picture scrolls in its box.
    """
    if not (number.strip() and caption.strip() and alt.strip()):
        raise ValueError("a figure needs a number, a caption and an alternative text")
    picture = drawn(figure)
    images, across = [], picture.width
    for left, right in pairwise([0, *(panel_gaps(figure) if cut else ()), across]):
        part, width = picture.crop((left, 0, right, picture.height)), right - left
        look = f"flex:0 0 {1e5 * width // across / 1e3}%;min-width:{LEAST * width:.0f}px;height:auto;margin:0"
        images.append(picture_tag(part, alt if not left else "", look))  # one text for the whole picture
    box = f"display:flex;flex-wrap:wrap;align-items:flex-start;overflow-x:auto;max-width:{across}px"
    return in_figure(f'<div style="{box}">{"".join(images)}</div>', number, caption)


def drawn(figure: Figure) -> Image.Image:
    """Return a figure's pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def picture_uri(picture: Image.Image, kind: str = "png") -> str:
    """Return a picture as a data URI: "png", or "webp" for photos."""
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def picture_tag(picture: Image.Image, alt: str, look: str) -> str:
    """Return a picture as an HTML element, with its text and its style."""
    return f'<img src="{picture_uri(picture)}" alt="{html.escape(alt)}" style="{look}">'


def in_figure(inside: str, number: str, caption: str) -> HTML:
    """Return HTML as a figure with its number and caption."""
    return HTML(
        f'<figure class="captioned" style="margin:1em 0">{inside}'
        f'<figcaption style="text-align:left;color:inherit;max-width:50em"><b>Figure {html.escape(number)}.</b> '
        f"{html.escape(caption)}</figcaption></figure>"
    )


def method_diagram(photo: np.ndarray, views: np.ndarray, number: str, caption: str) -> HTML:
    """Return the method as boxes from photo to losses, whose colours are the page's, and which wrap on a narrow screen.

    ``photo`` is RGB with a mask, (4, S, S) uint8, ``views`` are gray, (V, S, S) uint8.
    """
    rows = [np.hstack(list(part)) for part in np.array_split(views[: len(views) // 3 * 3], 3)]
    query, shape = Image.fromarray(photo[:3].transpose(1, 2, 0).copy()), Image.fromarray(np.vstack(rows))
    query.thumbnail((240, 240))
    shape.thumbnail((320, 240))

    def box(title: str, text: str, picture: str = "") -> str:
        look = "border:1.5px solid currentColor;border-radius:.5em;padding:.4em .6em;max-width:8.5em;line-height:1.3"
        return f'<div style="{look}">{picture}<b>{title}</b><br>{text}</div>'

    def chain(parts: Sequence[str]) -> str:
        arrow = '<span aria-hidden="true">➜</span>'
        later = (f'<div style="display:flex;align-items:center;gap:.3em">{arrow}{part}</div>' for part in parts[1:])
        return f'<div style="display:flex;flex-wrap:wrap;align-items:center;gap:.3em">{parts[0]}{"".join(later)}</div>'

    look = "height:5em;max-width:100%;margin:0;display:block"
    lanes = (
        (box("Photo", "with the mask of the object", picture_tag(query, "a photo of furniture", look)),
         box("Photo encoder", "CNN and head"), box("<i>q</i>", "one unit vector")),
        (box(f"{len(views)} gray views", "of each CAD model", picture_tag(shape, "its views", look)),
         box("View encoder", "CNN and head"), box("<i>r</i><sub>1</sub> … <i>r</i><sub>V</sub>", "a unit vector each")),
    )  # fmt: skip
    attention = box("Attention", f"<i>q</i> weighs the {len(views)} views: softmax (<i>Wq</i>·<i>r</i><sub>v</sub>)")
    score = box("Score", "of photo and model: the weighted sum of <i>q</i>·<i>r</i><sub>v</sub>")
    losses = (box("Instance loss", "own model before all others"), box("Category loss", "own category before the rest"))
    column = '<div style="display:grid;gap:.4em">{}</div>'
    parts = (column.format("".join(map(chain, lanes))), attention, score, column.format("".join(losses)))
    return in_figure(f'<div style="font-size:.8em">{chain(parts)}</div>', number, caption)


def panel_gaps(figure: Figure) -> list[int]:
    """Return the columns of a drawn figure at which it can be cut into panels side by side, from left to right.

    Everything on one side stands there with all its texts, and ticks that panels share do not stand on the other side.
    """
    parts: list[FigureBase] = [figure]
    for part in parts:
        parts += part.subfigs
    drawn = [*figure.axes, *(artist for part in parts for artist in (*part.texts, *part.legends))]
    boxes = [box for artist in drawn if (box := artist.get_tightbbox()) is not None]
    panels: list[tuple[float, float]] = []
    for box in sorted(boxes, key=lambda box: box.x0):
        if panels and box.x0 < panels[-1][1] - 1:  # a pixel of two neighbours may be the same
            panels[-1] = panels[-1][0], max(panels[-1][1], box.x1)
        else:
            panels.append((box.x0, box.x1))
    common = any(a.get_shared_y_axes().joined(a, b) for a, b in combinations(figure.axes, 2))
    return [] if common else [round((end + start) / 2) for (_, end), (start, _) in pairwise(panels)]
