"""An answer as HTML that a screen reader reads in order: photo, ranking, views with their weights, model, map.

The live widget and the static page show the same parts. The widget embeds each picture where it stands; the static page
keeps each picture once, and its script fills in those that the reader looks at (``data-picture``).
"""

import base64
import io
from html import escape
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..benchmark import Benchmark
from ..errors import BenchmarkError, CMICError, MissingArrayError
from ..evaluation.projection import Atlas
from ..io.files import read_limited
from ..io.images import clip_box, square_around
from .retriever import Answer, Found, Retriever

HERE = Path(__file__).parent
STYLE = f"<style>\n{(HERE / 'browser.css').read_text('utf-8')}</style>"
THUMBNAIL, PHOTO = 128, 360  # pixels a side at most
MODEL_LIMIT = 1 << 28  # bytes of a simplified mesh


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
    outline = outline if guessed(answer) is None else "; the blue line is the guessed outline"
    return (
        f'<figure class="cmic-photo"><img {pictures.photo(answer)} alt="The photo {name}{outline}">'
        f"<figcaption>{name}<br>Object: {how}.</figcaption></figure><p>{escape(verdict(answer))}</p>"
    )


def verdict(answer: Answer) -> str:
    """Say in a sentence whether the first shape is right, and by how much; plain text."""
    first = answer.found[0]
    found = f"{first.shape_id} comes first with score {first.score:.3f}"
    if answer.own is None or answer.rank is None:
        lead = "" if answer.lead is None else f", {answer.lead:.3f} before the second"
        return f"{found}{lead}. Which shape is the right one is not known here."
    if answer.rank == 1:
        margin = "" if answer.margin is None else f", {answer.margin:.3f} before the best wrong shape"
        return f"✓ Right. {found}{margin}."
    return (
        f"✗ Wrong. {found}; the own shape {answer.own.shape_id} has rank {answer.rank}, "
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
        content = read_limited(gallery.mesh_path(shape_id), MODEL_LIMIT, BenchmarkError)
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


def webp(pixels: np.ndarray, side: int = THUMBNAIL, lossless: bool = False) -> bytes:
    """Encode gray (H, W) or RGB (H, W, 3) uint8 as WebP of at most ``side`` pixels a side."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, lossless=lossless, method=2)  # twice as fast, 5 % larger
    return buffer.getvalue()


def data_uri(pixels: np.ndarray, side: int = THUMBNAIL, lossless: bool = False) -> str:
    """Return what :func:`webp` makes as a data URI."""
    return f"data:image/webp;base64,{base64.b64encode(webp(pixels, side, lossless)).decode()}"


def guessed(answer: Answer) -> np.ndarray | None:
    """Return where the learnt silhouette sees the object, (H, W) bool in the photo's pixels.

    None: it was not asked, or it sees nothing or everything.
    """
    photo, box, soft = answer.question.photo, answer.question.in_photo(answer.choice.box), answer.query.soft
    if box is None or soft is None:
        return None
    (height, width), (left, top, length) = photo.shape[:2], square_around(clip_box(box, *photo.shape[:2]))
    pixels = len(soft) / length  # of the silhouette for one of the photo
    place = np.array([[pixels, 0, (0.5 - left) * pixels - 0.5], [0, pixels, (0.5 - top) * pixels - 0.5]])
    soft = np.ascontiguousarray(soft[:, ::-1] if answer.choice.mirror else soft)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    area = np.asarray(cv2.warpAffine(soft, place, (width, height), flags=how) >= 0.5)
    return area if area.any() and not area.all() else None


def outlined(answer: Answer, side: int = PHOTO) -> np.ndarray:
    """Return the photo, (h, w, 3) uint8 and ``side`` pixels long, with the outlines of box, mask and silhouette."""
    photo, mask, box = answer.question.photo, answer.query.mask, answer.question.in_photo(answer.choice.box)
    scale = side / max(photo.shape[:2])
    size = tuple(max(1, round(length * scale)) for length in photo.shape[1::-1])
    drawn = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS)).copy()
    white, red, blue = (255, 255, 255), (213, 94, 0), (0, 114, 178)
    for area, ink in ((mask, red), (guessed(answer), blue)):
        if area is not None and not area.all():
            small = cv2.resize(area.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
            contours, _ = cv2.findContours(small, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            for color, width in ((white, 3), (ink, 1)):
                cv2.drawContours(drawn, contours, -1, color, width)
    if box is not None:
        corners = [round(side * scale) for side in box]
        for color, width in ((white, 3), ((0, 0, 0), 1)):
            cv2.rectangle(drawn, corners[:2], corners[2:], color, width)
    return drawn[:, ::-1] if answer.choice.mirror else drawn


class MapPicture:
    """The map as one picture, :func:`cmiclib.figures.embedding_map`, drawn once, and where places lie on it."""

    def __init__(self, atlas: Atlas):
        from .. import figures  # takes a moment to load, and only maps and exports need it

        figure = figures.embedding_map(atlas.places, list(atlas.category), atlas.is_photo)
        figure.set_dpi(80)
        self.uri = data_uri(np.asarray(figures.drawn(figure)), side=800)
        self.corners = figures.map_corners(figure)  # (2, 2)

    def percent(self, place: np.ndarray) -> tuple[float, float]:
        """Return a place (2,) in per cent of the picture from the left and from the top."""
        from ..figures import on_picture

        left, top = on_picture(self.corners, place)
        return float(left), float(top)


def answer_png(retriever: Retriever, answer: Answer, chosen: int = 0) -> bytes:
    """Draw an answer's ranking as a PNG, and below it the views of ``answer.found[chosen]`` with their weights."""
    from .. import figures

    views, query = retriever.gallery.views, answer.query.image[None]
    found = np.stack([views[each.row, each.weights.argmax()] for each in answer.found])[None]  # (1, k, S, S)
    own = None if answer.own is None else views[answer.own.row, answer.own.weights.argmax()][None]
    scores = np.array([[each.score for each in answer.found]])
    right = np.array([[each.right for each in answer.found]])
    ranking = figures.retrieval_rows(query, own, found, scores, right)
    one = answer.found[chosen]
    label = [f"{one.rank}. {one.shape_id}"]
    attended = figures.attended_views(query, views[one.row][None], one.weights[None], label, retriever.azimuths)
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([figures.drawn(ranking), figures.drawn(attended)])).save(buffer, "PNG")
    return buffer.getvalue()
