"""Pictures of a page: encoded from pixels, and the figures of an answer."""

import base64
import io
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from .. import figures
from ..evaluation.projection import Atlas
from ..figures.style import RED
from .retriever import Answer, Retriever

THUMBNAIL, PHOTO = 128, 360  # pixels a side at most


def data_uri(pixels: np.ndarray, side: int = THUMBNAIL) -> str:
    """Encode gray (H, W) or RGB (H, W, 3) uint8 as WebP of at most ``side`` pixels a side."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def outlined(answer: Answer, side: int = PHOTO) -> np.ndarray:
    """Return the photo, (h, w, 3) uint8 and ``side`` pixels long, with the outlines of box and mask."""
    photo, mask, box = answer.question.photo, answer.query.mask, answer.question.in_photo(answer.choice.box)
    scale = side / max(photo.shape[:2])
    size = tuple(max(1, round(length * scale)) for length in photo.shape[1::-1])
    drawn = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS)).copy()
    white, red = (255, 255, 255), tuple(int(255 * part) for part in to_rgb(RED))
    if mask is not None and not mask.all():
        small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
        contours, _ = cv2.findContours(small, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for color, width in ((white, 3), (red, 1)):
            cv2.drawContours(drawn, contours, -1, color, width)
    if box is not None:
        corners = [round(side * scale) for side in box]
        for color, width in ((white, 3), ((0, 0, 0), 1)):
            cv2.rectangle(drawn, corners[:2], corners[2:], color, width)
    return drawn[:, ::-1] if answer.choice.mirror else drawn


@dataclass(frozen=True)
class MapPicture:
    """The map as one picture, drawn once, and where places lie on it."""

    uri: str
    low: np.ndarray  # (2,) the place at the picture's left lower corner
    high: np.ndarray  # (2,) at its right upper one

    @classmethod
    def draw(cls, atlas: Atlas) -> "MapPicture":
        """Draw :func:`cmiclib.figures.embedding_map` once."""
        figure = figures.embedding_map(atlas.places, list(atlas.category), atlas.is_photo)
        figure.set_dpi(80)
        pixels = _drawn(figure)
        to_place = figure.axes[0].transData.inverted().transform
        return cls(data_uri(pixels, side=800), to_place((0, 0)), to_place(pixels.shape[1::-1]))

    def percent(self, place: np.ndarray) -> tuple[float, float]:
        """Return a place (2,) in per cent of the picture from the left and from the top."""
        left, up = 100 * (place - self.low) / (self.high - self.low)
        return float(left), float(100 - up)


def answer_png(retriever: Retriever, answer: Answer, chosen: int = 0) -> bytes:
    """Draw an answer's ranking as a PNG, and below it the views of ``answer.found[chosen]`` with their weights."""
    views, query = retriever.gallery.views, answer.query.image[None]
    found = np.stack([views[each.row, each.weights.argmax()] for each in answer.found])[None]  # (1, k, S, S)
    own = None
    if answer.own is not None:
        row = retriever.index.shape_ids.index(answer.own)
        weights = retriever.index.view_weights(answer.vector[None], torch.tensor([[row]]))[0, 0]
        own = views[row, int(weights.argmax())][None]
    scores = np.array([[each.score for each in answer.found]])
    right = np.array([[each.right for each in answer.found]])
    ranking = figures.retrieval_rows(query, own, found, scores, right)
    one = answer.found[chosen]
    label = [f"{one.rank}. {one.shape_id}"]
    attended = figures.attended_views(query, views[one.row][None], one.weights[None], label, retriever.azimuths)
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([_drawn(ranking), _drawn(attended)])).save(buffer, "PNG")
    return buffer.getvalue()


def _drawn(figure: Figure) -> np.ndarray:
    """Return a figure's pixels, (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
