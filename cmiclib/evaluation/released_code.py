"""What the released code does: pictures one by one with PIL, scores photo by photo.

It serves to compare results and speed; training and evaluation use :mod:`cmiclib.augment` and :mod:`cmiclib.model`, on
whole batches. Given the same random draws, the pictures equal the released ones bit by bit.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Crop = tuple[int, int, int, int]  # top, left, height and width in pixels


def released_photo(
    image: Image.Image, mask: Image.Image, shift: tuple[float, float], crop: Crop, flip: bool, size: int
) -> Tensor:
    """Shift, crop, resize and mirror a photo (RGB) and its mask (gray) alike, before the colour transfer.

    The shift is in pixels to the right and down, black fills the gap; the crop is taken after it, and ``flip`` mirrors
    left and right. Returns float32 (4, size, size): RGB and mask, all in [0, 1].
    """
    right, down = shift
    parts = []
    for picture in (image, mask):
        moved = picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, -right, 0, 1, -down))
        parts.append(np.atleast_3d(np.asarray(_cut(moved, crop, flip, size))))
    return torch.from_numpy(np.concatenate(parts, axis=2)).permute(2, 0, 1).float() / 255


def released_view(view: Image.Image, crop: Crop, flip: bool, size: int) -> Tensor:
    """Crop, resize and mirror a gray view; returns float32 (1, size, size) in [-1, 1]."""
    return torch.from_numpy(np.array(_cut(view, crop, flip, size)))[None].float() / 127.5 - 1


def released_scores(query: Tensor, views: Tensor, weight: Tensor, unused: Tensor | None = None) -> Tensor:
    """Score as the released code does: photo by photo, repeating the vector for every shape, building each descriptor.

    Arguments are those of :func:`cmiclib.model.attention_scores`. ``unused`` (d, 2·d) is the attention's second layer,
    which the released code computes for every photo and shape and discards; given it, this takes most of the time.
    """
    rows = []
    for vector in query:
        repeated = vector.repeat(len(views), 1)  # (N, d)
        share = torch.bmm((repeated @ weight.T)[:, None], views.transpose(1, 2)).softmax(dim=-1)  # (N, 1, V)
        descriptors = torch.bmm(share, views)[:, 0]  # (N, d)
        if unused is not None:
            torch.tanh(torch.cat([descriptors, repeated], dim=1) @ unused.T)  # (N, d)
        rows.append((repeated * descriptors).sum(dim=1))
    return torch.stack(rows)


def _cut(picture: Image.Image, crop: Crop, flip: bool, size: int) -> Image.Image:
    top, left, height, width = crop
    cut = picture.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else cut
