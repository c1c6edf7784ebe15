"""Make `data/weights/general`: ImageNet's features of pictures in few numbers, for galleries that nobody trained on.

    python tools/pack/pack_general.py

The features are those of `cmiclib.evaluation.baselines.untrained_scores`: the maps of EfficientNet-Lite0's last block
in 3 × 3 cells. The head projects them on the principal directions of the shipped benchmark's views, not centred, and
divides each by a power of its size. Dimension and power were chosen on the validation photos. Nothing is trained.
"""

import math

import torch
from torch.nn import functional as F

from cmiclib.benchmark import Benchmark
from cmiclib.config import Config
from cmiclib.embed import view_maps
from cmiclib.index import ShapeIndex
from cmiclib.io.atomic import write_json
from cmiclib.io.provenance import environment
from cmiclib.metrics import top_k
from cmiclib.model import CMIC, build_model
from cmiclib.sources.sweethome import ROOT, open_sweethome
from cmiclib.training.run import save_weights

OUTPUT = ROOT / "data" / "weights" / "general"
DIM, POWER, CELLS = 256, 0.25, 320 * 9
CONFIG = {
    "profile": "general",
    "model": {
        "query_backbone": "tf_efficientnet_lite0", "view_backbone": "tf_efficientnet_lite0", "init": "imagenet",
        "frozen": 8, "view_frozen": 8, "grid": 3, "dim": DIM, "fusion": "max", "mask": "cutout", "image_size": 160,
        "shared_head": True,
    },
}  # fmt: skip


@torch.no_grad()
def project(model: CMIC, benchmark: Benchmark, config: Config) -> None:
    """Set the head's matrix: nothing of the picture as a whole, the principal directions of the cells."""
    features = torch.cat([maps[:, -CELLS:] for maps in view_maps(model, benchmark.views, config)])  # (N·V, 2880)
    _, sizes, directions = torch.linalg.svd(F.normalize(features, dim=1), full_matrices=False)
    scale = (sizes[:DIM] / sizes[0]) ** -POWER
    linear = model.query_encoder.head[1]
    linear.weight.zero_()
    linear.weight[:, -CELLS:] = scale[:, None] * directions[:DIM]
    linear.bias.zero_()


def main() -> None:
    """Make the run folder, and say what it does on the validation photos beside all 2,880 numbers."""
    benchmark, config = open_sweethome(), Config.model_validate(CONFIG)
    torch.manual_seed(0)
    model = build_model(config.model).eval()
    project(model, benchmark, config)
    save_weights(OUTPUT / "model.safetensors", model.half())
    write_json(OUTPUT / "config.json", config.model_dump(mode="json"))
    write_json(OUTPUT / "environment.json", environment() | {"seconds": 0.0})
    rows, model = benchmark.rows("val"), model.float()
    index = ShapeIndex.build(model, benchmark, config)
    _, order = top_k(index.scores(index.embed(benchmark.images[rows])), 10)
    right = torch.from_numpy(benchmark.relevant(rows)).gather(1, order)
    share = right[:, 0].double().mean().item(), right.any(dim=1).double().mean().item()
    error = 100 * 1.96 * math.sqrt(share[0] * (1 - share[0]) / len(rows))
    print(f"val, {len(rows)} photos: Top-1 {100 * share[0]:.1f} ± {error:.1f}, Top-10 {100 * share[1]:.1f} per cent")


if __name__ == "__main__":
    main()
