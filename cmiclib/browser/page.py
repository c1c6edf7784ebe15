"""An answer as HTML that a screen reader reads in order: photo, ranking, views with their weights, model, map.

The live widget and the static page show the same parts. The widget embeds each picture where it stands; the static page
keeps each picture once, and its script fills in those that the reader looks at (``data-picture``).
"""

import base64
from html import escape
from pathlib import Path

import numpy as np

from ..benchmark import Benchmark
from ..errors import BenchmarkError, CMICError, MissingArrayError
from ..io.files import read_limited
from ..io.meshes import MESH_LIMIT
from .pictures import THUMBNAIL, data_uri, outlined
from .retriever import Answer, Found

HERE = Path(__file__).parent
STYLE = f"<style>\n{(HERE / 'browser.css').read_text('utf-8')}</style>"


class Pictures:
    """The pictures of a page with a gallery's views; the methods return the attribute that an ``img`` element gets.

    With ``once`` a picture is in ``kept`` once, from where the page's script fills it in, instead of where it stands.
    """

    def __init__(self, gallery: Benchmark, once: bool = False):
        self.gallery, self.once, self.kept = gallery, once, dict[str, str]()

    def view(self, row: int, view: int) -> str:
        """Show a view of a shape of the gallery."""
        return self._attribute(f"{row}.{view}", self.gallery.views[row, view], 96 if self.once else THUMBNAIL)

    def photo(self, answer: Answer) -> str:
        """Show the photo of an answer with its outlines."""
        return self._attribute(f"photo {answer.question.name}", outlined(answer), 1000)

    def _attribute(self, key: str, pixels: np.ndarray, side: int) -> str:
        if not self.once:
            return f'src="{data_uri(pixels, side)}"'
        if key not in self.kept:
            self.kept[key] = data_uri(pixels, side)
        return f'data-picture="{escape(key)}"'


def photo_part(answer: Answer, pictures: Pictures) -> str:
    """Show the photo, where its mask comes from, and a sentence on the result."""
    name, how = escape(answer.question.name), escape(answer.query.how)
    outline = "" if answer.query.mask is None else "; the red line is the mask's outline"
    return (
        f'<figure class="cmic-photo"><img {pictures.photo(answer)} alt="The photo {name}{outline}">'
        f"<figcaption>{name}<br>Object: {how}.</figcaption></figure><p>{verdict(answer)}</p>"
    )


def verdict(answer: Answer) -> str:
    """Say in a sentence whether the first shape is right, and by how much."""
    first = answer.found[0]
    found = f"<b>{escape(first.shape_id)}</b> comes first with score {first.score:.3f}"
    if answer.rank is None:
        lead = "" if answer.lead is None else f", {answer.lead:.3f} before the second"
        return f"{found}{lead}. Which shape is the right one is not known here."
    if answer.rank == 1:
        margin = "" if answer.margin is None else f", {answer.margin:.3f} before the best wrong shape"
        return f"<b>✓ Right.</b> {found}{margin}."
    return (
        f"<b>✗ Wrong.</b> {found}; the own shape {escape(answer.own or '')} has rank {answer.rank}, "
        f"{-(answer.margin or 0):.3f} behind the first wrong one."
    )


def ranking(answer: Answer, pictures: Pictures, buttons: bool = False) -> str:
    """List the shapes found, best first, each by its strongest view; with ``buttons`` as buttons."""
    items = []
    for each in answer.found:
        right, tick = (", the right one", "✓ ") if each.right else ("", "")
        inner = (
            f'<img {pictures.view(each.row, int(each.weights.argmax()))} alt="Rank {each.rank}: {escape(each.shape_id)}'
            f'{right}"><span class="cmic-score">{each.rank}. {tick}{each.score:.3f}</span>'
            f"<span>{escape(each.category)}</span>"
        )
        if buttons:
            inner = f'<button type="button" data-rank="{each.rank}" aria-pressed="false">{inner}</button>'
        items.append(f'<li class="{"cmic-right" if each.right else ""}" title="{escape(each.shape_id)}">{inner}</li>')
    return f'<ol class="cmic-ranking" aria-label="Shapes found, best first">{"".join(items)}</ol>'


def view_part(found: Found, azimuths: tuple[float, ...], pictures: Pictures) -> str:
    """Show all views of a shape, with a bar as long as the view's weight."""
    strongest = int(found.weights.argmax())
    items = [
        f'<li class="{"cmic-strongest" if v == strongest else ""}">'
        f'<img {pictures.view(found.row, v)} alt="View from {azimuth:.0f} degrees, weight {weight:.2f}">'
        f'<span class="cmic-bar" style="width:{100 * weight / found.weights[strongest]:.0f}%"></span>'
        f"<span>{azimuth:.0f}°: {weight:.2f}</span></li>"
        for v, (azimuth, weight) in enumerate(zip(azimuths, found.weights, strict=True))
    ]
    return (
        f"<h4>{found.rank}. {escape(found.shape_id)} ({escape(found.category)}): its views, and how much each counted"
        f'</h4><ul class="cmic-views">{"".join(items)}</ul>'
    )


def model_uri(gallery: Benchmark, shape_id: str) -> str | None:
    """Return a shape's mesh as a data URI, or None if the gallery has no meshes."""
    try:
        content = read_limited(gallery.mesh_path(shape_id), MESH_LIMIT, BenchmarkError)
    except MissingArrayError:
        return None
    return f"data:model/gltf-binary;base64,{base64.b64encode(content).decode()}"


def viewer_part(uri: str | None, shape_id: str) -> str:
    """Show a mesh that mouse, touch and arrow keys turn."""
    if uri is None:
        return "<p>This gallery has no meshes to show.</p>"
    source = f'src="{uri}" ' if uri else ""
    return (
        f'<model-viewer {source}camera-controls interaction-prompt="none" camera-orbit="30deg 70deg auto" '
        f'shadow-intensity="0.6" class="cmic-model" alt="3D model of {escape(shape_id)}"></model-viewer>'
        '<p class="cmic-note">Turn it with the mouse, by touch or with the arrow keys.</p>'
    )


def map_part(uri: str, left: float, top: float) -> str:
    """Show the map and the photo's place on it, in per cent from the left and from the top."""
    return (
        f'<figure class="cmic-map"><div><img src="{uri}" alt="Map of test photos and shapes, by category">'
        f'<span class="cmic-here" style="left:{left:.1f}%;top:{top:.1f}%" role="img" '
        f'aria-label="The photo lies {left:.0f} per cent from the left and {top:.0f} per cent from the top"></span>'
        "</div><figcaption>The ring is this photo's place: that of its nearest neighbours in the common space. "
        "Distances on such a map mean little.</figcaption></figure>"
    )


def message(error: CMICError) -> str:
    """Show an error and its cure, without the path that the command line prints."""
    cure = f" <b>How to fix:</b> {escape(error.fix)}." if error.fix else ""
    return f'<p class="cmic-error" role="alert"><b>{escape(error.problem)}.</b>{cure}</p>'
