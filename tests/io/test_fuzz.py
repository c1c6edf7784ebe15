"""Files that once broke a reader, read again; `make fuzz` puts new ones into tests/data/fuzz."""

import ast
import shutil
from pathlib import Path

import pytest
from fuzz_cases import CASES
from toybook import REPOSITORY

from cmiclib.errors import CMICError

KEPT = sorted((REPOSITORY / "tests" / "data" / "fuzz").glob("*/*"))
BY_NAME = {case.name: case for case in CASES}


READS = {
    "load_file", "safe_open", "load_pickle", "read_limited", "read_json", "read_json_file", "read_table", "parse_table",
    "read_array", "map_array", "read_member", "parse_json", "np.load", "torch.load", "Image.open", "tarfile.open",
    "zipfile.ZipFile", "trimesh.load_scene", "loadmat", "json.loads",
}  # fmt: skip
FUZZED = {
    "benchmark": "benchmark.json", "browser.packed": "packed model", "browser.page": "benchmark mesh",
    "browser.upload": "upload png", "checkpoint": "run config.json", "files": "benchmark.json", "images": "photo png",
    "index": "index", "jittor": "jittor pickle", "mesh_files": "mesh glb", "parity": "arrays npz",
    "publish": "archive of a script", "results": "results", "runner": "record of a run", "sources.binvox": "binvox",
    "sources.cars3d": "list of cars", "sources.cars3d_camera": "pickle of poses", "sources.crops": "list of crops",
    "sources.listings": "table of categories", "sources.pix3d_frames": "mat", "sources.pix3d_records": "pix3d.json",
    "sources.release": "release points", "sources.shapenet": "taxonomy", "sources.sweethome": "zip of views",
    "sources.sweethome_photos": "records of photos", "sources.synthetic": "poses of pix3d", "splits": "split list",
    "weights": "safetensors",
}  # fmt: skip
"""Module → one of the cases that read through it."""
OWN = {
    "ablation_effects", "ablations", "cli.ablations", "kept", "kept_maps", "notebooks", "train", "benchmark_writer",
    "browser.pictures", "synthetic", "cli.book", "config",
}  # fmt: skip
"""They read what this repository holds, what the same run wrote, or what the user typed."""


def called(node: ast.AST) -> str:
    return f"{called(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "?")


def test_every_reader_is_fuzzed() -> None:
    readers = set()
    for path in (REPOSITORY / "cmiclib").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        if READS & {called(node.func) for node in nodes if isinstance(node, ast.Call)}:
            readers.add(".".join(path.relative_to(REPOSITORY / "cmiclib").with_suffix("").parts))
    assert readers == FUZZED.keys() | OWN
    assert set(FUZZED.values()) <= BY_NAME.keys()


def test_names_are_unique_and_files_are_kept() -> None:
    assert len(BY_NAME) == len(CASES) and len(KEPT) > 0


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: f"{path.parent.name} {path.name}")
def test_what_broke_a_reader_is_read_or_one_message(kept: Path, tmp_path: Path) -> None:
    case = BY_NAME[kept.parent.name]
    case.write(tmp_path)
    shutil.copyfile(kept, tmp_path / case.target)
    try:
        case.read(tmp_path)
    except CMICError as error:
        assert error.path is not None or error.fix
