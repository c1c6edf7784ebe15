"""Our split lists: complete, without leaks, and drawn as their README says."""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from cmiclib.benchmark.splits import FOLDER, read_split
from cmiclib.errors import SourceError
from cmiclib.sources.pix3d.records import PAPER_CATEGORIES, Record, read_records

COUNTS = {
    "pix3d-photo-4": {"train": 6070, "val": 854, "test": 1726},
    "pix3d-photo-9": {"train": 7070, "val": 990, "test": 2009},
    "pix3d-shape-4": {"train": 5502, "val": 960, "test": 2185, "none": 3},
    "pix3d-shape-9": {"train": 6382, "val": 1086, "test": 2598, "none": 3},
}


@pytest.mark.parametrize("name", COUNTS)
def test_every_list_opens(name: str) -> None:
    parts = read_split(name)
    assert Counter(parts.values()) == COUNTS[name]
    categories = {photo.split("/")[0] for photo in parts}
    assert categories == set(PAPER_CATEGORIES) if name.endswith("4") else len(categories) == 9


def test_all_lists_are_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.csv")} == {*COUNTS, "pix3d-open", "ikea-crops"}


@pytest.mark.parametrize("kind", ["photo", "shape"])
def test_four_and_nine_categories_agree(kind: str) -> None:
    four, nine = read_split(f"pix3d-{kind}-4"), read_split(f"pix3d-{kind}-9")
    assert four == {name: part for name, part in nine.items() if name.split("/")[0] in PAPER_CATEGORIES}


@pytest.fixture(scope="module")
def records(shared_root: Path) -> dict[str, Record]:
    """The annotation's records by name."""
    path = shared_root / "pix3d" / "pix3d_recovered.json"
    if not path.is_file():
        pytest.skip("no pix3d in the shared folder")
    return {record.name: record for record in read_records(path)}


@pytest.mark.shared
@pytest.mark.parametrize("name", COUNTS)
def test_no_leaks(records: dict[str, Record], name: str) -> None:
    parts = read_split(name)
    assert set(parts) <= set(records)
    by_shape: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for photo, part in parts.items():
        by_shape[records[photo].shape_id][part] += 1
    if "shape" in name:
        assert by_shape.pop("") == {"none": 3}
        assert all(len(counts) == 1 for counts in by_shape.values())
    else:
        categories = {photo.split("/")[0] for photo in parts}
        assert len(parts) == sum(record.category in categories for record in records.values())
        assert all(counts["train"] for counts in by_shape.values())  # every shape is seen
        for shape_id, counts in by_shape.items():
            total = sum(counts.values())
            assert (counts["test"], counts["val"]) == ((round(0.2 * total), round(0.1 * total)) if shape_id else (0, 0))


@pytest.mark.shared
def test_the_open_photos_are_halved_by_their_pictures(shared_root: Path) -> None:
    """A crop ``00000042_001`` is of picture 00000042; records of Pix3D name the crop that they were made of."""
    folder = shared_root / "pix3d"
    if not folder.is_dir():
        pytest.skip("no pix3d in the shared folder")
    records, crops = read_split("pix3d-open"), read_split("ikea-crops")
    entries = {
        entry["img"].split("/", 1)[1].rsplit(".")[0]: entry for entry in json.loads((folder / "pix3d.json").read_text())
    }
    assert set(records) == set(entries)
    assert set(crops) == {Path(entry["img"]).stem for entry in json.loads((folder / "ikea_crops.json").read_text())}
    half: dict[str, set[str]] = {}
    for crop, part in crops.items():
        half.setdefault(crop.split("_")[0], set()).add(part)
    for name, part in records.items():
        match = re.search(r"crop (\d+)_\d+\.jpg", entries[name]["source"])
        half.setdefault(match[1] if match else name, set()).add(part)
    assert all(len(parts) == 1 for parts in half.values())
    assert Counter(records.values()) == {"val": 58, "test": 60}
    assert Counter(crops.values()) == {"val": 237, "test": 240}


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("name,split\na,train\nb,test\n")
    assert read_split(path) == {"a": "train", "b": "test"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("name,part\na,train\n", "cannot be read"), ("name,split\na,dev\n", "unknown part 'dev'"),
     ("name,split\na,train\na,test\n", "'a' occurs twice"), ("", "cannot be read")],
)  # fmt: skip
def test_broken_lists(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=message):
        read_split(path)
    with pytest.raises(SourceError, match="pix3d-photo-9"):
        read_split("pix3d-photo-7")
