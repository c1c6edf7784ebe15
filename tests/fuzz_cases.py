"""What is fuzzed: for each reader a small folder of valid files, the file that is damaged, and how it is read.

The seeds are written by code, so that they stay in the repository as text and are valid for this very version. Payloads
are files that were made to harm: they write `CANARY` when they are run, or open `SECRET`, which lies beside the folder.
"""

import atexit
import base64
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import fast_simplification
import numpy as np
import pillow_heif
import torch
import trimesh
from PIL import Image
from safetensors.torch import save
from scipy.io import savemat

from cmiclib.benchmark import Benchmark
from cmiclib.benchmark.splits import read_split
from cmiclib.benchmark.writer import BenchmarkWriter
from cmiclib.book.publish import Package, check_integrity
from cmiclib.book.publish import unpack as unpack_script
from cmiclib.book.runner import read_record
from cmiclib.book.tables import read_results
from cmiclib.browser.app import shipped_retriever
from cmiclib.browser.page import model_uri
from cmiclib.browser.upload import read_mask_upload, read_upload
from cmiclib.config import Config, ModelConfig
from cmiclib.errors import MeshError
from cmiclib.evaluation.parity import read_arrays
from cmiclib.index import ShapeIndex
from cmiclib.index.query import read_query
from cmiclib.io.atomic import write_json
from cmiclib.io.files import read_limited
from cmiclib.io.images import read_mask, read_photo
from cmiclib.io.jittor import MAGIC, read_jittor
from cmiclib.io.pickles import sha1
from cmiclib.io.protocol import PROTOCOL
from cmiclib.model import build_model
from cmiclib.sources import PrepareOptions
from cmiclib.sources.cars3d import read_model_ids
from cmiclib.sources.cars3d.camera import read_poses as read_car_poses
from cmiclib.sources.meshes import MeshFile, prepare_mesh
from cmiclib.sources.own.crops import read_crops
from cmiclib.sources.own.listings import read_listing
from cmiclib.sources.own.photo_lists import find_photos
from cmiclib.sources.photos import PhotoFile
from cmiclib.sources.pix3d.frames import read_voxels
from cmiclib.sources.pix3d.records import read_records
from cmiclib.sources.release import prepare_release, read_binvox, read_renderings
from cmiclib.sources.rendered import photograph, read_poses
from cmiclib.sources.shapenet import read_taxonomy
from cmiclib.sources.sweethome import SHIPPED_COLUMNS, photo_facts, prepare_sweethome
from cmiclib.training.run import Run, load_reference_checkpoint, save_weights
from cmiclib.training.state import load_state
from cmiclib.weights import read_weights

CANARY = "executed-by-a-file"
SECRET = "secret.txt"
MODEL = ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=8, image_size=32, init="random")


@dataclass(frozen=True)
class Case:
    """A reader with its valid input: ``write`` fills a folder, ``target`` is the file in it that is damaged.

    A target that the user names may be a link: it is the user's own. One that is found in a folder must not lead out.
    """

    name: str
    target: str
    write: Callable[[Path], None]
    read: Callable[[Path], object]  # takes the folder
    named: bool = False


def bytes_of(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def picture(mode: str = "RGB", kind: str = "PNG", size: tuple[int, int] = (24, 16), **options: object) -> bytes:
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint32).reshape(size[1], size[0], 3) * 7 % 256
    image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
    return bytes_of(lambda file: image.save(file, kind, **options))


def deep_picture() -> bytes:
    return bytes_of(
        lambda file: Image.fromarray(np.arange(384, dtype=np.uint16).reshape(16, 24) * 170).save(file, "PNG")
    )


