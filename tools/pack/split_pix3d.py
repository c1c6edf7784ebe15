"""Draw our split lists of Pix3D from its annotation; how is told in data/splits/README.md.

python tools/pack/split_pix3d.py pix3d.json data/splits
"""

import argparse
import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from cmiclib.benchmark.splits import OUT
from cmiclib.sources.pix3d.records import PAPER_CATEGORIES, Record, read_records

TEST, VAL = 0.2, 0.1


def by_hash(names: Iterable[str]) -> list[str]:
    """Sort names by their SHA-256."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def photo_split(records: Iterable[Record]) -> dict[str, str]:
    """Give each shape's photos to the parts, one at least to train; a photo of an unknown shape goes to train."""
    photos: defaultdict[str, list[str]] = defaultdict(list)
    for record in records:
        photos[record.shape_id].append(record.name)
    parts = {}
    for shape_id, names in photos.items():
        test, val = (round(share * len(names)) if shape_id else 0 for share in (TEST, VAL))
        for i, name in enumerate(by_hash(names)):
            parts[name] = "test" if i < test else "val" if i < test + val else "train"
    return parts


def shape_split(records: Iterable[Record]) -> dict[str, str]:
    """Give whole shapes to the parts, within each category; a photo of an unknown shape belongs to none."""
    shapes: defaultdict[str, set[str]] = defaultdict(set)
    photos = list(records)
    for record in photos:
        if record.shape_id:
            shapes[record.category].add(record.shape_id)
    part_of = {"": OUT}
    for ids in shapes.values():
        test, val = max(1, round(TEST * len(ids))), max(1, round(VAL * len(ids)))
        for i, shape_id in enumerate(by_hash(ids)):
            part_of[shape_id] = "test" if i < test else "val" if i < test + val else "train"
    return {record.name: part_of[record.shape_id] for record in photos}


def main() -> None:
    """Write the four lists."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotation", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    records = read_records(arguments.annotation)
    paper = [record for record in records if record.category in PAPER_CATEGORIES]
    for kind, draw in (("photo", photo_split), ("shape", shape_split)):
        for count, chosen in ((4, paper), (9, records)):
            parts = draw(chosen)
            with (arguments.folder / f"pix3d-{kind}-{count}.csv").open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("name", "split"))
                writer.writerows((record.name, parts[record.name]) for record in chosen)


if __name__ == "__main__":
    main()
