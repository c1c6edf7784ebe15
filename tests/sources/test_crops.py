"""Photos against a prepared gallery."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_folder import save
from typer.testing import CliRunner

from cmiclib.benchmark import Benchmark
from cmiclib.cli import app
from cmiclib.errors import SourceError
from cmiclib.sources import PrepareOptions
from cmiclib.sources.own.crops import prepare_crops, read_crops

ENTRIES: list[dict[str, Any]] = [
    {"img": "crops/a.png", "category": "box", "model_ids": ["flat"]},
    {"img": "crops/b.png", "category": "box", "model_ids": ["tall", "box/cube", "box/tall"]},
    {"img": "crops/b.png", "category": "odd", "model_ids": ["odd/corner"]},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, colour in (("a", (230, 200, 30)), ("b", (30, 160, 60))):
        pixels = np.full((50, 70, 3), (30, 60, 200), np.uint8)
        pixels[10:35, 20:50] = colour
        save(tmp_path / f"data/crops/{name}.png", pixels)
    return tmp_path / "data"


def write(root: Path, content: Any, name: str = "list.json") -> Path:
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return root / name


def prepare(root: Path, gallery: Benchmark, entries: Any = ENTRIES, allow_missing: bool = False, **rest: Any):
    options = PrepareOptions(jobs=1, progress=False, allow_missing=allow_missing)
    return prepare_crops(write(root, entries), gallery.path, root / "out", options, **rest)


def test_photos_are_paired_with_a_copy_of_the_gallery(root: Path, tiny_benchmark: Benchmark) -> None:
    made, left_out = prepare(root, tiny_benchmark)
    assert left_out == [] and made.name == "list" and made.size == tiny_benchmark.size
    assert made.shapes.equals(tiny_benchmark.shapes) and made.protocol == tiny_benchmark.protocol
    for name in ("views", "points", "voxels"):
        assert np.array_equal(getattr(made, name), getattr(tiny_benchmark, name))
    for shape_id in made.shapes["shape_id"]:
        assert made.mesh_path(shape_id).read_bytes() == tiny_benchmark.mesh_path(shape_id).read_bytes()
    assert made.queries["query_id"].tolist() == ["crops/a", "crops/b", "crops/b#2"]
    assert made.queries["shape_id"].tolist() == ["box/flat", "box/tall|box/cube", "odd/corner"]
    assert made.queries["category"].tolist() == ["box", "box", "odd"]
    assert set(made.queries["split"]) == {"test"}
    assert made.queries["seen"].tolist() == [True, True, False]  # as in the gallery's own benchmark
    assert made.relevant(np.arange(3)).sum(axis=1).tolist() == [1, 2, 1]
    assert (made.images[:, 3] == 255).all() and set(made.queries["source"]) == {"list"}


def test_masks_are_found_on_request_and_the_source_says_so(root: Path, tiny_benchmark: Benchmark) -> None:
    made = prepare(root, tiny_benchmark, automatic=True).benchmark
    assert set(made.queries["source"]) == {"list, automatic mask of the whole photo"}
    covered = (made.images[:, 3] > 127).mean(axis=(1, 2))
    assert covered == pytest.approx(25 / 30 / 1.2**2, abs=0.05)  # 30 × 25 pixels in a square of 1.2 × 30


def test_a_gallery_without_points_voxels_and_meshes_is_copied_as_it_is(
    root: Path, tiny_benchmark: Benchmark, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_benchmark.path, bare)
    shutil.rmtree(bare / "meshes")
    meta = json.loads((bare / "benchmark.json").read_text())
    for name in ("points.npy", "voxels.npy"):
        (bare / name).unlink()
        del meta["sha256"][name]
    (bare / "benchmark.json").write_text(json.dumps(meta))
    made = prepare(root, Benchmark.open(bare)).benchmark
    assert not {"points.npy", "voxels.npy"} & set(made.arrays) and not (made.path / "meshes").exists()


def test_ids_that_the_gallery_lacks_are_all_listed_or_left_out(root: Path, tiny_benchmark: Benchmark) -> None:
    more = [
        {"img": "crops/a.png", "category": "box", "model_ids": [f"none{k}", "tall"]} for k in range(20)
    ] + [{"img": "crops/a.png", "category": "bed", "model_ids": ["round/no"]}] * 2  # fmt: skip
    with pytest.raises(SourceError, match=r"21 ids not in the gallery 'tiny': box/none0; .*; round/no\n") as error:
        prepare(root, tiny_benchmark, more)
    assert all(f"box/none{k}" in str(error.value) for k in range(20)) and "--allow-missing" in str(error.value)
    made, left_out = prepare(root, tiny_benchmark, more, allow_missing=True)
    assert made.queries["shape_id"].tolist() == ["box/tall"] * 20
    assert sum("a.png: its shape is not in the gallery" in line for line in left_out) == 2
    assert all(f"a.png: the gallery has no shape box/none{k}" in left_out[k] for k in range(20))
    assert (made.path / "left_out.txt").read_text().splitlines() == left_out
    with pytest.raises(SourceError, match="no photo shows a shape of the gallery"):
        prepare(root / "..", tiny_benchmark, [{**more[-1], "img": "data/crops/a.png"}], allow_missing=True)


LISTS = {
    "cannot be read": "[{",
    "not a list": {"img": "crops/a.png"},
    "not a list of photos": [],
    "entry 1: 3 is not an object": [3],
    "entry 2: its 'img' is missing": [ENTRIES[0], {"category": "box", "model_ids": ["flat"]}],
    "entry 1: its 'category' is missing": [{"img": "crops/a.png", "model_ids": ["flat"]}],
    "entry 1: its 'model_ids' is missing or not a list": [{**ENTRIES[0], "model_ids": "flat"}],
    "entry 1: its 'model_ids'": [{"img": "crops/a.png", "category": "box", "model_ids": []}],
    "entry 1: .*leads out of the folder": [{**ENTRIES[0], "img": "../a.png"}],
    "entry 2: .*'/a.png' leads out of": [ENTRIES[0], {**ENTRIES[0], "img": "/a.png"}],
    "2 problems.*entry 1: there is no photo .*c.png; entry 3": [
        {**ENTRIES[0], "img": "c.png"}, ENTRIES[0], {**ENTRIES[0], "img": "d.png"}
    ],
}  # fmt: skip


@pytest.mark.parametrize("said", LISTS)
def test_a_list_that_does_not_fit_is_one_error(said: str, root: Path) -> None:
    with pytest.raises(SourceError, match=rf"(?s)list.json: .*{said}.*How to fix: .*model_ids"):
        read_crops(write(root, LISTS[said]), root)
    with pytest.raises(SourceError, match=r"none.json: cannot be read"):
        read_crops(root / "none.json", root)


def test_the_category_is_that_of_the_gallerys_shape(root: Path, tiny_benchmark: Benchmark) -> None:
    made = prepare(root, tiny_benchmark, [ENTRIES[0] | {"category": "furniture", "model_ids": ["box/flat"]}]).benchmark
    assert made.queries.category.tolist() == ["box"] and made.categories == tiny_benchmark.categories


def test_a_damaged_photo_is_named(root: Path, tiny_benchmark: Benchmark) -> None:
    (root / "crops/a.png").write_bytes(b"no photo")
    with pytest.raises(SourceError, match=r"1 photo cannot be used: .*a.png: cannot be read as an image"):
        prepare(root, tiny_benchmark)
    assert len(prepare(root, tiny_benchmark, allow_missing=True).left_out) == 1


def test_a_corrected_list_starts_anew(root: Path, tiny_benchmark: Benchmark) -> None:
    whole = (root / "crops/a.png").read_bytes()
    (root / "crops/a.png").write_bytes(b"no photo")
    with pytest.raises(SourceError, match="1 photo cannot be used"):
        prepare(root, tiny_benchmark)
    (root / "crops/a.png").write_bytes(whole)
    made = prepare(root, tiny_benchmark, [ENTRIES[0], ENTRIES[1] | {"model_ids": ["cube"]}]).benchmark
    assert made.queries.shape_id.tolist() == ["box/flat", "box/cube"]


def test_the_command_takes_another_root_and_refuses_what_it_would_ignore(
    root: Path, tiny_benchmark: Benchmark, tmp_path: Path
) -> None:
    file = write(tmp_path, ENTRIES, "elsewhere.json")
    command = ["prepare", "folder", "--queries", file, "--gallery", tiny_benchmark.path, "--output", tmp_path / "out"]
    for option, value in (("--size", "64"), ("--val", "0"), ("--up", "+z")):
        refused = CliRunner().invoke(app, [*map(str, command), option, value])
        assert refused.exit_code == 2 and f"leave out {option}" in refused.stderr
    done = CliRunner().invoke(app, [*map(str, command), "--input", str(root), "--jobs", "1"])
    assert done.exit_code == 0, done.output
    assert "8 shapes and 3 photos" in done.stdout


@pytest.mark.shared
def test_the_list_of_real_crops_is_read(shared_root: Path) -> None:
    path = shared_root / "pix3d/ikea_crops.json"
    photos = read_crops(path, path.parent)
    assert len(photos) == 477 and len({photo.query_id for photo in photos}) == 477
    models = {f"{folder.parent.name}/{folder.name}" for folder in (shared_root / "pix3d/model").glob("*/*")}
    assert {f"{photo.category}/{name}" for photo in photos for name in photo.shape_ids} <= models
