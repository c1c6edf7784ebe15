"""A link out of the folder that a reader was given is refused, wherever in the folder it lies.

The link leads to the very file that stood in its place, so that nothing else is wrong.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import test_cars3d as cars3d
import test_pix3d as pix3d
import test_release as release
import test_shapenet as shapenet
from own_folder import write_meshes, write_photos
from released_archive import write_archive
from scipy.io import savemat

from cmiclib.errors import CMICError
from cmiclib.sources import PrepareOptions
from cmiclib.sources.own.folder import prepare_folder

Prepare = Callable[[], object]


def cars(root: Path, benchmark) -> Prepare:
    cars3d.write_root(root, cars3d.STANFORD)
    return lambda: cars3d.prepare(root)


def records(root: Path, benchmark) -> Prepare:
    pix3d.write_root(root)
    savemat(root / "model" / "bed" / "IKEA_A" / "voxel.mat", {"voxel": pix3d.fitted_grid(pix3d.trimesh.creation.box())})
    return lambda: pix3d.prepare(root)


def synsets(root: Path, benchmark) -> Prepare:
    shapenet.write_shapenet(root, "v1", shapenet.FOUR)
    return lambda: shapenet.prepare(root, root.parent)


def archive(root: Path, benchmark) -> Prepare:
    write_archive(benchmark, root)
    return lambda: release.prepare(root, root.parent)


def own(root: Path, benchmark) -> Prepare:
    write_photos(root / "photos", root / "masks", write_meshes(root / "meshes", 3), each=2)
    names = sorted(path.relative_to(root / "photos") for path in (root / "photos").rglob("*.jpg"))
    rows = [f"{name},{name.parent},masks/{name.with_suffix('.png')}" for name in names]
    (root / "photos" / "masks").mkdir()
    for name in names:
        copy = root / "photos" / "masks" / name.with_suffix(".png")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((root / "masks" / name.with_suffix(".png")).read_bytes())
    (root / "photos" / "photos.csv").write_text("\n".join(["photo,shape_id,mask", *map(str, rows)]) + "\n")
    options = PrepareOptions(size=32, jobs=1, progress=False)
    return lambda: prepare_folder(root / "meshes", root.parent / "out", options, photos=root / "photos")


@pytest.mark.parametrize(
    "write, name",
    [
        (cars, "Anno3D/StanfordCars/train_anno_v2.pkl"), (cars, "StanfordCars/cars_train/00001.jpg"),
        (cars, "StanfordCars/cars_test"), (cars, "CAD/02958343/aaa1/model.obj"), (cars, "CAD/02958343/aaa1"),
        (cars, "CAD/StanfordCars3D.txt"),
        (records, "img/bed/0001.jpg"), (records, "img/bed"), (records, "mask/bed/0001.png"),
        (records, "model/bed/IKEA_A/model.obj"), (records, "model/bed/IKEA_A"), (records, "model/bed"),
        (records, "model/bed/IKEA_A/voxel.mat"),
        (synsets, "03001627/c1/model.obj"), (synsets, "03001627/c1"), (synsets, "03001627"), (synsets, "taxonomy.json"),
        (archive, "pix3d_train.json"), (archive, "rendering_pix3d.pkl"), (archive, "img/box/0000.png"),
        (archive, "mask_ocrnet/box"), (archive, "model_std_bin128/box"), (archive, "model_std_ptc10k_npy/box/flat.npy"),
        (own, "meshes/box/flat.obj"), (own, "photos/photos.csv"), (own, "photos/box/flat/0.jpg"),
        (own, "photos/masks/box/flat/0.png"),
    ],
)  # fmt: skip
def test_a_link_out_of_the_folder_is_refused(write, name: str, tmp_path: Path, tiny_benchmark) -> None:
    prepare = write(tmp_path / "root", tiny_benchmark)
    inside, outside = tmp_path / "root" / name, tmp_path / f"outside{Path(name).suffix}"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(CMICError, match=r"(leads|link) out of") as error:
        prepare()
    assert inside.name in str(error.value) or inside.stem in str(error.value)
    assert not (tmp_path / "out").exists()
