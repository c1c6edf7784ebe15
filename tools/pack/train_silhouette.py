"""Train `data/weights/silhouette`, the soft silhouette of what stands in a box, on pictures composed of renderings.

    python tools/pack/train_silhouette.py --photos BENCHMARK --work DIR [--steps 6000] [--start FILE]

``BENCHMARK`` holds rendered photos with masks of whole objects, and of what is visible where something hides a part:
`tools/pack/train_general.py` makes one of Pix3D's and Sweet Home's shapes, without test photos and without shapes that
Sweet Home holds out. Each picture is new: an object, with its own surroundings or cut out, before other photos and
objects, behind further ones, in other colours, in a frame that can cut it off, in a box that is a little wrong or says
nothing. A second call goes on where the first one stopped. With ``--start`` a new training begins with earlier weights,
and with other pictures.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange

from cmiclib.benchmark import Benchmark
from cmiclib.engine.memory import keep_memory
from cmiclib.silhouette import SIDE, Silhouette, load_silhouette

BATCH, RATE, DECAY, WARMUP = 32, 2e-3, 0.01, 50
SAVE_EVERY, JUDGED, SEED = 250, 256, 1
KEEPS_SURROUNDINGS = 0.35  # of the photos
BEHIND, IN_FRONT = (0.6, 0.6, 0.6), (0.35, 0.2)  # chances of an object there
MOST_HIDDEN = 0.45  # of an object, by one thing
CUT_OFF, SILENT = 0.3, 0.15  # of the frames cut the object off; of the boxes say nothing


def uniform(generator: torch.Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Draw numbers between two bounds."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def place(
    images: Tensor, centre: Tensor, scale: Tensor, flip: Tensor, padding: str = "zeros", turn: Tensor | None = None
) -> Tensor:
    """Sample the square of half side ``scale`` about ``centre`` (n, 2), both in [-1, 1] coordinates: (n, C, S, S)."""
    turn = torch.zeros(len(images)) if turn is None else turn
    cosine, sine = turn.cos(), turn.sin()
    first = torch.stack([scale * flip * cosine, -scale * sine, centre[:, 0]], dim=1)
    second = torch.stack([scale * flip * sine, scale * cosine, centre[:, 1]], dim=1)
    grid = F.affine_grid(torch.stack([first, second], 1), [len(images), images.shape[1], SIDE, SIDE], False)
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def recolour(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """Change gain of each channel, gamma and saturation of pictures (n, 3, S, S) in [0, 1]."""
    gain = uniform(generator, (len(rgb), 3, 1, 1), -0.25, 0.25).exp()
    gamma = uniform(generator, (len(rgb), 1, 1, 1), -0.5, 0.5).exp()
    gray, saturation = rgb.mean(1, keepdim=True), uniform(generator, (len(rgb), 1, 1, 1), 0, 1.1)
    return ((gray + (rgb - gray) * saturation).clamp(1e-4, 1) ** gamma * gain).clamp(0, 1)


def soften(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Blur the edges of masks (n, 1, S, S), each by another amount."""
    kernel = torch.tensor([1.0, 2, 1])
    blurred = F.conv2d(F.pad(masks, (1, 1, 1, 1), mode="replicate"), (kernel[:, None] * kernel / 16)[None, None])
    return torch.lerp(masks, blurred, torch.rand(len(masks), 1, 1, 1, generator=generator))


