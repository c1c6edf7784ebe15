"""Pix3D: a small root in its layout, its traps, roots that are broken, and the real data where it is at hand."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from cmiclib.cli import app
from cmiclib.errors import CMICError, SourceError
from cmiclib.geometry import load_mesh, voxel_iou
from cmiclib.geometry.rays import Rays
from cmiclib.io.images import read_mask
from cmiclib.sources import PrepareOptions
from cmiclib.sources.pix3d import FRONT, UP, cut_record, find_shapes, own_shape, photo_file, prepare_pix3d
from cmiclib.sources.pix3d.frames import NOTE, TORN, fitted_grid, load_whole, read_voxels
from cmiclib.sources.pix3d.records import PAPER_CATEGORIES, chosen_categories, read_records, select

SHAPES = {"bed/IKEA_A": (2, 0.5, 1), "bed/IKEA_B": (1, 0.5, 2), "desk/IKEA_A": (1, 1, 2), "sofa/C": (2, 1, 1)}
PHOTOS = {
    "bed/0001": ("bed/IKEA_A", "jpg", {}), "bed/0002": ("bed/IKEA_A", "png", {"occluded": "true"}),
    "bed/0003": ("bed/IKEA_B", "jpg", {"truncated": "False"}), "desk/0001": ("desk/IKEA_A", "png", {}),
    "sofa/0001": ("sofa/C", "jpg", {"slightly_occluded": True}),
}  # fmt: skip


def draw(
    path: Path, size: tuple[int, int] = (60, 40), mode: str = "RGB", box: tuple[int, ...] = (10, 8, 50, 30)
) -> None:
    """A bright box on black; the same box is its mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(pixels).convert(mode).save(path)


def write_root(root: Path) -> Path:
    """Five photos of three of four shapes and the split list ``split.csv``; `sofa/D` has no OBJ, `desk/E` no photo."""
    records = []
    for shape_id, extents in {**SHAPES, "desk/E": (1, 2, 1)}.items():
        folder = root / "model" / shape_id
        folder.mkdir(parents=True)
        trimesh.creation.box(extents).export(folder / "model.obj")
    (root / "model" / "sofa" / "D").mkdir()
    for name, (shape_id, suffix, flags) in PHOTOS.items():
        draw(root / "img" / f"{name}.{suffix}")
        draw(root / "mask" / f"{name}.png", mode="L")
        record = {"img": f"img/{name}.{suffix}", "mask": f"mask/{name}.png", "category": shape_id.split("/")[0]}
        record |= {"model": f"model/{shape_id}/model.obj", "img_size": [60, 40], "truncated": False, "occluded": False}
        records.append(record | {"slightly_occluded": False} | flags)
    write(root, records)
    parts = ["train", "test", "train", "val", "test"]
    rows = [f"{name},{part}" for name, part in zip(PHOTOS, parts, strict=True)]
    (root.parent / "split.csv").write_text("\n".join(["name,split", *rows]) + "\n")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_root(tmp_path / "pix3d")


def write(root: Path, records: Any) -> None:
    (root / "pix3d.json").write_text(json.dumps(records))


def records_of(root: Path) -> list[dict[str, Any]]:
    return json.loads((root / "pix3d.json").read_text())


def prepare(root: Path, **options: Any) -> Any:
    settings = {"split": root.parent / "split.csv"} | options
    options = PrepareOptions(size=32, jobs=1, progress=False, allow_missing=settings.pop("allow_missing", False))
    return prepare_pix3d(root, root.parent / "out", options, **settings)


def test_a_small_root(root: Path) -> None:
    benchmark, left_out = prepare(root)
    assert left_out == [f"{root / 'model/sofa/D'}: no OBJ file"]
    assert list(benchmark.shapes["shape_id"]) == ["bed/IKEA_A", "bed/IKEA_B", "desk/E", "desk/IKEA_A", "sofa/C"]
    queries = benchmark.queries.set_index("query_id").loc[list(PHOTOS)]  # those of training lie first
    assert list(queries["shape_id"]) == [shape_id for shape_id, _, _ in PHOTOS.values()]
    assert list(queries["split"]) == ["train", "test", "train", "val", "test"]
    assert list(queries["seen"]) == [True, True, True, False, False]
    assert queries["occluded"].to_dict() == {name: name == "bed/0002" for name in PHOTOS}
    assert not queries["truncated"].any()
    assert queries.loc["bed/0002", "photo"] == "img/bed/0002.png"
    image = benchmark.images[0]  # the box is 40 × 22 pixels, the square 48 wide
    assert image[3].mean() / 255 == pytest.approx(40 * 22 / 48**2, abs=0.01)
    assert np.array_equal(image[3], benchmark.amodal[0])
    assert np.abs(image[0].astype(int) - image[3]).max() <= 40  # JPEG, and both resized alike


