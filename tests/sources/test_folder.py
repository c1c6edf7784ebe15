"""A user's own folder of meshes and photos, and what can be wrong with one."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from own_folder import save, write_meshes, write_photos
from PIL import Image
from typer.testing import CliRunner

from cmiclib.benchmark import Benchmark
from cmiclib.cli import app
from cmiclib.errors import MeshError, SourceError
from cmiclib.io.images import open_photo
from cmiclib.sources import PrepareOptions, photos
from cmiclib.sources.own.folder import find_meshes, prepare_folder
from cmiclib.sources.own.photo_lists import find_photos

SHAPES = ["box/cube", "box/deep/plank", "box/flat", "box/tall"]
CATEGORY = dict.fromkeys(SHAPES, "box")
QUICK = PrepareOptions(size=32, jobs=1, progress=False)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 boxes; 6 photos with masks of two of them."""
    root = tmp_path_factory.mktemp("own")
    write_meshes(root / "meshes", 4)
    write_photos(root / "photos", root / "masks", SHAPES[:2])
    return root


@pytest.fixture
def own(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(original, tmp_path / "own"))


@pytest.fixture(scope="module")
def prepared(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    made = prepare_folder(
        original / "meshes", tmp_path_factory.mktemp("out") / "out", QUICK, photos=original / "photos",
        masks=original / "masks", val=0.3, test=0.3,
    )  # fmt: skip
    assert made.left_out == []
    return made.benchmark


def prepare(own: Path, allow_missing: bool = False, **options):
    return prepare_folder(own / "meshes", own / "out", replace(QUICK, allow_missing=allow_missing), **options)


def table(own: Path, text: str, name: str = "table.csv") -> Path:
    (own / name).write_text(text)
    return own / name


# Meshes


def test_every_mesh_becomes_a_shape_named_after_its_path(prepared: Benchmark) -> None:
    assert prepared.name == "meshes"
    assert prepared.shapes["shape_id"].tolist() == SHAPES
    assert set(prepared.shapes["category"]) == {"box"}
    assert {"points.npy", "voxels.npy"} <= set(prepared.arrays)
    assert all(prepared.mesh_path(name).is_file() for name in SHAPES)


def test_a_mesh_in_no_folder_is_misc_and_hidden_files_are_none(tmp_path: Path) -> None:
    write_meshes(tmp_path)
    (tmp_path / "box" / "._flat.obj").write_bytes(b"resource fork")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "old.obj").write_bytes(b"")
    found, _ = find_meshes(tmp_path)
    assert len(found) == 13
    assert {mesh.shape_id for mesh in found if mesh.category == "misc"} == {"stick", "sheet"}


def test_a_table_gives_categories_and_facts(own: Path) -> None:
    rows = "".join(f"{name},desk,Jo,CC0-1.0,{name[:5]}\n" for name in SHAPES)
    file = table(own, "\ufeffshape_id, category,creator,licence,group\n" + rows + "\n")
    mesh = find_meshes(own / "meshes", file, up="+z", front="-y")[0][0]
    assert (mesh.shape_id, mesh.category, mesh.creator, mesh.licence) == ("box/cube", "desk", "Jo", "CC0-1.0")
    assert (mesh.group, mesh.name, mesh.up, mesh.front) == ("box/c", "", "+z", "-y")