class Pictures:
    """Composes pictures of photos (n, 5, S, S) uint8: RGB, the photo's mask, that of the whole object."""

    def __init__(self, photos: Tensor):
        self.photos = photos

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return RGB (n, 3, S, S), the whole object's mask and the box, both (n, 1, S, S), all in [0, 1]."""
        rgb, mask, alpha = self._object(count, generator)
        rgb = torch.lerp(self._ground(count, generator), rgb, alpha)
        for chance in IN_FRONT:
            at = draw_rows(count, chance, generator)
            thing, covers = self._thing(len(at), generator, (1.2, 4.0), 1.0)
            hidden = (covers * mask[at]).sum((1, 2, 3)) / mask[at].sum((1, 2, 3)).clamp(min=1)
            rgb[at] = torch.lerp(rgb[at], thing, covers * (hidden < MOST_HIDDEN).view(-1, 1, 1, 1))
        rgb, frame = cut_off(self._develop(rgb, generator), generator)
        return rgb, mask, draw_boxes(mask * frame, generator)

    def _take(self, count: int, generator: torch.Generator) -> Tensor:
        return self.photos[torch.randint(len(self.photos), (count,), generator=generator)].float() / 255

    def _object(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        photo, scale = self._take(count, generator), uniform(generator, (count,), 0.75, 1.1)
        far = torch.rand(count, generator=generator) < 0.25
        scale = torch.where(far, uniform(generator, (count,), 1.1, 2.0), scale)
        centre = uniform(generator, (count, 2), -1, 1) * (0.6 * (scale - 0.8).clamp(min=0.05))[:, None]
        turn = uniform(generator, (count,), -0.15, 0.15) * (torch.rand(count, generator=generator) < 0.3)
        flip = signs(count, generator)
        rgb = recolour(place(photo, centre, scale, flip, "border", turn)[:, :3], generator)
        visible, mask = place(photo[:, 3:], centre, scale, flip, "zeros", turn).split(1, dim=1)
        inside = place(torch.ones(count, 1, 8, 8), centre, scale, flip, "zeros", turn)
        keeps = torch.rand(count, 1, 1, 1, generator=generator) < KEEPS_SURROUNDINGS
        return rgb, mask, torch.maximum(soften(torch.maximum(visible, mask), generator), inside * keeps)

    def _thing(
        self, count: int, generator: torch.Generator, sizes: tuple[float, float], spread: float
    ) -> tuple[Tensor, Tensor]:
        scale = uniform(generator, (count,), math.log(sizes[0]), math.log(sizes[1])).exp()
        centre = uniform(generator, (count, 2), -1, 1) * (spread * scale)[:, None]
        thing = place(self._take(count, generator), centre, scale, signs(count, generator))
        return recolour(thing[:, :3], generator), soften(thing[:, 3:4], generator)

    def _ground(self, count: int, generator: torch.Generator) -> Tensor:
        centre, scale = uniform(generator, (count, 2), -0.5, 0.5), uniform(generator, (count,), 0.25, 1.2)
        photo = place(self._take(count, generator), centre, scale, signs(count, generator), "reflection")
        rgb = recolour(photo[:, :3], generator)
        for chance in BEHIND:
            at = draw_rows(count, chance, generator)
            thing, covers = self._thing(len(at), generator, (0.7, 4.0), 0.9)
            rgb[at] = torch.lerp(rgb[at], thing, covers)
        return rgb

    def _develop(self, rgb: Tensor, generator: torch.Generator) -> Tensor:
        """Light from a side, blur, noise, colours of the whole picture."""
        y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIDE)] * 2, indexing="ij")
        across, down = (uniform(generator, (len(rgb), 1, 1, 1), -0.35, 0.35) for _ in range(2))
        rgb = rgb * (1 + across * x + down * y)
        small = F.interpolate(F.interpolate(rgb, scale_factor=0.5, mode="area"), size=(SIDE, SIDE), mode="bilinear")
        rgb = torch.where(torch.rand(len(rgb), 1, 1, 1, generator=generator) < 1 / 3, small, rgb)
        noise = torch.randn(rgb.shape, generator=generator) * uniform(generator, (len(rgb), 1, 1, 1), 0, 0.03)
        return recolour((rgb + noise).clamp(0, 1), generator)


def draw_rows(count: int, chance: float, generator: torch.Generator) -> Tensor:
    """Draw rows, each with this chance, at least one: (n,) int64."""
    drawn = torch.rand(count, generator=generator)
    return torch.nonzero(drawn <= drawn.min().clamp(min=chance))[:, 0]


def signs(count: int, generator: torch.Generator) -> Tensor:
    """Draw -1 or 1, (n,): mirrored or not."""
    return 1 - 2.0 * torch.randint(2, (count,), generator=generator)


