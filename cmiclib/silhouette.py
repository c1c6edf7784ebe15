"""Where in a box its object is: a soft silhouette, in most cases also where something hides the object.

It is not part of the paper, which assumes masks. The maps of a frozen EfficientNet-Lite0 (ImageNet's weights), at five
sizes, and the box pass a light decoder, which learnt on renderings of Pix3D's and Sweet Home's shapes before and behind
other ones (`tools/pack/train_silhouette.py`). A silhouette is uncertain, so it does not decide: a photo is embedded as
it is and softly cut out, and the mean of both vectors is the query.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig
from .crops import resample
from .encoders import Encoder
from .engine.folded import fold
from .errors import CheckpointError
from .io.code import WEIGHTS
from .io.files import check_regular, reason
from .weights import PACKAGED, load_initial_weights

SIDE = 128  # pixels of a crop that the network sees
STAGES = (1, 2, 3, 5, 7)  # whose maps are used: at 1/2, 1/4, 1/8, 1/16 and 1/32 of the side
CHANNELS = (16, 24, 40, 112, 320)  # of these maps
WIDTHS = (16, 24, 48, 64, 96)  # of the decoder at the same sizes
BATCH = 32
FILE = WEIGHTS / "silhouette" / "model.safetensors"


class Block(nn.Module):
    """A convolution with a normalisation that does not depend on the batch."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(8, outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, inputs, h, w) to (B, outputs, h, w)."""
        return F.relu(self.norm(self.conv(maps)))


class Silhouette(nn.Module):
    """Crops (B, 3, S, S) in [-1, 1] and boxes (B, 1, S, S) of 0 and 1 → logits (B, 1, S / 2, S / 2).

    Only the decoder learns and is saved. A box of ones everywhere says nothing, and the decoder is told so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.ModuleList(nn.BatchNorm2d(width, affine=False) for width in CHANNELS)
        self.lateral = nn.ModuleList(
            nn.Conv2d(given + 2, width, 1) for given, width in zip(CHANNELS, WIDTHS, strict=True)
        )
        deeper = (*WIDTHS[1:], 0)
        self.mix = nn.ModuleList(Block(width + more, width) for width, more in zip(WIDTHS, deeper, strict=True))
        self.deep = Block(WIDTHS[-1], WIDTHS[-1])
        self.refine, self.logit = nn.Conv2d(WIDTHS[0] + 4, 16, 3, padding=1), nn.Conv2d(16, 1, 1)
        self.stages = [_frozen_stages()]  # in a list, so that they are neither saved nor trained

    @torch.no_grad()
    def maps(self, crops: Tensor) -> list[Tensor]:
        """Run the frozen network: the maps of `STAGES`, largest first."""
        kept, maps = [], crops.contiguous(memory_format=torch.channels_last)
        for number, stage in enumerate(self.stages[0]):
            maps = stage(maps)
            if number in STAGES:
                kept.append(maps)
        return kept

    def forward(self, crops: Tensor, boxes: Tensor) -> Tensor:
        """Return the logits of belonging to the object."""
        all_maps, found = self.maps(crops), None
        says = boxes.amin((1, 2, 3), keepdim=True).lt(0.5).float()  # (B, 1, 1, 1)
        for maps, scale, lateral, mix in reversed(list(zip(all_maps, self.scale, self.lateral, self.mix, strict=True))):
            box = F.interpolate(boxes, maps.shape[-2:], mode="area")
            part = lateral(torch.cat([scale(maps), box, says.expand_as(box)], 1))
            if found is None:
                found = mix(F.relu(part))
                found = found + self.deep(found)
            else:
                larger = F.interpolate(found, maps.shape[-2:], mode="bilinear", align_corners=False)
                found = mix(F.relu(torch.cat([part, larger], 1)))
        assert found is not None
        given = [F.interpolate(each, found.shape[-2:], mode="area") for each in ((crops + 1) / 2, boxes)]
        return self.logit(F.relu(self.refine(torch.cat([found, *given], 1))))


def _frozen_stages() -> list[nn.Module]:
    encoder = Encoder(PACKAGED, 3, ModelConfig(query_backbone=PACKAGED, frozen=8, mask="cutout", image_size=SIDE))
    load_initial_weights(encoder, PACKAGED, "imagenet")
    return [fold(stage) for stage in encoder.eval().stages]


@lru_cache(maxsize=1)
def load_silhouette(path: Path = FILE) -> Silhouette:
    """Return the trained network; CheckpointError if its file is missing, damaged or of another network."""
    fix = "restore it, or make it with tools/pack/train_silhouette.py"
    check_regular(path, CheckpointError, fix=fix)
    with torch.random.fork_rng(devices=[]):  # weights that are replaced draw no numbers of others
        network = Silhouette()
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()}, strict=True)
    except Exception as error:
        raise CheckpointError(f"not the weights of silhouettes ({reason(error)})", path=path, fix=fix) from None
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@torch.no_grad()
def silhouettes(crops: np.ndarray, boxes: np.ndarray, network: Silhouette | None = None) -> np.ndarray:
    """Return how sure each pixel belongs to the object, (Q, S, S) float32 in [0, 1].

    Args:
        crops: (Q, 3 or 4, S, S) uint8, RGB first; squares around the boxes, as `cmiclib.io.images.square_crop` cuts.
        boxes: (Q, 4), x0, y0, x1, y1 of the objects as shares of the side; 0, 0, 1, 1 says nothing.
        network: default: the shipped one. A crop and its mirror image are averaged.
    """
    network, found = network or load_silhouette(), []
    edges = (torch.arange(SIDE) + 0.5) / SIDE
    for start in range(0, len(crops), BATCH):
        block = torch.from_numpy(np.ascontiguousarray(crops[start : start + BATCH, :3]))
        x0, y0, x1, y1 = torch.from_numpy(np.asarray(boxes[start : start + BATCH], np.float32)).T.unsqueeze(-1)
        rows, columns = (edges >= y0) & (edges <= y1), (edges >= x0) & (edges <= x1)  # (b, SIDE)
        box = (rows.unsqueeze(-1) & columns.unsqueeze(-2)).float().unsqueeze(1)  # (b, 1, SIDE, SIDE)
        small = resample(block, SIDE) / 127.5 - 1
        pairs = torch.cat([small, small.flip(-1)]), torch.cat([box, box.flip(-1)])
        large = F.interpolate(network(*pairs), crops.shape[-2:], mode="bilinear", align_corners=False).sigmoid()
        plain, mirrored = large.squeeze(1).chunk(2)
        found.append((plain + mirrored.flip(-1)) / 2)
    return torch.cat(found).numpy() if found else np.zeros((0, *crops.shape[-2:]), np.float32)


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Return the boxes of masks bool (Q, S, S), none of them empty: (Q, 4), x0, y0, x1, y1 as shares of the side."""
    ends = []
    for axis in (1, 2):  # columns, then rows
        covered = np.asarray(masks.any(axis))
        ends.append((covered.argmax(1), covered.shape[1] - covered[:, ::-1].argmax(1)))
    (left, right), (top, bottom) = ends
    return np.stack([left, top, right, bottom], axis=1) / masks.shape[-1]


def cut_softly(crops: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """Blend photos (Q, 4, S, S) uint8 with white where their silhouettes (Q, S, S) say so; the mask becomes 255."""
    alpha = soft[:, None]
    rgb = np.rint(crops[:, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.concatenate([rgb, np.full_like(crops[:, 3:], 255)], axis=1)