def test_a_shape_whose_only_training_photo_is_damaged_is_unseen(root: Path) -> None:
    (root / "img/bed/0001.jpg").write_bytes(b"no photo")
    benchmark, left_out = prepare(root, allow_missing=True)
    assert "bed/0001.jpg: cannot be read" in left_out[-1] and len(left_out) == 2
    assert benchmark.queries.set_index("query_id").seen.to_dict() == {
        "bed/0003": True, "bed/0002": False, "desk/0001": False, "sofa/0001": False
    }  # fmt: skip


def test_a_corrected_annotation_starts_anew(root: Path) -> None:
    whole = (root / "img/sofa/0001.jpg").read_bytes()
    (root / "img/sofa/0001.jpg").write_bytes(b"no photo")
    with pytest.raises(SourceError, match="sofa/0001"):
        prepare(root)
    (root / "img/sofa/0001.jpg").write_bytes(whole)
    records = records_of(root)
    records[0]["model"] = "model/bed/IKEA_B/model.obj"
    write(root, records)
    queries = prepare(root)[0].queries.set_index("query_id")
    assert queries.loc["bed/0001", "shape_id"] == "bed/IKEA_B"


def test_the_front_of_a_model_looks_at_the_first_camera(root: Path) -> None:
    """+z is inward in Pix3D, so a peg that sticks out towards −z must be seen from azimuth 0, at the right for −x."""
    peg = trimesh.creation.box((0.2, 0.2, 2)).apply_translation((-0.8, 0, -1))
    mesh = trimesh.util.concatenate([trimesh.creation.box((2, 2, 0.4)), peg])
    turned = load_mesh(_export(root, mesh), UP, FRONT)
    assert turned.bounds[1][2] == pytest.approx(2) and turned.bounds[0][2] == pytest.approx(-0.2)
    assert turned.vertices[turned.vertices[:, 2].argmax()][0] > 0.5


def _export(root: Path, mesh: trimesh.Trimesh) -> Path:
    mesh.export(root / "peg.obj")
    return root / "peg.obj"


def test_categories_and_clean_photos(root: Path) -> None:
    benchmark, _ = prepare(root, categories="paper", clean=True)
    assert list(benchmark.queries["query_id"]) == ["bed/0001", "bed/0003"]
    assert set(benchmark.shapes["category"]) == {"bed", "sofa"}
    assert chosen_categories("paper") == PAPER_CATEGORIES
    assert chosen_categories("tool,bed") == ("tool", "bed")


def test_several_meshes_in_a_folder(root: Path) -> None:
    trimesh.creation.icosphere(2).export(root / "model" / "bed" / "IKEA_A" / "model_0.1_0.2.obj")
    assert find_shapes(root, ["bed"])[0]["bed/IKEA_A"].path.name == "model.obj"  # the first in the order of their names
    posed, _ = find_shapes(root, ["bed"], "pose")
    assert list(posed) == ["bed/IKEA_A/model", "bed/IKEA_A/model_0.1_0.2", "bed/IKEA_B"]
    assert {mesh.group for mesh in posed.values()} == {"bed/IKEA_A", ""}
    first = read_records(root / "pix3d.json")[0]
    assert (own_shape(first, posed), own_shape(first, find_shapes(root, ["bed"])[0])) == (
        "bed/IKEA_A/model",
        "bed/IKEA_A",
    )
    benchmark, _ = prepare(root, meshes="pose")
    shown = benchmark.queries.set_index("query_id").shape_id
    assert list(shown[["bed/0001", "bed/0002", "bed/0003"]]) == ["bed/IKEA_A/model", "bed/IKEA_A/model", "bed/IKEA_B"]
    assert list(benchmark.queries["seen"][:3]) == [True, True, True]


def crop(root: Path, number: int) -> np.ndarray:
    shapes, _ = find_shapes(root, ["bed"])
    return cut_record(photo_file(root, read_records(root / "pix3d.json")[number], shapes, "train"), 32).image


