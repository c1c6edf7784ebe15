"""A mask for a photo that comes without one: GrabCut, started from a box around the object.

GrabCut (Rother, Kolmogorov and Blake, 2004) fits colours to what lies outside the box and to what lies inside, and cuts
along edges; colours that also occur outside become background. It knows nothing about objects, so a mask of almost
nothing or almost everything is dropped, and the box itself is the mask.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from ..errors import ImageError
from .images import clip_box, square_crop

LONGEST = 256  # pixels; a cut takes at most a second at this size, nearly two at 320
ROUNDS = 5
BORDER = 0.02  # of the shorter side: the border of a photo without a box is surely background
SURROUNDINGS = 0.25  # of the box's sides: this far around it, colours count as background
LEAST, MOST = 0.05, 0.98  # of the box's area: a mask outside these limits shows no object
SPECK = 0.05  # of the largest component's area: smaller components are dropped
SMALLEST = 8  # pixels a side: smaller photos have too few colours to tell apart
PLAIN = 12  # grays: where the border differs less from its own colour, what differs more is the object
OPAQUE = "the opaque part of the photo as mask"
"""How the mask of a cut-out was found."""
ALONE = "what stands alone on a plain ground as mask"
"""How the mask was found where surroundings are plain."""
Box = tuple[float, float, float, float]


class Foreground(NamedTuple):
    """A mask, and in words where it comes from."""

    mask: np.ndarray  # bool (H, W)
    how: str


class CutOut(NamedTuple):
    """A query cut out of a photo."""

    image: np.ndarray  # uint8 (4, S, S), RGB and mask
    mask: np.ndarray | None  # bool (H, W), in the photo's pixels; None: no mask was used
    how: str  # in words, how the mask was found automatically; empty: it was not


def cut_object(
    photo: np.ndarray,
    mask: np.ndarray | None = None,
    box: Box | None = None,
    automatic: bool = False,
    size: int = 224,
) -> CutOut:
    """Cut the square around an object out of its photo, as `cmiclib.io.images.square_crop` does.

    Args:
        photo: uint8 RGB (H, W, 3).
        mask: bool (H, W) of the object; where there is a box as well, only what lies in the box counts.
        box: x0, y0, x1, y1 of the object in pixels.
        automatic: find a mask where there is none.
        size: side S of the result in pixels.

    Raises:
        ImageError: mask and photo differ in size, the box lies outside the photo, or the mask marks nothing in the box.
    """
    how = ""
    if mask is None and automatic:
        mask, how = automatic_mask(photo, box)
    elif mask is not None and box is not None:
        x0, y0, x1, y1 = _pixels(box, *photo.shape[:2])
        whole, mask = mask, np.zeros_like(mask)
        mask[y0:y1, x0:x1] = whole[y0:y1, x0:x1]
        if not mask.any():
            raise ImageError("the mask marks nothing within the box", fix="correct the mask or the box")
    return CutOut(square_crop(photo, mask, box, size=size), mask, how)


def automatic_mask(photo: np.ndarray, box: Box | None = None) -> Foreground:
    """Cut a photo's object out; the same photo and box always give the same mask.

    Args:
        photo: uint8 RGB (H, W, 3).
        box: x0, y0, x1, y1 of the object in pixels. None: the object fills the photo but for a thin border.

    Returns:
        A mask bool (H, W) within the box, never empty, and where it comes from.

    Raises:
        ImageError: the box has no area inside the photo.
    """
    height, width = photo.shape[:2]
    x0, y0, x1, y1 = inner = _pixels(_thin_border(height, width) if box is None else box, height, width)
    apart = _apart(photo, inner) if box is None else None
    if apart is not None:
        if not apart.any():
            how = "the whole photo as mask, because the automatic one kept next to nothing"
            return Foreground(np.ones((height, width), bool), how)
        rows, columns = np.flatnonzero(apart.any(axis=1)), np.flatnonzero(apart.any(axis=0))
        x0, y0, x1, y1 = inner = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    left, top, right, bottom = _surroundings(inner, height, width)
    local = (x0 - left, y0 - top, x1 - left, y1 - top)
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = _cut(photo[top:bottom, left:right], local)
    share = mask.sum() / ((x1 - x0) * (y1 - y0))
    start = "the whole photo" if box is None else "the box"
    if LEAST <= share <= MOST or (apart is not None and share > MOST):
        return Foreground(mask, f"automatic mask {'of' if box is None else 'from'} {start}")
    if apart is not None:
        return Foreground(apart, "what differs from the photo's plain surroundings as mask")
    if box is None:
        mask[:] = True
    else:
        mask[y0:y1, x0:x1] = True
    what = "next to nothing" if share < LEAST else "all of it"
    return Foreground(mask, f"{start} as mask, because the automatic one kept {what}")


def own_mask(photo: np.ndarray, opaque: np.ndarray | None = None, box: Box | None = None) -> Foreground | None:
    """Return the mask that a photo brings along, or None.

    It is what is ``opaque``, bool (H, W), in a cut-out; else, where no ``box`` says what counts, the object that stands
    alone before plain surroundings, as in a catalogue: there a mask is certain. ``photo`` is uint8 RGB (H, W, 3).
    """
    if opaque is not None:
        return Foreground(opaque, OPAQUE)
    if box is not None:
        return None
    apart = _apart(photo, _pixels(_thin_border(*photo.shape[:2]), *photo.shape[:2]))
    return None if apart is None or not apart.any() else Foreground(automatic_mask(photo).mask, ALONE)


def _apart(photo: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray | None:
    """Return what differs from plain surroundings, bool (H, W), without specks; None: outside the box they are not."""
    inside = np.zeros(photo.shape[:2], bool)
    inside[box[1] : box[3], box[0] : box[2]] = True
    inside[0] = inside[-1] = inside[:, 0] = inside[:, -1] = False
    border = photo[~inside]
    ground = np.median(border[:: 1 + len(border) // 100_000], axis=0)
    far = cv2.inRange(photo, np.clip(ground - PLAIN, 0, 255), np.clip(ground + PLAIN, 0, 255)) == 0
    return None if far[~inside].mean() > 0.01 else _without_specks(far)


def _thin_border(height: int, width: int) -> Box:
    border = round(BORDER * min(height, width))
    return border, border, width - border, height - border


def _pixels(box: Box, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the whole pixels that the box touches."""
    x0, y0, x1, y1 = clip_box(box, height, width)
    return math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)


