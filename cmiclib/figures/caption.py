"""Figures as a reader sees them: a number, a caption that says what follows, and a text for who cannot see them."""

import base64
import html
import io
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
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    images, across = [], picture.width
    for left, right in pairwise([0, *(panel_gaps(figure) if cut else ()), across]):
        buffer = io.BytesIO()
        picture.crop((left, 0, right, picture.height)).save(buffer, "png", optimize=True)
        data, width = base64.b64encode(buffer.getvalue()).decode(), right - left
        look = f"flex:0 0 {1e5 * width // across / 1e3}%;min-width:{LEAST * width:.0f}px;height:auto;margin:0"
        described = html.escape(alt) if not left else ""  # one text for the whole picture
        images.append(f'<img src="data:image/png;base64,{data}" alt="{described}" style="{look}">')
    box = f"display:flex;flex-wrap:wrap;align-items:flex-start;overflow-x:auto;max-width:{across}px"
    return HTML(
        f'<figure class="captioned" style="margin:1em 0"><div style="{box}">{"".join(images)}</div>'
        f'<figcaption style="text-align:left;color:inherit;max-width:50em"><b>Figure {html.escape(number)}.</b> '
        f"{html.escape(caption)}</figcaption></figure>"
    )


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