def test_a_mask_of_another_size_is_stretched(root: Path) -> None:
    before = crop(root, 1)
    draw(root / "mask" / "bed" / "0002.png", (30, 20), "L", (5, 4, 25, 15))
    assert np.array_equal(crop(root, 1), before)


def test_masks_follow_the_pixels_where_the_photo_is_turned_by_its_exif(root: Path) -> None:
    path, exif = root / "img" / "bed" / "0001.jpg", Image.Exif()
    before = crop(root, 0)
    exif[0x0112] = 6  # turned by 90°
    image = Image.open(path)
    image.load()
    image.save(path, exif=exif, quality=100)
    assert np.abs(crop(root, 0).astype(int) - before).max() < 20


def test_a_damaged_exif_block_is_ignored(root: Path) -> None:
    path = root / "img" / "bed" / "0001.jpg"
    before = crop(root, 0)
    jpeg = path.read_bytes()
    block = b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x13" * 20
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:])
    assert np.array_equal(crop(root, 0), before)


def change(**values: Any) -> Callable[[Path], None]:
    """A root whose first record has other values; None takes a field out."""

    def apply(root: Path) -> None:
        records = records_of(root)
        records[0] = {key: value for key, value in (records[0] | values).items() if value is not None}
        write(root, records)

    return apply


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no annotation": (lambda root: (root / "pix3d.json").unlink(), r"pix3d.json"),
    "no JSON": (lambda root: (root / "pix3d.json").write_text("[{"), r"pix3d.json: cannot be read as JSON"),
    "no list": (lambda root: write(root, {"img": 1}), r"not a list of records"),
    "a field is missing": (change(mask=None), r"record 0 img/bed/0001.jpg: the field 'mask' is missing"),
    "a flag is no truth": (change(occluded="maybe"), r"occluded is 'maybe', neither true nor false"),
    "an unknown category": (change(category="boat"), r"unknown category 'boat'"),
    "a model elsewhere": (change(model="../model/bed/x/y.obj"), r"leads out of the folder"),
    "a model of another category": (change(model="model/sofa/C/model.obj"), r"is not model/bed/<ID>/<file>.obj"),
    "a photo twice": (lambda root: write(root, records_of(root) * 2), r"bed/0001 occurs 2 times"),
    "no photo": (lambda root: (root / "img/bed/0001.jpg").unlink(), r"bed/0001: no photo \(img/bed/0001.jpg\)"),
    "no mask": (lambda root: (root / "mask/bed/0003.png").unlink(), r"1 record cannot be used: bed/0003: no mask"),
    "no model": (lambda root: (root / "model/sofa/C/model.obj").unlink(), r"sofa/0001: no model \(model/sofa/C"),
    "no models": (lambda root: (root / "model").rename(root / "models"), r"no OBJ file in model/"),
    "an unknown model": (change(model=None), r"bed/0001: its model is not known"),
    "a damaged photo": (lambda root: cut(root / "img/desk/0001.png"), r"1 photo cannot be used: .*desk/0001"),
    "an empty mask": (lambda root: draw(root / "mask/bed/0001.png", mode="L", box=(0, 0, 0, 0)), r"bed/0001.*mask"),
    "a damaged model": (lambda root: (root / "model/bed/IKEA_A/model.obj").write_text("v 0"), r"IKEA_A/model.obj"),
    "a photo in no part": (
        lambda root: (root.parent / "split.csv").write_text("name,split\nbed/0001,train\n"),
        r"4 records cannot be used: bed/0002: in no part of the split",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_roots(root: Path, case: str) -> None:
    spoil, message = BROKEN[case]
    spoil(root)
    with pytest.raises(CMICError, match=message) as caught:
        prepare(root)
    assert caught.value.fix
    assert not (root.parent / "out").exists()


@pytest.mark.parametrize(
    ("case", "reason", "photos"),
    [("no photo", "no photo", 4), ("no model", "no model (", 4), ("an unknown model", "its model is not known", 4),
     ("a damaged photo", "cannot be read", 4), ("a photo in no part", "in no part of the split", 1)],
)  # fmt: skip
def test_what_is_missing_can_be_left_out(root: Path, case: str, reason: str, photos: int) -> None:
    BROKEN[case][0](root)
    benchmark, left_out = prepare(root, allow_missing=True)
    assert len(benchmark.queries) == photos
    assert sum(reason in line for line in left_out) == 5 - photos
    lines = (benchmark.path / "left_out.txt").read_text().splitlines()
    assert lines == left_out and all(": " in line for line in lines)


def test_a_model_that_cannot_be_used_costs_its_own_photos_only(root: Path) -> None:
    shape_id = "bed/IKEA_A"
    broken = next((root / "model" / shape_id).glob("*.obj"))
    broken.write_text("v 0 0 0\n")
    with pytest.raises(SourceError, match=r"1 shape cannot be used.*\.obj"):
        prepare(root)
    benchmark, left_out = prepare(root, allow_missing=True)
    assert shape_id not in set(benchmark.shapes.shape_id) and len(benchmark.shapes) > 0
    assert sum("its shape bed/IKEA_A is left out" in line for line in left_out) == 2 and len(benchmark.queries) == 3
    assert f"{broken}: " in (benchmark.path / "left_out.txt").read_text()


def test_photos_that_the_list_gives_to_none_are_left_out_and_counted(root: Path) -> None:
    path = root.parent / "split.csv"
    path.write_text(path.read_text().replace("bed/0002,test", "bed/0002,none"))
    benchmark, left_out = prepare(root)
    assert left_out[0] == "bed/0002: left out by the split"
    assert len(benchmark.queries) == 4 and "bed/0002" not in set(benchmark.queries.query_id)


def test_options_that_do_not_exist(root: Path) -> None:
    with pytest.raises(SourceError, match="unknown categories: boat"):
        prepare(root, categories="bed,boat")
    with pytest.raises(SourceError, match="no such list of photos"):
        prepare(root, split="elsewhere")


def test_the_command(root: Path) -> None:
    (root / "img" / "bed" / "0001.jpg").unlink()
    arguments = ["prepare", "pix3d", "--input", str(root), "--output", str(root.parent / "out"), "--size", "32"]
    arguments += ["--split", str(root.parent / "split.csv"), "--jobs", "1"]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2 and "no photo (img/bed/0001.jpg)" in refused.output
    done = CliRunner().invoke(app, [*arguments, "--allow-missing"])
    assert done.exit_code == 0, done.output
    assert "5 shapes and 4 photos" in done.output and "bed/0001: no photo (img/bed/0001.jpg)" in done.output
    wrong = CliRunner().invoke(app, [*arguments, "--meshes", "last"])
    assert wrong.exit_code == 2


def test_voxels_are_turned_into_our_frame(tmp_path: Path) -> None:
    grid = np.zeros((8, 8, 8), bool)
    grid[1, 2, 3] = True  # left 1, front 2, up 3
    savemat(tmp_path / "voxel.mat", {"voxel": grid.astype(np.uint8)})
    assert np.argwhere(read_voxels(tmp_path / "voxel.mat")).tolist() == [[6, 3, 2]]
    (tmp_path / "voxel.mat").write_bytes(b"no voxels")
    with pytest.raises(SourceError, match="no voxels can be read"):
        read_voxels(tmp_path / "voxel.mat")


def test_a_torn_mesh_is_rebuilt_from_its_voxels(root: Path) -> None:
    """Loose faces of a box that lies in Pix3D's frame: longest to the left, a peg on its top at the back."""
    box = trimesh.creation.box((2, 0.6, 1))
    peg = trimesh.creation.box((0.2, 0.4, 0.2)).apply_translation((-0.6, 0.5, 0.3))
    whole = trimesh.util.concatenate([box, peg])
    folder = root / "model" / "bed" / "IKEA_A"
    ours = whole.copy()
    ours.apply_transform(np.diag([-1, 1, -1, 1]))
    theirs = fitted_grid(ours)[::-1].transpose(0, 2, 1)  # x to the left, y to the front, z up
    savemat(folder / "voxel.mat", {"voxel": theirs.astype(np.uint8)})
    whole.export(folder / "model.obj")
    assert "note" not in load_whole(folder / "model.obj", UP, FRONT).metadata
    torn = trimesh.Trimesh(whole.vertices, whole.faces[::2])
    torn.export(folder / "model.obj")
    rebuilt = load_whole(folder / "model.obj", UP, FRONT)
    assert rebuilt.metadata["note"] == NOTE
    assert voxel_iou(fitted_grid(rebuilt), fitted_grid(ours)) > 0.9
    assert rebuilt.volume > 0  # its faces look outwards
    benchmark, _ = prepare(root)
    assert list(benchmark.shapes["source"])[:2] == [f"Pix3D, {NOTE}", "Pix3D"]


@pytest.fixture(scope="module")
def real(shared_root: Path) -> Path:
    folder = shared_root / "pix3d"
    if not folder.is_dir():
        pytest.skip("no pix3d in the shared folder")
    return folder


@pytest.mark.shared
def test_the_counts_of_pix3d(real: Path) -> None:
    records = read_records(real / "pix3d_recovered.json")
    assert len(records) == 10_069
    known = [record for record in records if record.model]
    assert len(known) == 10_066
    assert Counter(record.category for record in records) == {
        "bed": 994, "bookcase": 361, "chair": 3839, "desk": 700, "misc": 68, "sofa": 1947, "table": 1870, "tool": 47,
        "wardrobe": 243,
    }  # fmt: skip
    clean = select(known, chosen_categories("all"), clean=True)
    assert Counter(record.category for record in clean) == {
        "bed": 394, "bookcase": 130, "chair": 2894, "desk": 297, "misc": 61, "sofa": 1091, "table": 736, "tool": 46,
        "wardrobe": 166,
    }  # fmt: skip
    assert len(clean) == 5_815
    assert len({record.shape_id for record in known}) == 395
    assert len(find_shapes(real, chosen_categories("all"))[0]) == 393
    ids = Counter(shape_id.split("/")[1] for shape_id in {record.shape_id for record in known})
    assert sum(count > 1 for count in ids.values()) == 20  # so the category is part of a shape's id


def silhouette(mesh: trimesh.Trimesh, entry: dict[str, Any], samples: int = 2, sensor: float = 32.0) -> np.ndarray:
    """What a model covers in its photo, bool (H, W).

    A vertex v of the file's frame, +x left, +y up, +z inward, is seen at ``X = R v + t``, ``x = W/2 − f X₀/X₂``,
    ``y = H/2 − f X₁/X₂``, with ``f`` in pixels: the annotated focal lengths, in mm, belong to a sensor of 32 mm.
    """
    width, height = entry["img_size"]
    pixels = entry["focal_length"] / sensor * width
    x = width / 2 - (np.arange(width * samples) + 0.5) / samples
    y = height / 2 - (np.arange(height * samples) + 0.5) / samples
    across, along = np.meshgrid(x / pixels, y / pixels)
    camera = np.stack([across, along, np.ones_like(across)], axis=-1).reshape(-1, 3)
    rotation, translation = np.asarray(entry["rot_mat"], float), np.asarray(entry["trans_mat"], float)
    hit = Rays(mesh, seamless=False).faces(-rotation.T @ translation, camera @ rotation) >= 0
    return hit.reshape(height, samples, width, samples).mean(axis=(1, 3)) >= 0.5


@pytest.mark.shared
def test_silhouettes_meet_their_masks(real: Path) -> None:
    posed = [entry for entry in json.loads((real / "pix3d.json").read_text()) if entry.get("rot_mat")]
    assert len(posed) >= 3
    for entry in posed:
        seen, mask = silhouette(load_mesh(real / entry["model"]), entry), read_mask(real / entry["mask"])
        assert (seen & mask).sum() / (seen | mask).sum() >= 0.98, entry["img"]


@pytest.mark.shared
def test_the_voxels_frame(real: Path) -> None:
    """Over every twelfth shape; simplifying has torn a few meshes into loose triangles, which enclose nothing."""
    agreeing, mirrored, torn = [], [], []
    for shape in list(find_shapes(real, chosen_categories("all"))[0].values())[::12]:
        ours = fitted_grid(load_mesh(shape.path, UP, FRONT))
        theirs = read_voxels(next(shape.path.parent.glob("voxel*.mat")))
        if ours.sum() < TORN * theirs.sum():
            torn.append(shape.shape_id)
            continue
        agreeing.append(voxel_iou(ours, theirs))
        mirrored.append(max(voxel_iou(ours, theirs[::-1]), voxel_iou(ours, theirs[:, :, ::-1])))
    assert len(agreeing) >= 20 and len(torn) <= 2
    assert np.mean(agreeing) >= 0.9
    assert np.mean(mirrored) < np.mean(agreeing) - 0.1
