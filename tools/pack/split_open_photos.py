"""Halve the open real photos by the picture they were cut from: one half to choose with, one to report.

    python tools/pack/split_open_photos.py pix3d.json ikea_crops.json data/splits

The half to choose with is called val, the one to report test. A picture's crops and its records in Pix3D's layout lie
in the same half. Pictures are taken in the order of the SHA-256 of their names: first those that records show, then
the others, every second one to val.
"""

import argparse
import csv
import hashlib
import json
import re
from pathlib import Path

from cmiclib.sources.pix3d.records import read_records


def picture_of(crop: str) -> str:
    """Return the number of the picture that ``…/00000042_001.jpg`` was cut from."""
    return Path(crop).stem.split("_")[0]


def main() -> None:
    """Write ``pix3d-open.csv`` and ``ikea-crops.csv``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotation", type=Path)
    parser.add_argument("crops", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    names = [record.name for record in read_records(arguments.annotation)]
    sources = [str(entry["source"]) for entry in json.loads(arguments.annotation.read_text())]
    found = [re.search(r"crop (\S+)\.jpg", source) for source in sources]
    pictures = {name: picture_of(match[1]) if match else name for name, match in zip(names, found, strict=True)}
    crops = [Path(entry["img"]).stem for entry in json.loads(arguments.crops.read_text())]
    first = by_hash(set(pictures.values()))
    order = first + by_hash({picture_of(crop) for crop in crops} - set(first))
    part = {picture: ("val", "test")[i % 2] for i, picture in enumerate(order)}
    write(arguments.folder / "pix3d-open.csv", {name: part[picture] for name, picture in pictures.items()})
    write(arguments.folder / "ikea-crops.csv", {crop: part[picture_of(crop)] for crop in crops})


def by_hash(names: set[str]) -> list[str]:
    """Sort names by their SHA-256."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def write(path: Path, parts: dict[str, str]) -> None:
    """Write a split list."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "split"))
        writer.writerows(parts.items())


if __name__ == "__main__":
    main()