def _surroundings(box: tuple[int, int, int, int], height: int, width: int) -> tuple[int, int, int, int]:
    """Return the box with its surroundings; farther away the object's own colours may occur."""
    x0, y0, x1, y1 = box
    dx, dy = (2 + round(SURROUNDINGS * side) for side in (x1 - x0, y1 - y0))
    return max(x0 - dx, 0), max(y0 - dy, 0), min(x1 + dx, width), min(y1 + dy, height)


def _cut(photo: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return GrabCut's foreground inside the box, bool (H, W), without specks; all False where it cannot start."""
    height, width = photo.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    if min(small) < SMALLEST:
        return np.zeros((height, width), bool)
    image = cv2.resize(photo, small, interpolation=cv2.INTER_AREA)
    labels = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)  # (h, w)
    x0, y0, x1, y1 = (round(side * scale) for side in box)
    # GrabCut needs some background, so a border of one pixel stays even where the box fills the photo.
    labels[max(y0, 1) : min(y1, small[1] - 1), max(x0, 1) : min(x1, small[0] - 1)] = cv2.GC_PR_FGD
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(image, labels, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # fewer pixels on one side than colours to fit
        return np.zeros((height, width), bool)
    kept = _without_specks((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))
    full = cv2.resize(kept.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5
    inside = np.zeros((height, width), bool)
    inside[box[1] : box[3], box[0] : box[2]] = True
    return full & inside


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """Drop components of a mask (h, w) that are tiny beside the largest; holes stay, because chairs have them."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    area = stats[:, cv2.CC_STAT_AREA]  # (count,), the first is the background
    if count < 2:
        return mask
    keep = area >= SPECK * area[1:].max()
    keep[0] = False
    return keep[labels]
