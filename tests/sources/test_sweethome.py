"""The shipped benchmark: complete, attributed, split without leaks, unpacked the same way every time."""

import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmiclib import geometry
from cmiclib.benchmark import Benchmark
from cmiclib.errors import SourceError
from cmiclib.geometry.render import project
from cmiclib.io.protocol import ViewProtocol
from cmiclib.sources import PrepareOptions, sweethome
from cmiclib.sources.sweethome import SHIPPED, open_sweethome, prepare_sweethome, split_of, unseen_groups

QUICK = PrepareOptions(size=128, jobs=1, progress=False)


def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(SHIPPED / name, dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """The smoke profile's part of the shipped benchmark, unpacked here."""
    path = tmp_path_factory.mktemp("prepared") / "small"
    return prepare_sweethome(path, shapes=24, options=replace(QUICK, jobs=1)).benchmark


def _add_photos(source: Path, number: int, shape_ids: list[str], photos: range) -> None:
    """An archive of drawn photos, as the renderer's packer writes it."""
    (source / "photos").mkdir(exist_ok=True)
    rows = []
    with zipfile.ZipFile(source / "photos" / f"photos-{number:02d}.zip", "w") as archive:
        for shape_id in shape_ids:
            for k in photos:
                query_id = f"{shape_id.replace('/', '__')}__{k:02d}"
                for suffix, mode, kind in ((".jpg", "RGB", "JPEG"), (".png", "L", "PNG")):
                    file = io.BytesIO()
                    Image.new(mode, (128, 128), "white").save(file, kind)
                    archive.writestr(f"{query_id}{suffix}", file.getvalue())
                category = shape_id.partition("/")[0]
                rows.append([query_id, shape_id, category, k, k == 0, k == 1, False])
        columns = ["query_id", "shape_id", "category", "k", "truncated", "occluded", "slightly_occluded"]
        archive.writestr("records.csv", pd.DataFrame(rows, columns=columns).to_csv(index=False))


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """The shipped shapes with drawn photos 0 to 5 of every shape that the smoke profile may show."""
    source = tmp_path / "shipped"
    source.mkdir()
    shutil.copy(SHIPPED / "shapes.csv", source)
    (source / "shapes").symlink_to(SHIPPED / "shapes")
    shapes = _table("shapes.csv")
    paper = shapes["category"].isin(sweethome.SUBSET_CATEGORIES) & (shapes["distractor"] == "False")
    _add_photos(source, 0, list(shapes["shape_id"][paper]), range(6))
    return source


def test_every_shape_is_shipped_and_attributed() -> None:
    shapes, attribution = _table("shapes.csv"), _table("ATTRIBUTION.csv")
    assert shapes["shape_id"].is_unique
    assert list(attribution["shape_id"]) == list(shapes["shape_id"])
    assert (attribution[["creator", "licence", "licence_page", "source", "changes"]] != "").all(axis=None)
    assert attribution["licence"].str.startswith(("CC0-1.0", "CC-BY-3.0")).all()
    for kind, suffix in (("views", "png"), ("meshes", "glb"), ("voxels", "bits")):
        names = set()
        for path in (SHIPPED / "shapes").glob(f"{kind}-*.zip"):
            names |= set(zipfile.ZipFile(path).namelist())
        assert {f"{shape_id}.{suffix}" for shape_id in shapes["shape_id"]} <= names


def test_size_of_the_gallery_and_of_the_download() -> None:
    shapes = _table("shapes.csv")
    distractors = shapes["distractor"] == "True"
    assert (~distractors).sum() >= 250 and distractors.sum() >= 150
    total = sum(f.stat().st_size for f in SHIPPED.rglob("*") if f.is_file())
    assert total < 60e6


def test_shapes_agree_with_the_tables_of_models() -> None:
    shapes = _table("shapes.csv").set_index("shape_id")
    for name, distractor in (("models.csv", "False"), ("distractors.csv", "True")):
        models = _table(name).set_index("shape_id")
        models = models[models["dropped"] == ""]
        ours = shapes[shapes["distractor"] == distractor]
        assert set(ours.index) <= set(models.index)
        for column in ("category", "name", "creator", "licence", "source", "group"):
            assert (ours[column] == models.loc[ours.index, column]).all(), column


def test_split_rule() -> None:
    assert [split_of(k, seen=True) for k in range(12)] == ["train", "train", "test", "val", "train", "train"] * 2
    assert [split_of(k, seen=False) for k in range(4)] == ["test", "val", "test", "val"]


def test_unseen_groups_are_a_seventh_of_each_large_category() -> None:
    shapes = _table("shapes.csv")
    unseen = unseen_groups(shapes)
    groups = shapes[shapes["distractor"] == "False"].drop_duplicates("group")
    assert 0.12 < len(unseen) / len(groups) < 0.18
    assert unseen <= set(groups["group"])
    for category, part in groups.groupby("category"):
        if len(part) >= 10:
            assert 0.08 < part["group"].isin(unseen).mean() < 0.22, category
    assert unseen_groups(shapes.sample(frac=1, random_state=0)) == unseen


def test_subset_of_the_smoke_profile(small: Benchmark, drawn: Path, tmp_path: Path) -> None:
    b = prepare_sweethome(tmp_path / "b", source=drawn, shapes=24, options=replace(QUICK, jobs=1)).benchmark
    assert (b.shapes == small.shapes).all(axis=None)
    photographed = b.shapes["shape_id"].isin(b.queries["shape_id"])
    assert len(b.shapes) == 24 and (~photographed).sum() == 4
    assert set(b.shapes["category"][photographed]) == {"bed", "chair", "sofa", "table"}
    assert b.queries[~b.queries["seen"]]["shape_id"].nunique() == 4
    assert b.queries[b.queries["split"] == "train"]["shape_id"].nunique() == 16
    assert len(b.queries) == 20 * 6 and len(b.rows("train")) == 16 * 4
    assert len(b.rows("test", seen=True)) == 16 and len(b.rows("test", seen=False)) == 12
    assert b.queries["truncated"].sum() == b.queries["occluded"].sum() == 20


def test_contents_of_a_shape_fit_together(small: Benchmark) -> None:
    """Points fall onto the views and into the solid; the mesh is the one that was sampled."""
    protocol = ViewProtocol()
    for i in range(0, 24, 5):
        points = small.points[i].astype(float)
        assert np.linalg.norm(points, axis=1).max() <= 1.01
        for azimuth, view in list(zip(protocol.azimuths, small.views[i], strict=True))[::4]:
            columns, rows = np.floor(project(points, azimuth, 128)).astype(int).T.clip(0, 127)
            assert (view[rows, columns] < 255).mean() > 0.93
        grid = geometry.unpack_voxels(small.voxels[i])
        x, y, z = np.floor((points + 1) * 64).astype(int).T.clip(0, 127)
        assert grid[x, y, z].mean() > 0.6  # the shipped mesh is simplified, the solid is not
        mesh = geometry.load_mesh(small.mesh_path(small.shapes["shape_id"][i]))
        assert geometry.modified_hausdorff(points, geometry.sample_points(mesh, seed=1)) < 0.02


def test_photos_are_added_without_moving_the_others(drawn: Path, tmp_path: Path) -> None:
    before = prepare_sweethome(tmp_path / "before", source=drawn, shapes=12, options=replace(QUICK, jobs=1)).benchmark
    _add_photos(drawn, 1, list(before.shapes["shape_id"][before.shapes["category"] == "bed"]), range(6, 8))
    after = prepare_sweethome(tmp_path / "after", source=drawn, shapes=12, options=replace(QUICK, jobs=1)).benchmark
    assert len(after.queries) > len(before.queries) and before.hash != after.hash
    old = after.queries[after.queries["query_id"].isin(before.queries["query_id"])].reset_index(drop=True)
    assert (old == before.queries).all(axis=None)


def test_unpacking_repeats_and_opens_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: Path) -> None:
    monkeypatch.setattr(sweethome, "SHIPPED", drawn)
    first = open_sweethome(tmp_path / "prepared", shapes=12, jobs=1)
    written = (first.path / "benchmark.json").stat().st_mtime_ns
    again = open_sweethome(tmp_path / "prepared", shapes=12, jobs=1)
    assert again.path == first.path and again.hash == first.hash
    assert (again.path / "benchmark.json").stat().st_mtime_ns == written
    other = prepare_sweethome(tmp_path / "other", source=drawn, shapes=12, options=replace(QUICK, jobs=2)).benchmark
    assert other.hash == first.hash
    _add_photos(drawn, 1, list(first.shapes["shape_id"][:1]), range(6, 7))
    assert open_sweethome(tmp_path / "prepared", shapes=12, jobs=1).path != first.path