def one(name: str, content: Callable[[], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content()) and None


def file_case(name: str, file: str, content: Callable[[], bytes], read: Callable[[Path], object]) -> Case:
    return Case(name, file, one(file, content), lambda folder: read(folder / file), named=True)


# Meshes

BOX = trimesh.creation.box((2, 0.4, 1))
OBJ = "mtllib part.mtl\n" + "".join(f"v {x} {y} {z}\n" for x, y, z in BOX.vertices) + "vt 0 0\nvt 1 0\nvt 1 1\n"
OBJ += "usemtl wood\n" + "".join(f"f {a + 1}/1 {b + 1}/2 {c + 1}/3\n" for a, b, c in BOX.faces)
MTL = "newmtl wood\nKd 0.5 0.2 0.1\nmap_Kd wood.png\n"


def write_obj(folder: Path) -> None:
    (folder / "part.obj").write_text(OBJ)
    (folder / "part.mtl").write_text(MTL)
    (folder / "wood.png").write_bytes(picture())


def export(kind: str, **options: object) -> bytes:
    data = BOX.export(file_type=kind, **options)
    return data.encode() if isinstance(data, str) else data


def textured_glb() -> bytes:
    visual = trimesh.visual.TextureVisuals(uv=BOX.vertices[:, :2], image=Image.open(io.BytesIO(picture())))
    return trimesh.Trimesh(BOX.vertices, BOX.faces, visual=visual, process=False).export(file_type="glb")


POLYGONS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7, 3)]
XML_3MF = (
    '<model xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02"><resources>'
    '<object id="1"><mesh><vertices>'
    + "".join(f'<vertex x="{x}" y="{y}" z="{z}"/>' for x, y, z in BOX.vertices)
    + "</vertices><triangles>"
    + "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in BOX.faces)
    + '</triangles></mesh></object><object id="2"><components>'
    '<component objectid="1" transform="1 0 0 0 1 0 0 0 1 5 0 0"/>'
    '</components></object></resources><build><item objectid="1"/><item objectid="2"/></build></model>'
)
DAE = f"""<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">
<asset><up_axis>Z_UP</up_axis></asset>
<library_geometries><geometry id="g"><mesh><source id="p"><float_array id="pa" count="24">
{" ".join(map(str, BOX.vertices.ravel()))}</float_array><technique_common><accessor source="#pa" count="8" stride="3">
<param name="X" type="float"/><param name="Y" type="float"/><param name="Z" type="float"/></accessor></technique_common>
</source><vertices id="v"><input semantic="POSITION" source="#p"/></vertices>
<polylist count="7"><input semantic="VERTEX" source="#v" offset="0"/>
<vcount>{" ".join(str(len(each)) for each in POLYGONS)}</vcount><p>
{" ".join(str(i) for each in POLYGONS for i in each)}</p></polylist></mesh></geometry></library_geometries>
<library_visual_scenes><visual_scene id="s"><node><translate>0 0 7</translate><rotate>1 0 0 90</rotate>
<instance_geometry url="#g"/></node></visual_scene></library_visual_scenes>
<scene><instance_visual_scene url="#s"/></scene></COLLADA>"""


def mixed_ply() -> bytes:
    head = "ply\nformat binary_big_endian 1.0\nelement vertex 8\nproperty float x\nproperty float y\nproperty float z\n"
    head += "element face 7\nproperty list uchar int vertex_indices\nproperty uchar red\nproperty uchar green\n"
    faces = b"".join(struct.pack(f">B{len(each)}i3B", len(each), *each, 9, 99, 200) for each in POLYGONS)
    return (head + "property uchar blue\nend_header\n").encode() + BOX.vertices.astype(">f4").tobytes() + faces


def polygon_obj() -> bytes:
    lines = [f"v {x} {y} {z}" for x, y, z in BOX.vertices]
    return "\n".join([*lines, *("f " + " ".join(str(i - 8) for i in each) for each in POLYGONS)]).encode()


def write_gltf(folder: Path) -> None:
    (folder / "x.gltf").write_text(json.dumps(glb_tree(buffers=[{"byteLength": 240, "uri": "x.bin"}])))
    (folder / "x.bin").write_bytes(GLB_DATA)