GOOD = "".join(f"{name},x\n" for name in SHAPES)
TABLES = {
    "another header": ("id,category\n" + GOOD, r"its columns are id, category\n.*the columns shape_id, category"),
    "semicolons": ("shape_id;category\n", "its columns are shape_id;category.*use commas"),
    "an unknown column": ("shape_id,category,colour\n", "colour"),
    "a column twice": ("shape_id,category,category\n", "category, category"),
    "empty": ("", "its columns are missing"),
    "a long row": ("shape_id,category\n" + GOOD + "a,b,c\n", "row 6 has 3 fields; the header has 2"),
    "all that does not fit": (
        "shape_id,category\nbox/cube,\nbox/flat,x\nbox/flat,y\nbox/tall,x\nbed/one,x\nbed/two,x\n",
        r"5 problems .*no mesh 'bed/one'.*no mesh 'bed/two'.*'box/deep/plank' has no row.*'box/cube' has no category"
        r".*'box/flat' has 2 rows",
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_does_not_fit_is_one_error(case: str, own: Path) -> None:
    text, said = TABLES[case]
    with pytest.raises(SourceError, match=f"(?s)table.csv: .*{said}") as error:
        find_meshes(own / "meshes", table(own, text))
    assert "How to fix: " in str(error.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00\x81"], ids=["missing", "not UTF-8"])
def test_an_unreadable_table_is_named(own: Path, content: bytes | None) -> None:
    if content is not None:
        (own / "table.csv").write_bytes(content)
    with pytest.raises(SourceError, match=r"table.csv: (this table )?cannot be read"):
        find_meshes(own / "meshes", own / "table.csv")


def test_folders_without_meshes_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no mesh")
    with pytest.raises(
        SourceError, match=r"there are no meshes; 1 other file: .*notes\.txt.*\n.*\.obj, \.glb"
    ) as error:
        prepare_folder(tmp_path, tmp_path / "out")
    assert str(tmp_path) in str(error.value)
    with pytest.raises(SourceError, match="not a folder"):
        prepare_folder(tmp_path / "none", tmp_path / "out")


def test_two_files_of_one_name_are_one_error(own: Path) -> None:
    shutil.copy(own / "meshes/box/flat.obj", own / "meshes/box/flat.STL")
    shutil.copy(own / "meshes/box/flat.obj", own / "meshes/box/cube.obj")
    with pytest.raises(SourceError, match=r"2 shapes with two files: box/cube.glb and .*box/flat.STL and box/flat.obj"):
        prepare(own)


def test_names_that_cannot_be_ids_are_refused(own: Path) -> None:
    shutil.copy(own / "meshes/box/flat.obj", own / "meshes/box/a|b.obj")
    with pytest.raises(SourceError, match=r"1 name cannot be a shape id: box/a\|b"):
        prepare(own)


def test_a_broken_mesh_is_named_or_left_out_with_its_photos(own: Path) -> None:
    (own / "meshes/box/cube.glb").write_bytes(b"glTF, but no more")
    with pytest.raises(SourceError, match=r"1 shape cannot be used: .*cube.glb: the file is cut off"):
        prepare(own, photos=own / "photos")
    made = prepare(own, photos=own / "photos", allow_missing=True)
    assert made.benchmark.shapes["shape_id"].tolist() == SHAPES[1:]
    assert set(made.benchmark.queries["shape_id"]) == {"box/deep/plank"}
    assert len(made.left_out) == 7 and "cube.glb: the file is cut off" in made.left_out[0]
    assert all("its shape box/cube is left out" in line for line in made.left_out[1:])
    assert (made.benchmark.path / "left_out.txt").read_text().splitlines() == made.left_out


def test_a_folder_of_broken_meshes_only_is_an_error_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("nothing")
    with pytest.raises(SourceError, match="no shape can be used; 1 problem: "):
        prepare_folder(tmp_path, tmp_path / "out", replace(QUICK, allow_missing=True))


def test_unknown_axes_are_refused_before_the_work(own: Path) -> None:
    with pytest.raises(MeshError, match="unknown axis 'up'"):
        prepare(own, up="up")


# Photos


def test_photos_arrive_with_masks_splits_and_seen(prepared: Benchmark, original: Path) -> None:
    queries = prepared.queries
    assert len(queries) == 12
    for row, query in queries.iterrows():
        assert query["photo"] == f"{query['query_id']}.jpg" and query["query_id"].startswith(query["shape_id"] + "/")
        assert 0.02 < (prepared.images[row][3] > 127).mean() < 0.9
    found, _ = find_photos(original / "photos", original / "masks", CATEGORY, val=0.3, test=0.3)
    assert dict(zip(queries["query_id"], queries["split"], strict=True)) == {p.query_id: p.split for p in found}
    assert len(set(queries["split"])) == 3
    trained = set(queries["shape_id"][queries["split"] == "train"])
    assert (queries["seen"] == queries["shape_id"].isin(trained)).all()


def test_shares_decide_the_split_by_names_alone(original: Path) -> None:
    def splits(val: float, test: float) -> dict[str, str]:
        found, _ = find_photos(original / "photos", None, CATEGORY, val=val, test=test)
        return {photo.photo: photo.split for photo in found}

    assert splits(0.3, 0.3) == splits(0.3, 0.3)
    assert set(splits(0, 0).values()) == {"train"} and set(splits(0, 1).values()) == {"test"}
    more, fewer = splits(0, 0.6), splits(0, 0.3)
    assert all(more[name] == "test" for name in fewer if fewer[name] == "test")
    with pytest.raises(SourceError, match=r"0\.5 and 0\.6"):
        splits(0.5, 0.6)


def test_photos_without_masks_are_full_or_cut_automatically(own: Path) -> None:
    shutil.rmtree(own / "masks")
    plain = prepare(own, photos=own / "photos").benchmark
    assert (plain.images[:, 3] == 255).all() and set(plain.queries["source"]) == {""}
    shutil.rmtree(own / "out")
    cut = prepare(own, photos=own / "photos", automatic=True).benchmark
    said = cut.queries["source"]
    assert said.str.startswith(("automatic mask of the whole photo", "the whole photo as mask")).all()
    assert (said == "automatic mask of the whole photo").mean() > 0.5
    found = (said == "automatic mask of the whole photo").to_numpy()
    assert all((image[3] < 255).any() for image in cut.images[found])


def test_a_table_of_photos_names_masks_splits_and_boxes(own: Path) -> None:
    shutil.copytree(own / "masks", own / "photos" / "masks")
    rows = [
        "photo,shape_id,mask,split,x0,y0,x1,y1",
        "box/cube/0.jpg,box/cube,masks/box/cube/0.png,train,,,,",
        "box/cube/1.jpg,box/tall|box/cube,,test,0,0,40,30",
        "box/cube/1.jpg,box/flat,,test,10,10,64,64",
        "box/deep/plank/0.jpg,box/deep/plank,,val,,,,",
    ]
    table(own, "\n".join(rows), "photos/photos.csv")
    made = prepare(own, photos=own / "photos").benchmark
    queries = made.queries.set_index("query_id")
    assert queries.index.tolist() == ["box/cube/0", "box/cube/1", "box/cube/1#2", "box/deep/plank/0"]
    assert queries["split"].tolist() == ["train", "test", "test", "val"]
    assert queries["seen"].tolist() == [True, True, False, False]  # any of the ids, here box/cube, has been trained
    full = (made.images[:, 3] == 255).all(axis=(1, 2))
    assert full.tolist() == [False, True, True, True]
    assert not np.array_equal(made.images[1], made.images[2])
    by_file, _ = find_photos(own / "photos/photos.csv", None, CATEGORY, val=0, test=0)
    assert [photo.query_id for photo in by_file] == queries.index.tolist()


def test_variants_of_a_group_count_as_seen(own: Path) -> None:
    facts = table(own, "shape_id,category,group\n" + "".join(f"{name},x,one\n" for name in SHAPES))
    table(
        own, "photo,shape_id,split\nbox/cube/0.jpg,box/cube,train\nbox/cube/1.jpg,box/flat,test\n", "photos/photos.csv"
    )
    made = prepare(own, categories=facts, photos=own / "photos").benchmark
    assert made.queries["seen"].tolist() == [True, True]


BROKEN_ROWS = {
    "no such photo": "none.jpg,box/cube,,,,,,",
    "no shape 'bed'": "box/cube/0.jpg,bed,,,,,,",
    "no shape 'two'": "box/cube/0.jpg,box/cube|two,,,,,,",
    "unknown split 'dev'": "box/cube/0.jpg,box/cube,,dev,,,,",
    "no mask .*no.png": "box/cube/0.jpg,box/cube,no.png,,,,,",
    "leads out of the folder": "../masks/box/cube/0.png,box/cube,,,,,,",
    "the box 1,2,,4 is not": "box/cube/0.jpg,box/cube,,,1,2,,4",
    "the box 9,0,3,8 is not": "box/cube/0.jpg,box/cube,,,9,0,3,8",
    "the box nan,0,3,8 is not": "box/cube/0.jpg,box/cube,,,nan,0,3,8",
    "splits test, train": "box/cube/0.jpg,box/cube,,train,,,,\nbox/cube/0.jpg,box/flat,,test,,,,",
}


def test_broken_rows_of_a_table_of_photos_are_all_listed(own: Path) -> None:
    header = "photo,shape_id,mask,split,x0,y0,x1,y1\n"
    table(own, header + "\n".join(BROKEN_ROWS.values()), "photos/photos.csv")
    with pytest.raises(SourceError, match="10 problems with photos") as error:
        prepare(own, photos=own / "photos")
    for said in BROKEN_ROWS:
        assert error.match(said)
    assert not (own / "out").exists()


def test_a_photo_of_an_unknown_shape_is_named(own: Path) -> None:
    (own / "photos/box/cube").rename(own / "photos/box/cubes")
    with pytest.raises(SourceError, match=r"6 problems .*box/cubes/0.jpg: there is no shape 'box/cubes'"):
        prepare(own, photos=own / "photos")


def refuse(*arguments, **options):
    raise AssertionError("this was done before")


def test_a_mask_of_another_size_is_named_and_what_was_done_is_kept(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(own / "masks/box/cube/3.png", np.full((10, 20), 255, np.uint8))
    (own / "photos/box/cube/4.jpg").write_bytes(b"no photo")
    save(own / "masks/box/cube/5.png", np.zeros((64, 64), np.uint8))
    options = {"photos": own / "photos", "masks": own / "masks"}
    with pytest.raises(SourceError, match=r"3 photos cannot be used: ") as error:
        prepare(own, **options)
    for said in (r"cube/3.png: the mask is 20×10 pixels, its photo 64×64", r"cube/4.jpg: cannot be", "mask is empty"):
        assert error.match(said)
    again: list[str] = []
    monkeypatch.setattr("cmiclib.geometry.render.render_views", refuse)  # no mesh is prepared again
    monkeypatch.setattr(photos, "open_photo", lambda path: again.append(path.name) or open_photo(path))
    made = prepare(own, **options, allow_missing=True)
    assert again == ["3.jpg", "4.jpg", "5.jpg"]
    assert len(made.benchmark.queries) == 9 and len(made.left_out) == 3


def test_a_mesh_is_made_of_files_not_of_the_folders_that_they_lie_in(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own / "meshes/box/flat.obj").write_text("mtllib own.mtl\n" + (own / "meshes/box/flat.obj").read_text())
    (own / "meshes/box/own.mtl").write_text("newmtl wood\nmap_Kd own.mtl\nmap_Kd wood.png\n")  # it names itself
    read_with = {mesh.path.name: [file.name for file in mesh.also] for mesh in find_meshes(own / "meshes")[0]}
    assert read_with == {"cube.glb": [], "plank.off": [], "flat.obj": ["own.mtl", "wood.png"], "tall.PLY": []}
    (own / "photos/box/cube/4.jpg").write_bytes(b"no photo")
    with pytest.raises(SourceError, match="1 photo cannot be used"):
        prepare(own, photos=own / "photos")
    for folder in (own / "meshes/box", own / "meshes", own):
        (folder / "notes.txt").write_text("whatever else changes in the folders, the meshes are the same")
    monkeypatch.setattr("cmiclib.geometry.render.render_views", refuse)
    made = prepare(own, photos=own / "photos", allow_missing=True)
    assert [line for line in made.left_out if "notes.txt" not in line] == [
        line for line in made.left_out if "4.jpg" in line
    ]
    assert len(made.benchmark.shapes) == 4


def test_a_mask_that_marks_nothing_in_the_box_is_refused(own: Path) -> None:
    half = np.zeros((64, 64), np.uint8)
    half[:, :20] = 255
    save(own / "photos/half.png", half)
    table(own, "photo,shape_id,mask,x0,y0,x1,y1\nbox/cube/0.jpg,box/cube,half.png,40,10,60,30\n", "photos/photos.csv")
    with pytest.raises(SourceError, match=r"half.png: the mask marks nothing within the box"):
        prepare(own, photos=own / "photos")


def test_masks_that_lack_are_named_unless_they_may(own: Path) -> None:
    (own / "masks/box/cube/0.png").unlink()
    with pytest.raises(SourceError, match=r"(?s)box/cube/0.jpg: there is no mask .*0.png.*--auto-mask"):
        prepare(own, photos=own / "photos", masks=own / "masks")
    made = prepare(own, photos=own / "photos", masks=own / "masks", automatic=True).benchmark
    said = made.queries.set_index("query_id")["source"]
    assert "mask" in said["box/cube/0"] and set(said.drop("box/cube/0")) == {""}


def test_a_mask_that_lacks_is_listed_where_it_may(own: Path) -> None:
    (own / "masks/box/cube/0.png").unlink()
    made, left_out = prepare(own, photos=own / "photos", masks=own / "masks", allow_missing=True)
    assert left_out == [f"{own / 'masks/box/cube/0.png'}: no such mask; box/cube/0.jpg comes without one"]
    assert (made.path / "left_out.txt").read_text().splitlines() == left_out


def test_files_of_other_kinds_and_linked_folders_are_listed(own: Path) -> None:
    (own / "photos/box/cube/6.cr2").write_bytes(b"")
    (own / "photos/more").symlink_to(own / "photos/box")
    (own / "meshes/box/chair.blend").write_bytes(b"")
    (own / "meshes/box/flat.mtl").write_bytes(b"")  # belongs to a mesh
    _, left_out = prepare(own, photos=own / "photos")
    assert [line.partition(": ")[0] for line in left_out] == [
        str(own / name) for name in ("meshes/box/chair.blend", "photos/box/cube/6.cr2", "photos/more")
    ]


@pytest.mark.parametrize("name", ["0_mask.png", "0-mask.PNG", "0.mask.png", "0_masks.jpg", "0.jpg.png", "0.webp"])
def test_masks_of_other_names_are_found(own: Path, name: str) -> None:
    folder = own / "masks/box/cube"
    pixels = np.asarray(Image.open(folder / "0.png"))
    (folder / "0.png").unlink()
    save(folder / name, pixels)
    made = prepare(own, photos=own / "photos", masks=own / "masks").benchmark
    assert (made.images[:, 3].min(axis=(1, 2)) == 0).all()


@pytest.mark.parametrize(
    "place", ["photos/box/cube/{}_mask.png", "photos/box/cube/masks/{}.png", "masks/box/cube/{}.png"]
)
def test_masks_beside_the_photos_are_found_and_are_no_photos(own: Path, place: str) -> None:
    (own / "masks").rename(own / "kept")
    for k in range(6):
        save(own / place.format(k), np.asarray(Image.open(own / f"kept/box/cube/{k}.png")))
    made = prepare(own, photos=own / "photos").benchmark
    of_cube = made.queries["shape_id"].to_numpy() == "box/cube"
    assert of_cube.sum() == 6 and (made.images[of_cube, 3].min(axis=(1, 2)) == 0).all()


def test_a_photo_that_is_called_a_mask_stays_a_photo(own: Path) -> None:
    save(own / "photos/box/cube/welders_mask.png", np.zeros((64, 64, 3), np.uint8))
    assert "box/cube/welders_mask" in set(prepare(own, photos=own / "photos").benchmark.queries["query_id"])


def test_what_is_not_read_is_named_with_the_error_of_others(own: Path) -> None:
    for name in ("a.fbx", "b.USDZ", "c.blend"):
        (own / "meshes" / name).write_bytes(b"?")
    (own / "meshes/box/cube.glb").write_bytes(b"?")
    with pytest.raises(
        SourceError, match=r"(?s)cube.glb.*3 other files: .*a.fbx: FBX .*GLB.*b.USDZ: USD .*c.blend: Bl"
    ):
        prepare(own)
    for folder in ("photos", "meshes"):
        (own / "none" / folder).mkdir(parents=True)
        (own / "none" / folder / "x.dng").write_bytes(b"?")
    with pytest.raises(SourceError, match=r"there are no photos; 1 other file: .*x\.dng"):
        prepare(own, photos=own / "none/photos")
    with pytest.raises(SourceError, match=r"there are no meshes; 1 other file: .*x\.dng"):
        prepare_folder(own / "none/meshes", own / "out")


def test_a_defect_is_named_with_its_traceback_in_a_log(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(mesh):
        if len(mesh.vertices) == 8 and mesh.extents[1] > mesh.extents[0]:
            raise RecursionError("nobody thought of this")
        return b""

    monkeypatch.setattr("cmiclib.geometry.export_glb", broken)
    with pytest.raises(SourceError, match=r"working on it failed unexpectedly; .*out\.errors\.log") as error:
        prepare(own)
    assert "nobody" not in str(error.value)
    made = prepare(own, allow_missing=True)
    assert [line.partition(": ")[0] for line in made.left_out] == [str(own / "meshes/box/tall.PLY")]
    assert len(made.benchmark.shapes) == 3
    assert "nobody thought of this" in (own / "out.errors.log").read_text()


def test_a_repaired_photo_makes_its_shape_seen_and_loses_nothing(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = (own / "photos/box/cube/0.jpg").read_bytes()
    (own / "photos/box/cube/0.jpg").write_bytes(b"no photo")
    rows = "box/cube/0.jpg,box/cube,train\nbox/cube/1.jpg,box/cube,test\nbox/deep/plank/0.jpg,box/deep/plank,test\n"
    table(own, f"photo,shape_id,split\n{rows}", "photos/photos.csv")
    with pytest.raises(SourceError, match="1 photo cannot be used"):
        prepare(own, photos=own / "photos")
    (own / "photos/box/cube/0.jpg").write_bytes(good)
    monkeypatch.setattr("cmiclib.geometry.render.render_views", refuse)
    assert prepare(own, photos=own / "photos").benchmark.queries["seen"].tolist() == [True, True, False]


def test_a_second_call_takes_what_the_files_hold_now(own: Path) -> None:
    (own / "meshes/box/tall.PLY").write_bytes(b"ply")
    with pytest.raises(SourceError, match="1 shape cannot be used"):
        prepare(own)
    (own / "meshes/box/tall.PLY").unlink()  # a broken file that goes costs no finished shape
    shutil.copy(own / "meshes/box/flat.obj", own / "meshes/box/cube.obj")
    (own / "meshes/box/cube.glb").unlink()
    made = prepare(own).benchmark
    assert made.shapes["shape_id"].tolist() == ["box/cube", "box/deep/plank", "box/flat"]
    assert np.array_equal(made.views[0], made.views[2])


def test_a_mask_is_clipped_to_its_box(own: Path) -> None:
    half = np.zeros((64, 64), np.uint8)
    half[:, :40] = 255
    save(own / "photos/half.png", half)
    table(own, "photo,shape_id,mask,x0,y0,x1,y1\nbox/cube/0.jpg,box/cube,half.png,20,10,60,30\n", "photos/photos.csv")
    image = prepare(own, photos=own / "photos").benchmark.images[0]  # a square of 48 pixels around 20 × 20 of them
    assert image[3].mean() / 255 == pytest.approx(20 * 20 / 48**2, abs=0.01)


def test_photos_must_be_there(own: Path) -> None:
    with pytest.raises(SourceError, match="no such folder or table of photos"):
        prepare(own, photos=own / "none")
    (own / "empty").mkdir()
    with pytest.raises(SourceError, match="there are no photos"):
        prepare(own, photos=own / "empty")


# The command


def test_the_command_says_what_was_made_and_what_was_left_out(own: Path) -> None:
    (own / "meshes/box/tall.PLY").write_bytes(b"ply\n")
    common = ["prepare", "folder", "--output", str(own / "out"), "--size", "32", "--jobs", "1"]
    refused = CliRunner().invoke(app, [*common, "--input", str(own / "meshes")])
    assert refused.exit_code == 2 and "tall.PLY" in refused.stderr and "--allow-missing" in refused.stderr
    done = CliRunner().invoke(app, [*common, "--input", str(own / "meshes"), "--allow-missing"])
    assert done.exit_code == 0, done.output
    assert "1 item left out, see left_out.txt: " in done.stderr and "3 shapes and 0 photos" in done.stdout
    assert Benchmark.open(own / "out").shapes["shape_id"].tolist() == SHAPES[:3]
    nothing = CliRunner().invoke(app, ["prepare", "folder", "--output", str(own / "other")])
    assert nothing.exit_code == 2 and "--queries with --gallery" in nothing.stderr


@pytest.mark.slow
def test_from_a_folder_to_an_answer(tmp_path: Path) -> None:
    ids = write_meshes(tmp_path / "meshes")
    write_photos(tmp_path / "photos", tmp_path / "masks", ids)
    steps = {
        "prepare": ["prepare", "folder", "--input", tmp_path / "meshes", "--photos", tmp_path / "photos", "--masks",
                    tmp_path / "masks", "--output", tmp_path / "out", "--size", 48],
        "train": ["train", "--benchmark", tmp_path / "out", "--output", tmp_path / "run", "--profile", "smoke",
                  "model.image_size=32", "train.batch=5", "train.steps=4", "train.eval_every=2", "train.log_every=1"],
        "evaluate": ["evaluate", "--run", tmp_path / "run", "--benchmark", tmp_path / "out"],
        "index": ["index", "--run", tmp_path / "run", "--benchmark", tmp_path / "out", "--output", tmp_path / "i"],
        "search": ["search", tmp_path / "photos/round/cone/0.jpg", "--index", tmp_path / "i", "--top", 13],
    }  # fmt: skip
    for name, arguments in steps.items():
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert done.exit_code == 0, f"{name}: {done.output}"
    assert all(shape_id in done.output for shape_id in ids)


def test_axes_may_follow_rules_for_some_files(own) -> None:
    shutil.copy(own / "meshes" / "box" / "flat.obj", own / "meshes" / "other.obj")
    found, _ = find_meshes(own / "meshes", up="+y, box/*=+z", front="+z,box/*=-y")
    axes = {(mesh.category, mesh.up, mesh.front) for mesh in found}
    assert axes == {("misc", "+y", "+z"), ("box", "+z", "-y")}
    found, _ = find_meshes(own / "meshes", up="OTHER*=-x")
    assert [mesh.path.name for mesh in found if mesh.up == "-x"] == ["other.obj"]


@pytest.mark.parametrize(
    ("up", "error", "said"),
    [
        ("*.nothing=+z", SourceError, "no mesh matches"),
        ("box/*=up", MeshError, "unknown axis"),
        ("box/*=-z", MeshError, "parallel"),
    ],
)
def test_rules_for_axes_that_cannot_be_meant_are_refused(own, up, error, said) -> None:
    with pytest.raises(error, match=said):
        find_meshes(own / "meshes", up=up)