def cut_off(rgb: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Let some frames end early, where the edge repeats, as `square_crop` does; return pictures and frames."""
    count, steps = len(rgb), torch.arange(SIDE).float()
    cuts = torch.rand(count, 1, generator=generator) < CUT_OFF
    top, bottom, left, right = (
        SIDE * uniform(generator, (count, 4), -0.3, 0.3).clamp(min=0) * cuts
    ).T.unsqueeze(-1)  # fmt: skip
    rows, columns = (
        torch.minimum(torch.maximum(steps, low), SIDE - 1 - high).round().long()
        for low, high in ((top, bottom), (left, right))
    )  # (n, S) each
    across = torch.arange(count)[:, None, None]
    repeated = rgb[across, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    seen = [(steps >= low) & (steps <= SIDE - 1 - high) for low, high in ((top, bottom), (left, right))]
    return repeated, (seen[0][:, None, :, None] & seen[1][:, None, None, :]).float()


def draw_boxes(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Draw boxes around masks (n, 1, S, S), most of them a little too large or too small; some say nothing."""
    steps, wrong = torch.arange(SIDE).float(), torch.rand(len(masks), 1, generator=generator) < 0.7
    errors = uniform(generator, (len(masks), 4), -0.06, 0.08) * wrong
    inside = []
    for axis, (before, after) in ((3, (0, 1)), (2, (2, 3))):
        covered = (masks > 0.5).any(axis)[:, 0]  # (n, S) rows, then columns
        low = torch.where(covered, steps, 1e9).amin(1)
        high = torch.where(covered, steps, -1e9).amax(1) + 1
        length = high - low
        low, high = low - errors[:, before] * length, high + errors[:, after] * length
        inside.append((steps >= low[:, None] - 0.5) & (steps < high[:, None] - 0.5))
    boxes = (inside[0][:, None, :, None] & inside[1][:, None, None, :]).float()
    silent = torch.rand(len(masks), 1, 1, 1, generator=generator) < SILENT
    return torch.where(silent, torch.ones_like(boxes), boxes)


def loss(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return cross entropy plus one minus Dice, and the mean soft intersection over union."""
    large = F.interpolate(logits, masks.shape[-2:], mode="bilinear", align_corners=False)
    sure = large.sigmoid()
    both, each = (sure * masks).sum((1, 2, 3)), (sure + masks).sum((1, 2, 3))
    dice = 1 - (2 * both + 1) / (each + 1)
    return F.binary_cross_entropy_with_logits(large, masks) + dice.mean(), (both / (each - both).clamp(min=1)).mean()


def rate(step: int, steps: int) -> float:
    """Return the learning rate: a short warm-up, then a cosine to 0."""
    return RATE * min(1, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def photos_with_masks(benchmark: Benchmark, rows: np.ndarray) -> Tensor:
    """Return RGB, the photo's and the whole mask, (n, 5, S, S) uint8; where the whole one is not known, the photo's."""
    images, is_known = np.array(benchmark.images[rows]), "amodal.npy" in benchmark.arrays
    whole = np.array(benchmark.amodal[rows]) if is_known else np.zeros_like(images[:, 3])
    known = whole.any((1, 2))[:, None, None]
    return torch.from_numpy(np.concatenate([images, np.where(known, whole, images[:, 3])[:, None]], axis=1))


def main() -> None:
    """Train, going on from what is there, and write the decoder's weights in half precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, metavar="BENCHMARK")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument(
        "--start", type=Path, metavar="FILE", help="weights to begin a new training with, as this tool writes them"
    )
    given = parser.parse_args()
    keep_memory()
    benchmark = Benchmark.open(given.photos, verify=False)
    parts = {split: photos_with_masks(benchmark, benchmark.rows(split)) for split in ("train", "val")}
    torch.manual_seed(SEED)
    network = Silhouette().to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(SEED + bool(given.start))
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    if given.start:
        network.load_state_dict(load_silhouette(given.start).state_dict())
    given.work.mkdir(parents=True, exist_ok=True)
    kept, first = given.work / "state.pt", 0
    if kept.is_file():
        state = torch.load(kept, weights_only=True)  # noqa: TID251 (written below)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        generator.set_state(state["generator"])
        first = state["step"]
    pictures, judge = Pictures(parts["train"]), Pictures(parts["val"])
    for step in (bar := trange(first, given.steps, initial=first, total=given.steps)):
        for group in optimiser.param_groups:
            group["lr"] = rate(step, given.steps)
        rgb, mask, box = pictures.draw(BATCH, generator)
        value, overlap = loss(network.train()(2 * rgb - 1, box), mask)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == given.steps:
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            torch.save(state | {"generator": generator.get_state()}, kept)
            with torch.no_grad():
                rgb, mask, box = judge.draw(JUDGED, torch.Generator().manual_seed(SEED))
                value, overlap = loss(network.eval()(2 * rgb - 1, box), mask)
            bar.write(f"step {step + 1}: loss {value:.3f}, overlap {overlap:.3f} on composed validation photos")
    weights = {
        name: tensor.half() if name.endswith(("weight", "bias")) else tensor
        for name, tensor in network.to(memory_format=torch.contiguous_format).state_dict().items()
    }
    save_file(weights, given.work / "model.safetensors")
    print(given.work / "model.safetensors")


if __name__ == "__main__":
    main()