def rich_glb() -> bytes:
    """Sparse and normalised corners, a fan, instances, a camera, and no scene."""
    instanced = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 2}}}
    tree = glb_tree(
        nodes=[{"camera": 0, "children": [1]}, {"mesh": 0, "extensions": instanced}],
        cameras=[{"type": "perspective", "perspective": {"yfov": 1, "znear": 1}}],
    )
    sparse = {"count": 1, "indices": {"bufferView": 1, "componentType": 5125}, "values": {"bufferView": 0}}
    tree["accessors"] = [
        {"componentType": 5126, "count": 8, "type": "VEC3", "bufferView": 0, "sparse": sparse},
        {"componentType": 5125, "count": 36, "type": "SCALAR", "bufferView": 1},
        {"componentType": 5122, "count": 4, "type": "VEC3", "bufferView": 0, "normalized": True},
    ]
    tree["meshes"] = [
        {"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}, {"attributes": {"POSITION": 0}, "mode": 6}]}
    ]
    del tree["scenes"], tree["scene"]
    return glb(tree, GLB_DATA)


def read_model(path: Path) -> object:
    path.with_suffix(".3mf").write_bytes(zip_of({"3D/3dmodel.model": read_limited(path, 1 << 24, MeshError)}))
    return read_mesh(path.with_suffix(".3mf"))


def heif(kind: str) -> bytes:
    pillow_heif.register_heif_opener()
    return picture(kind=kind)


def read_mesh(path: Path) -> object:
    """Do with a mesh all that `cmic find` does."""
    assert fast_simplification  # loaded now: only large meshes need it, and a file must load nothing
    return prepare_mesh(MeshFile("x", "x", path), 24, PROTOCOL, measured=False)


# Benchmarks and runs


def write_benchmark(folder: Path) -> None:
    rng = np.random.default_rng(0)
    writer = BenchmarkWriter(folder / "b", name="small", source="drawn", licence="CC0-1.0", size=8)
    for name in ("box/a", "box/b", "round/c"):
        views, voxels = rng.integers(0, 255, (12, 8, 8), np.uint8), np.zeros(128**3 // 8, np.uint8)
        writer.add_shape(name, name[:3], views, mesh=export("glb"), voxels=voxels)
    for k, split in enumerate(("train", "train", "val", "test")):
        writer.add_query(f"q{k}", "box/a", "box", rng.integers(0, 255, (4, 8, 8), np.uint8), split=split)
    writer.finish()


def read_benchmark(folder: Path) -> object:
    for verify in (True, False):
        found = Benchmark.open(folder / "b", verify=verify)
        rows = found.rows()
        found.relevant(rows), found.shape_category(), found.query_category(rows), found.hash
        found.views.sum(), found.images.sum(), found.voxels.sum()
        [found.mesh_path(name) for name in found.shapes["shape_id"]]
    return None


def read_gallery_mesh(folder: Path) -> object:
    found = Benchmark.open(folder / "b", verify=False)
    shown = model_uri(found, "box/a")
    return shown, photograph(PhotoFile("a", found.mesh_path("box/a"), ("box/a",), "box", "train"), 16, None, seed=0)


def write_run(parent: Path) -> None:
    folder = parent / "run"
    torch.manual_seed(0)
    write_json(folder / "config.json", Config(model=MODEL).model_dump(mode="json"))
    write_json(folder / "data.json", {"benchmark": "small", "hash": "0" * 64})
    write_json(folder / "environment.json", {"date": "2020-01-01", "seconds": 1.0})
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 1, "val": {"mrr": 0.5}}\n')
    save_weights(folder / "model.safetensors", build_model(MODEL))


def read_run(folder: Path) -> object:
    run = Run.open(folder / "run")
    return run.model(), run.log, run.manifest.get("hash"), run.environment.get("date")


def index_bytes(folder: Path) -> None:
    rng = np.random.default_rng(0)
    index = ShapeIndex.from_arrays(rng.normal(size=(3, 12, 8)), rng.normal(size=(8, 8)), ["a", "b", "c"])
    index.save(folder / "x.index")


def read_index(folder: Path) -> object:
    index = ShapeIndex.load(folder / "x.index")
    return index.search(np.ones((1, index.views.shape[2]), np.float32), 2)


def released_checkpoint() -> bytes:
    torch.manual_seed(0)
    weights = build_model(MODEL).state_dict().items()
    state = {name: value.numpy() for name, value in weights if not name.endswith("num_batches_tracked")}
    body = pickle.dumps(state, 2)
    return body + sha1(body) + MAGIC


@cache
def gallery() -> Benchmark:
    """A benchmark that outlives the case, with what a shipped model of it holds."""
    folder = Path(tempfile.mkdtemp(prefix="gallery-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_benchmark(folder)
    return Benchmark.open(folder / "b")


@cache
def shipped_model() -> bytes:
    torch.manual_seed(0)
    index = ShapeIndex.build(build_model(MODEL), gallery(), Config(model=MODEL))
    rows, queries = gallery().rows("test"), gallery().queries
    shapes = gallery().shapes.category.isin(queries.category.to_numpy()[rows]).sum()
    index.about = {"benchmark": gallery().hash, "trained": {"date": "2020-01-01"}}
    index.extra = {"photos": index.embed(gallery().images[rows]).half(), "places": torch.rand(len(rows) + shapes, 2)}
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "x")
        return (Path(folder) / "x").read_bytes()


def read_shipped_model(path: Path) -> object:
    found = shipped_retriever(path, gallery())
    answer = found.answer(found.stored(int(found.rows[0])))
    return found.atlas.locate(answer.vector), found.index.about["trained"]["date"]


@cache
def script_archive() -> bytes:
    def save(file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            member = tarfile.TarInfo("package/dist/x.js")
            member.size = 8
            tar.addfile(member, io.BytesIO(b"let x=1;"))

    return bytes_of(save)


@cache
def script() -> Package:
    digest = base64.b64encode(hashlib.sha512(script_archive()).digest()).decode()
    return Package("x", "1.0.0", f"sha512-{digest}", "package/dist/", "x", ("*.js",))


def read_script(path: Path) -> object:
    check_integrity(path, script())
    return unpack_script(script(), path, path.parent / "vendor")


# Sources

RECORD = {
    "img": "img/bed/0001.png", "mask": "mask/bed/0001.png", "category": "bed", "model": "model/bed/A/model.obj",
    "img_size": [24, 16], "truncated": False, "occluded": "false", "slightly_occluded": 0, "inplane_rotation": 0.1,
    "cam_position": [0.5, 1.0, 2.0],
}  # fmt: skip
POSE = {
    "model_id": "abc",
    "azimuth": 1.0,
    "elevation": 0.2,
    "theta": 0.0,
    "distance": 5.0,
    "u": 0.0,
    "v": 0.0,
    "f": 300,
}
PHOTOS = (
    "photo,shape_id,mask,split,x0,y0,x1,y1\nbox/1.png,box/a,box/1m.png,train,1,1,9,9\nbox/2.png,box/a|box/b,,,,,,\n"
)


def views() -> list[np.ndarray]:
    return [np.full((4, 4), k, np.uint8) for k in range(12)]


def renderings() -> bytes:
    return pickle.dumps({"box": {"a": views(), "b": [Image.fromarray(view) for view in views()]}}, 4)


def jittor_pickle() -> bytes:
    body = pickle.dumps({"layer.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "layer.bias": np.zeros(3)}, 2)
    return body + sha1(body) + MAGIC


def zip_of(members: dict[str, bytes]) -> bytes:
    def save(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    return bytes_of(save)


def write_shipped(folder: Path) -> None:
    (folder / "shapes").mkdir()
    (folder / "photos").mkdir()
    rows = [f"{name},box,name,me,CC0-1.0,here,{name},{drawn}" for name, drawn in (("box/a", False), ("box/b", True))]
    (folder / "shapes.csv").write_text("\n".join([",".join(SHIPPED_COLUMNS), *rows]) + "\n")
    strip = np.arange(12 * 16 * 16, dtype=np.uint32).reshape(12 * 16, 16) // 7 % 256
    strip_png = bytes_of(lambda file: Image.fromarray(strip.astype(np.uint8)).save(file, "PNG"))
    members = {"views": ("png", strip_png), "meshes": ("glb", export("glb")), "voxels": ("bits", bytes(128**3 // 8))}
    for kind, (ending, data) in members.items():
        content = {f"{name}.{ending}": data for name in ("box/a", "box/b")}
        (folder / "shapes" / f"{kind}-00.zip").write_bytes(zip_of(content))
    records = "query_id,shape_id,category,truncated,occluded,slightly_occluded,azimuth,elevation,focal,visible_share,"
    records += "restyled\n"
    photos = {}
    for k in range(3):
        records += f"box__a__{k:02d},box/a,box,False,False,True,90,10,35,0.5,true\n"
        photos |= {f"box__a__{k:02d}.jpg": picture(kind="JPEG"), f"box__a__{k:02d}.png": picture("L")}
    (folder / "photos" / "photos-00.zip").write_bytes(zip_of(photos | {"records.csv": records.encode()}))


def read_shipped(folder: Path) -> object:
    return prepare_sweethome(folder / "out", PrepareOptions(size=16, jobs=1, progress=False), source=folder)


def write_release(folder: Path) -> None:
    for split in ("train", "test"):
        entries = [
            {"img": f"img/{split}{k}.png", "mask": f"mask/{split}{k}.png", "category": "box", "model": "m/box/a/m.obj"}
            for k in range(2)
        ]
        (folder / f"x_{split}.json").write_text(json.dumps(entries))
        for kind in ("img", "mask"):
            (folder / kind).mkdir(exist_ok=True)
            for k in range(2):
                (folder / kind / f"{split}{k}.png").write_bytes(picture("L" if kind == "mask" else "RGB"))
    (folder / "rendering_x.pkl").write_bytes(renderings())
    points = np.random.default_rng(0).normal(size=(10_000, 3)).astype(np.float16)
    (folder / "model_std_ptc10k_npy" / "box").mkdir(parents=True)
    for name in ("a", "b"):
        np.save(folder / "model_std_ptc10k_npy" / "box" / f"{name}.npy", points)


def read_release(folder: Path) -> object:
    return prepare_release(folder, folder / "out", PrepareOptions(size=32, jobs=1, progress=False))


def binvox() -> bytes:
    head = b"#binvox 1\ndim 128 128 128\ntranslate 0 0 0\nscale 1\ndata\n"
    return head + bytes([0, 255]) * 8224 + bytes([1, 32])


def mat() -> bytes:
    grid = np.zeros((16, 16, 16), np.uint8)
    grid[4:12, 2:9, 3:10] = 1
    return bytes_of(lambda file: savemat(file, {"voxel": grid}, do_compression=True))


def write_photo_table(folder: Path) -> None:
    (folder / "box").mkdir()
    for name in ("1.png", "1m.png", "2.png"):
        (folder / "box" / name).write_bytes(picture())
    (folder / "photos.csv").write_text(PHOTOS)


def read_photo_table(folder: Path) -> object:
    return find_photos(folder, None, {"box/a": "box", "box/b": "box"}, val=0.1, test=0.1)


def list_of_crops() -> bytes:
    return json.dumps([{"img": "a.png", "category": "box", "model_ids": ["a", "box/b"]}]).encode()


def read_list_of_crops(path: Path) -> object:
    path.with_name("a.png").write_bytes(picture())
    return read_crops(path, path.parent)


def state_bytes() -> bytes:
    state = {"run": "x", "step": 3, "model": {"w": torch.ones(3, 4)}, "optimizer": {"state": {}, "param_groups": []}}
    return bytes_of(lambda file: torch.save(state, file))


def as_json(value: object) -> Callable[[], bytes]:
    return lambda: json.dumps(value).encode()


def tensors() -> bytes:
    return save({"layer.weight": torch.ones(3, 4), "layer.bias": torch.zeros(3)})


def read_uploaded_mask(path: Path) -> object:
    return read_mask_upload(path.read_bytes(), np.zeros((16, 24, 3), np.uint8))


PROVENANCE = {
    "profile": "smoke", "benchmark": "sweethome", "hashes": {"library": "x"},
    "chapters": {"first": {"key": "x", "status": "ok", "seconds": 1.0}},
}  # fmt: skip
PICTURES = {
    "png": lambda: picture("RGBA"), "jpg": lambda: picture(kind="JPEG"), "webp": lambda: picture(kind="WEBP"),
    "gif": lambda: picture("P", "GIF"), "bmp": lambda: picture(kind="BMP"),
    "tif": lambda: picture(kind="TIFF", compression="tiff_lzw"), "cmyk.tif": lambda: picture("CMYK", "TIFF"),
    "heic": lambda: heif("HEIF"), "avif": lambda: picture(kind="AVIF"), "mpo": lambda: picture(kind="MPO"),
    "i16.png": deep_picture, "ppm": lambda: picture(kind="PPM"), "palette.png": lambda: picture("P"),
}  # fmt: skip

CASES = [
    *(file_case(f"photo {kind}", f"x.{kind}", data, read_photo) for kind, data in PICTURES.items()),
    *(file_case(f"upload {kind}", f"x.{kind}", PICTURES[kind], lambda path: read_upload(path.read_bytes()))
      for kind in ("png", "jpg", "webp", "gif", "bmp", "heic", "avif", "i16.png")),
    file_case("upload mask", "x.png", lambda: picture("L"), read_uploaded_mask),
    file_case("mask png", "x.png", lambda: picture("L"), read_mask),
    file_case("mask palette", "x.png", lambda: picture("P"), read_mask),
    file_case("mask colours", "x.png", lambda: picture(), read_mask),
    file_case("mask opacity", "x.png", lambda: picture("RGBA"), read_mask),
    file_case("mask numbers", "x.png", deep_picture, read_mask),
    file_case("photo cut out", "x.png", lambda: picture("RGBA"), read_query),
    file_case("mesh obj polygons", "x.obj", polygon_obj, read_mesh),
    file_case("mesh ply mixed", "x.ply", mixed_ply, read_mesh),
    file_case("mesh 3mf", "x.3mf", lambda: zip_of({"3D/3dmodel.model": XML_3MF.encode()}), read_mesh),
    file_case("mesh 3mf model", "x.model", XML_3MF.encode, read_model),
    file_case("mesh dae", "x.dae", DAE.encode, read_mesh),
    file_case("mesh glb rich", "x.glb", rich_glb, read_mesh),
    Case("mesh gltf", "x.gltf", write_gltf, lambda folder: read_mesh(folder / "x.gltf"), named=True),
    Case("mesh gltf buffer", "x.bin", write_gltf, lambda folder: read_mesh(folder / "x.gltf")),
    Case("mesh obj", "part.obj", write_obj, lambda folder: read_mesh(folder / "part.obj"), named=True),
    Case("mesh obj material", "part.mtl", write_obj, lambda folder: read_mesh(folder / "part.obj")),
    Case("mesh obj texture", "wood.png", write_obj, lambda folder: read_mesh(folder / "part.obj")),
    file_case("mesh glb", "x.glb", lambda: export("glb"), read_mesh),
    file_case("mesh glb texture", "x.glb", textured_glb, read_mesh),
    file_case("mesh ply", "x.ply", lambda: export("ply"), read_mesh),
    file_case("mesh ply text", "x.ply", lambda: export("ply", encoding="ascii"), read_mesh),
    file_case("mesh stl", "x.stl", lambda: export("stl"), read_mesh),
    file_case("mesh stl text", "x.stl", lambda: export("stl_ascii"), read_mesh),
    file_case("mesh off", "x.off", lambda: export("off"), read_mesh),
    Case("benchmark.json", "b/benchmark.json", write_benchmark, read_benchmark),
    Case("benchmark shapes.csv", "b/shapes.csv", write_benchmark, read_benchmark),
    Case("benchmark queries.csv", "b/queries.csv", write_benchmark, read_benchmark),
    Case("benchmark views.npy", "b/views.npy", write_benchmark, read_benchmark),
    Case("benchmark queries.npy", "b/queries.npy", write_benchmark, read_benchmark),
    Case("benchmark voxels.npy", "b/voxels.npy", write_benchmark, read_benchmark),
    Case("benchmark mesh", "b/meshes/box/a.glb", write_benchmark, read_gallery_mesh),
    file_case("pickle of poses", "x.pkl", lambda: pickle.dumps({"1.jpg": POSE, "a/2.jpg": POSE}, 2), read_car_poses),
    file_case("pickle of views", "x.pkl", renderings, read_renderings),
    file_case("jittor pickle", "x.pkl", jittor_pickle, read_jittor),
    file_case("jittor zip", "x.pt", lambda: bytes_of(lambda f: torch.save({"a": torch.ones(2, 3)}, f)), read_jittor),
    file_case("resume state", "state.pt", state_bytes, load_state),
    file_case("safetensors", "x.safetensors", tensors, read_weights),
    Case("index", "x.index", index_bytes, read_index, named=True),
    Case("run config.json", "run/config.json", write_run, read_run),
    Case("run data.json", "run/data.json", write_run, read_run),
    Case("run environment.json", "run/environment.json", write_run, read_run),
    Case("run log.jsonl", "run/log.jsonl", write_run, read_run),
    Case("run weights", "run/model.safetensors", write_run, read_run),
    file_case("released checkpoint", "x.pkl", released_checkpoint, lambda path: load_reference_checkpoint(path, MODEL)),
    file_case("shipped model", "x.safetensors", shipped_model, read_shipped_model),
    file_case("mat", "voxel.mat", mat, read_voxels),
    file_case("binvox", "x.binvox", binvox, read_binvox),
    Case("release points", "model_std_ptc10k_npy/box/a.npy", write_release, read_release),
    Case("release list", "x_train.json", write_release, read_release),
    Case("release views", "rendering_x.pkl", write_release, read_release),
    Case("zip of views", "shapes/views-00.zip", write_shipped, read_shipped, named=True),
    Case("zip of meshes", "shapes/meshes-00.zip", write_shipped, read_shipped, named=True),
    Case("zip of photos", "photos/photos-00.zip", write_shipped, read_shipped, named=True),
    Case("zip of voxels", "shapes/voxels-00.zip", write_shipped, read_shipped, named=True),
    Case("records of photos", "photos/photos-00.zip", write_shipped, photo_facts, named=True),
    Case("table of shapes", "shapes.csv", write_shipped, read_shipped, named=True),
    file_case("pix3d.json", "pix3d.json", as_json([RECORD]), read_records),
    file_case("poses of pix3d", "pix3d.json", as_json([RECORD]), read_poses),
    file_case("taxonomy", "taxonomy.json", as_json([{"synsetId": "02818832", "name": "bed,bedstead"}]), read_taxonomy),
    file_case("arrays npz", "x.npz", lambda: bytes_of(lambda f: np.savez_compressed(f, a=np.ones(9))), read_arrays),
    file_case("archive of a script", "x.tgz", script_archive, read_script),
    file_case("list of cars", "x.txt", lambda: b"abc\nd-e_f\n", read_model_ids),
    Case("record of a run", "provenance.json", one("provenance.json", as_json(PROVENANCE)), read_record, True),
    file_case("results", "demo.json", as_json({"metrics": {"top1": 0.5}}), read_results),
    file_case("list of crops", "list.json", list_of_crops, read_list_of_crops),
    Case("table of photos", "photos.csv", write_photo_table, read_photo_table),
    file_case("table of categories", "c.csv", lambda: b"shape_id,category,name\nbox/a,box,\"x, y\"\n",
              lambda path: read_listing(path, ("shape_id", "category"), ("name",))),
    file_case("split list", "s.csv", lambda: b"name,split\nbed/0001,train\nbed/0002,test\n", read_split),
]  # fmt: skip


# Files made to harm


class Bomb:
    """Pickled, it makes whoever unpickles it write the canary."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (CANARY, "w")


class Shell:
    """The same through a shell."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {CANARY}",)


def laughs(depth: int) -> bytes:
    """A pickle of pairs of pairs of pairs, each twice the same: tiny, and endless for who walks through it."""
    return b"\x80\x02" + b"(t" + b"2\x86" * depth + b"."


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


POSTSCRIPT = f"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
({CANARY}) (w) file closefile
showpage
""".encode()


def npy_claiming(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def glb(tree: dict[str, object], binary: bytes = b"") -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text
    if binary:
        body += struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<III", 0x46546C67, 2, 12 + len(body)) + body


def glb_tree(**changes: object) -> dict[str, object]:
    tree: dict[str, object] = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"componentType": 5126, "count": 8, "type": "VEC3", "bufferView": 0},
            {"componentType": 5125, "count": 36, "type": "SCALAR", "bufferView": 1},
        ],
        "bufferViews": [{"buffer": 0, "byteLength": 96}, {"buffer": 0, "byteOffset": 96, "byteLength": 144}],
        "buffers": [{"byteLength": 240}],
    }  # fmt: skip
    return tree | changes


GLB_DATA = BOX.vertices.astype("<f4").tobytes() + BOX.faces.astype("<u4").tobytes()


def deflated_torch() -> bytes:
    """A checkpoint of 1 MB that unpacks to 1 GB."""
    plain = zipfile.ZipFile(io.BytesIO(bytes_of(lambda f: torch.save({"a": torch.zeros(4)}, f))))
    members = {name: plain.read(name) for name in plain.namelist()}
    return zip_of({name: bytes(1 << 29) if name.endswith("data/0") else data for name, data in members.items()})


def bomb_zip(name: str) -> bytes:
    return zip_of({f"box/{x}.{name}": bytes(1 << 29) for x in "ab"})


def mat_bomb() -> bytes:
    packed = zlib.compress(bytes(1 << 29))
    return mat()[:128] + struct.pack("<II", 15, len(packed)) + packed


def payloads() -> Iterator[tuple[str, bytes | Callable[[], bytes]]]:
    """Name of the case → content of its target, or what makes it where that takes a while."""
    for name in ("pickle of poses", "pickle of views", "release views"):
        for protocol in range(6):
            yield name, pickle.dumps({"1.jpg": Bomb(), "box": {"a": [Shell()] * 12}}, protocol)
        yield name, b"cos\nsystem\n(S'touch " + CANARY.encode() + b"'\ntR."
        yield (
            name,
            b"\x80\x02cbuiltins\nexec\nX" + struct.pack("<I", 30) + b"open('" + CANARY.encode() + b"','w')\x85R.",
        )
        yield name, laughs(60)
        yield name, b"\x80\x02}(" + laughs(60)[2:-1] + b"K\x01u."  # as a key
        yield name, b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"."  # a bytearray that is not there
        yield name, b"\x80\x04\x8a" + bytes([255]) + b"\xff" * 255 + b"."
        yield name, pickle.dumps({"1.jpg": POSE | {"f": 10**5000}}, 4)
        yield name, pickle.dumps({"../../1.jpg": POSE, "/etc/passwd": POSE}, 4)
        yield name, pickle.dumps({"..": {"..": views()}, "/etc": {"passwd": views()}}, 4)
    for body in (pickle.dumps({"a": Bomb()}, 2), pickle.dumps({"a": Shell()}, 4), laughs(60)):
        yield "jittor pickle", body + sha1(body) + MAGIC
    for name in ("jittor zip", "resume state"):
        yield name, bytes_of(lambda f: torch.save({"a": Bomb()}, f))
        yield name, bytes_of(lambda f: torch.save({"a": Shell()}, f, _use_new_zipfile_serialization=False))
        yield name, deflated_torch
    for size in ((60_000, 60_000), (2**31 - 1, 2**31 - 1), (20_000, 8_000), (8_000, 9_000)):
        for name in ("photo png", "mask png", "mesh obj texture", "upload png", "upload mask"):
            yield name, png_claiming(*size)
    for name in ("photo png", "mask png", "mesh obj texture", "photo jpg", "upload png"):
        yield name, POSTSCRIPT
    yield "mesh glb texture", glb(
        glb_tree(
            images=[{"bufferView": 2, "mimeType": "image/png"}], textures=[{"source": 0}],
            materials=[{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
            meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]}],
            bufferViews=[{"buffer": 0, "byteLength": 96}, {"buffer": 0, "byteOffset": 96, "byteLength": 144},
                         {"buffer": 0, "byteOffset": 240, "byteLength": len(POSTSCRIPT)}],
            buffers=[{"byteLength": 240 + len(POSTSCRIPT)}],
        ),
        GLB_DATA + POSTSCRIPT,
    )  # fmt: skip
    for name in ("mesh glb", "mesh glb texture"):
        for accessor in ({"componentType": 5126, "count": 10**12, "type": "VEC3"},
                         {"componentType": 5126, "count": 10**12, "type": "VEC3", "bufferView": 0}):  # fmt: skip
            index = {"componentType": 5125, "count": 36, "type": "SCALAR", "bufferView": 1}
            yield name, glb(glb_tree(accessors=[accessor, index]), GLB_DATA)
        yield name, glb(glb_tree(nodes=[{"mesh": 0}] * 9_000, scenes=[{"nodes": list(range(9_000))}]), GLB_DATA)
        chain: list[dict[str, object]] = [{"mesh": 0, "children": [k + 1]} for k in range(2_999)]
        yield name, glb(glb_tree(nodes=[*chain, {"mesh": 0}]), GLB_DATA)
        yield name, glb(glb_tree(nodes=[{"mesh": 0, "children": [1]}, {"mesh": 0, "children": [0]}]), GLB_DATA)
        part = {"attributes": {"POSITION": 0}, "indices": 1}
        yield name, glb(glb_tree(meshes=[{"primitives": [part] * 2_000}]), GLB_DATA)
        yield name, glb(glb_tree(buffers=[{"byteLength": 240, "uri": f"../{SECRET}"}]), GLB_DATA)
        yield name, glb(glb_tree(buffers=[{"byteLength": 240, "uri": "http://127.0.0.1:9/x"}]), GLB_DATA)
        yield name, b"glTF" + struct.pack("<IIII", 2, 24, 1 << 31, 0x4E4F534A)
    for file in (f"../{SECRET}", "/dev/zero", "/etc/passwd", f"..\\{SECRET}", "."):
        yield "mesh obj", OBJ.replace("part.mtl", file).encode()
        yield "mesh obj material", MTL.replace("wood.png", file).encode()
    yield "mesh obj", b"v 1 2 3\n" * 10 + b"f " + b"1 " * 50_000 + b"\n"
    yield "mesh obj", OBJ.replace("f 1/", "f 99999999999/").encode()
    yield "mesh obj", OBJ.replace("v -1.0", "v 1e400").encode()
    yield "mesh obj", b"f 1 2 3\n" * 1000
    for count in (10**9, 10**18, -5):
        ply = b"ply\nformat %s 1.0\nelement vertex %d\nproperty float x\nproperty float y\nproperty float z\n"
        tail = b"element face %d\nproperty list uchar int vertex_indices\nend_header\n"
        yield "mesh ply", ply % (b"binary_little_endian", count) + tail % count + bytes(100)
        yield "mesh ply text", ply % (b"ascii", count) + tail % count + b"1 2 3\n" * 10
        yield "mesh off", b"OFF\n%d %d 0\n0 0 0\n" % (count, count)
        yield "mesh stl", bytes(80) + struct.pack("<I", count % 2**32) + bytes(100)
    for file in (f"../{SECRET}", "/dev/zero", "/etc/passwd"):
        yield (
            "mesh ply text",
            export("ply", encoding="ascii").replace(
                b"element vertex", b"comment TextureFile %s\nelement vertex" % file.encode(), 1
            ),
        )
    for descr in ("<f8", "|O", "<U1000", "<m8", [("a", "<f8")]):
        for shape in ((10**12, 3), (10**6, 10**6), (3, 12, 8, 8), (0,), (-1, 3)):
            for name in ("release points", "benchmark views.npy"):
                yield name, npy_claiming(shape, descr)  # type: ignore[arg-type]
    for name in ("release points", "benchmark views.npy"):
        yield name, bytes_of(lambda f: np.save(f, np.array([Bomb()] * 3, dtype=object)))
        yield "arrays npz", bytes_of(lambda f: np.savez(f, a=np.array([Bomb()] * 3, dtype=object)))
        yield name, bytes_of(lambda f: np.savez(f, a=np.zeros(3)))
        yield name, b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 8999 + b"\n"
    yield "mat", mat_bomb
    yield "mat", bytes_of(lambda f: savemat(f, {"voxel": {"a": 1}}))
    yield "mat", bytes_of(lambda f: savemat(f, {"voxel": np.array([[1, "x"], ["y", 2]], dtype=object)}))
    yield "binvox", binvox().replace(b"dim 128 128 128", b"dim 99999 99999 99999")
    yield "arrays npz", lambda: zip_of({"a.npy": npy_claiming((1 << 27,), "<i8") + bytes(1 << 29)})
    yield "zip of views", lambda: bomb_zip("png")
    yield "zip of meshes", lambda: bomb_zip("glb")
    yield "zip of photos", lambda: zip_of({"records.csv": bytes(1 << 29)})
    yield "zip of meshes", zip_of({f"../../{CANARY}": b"x", "box/a.glb": export("glb"), "box/b.glb": POSTSCRIPT})
    for path in (f"../{SECRET}", "/etc/passwd", f"box/../../{SECRET}", "x\0y", "\ud800", "a" * 5000, ""):
        yield "list of crops", json.dumps([{"img": path, "category": "box", "model_ids": ["a"]}]).encode()
        yield "pix3d.json", json.dumps([RECORD | {"img": path, "mask": path}]).encode()
        yield (
            "release list",
            json.dumps([{"img": path, "mask": path, "category": path, "model": f"../{path}/m.obj"}]).encode(),
        )
        text = path.encode("utf-8", "surrogatepass")
        yield "table of photos", b"photo,shape_id\n" + text + b",box/a\n"
        yield "table of shapes", ",".join(SHIPPED_COLUMNS).encode() + b"\n" + text + b",box,n,m,l,s,g,False\n"
        yield (
            "benchmark shapes.csv",
            b"shape_id,category,name,creator,licence,source,group\n" + 3 * (text + b",b,,,,,g\n"),
        )
        yield "benchmark.json", json.dumps({
            "format": 1, "name": "x", "source": "", "licence": "", "size": 8, "shapes": 3, "queries": 4,
            "protocol": {}, "sha256": {path: "0" * 64},
        }).encode()  # fmt: skip
    for name in ("pix3d.json", "poses of pix3d", "taxonomy", "results", "list of crops", "release list",
                 "benchmark.json", "run config.json", "run data.json", "run log.jsonl", "record of a run"):  # fmt: skip
        for text in ("[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "[1e999, NaN, -Infinity]", "null", "3", '"x"',
                     "{}", "[[]]", '{"__class__": "os.system"}', "\ufeff[]", "[" + "{}," * 1000 + "{}]"):  # fmt: skip
            yield name, text.encode()
    for name in ("table of photos", "table of categories", "split list", "table of shapes", "benchmark queries.csv"):
        for data in (b"\0" * 1000, b'"' * 1001, b"," * 100_000, b"a" * 300_000 + b",b\n", b"\xff\xfe" * 50,
                     b"\n" * 1000,
                     b"name,split\n" + b'"x\n' * 1000, b"=cmd|'/c calc'!A0,b\n"):  # fmt: skip
            yield name, data
    model = {"model": {"query_backbone": "hf-hub:nobody/nothing"}}
    yield "run config.json", json.dumps(model).encode()
    yield "run config.json", json.dumps({"model": {"dim": 10**9}}).encode()
    yield "run config.json", json.dumps({"model": {"query_backbone": f"local-dir:../{SECRET}"}}).encode()
    for claim in (1 << 40, 1 << 63, 90 << 20):
        for name in ("safetensors", "index", "shipped model", "run weights"):
            yield name, struct.pack("<Q", claim) + b"{}"
    header = {"views": {"dtype": "F32", "shape": [10**6, 12, 128], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    yield "index", struct.pack("<Q", len(text)) + text + bytes(4)


def special(secret: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """What is no file, in place of a target: pipes, devices, folders, links out; name of the case → how to make it.

    An upload is bytes that were sent, never a path.
    """
    for case in (case for case in CASES if not case.name.startswith("upload")):
        yield case.name, os.mkfifo
        yield case.name, lambda path: path.symlink_to("/dev/zero")
        yield case.name, Path.mkdir
        if not case.named:
            yield case.name, lambda path: path.symlink_to(secret)
