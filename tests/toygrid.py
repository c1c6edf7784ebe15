"""A small grid of variants, of 8 photos and 6 shapes, for tests of effects and of claims."""

import json
from pathlib import Path

from cmiclib.study.ablations import Variant, config_hashes
from cmiclib.study.effects import Grid

SOME = {
    "full": Variant("the full method", (), "–"),
    "none": Variant("no category loss", (), "loss"),
    "triplet": Variant("triplets", (), "loss", "none"),
    "later": Variant("a later idea", (), "loss"),
    "absent": Variant("never run", (), "loss"),
}
PHOTOS = [("chair/a", "chair", True)] * 2 + [("chair/b", "chair", True)] * 2 + [("sofa/c|sofa/d", "sofa", True)] * 2
PHOTOS += [("table/e", "table", False), ("table/f", "table", False)]
SHAPES = ["chair/a", "chair/b", "sofa/c", "sofa/d", "table/e", "table/f"]
FIRST = {
    "full 0": "0 0 1 1 2 3 4 5", "full 1": "0 0 1 1 2 3 4 0", "full 2": "0 0 1 1 2 3 4 5",
    "none 0": "0 1 1 0 2 2 4 5", "none 1": "0 1 1 0 2 2 4 5",
    "triplet 0": "1 1 0 0 0 0 5 4", "triplet 1": "1 1 0 0 0 2 5 4",
    "later 1": "0 0 1 1 2 3 4 5",
}  # fmt: skip


def write_grid(folder: Path) -> Grid:
    """Write the grid's files into a folder and read them."""
    hashes = config_hashes(variants=SOME)
    rows = [{"variant": key.split()[0], "seed": int(key.split()[1])} for key in FIRST]
    rows = [row | {"config_hash": hashes[row["variant"]]} for row in rows]
    (folder / "ablations.json").write_text(json.dumps(rows))
    columns = {name: [photo[i] for photo in PHOTOS] for i, name in enumerate(("shape_id", "category", "seen"))}
    answers = {
        "benchmark": "abc", "photos": columns | {"query_id": [f"q{i}" for i in range(8)]},
        "shapes": {"shape_id": SHAPES, "category": [s.split("/")[0] for s in SHAPES]}, "first": FIRST,
    }  # fmt: skip
    (folder / "ablation_answers.json").write_text(json.dumps(answers))
    return Grid.load(folder / "ablations.json", variants=SOME)