def test_other_sizes(tmp_path: Path, drawn: Path) -> None:
    b = prepare_sweethome(tmp_path / "b", source=drawn, shapes=12, options=replace(QUICK, size=64)).benchmark
    assert b.views.shape[2:] == b.images.shape[2:] == (64, 64)


def test_missing_and_damaged_archives(tmp_path: Path, drawn: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere: the shipped archives are missing"):
        prepare_sweethome(tmp_path / "b", source=tmp_path / "nowhere", options=QUICK)
    photos = drawn / "photos" / "photos-00.zip"
    whole = photos.read_bytes()
    photos.write_bytes(whole[:1000])
    with pytest.raises(SourceError, match="missing or damaged"):
        prepare_sweethome(tmp_path / "b", source=drawn, shapes=12, options=replace(QUICK, jobs=1))
    photos.unlink()
    with pytest.raises(SourceError, match="no archive of photos"):
        prepare_sweethome(tmp_path / "b", source=drawn, shapes=12, options=replace(QUICK, jobs=1))
    photos.write_bytes(whole)
    (drawn / "shapes").unlink()
    with pytest.raises(SourceError, match=r"'.*\.png' is in none of the shipped archives"):
        prepare_sweethome(tmp_path / "b", source=drawn, shapes=12, options=replace(QUICK, jobs=1))
    with pytest.raises(SourceError, match="no subset of 500 shapes"):
        prepare_sweethome(tmp_path / "c", shapes=500, options=QUICK)
