"""ShapeNetCore's two layouts, written here in small, and one real car where it is at hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh

from cmiclib.benchmark import Benchmark
from cmiclib.errors import MeshError, SourceError
from cmiclib.geometry import face_colors, load_mesh
from cmiclib.sources import Prepared, PrepareOptions
from cmiclib.sources.shapenet import LAYOUTS, find_synsets, prepare_shapenet, read_taxonomy

TAXONOMY = [
    {"synsetId": "04591713", "name": "wine bottle", "children": []},
    {"synsetId": "04591713", "name": "wine bottle", "children": []},
    {"synsetId": "03636649", "name": "lamp", "children": []},
    {"synsetId": "03001627", "name": "chair", "children": []},
    {"synsetId": "04256520", "name": "sofa,couch,lounge", "children": []},
]


def arrow(up: str, front: str) -> trimesh.Trimesh:
    """A long bar along `front` with a mast above its head, in the frame of a file."""
    axes = {"x": np.array([1.0, 0, 0]), "y": np.array([0, 1.0, 0]), "z": np.array([0, 0, 1.0])}
    u, f = ((-1 if axis[0] == "-" else 1) * axes[axis[1]] for axis in (up, front))
    side = np.cross(u, f)
    bar = trimesh.creation.box(np.abs(2 * f + 0.2 * u + 0.2 * side))
    mast = trimesh.creation.box(np.abs(0.2 * f + 0.8 * u + 0.2 * side)).apply_translation(0.9 * f + 0.4 * u)
    return trimesh.util.concatenate([bar, mast])


def write_shapenet(root: Path, version: str, models: dict[str, list[str]]) -> Path:
    """Synset → names of models, each one an arrow."""
    layout = LAYOUTS[version]
    for synset, names in models.items():
        for name in names:
            path = root / synset / name / layout.file
            path.parent.mkdir(parents=True)
            arrow(layout.up, layout.front).export(path)
    (root / "taxonomy.json").write_text(json.dumps(TAXONOMY))
    return root


def prepare(root: Path, tmp_path: Path, allow_missing: bool = False, **rest) -> Prepared:
    options = PrepareOptions(size=32, jobs=1, progress=False, allow_missing=allow_missing)
    return prepare_shapenet(root, tmp_path / "out", options, **rest)


FOUR = {"02818832": ["b1"], "03001627": ["c1", "c2"], "04256520": ["s1"], "04379243": ["t1"]}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_either_layout_becomes_a_gallery_without_photos_that_faces_the_camera(tmp_path: Path, version: str) -> None:
    made, left_out = prepare(write_shapenet(tmp_path / "root", version, FOUR), tmp_path)
    assert left_out == []
    assert made.shapes.shape_id.tolist() == ["bed/b1", "chair/c1", "chair/c2", "sofa/s1", "table/t1"]
    assert made.shapes.category.tolist() == ["bed", "chair", "chair", "sofa", "table"]
    assert set(made.shapes.source) == {f"ShapeNetCore {version}"}
    opened = Benchmark.open(made.path)  # checks every file
    assert len(opened.queries) == 0 and opened.images.shape == (0, 4, 32, 32) and len(opened.rows("test")) == 0
    for points in opened.points.astype(float):
        top = points[points[:, 1] > np.quantile(points[:, 1], 0.9)]
        assert np.ptp(points, axis=0).argmax() == 2, "the bar lies along the front axis"
        assert top[:, 2].min() > 0.5, "the mast stands at the front, upwards"
    assert opened.mesh_path("sofa/s1").is_file() and opened.voxels.any(axis=1).all()


def test_the_frame_can_be_overridden(tmp_path: Path) -> None:
    root = write_shapenet(tmp_path / "root", "v1", {"03001627": ["c1"]})
    made, _ = prepare(root, tmp_path, synsets="chair", front="-x")
    assert made.points[0][made.points[0][:, 1] > 0.3][:, 2].max() < -0.5, "now the mast is at the back"
    with pytest.raises(MeshError, match="parallel"):
        prepare_shapenet(root, tmp_path / "other", synsets="chair", up="+x")


@pytest.mark.parametrize(
    "synsets, categories",
    [
        ("table, 03001627", ["table", "chair", "chair"]),
        ("03636649", ["lamp"]),
        ("lamp", ["lamp"]),
        ("00000007", ["00000007"]),
        ("all", ["00000007", "bed", "chair", "chair", "lamp", "sofa", "table"]),
    ],
)
def test_synsets_are_chosen_by_name_by_number_or_all(tmp_path: Path, synsets: str, categories: list[str]) -> None:
    root = write_shapenet(tmp_path / "root", "v2", FOUR | {"03636649": ["l1"], "00000007": ["x1"]})
    made, _ = prepare(root, tmp_path, synsets=synsets)
    assert made.shapes.category.tolist() == categories


def test_a_limit_takes_the_first_models_of_each_synset(tmp_path: Path) -> None:
    root = write_shapenet(tmp_path / "root", "v1", {"03001627": ["c3", "c1", "c2"], "04379243": ["t1"]})
    made, _ = prepare(root, tmp_path, synsets="chair,table", limit=2)
    assert made.shapes.shape_id.tolist() == ["chair/c1", "chair/c2", "table/t1"]


def test_a_model_of_two_synsets_is_one_group(tmp_path: Path) -> None:
    root = write_shapenet(tmp_path / "root", "v1", {"02818832": ["both"], "04256520": ["both", "s1"]})
    made, _ = prepare(root, tmp_path, synsets="bed,sofa")
    assert made.shapes.shape_id.tolist() == ["bed/both", "sofa/both", "sofa/s1"]
    assert made.shapes.group[0] == made.shapes.group[1] != made.shapes.group[2]


def test_taxonomy_nodes_that_occur_twice_have_one_name(tmp_path: Path) -> None:
    root = write_shapenet(tmp_path / "root", "v1", {"04591713": ["w1"]})
    assert read_taxonomy(root / "taxonomy.json")["04591713"] == "wine bottle"
    assert find_synsets(root, "all") == {"wine bottle": root / "04591713"}
    assert find_synsets(root, "wine bottle") == {"wine bottle": root / "04591713"}


def test_two_synsets_of_one_name_stay_two_categories(tmp_path: Path) -> None:
    root = write_shapenet(tmp_path / "root", "v1", {"03636649": ["a"], "00000007": ["b"]})
    (root / "taxonomy.json").write_text(json.dumps([*TAXONOMY, {"synsetId": "00000007", "name": "lamp"}]))
    assert list(find_synsets(root, "all")) == ["lamp-00000007", "lamp-03636649"]


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmiclib import geometry

    root = write_shapenet(tmp_path / "root", "v1", FOUR)
    rendered = []
    real = geometry.load_mesh

    def counted(path, *axes):
        if len(rendered) == 2:
            raise KeyboardInterrupt
        rendered.append(path)
        return real(path, *axes)

    monkeypatch.setattr("cmiclib.geometry.load_mesh", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path)
    assert not (tmp_path / "out").exists()
    first, rendered[:] = list(rendered), []
    monkeypatch.setattr("cmiclib.geometry.load_mesh", lambda path, *axes: (rendered.append(path), real(path, *axes))[1])
    made, _ = prepare(root, tmp_path)
    assert len(made.shapes) == 5 and not set(first) & set(rendered) and len(first + rendered) == 5


# Mistakes


def test_a_wrong_root_says_which_folder_is_meant(tmp_path: Path) -> None:
    (tmp_path / "chair").mkdir()
    with pytest.raises(SourceError, match=r"(?s)no folder of a synset.*ShapeNetCore\.v1") as error:
        prepare(tmp_path, tmp_path)
    assert str(tmp_path) in str(error.value)
    with pytest.raises(SourceError, match="no such folder"):
        prepare(tmp_path / "none", tmp_path)


def test_unknown_synsets_are_named_with_the_known_ones(tmp_path: Path) -> None:
    root = write_shapenet(tmp_path / "root", "v1", FOUR)
    with pytest.raises(SourceError, match=r"(?s)'chiar' is not a known synset.*bed, chair, sofa, table, car"):
        prepare(root, tmp_path, synsets="bed,chiar")


def test_missing_synsets_are_listed_and_zips_are_noticed(tmp_path: Path) -> None:
    root = write_shapenet(tmp_path / "root", "v1", {"03001627": ["c1"]})
    with pytest.raises(SourceError, match=r"no folder of bed \(02818832\), car \(02958343\)"):
        prepare(root, tmp_path, synsets="bed,chair,car")
    (root / "02818832.zip").write_bytes(b"PK")
    with pytest.raises(SourceError, match=r"unzip 02818832\.zip"):
        prepare(root, tmp_path, synsets="bed,chair")


def test_models_without_a_mesh_are_listed_or_left_out(tmp_path: Path) -> None:
    root = write_shapenet(tmp_path / "root", "v2", FOUR)
    (root / "03001627" / "c0" / "models").mkdir(parents=True)
    with pytest.raises(SourceError, match=r"(?s)1 model without a mesh: .*c0: no models/model_normal.*--allow"):
        prepare(root, tmp_path)
    made, left_out = prepare(root, tmp_path, allow_missing=True)
    assert len(made.shapes) == 5 and len(left_out) == 1 and "c0" in left_out[0]


def test_broken_meshes_are_listed_or_left_out(tmp_path: Path) -> None:
    root = write_shapenet(tmp_path / "root", "v1", FOUR)
    for name in ("c1", "c2"):
        (root / "03001627" / name / "model.obj").write_text("v 0 0 0\n")
    with pytest.raises(SourceError, match=r"2 shapes cannot be used: .*c1/model.obj: .*no faces.*c2/model.obj"):
        prepare(root, tmp_path)
    made, left_out = prepare(root, tmp_path, allow_missing=True)
    assert made.shapes.shape_id.tolist() == ["bed/b1", "sofa/s1", "table/t1"]
    assert [Path(line.partition(":")[0]).parent.name for line in left_out] == ["c1", "c2"]


def test_a_gallery_of_nothing_is_refused(tmp_path: Path) -> None:
    root = write_shapenet(tmp_path / "root", "v1", {"03001627": ["c1"]})
    (root / "03001627/c1/model.obj").write_text("")
    with pytest.raises(SourceError, match="no shape can be used; 1 problem"):
        prepare(root, tmp_path, synsets="chair", allow_missing=True)
    shutil.rmtree(root / "03001627/c1")
    with pytest.raises(SourceError, match="03001627: this synset holds no models"):
        prepare(root, tmp_path, synsets="chair")


def test_the_version_must_be_clear(tmp_path: Path) -> None:
    root = write_shapenet(tmp_path / "root", "v1", {"03001627": ["c1"]})
    write_shapenet(root, "v2", {"03001627": ["c2"]})
    with pytest.raises(SourceError, match=r"(?s)both .*--version"):
        prepare(root, tmp_path, synsets="chair")
    made, left_out = prepare(root, tmp_path, synsets="chair", version="v2", allow_missing=True)
    assert made.shapes.shape_id.tolist() == ["chair/c2"] and len(left_out) == 1
    with pytest.raises(SourceError, match="unknown version 'v3'"):
        prepare(root, tmp_path, synsets="chair", version="v3")
    for path in root.rglob("*.obj"):
        path.unlink()
    with pytest.raises(SourceError, match="neither"):
        prepare(root, tmp_path, synsets="chair")


@pytest.mark.parametrize("text", ["{", '{"synsetId": "1"}', '[{"name": "chair"}]', "[1]"])
def test_a_damaged_taxonomy_is_named(tmp_path: Path, text: str) -> None:
    root = write_shapenet(tmp_path / "root", "v1", FOUR)
    (root / "taxonomy.json").write_text(text)
    with pytest.raises(SourceError, match=r"taxonomy\.json: (this is not a taxonomy|cannot be read as JSON)"):
        prepare(root, tmp_path)


@pytest.mark.shared
def test_a_real_car_of_version_1_faces_the_camera(shared_root: Path, tmp_path: Path) -> None:
    """Its materials say where the front is: red lights behind, yellow glass of the headlights before."""
    root = shared_root / "cars" / "CAD"
    made, left_out = prepare(root, tmp_path, synsets="car", allow_missing=True)
    assert made.shapes.shape_id.tolist() == ["car/189c2b53ef76d02978a20fe14185667"] and len(left_out) == 1
    mesh = load_mesh(root / "02958343" / made.shapes.group[0] / "model.obj", LAYOUTS["v1"].up, LAYOUTS["v1"].front)
    colors, centres = face_colors(mesh).astype(int), mesh.triangles_center
    red = (colors[:, 0] > 130) & (colors[:, 1] < 80)
    yellow = (colors[:, 1] > 150) & (colors[:, 2] < 120)
    assert centres[red][:, 2].max() < -0.3 and centres[yellow][:, 2].min() > 0.3
    assert np.ptp(made.points[0], axis=0).argsort().tolist() == [1, 0, 2]  # low, broader, longest along its front
