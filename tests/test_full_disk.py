"""A disk that fills up: one clear error, what was there before stays, and the work goes on once there is room."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from own_folder import write_meshes, write_photos
from safetensors.torch import load_file
from tinybench import write_tiny_benchmark
from toybook import make_book, write_chapter

from cmiclib.benchmark import Benchmark
from cmiclib.book import runner
from cmiclib.config import Config, ModelConfig, TrainConfig
from cmiclib.errors import StorageError
from cmiclib.geometry import render
from cmiclib.index import ShapeIndex
from cmiclib.model import build_model
from cmiclib.sources import PrepareOptions
from cmiclib.sources.own.folder import prepare_folder
from cmiclib.training import loop as training
from cmiclib.training.loop import train
from cmiclib.training.state import load_state

MODEL = ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=8, image_size=32, init="random")
CONFIG = Config(model=MODEL, train=TrainConfig(batch=4, steps=4, views=2, log_every=1, eval_every=2))


class Disk:
    """A small disk that can be filled and emptied again."""

    def __init__(self, root: Path):
        self.root, self.ballast = root, root / "ballast"

    def fill(self, leave: int = 0) -> None:
        with self.ballast.open("wb", buffering=0) as file:
            for block in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(block))
                except OSError:
                    pass
            file.truncate(max(0, file.tell() - leave))

    def make_room(self) -> None:
        self.ballast.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path):
    root = tmp_path / "disk"
    root.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(root)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield Disk(root)
    subprocess.run(["umount", "-l", str(root)], check=True)


def test_prepare(disk: Disk, tiny_benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "photos", tmp_path / "masks", write_meshes(tmp_path / "meshes", 5), each=2)

    def prepare(output: Path) -> Benchmark:
        folders = {"photos": tmp_path / "photos", "masks": tmp_path / "masks"}
        options = PrepareOptions(size=32, jobs=1, progress=False)
        return prepare_folder(tmp_path / "meshes", output, options, **folders).benchmark

    undisturbed, earlier = prepare(tmp_path / "undisturbed"), write_tiny_benchmark(disk.root / "earlier")
    disk.fill(leave=1 << 20)  # enough for the first shapes
    with pytest.raises(StorageError, match=r"own: cannot be written \(No space left on device\)[\s\S]*free some space"):
        prepare(disk.root / "own")
    assert {path.name for path in disk.root.iterdir()} == {"earlier", "ballast", ".own.partial"}
    assert Benchmark.open(disk.root / "earlier").hash == earlier.hash == tiny_benchmark.hash
    with pytest.raises(StorageError):  # tried again too early, which costs nothing either
        prepare(disk.root / "own")
    done = (disk.root / ".own.partial" / "shapes.jsonl").read_text().count("\n")
    assert 0 < done < 5
    disk.make_room()
    made, original = [], render.render_views
    monkeypatch.setattr(render, "render_views", lambda mesh, *rest: made.append(mesh) or original(mesh, *rest))
    assert prepare(disk.root / "own").hash == undisturbed.hash
    assert len(made) == 5 - done
    assert {path.name for path in disk.root.iterdir()} == {"earlier", "own"}


def test_train(disk: Disk, tiny_benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = train(CONFIG, tiny_benchmark, tmp_path / "undisturbed", progress=False)
    original, run = training.save_state, disk.root / "run"

    def late(path, state):
        if state["step"] == 4:
            disk.fill()
        original(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_state", late)
        with pytest.raises(StorageError, match=r"state\.pt: could not be written[\s\S]*make room"):
            train(CONFIG, tiny_benchmark, run, progress=False)
    assert load_state(run / "checkpoint/state.pt")["step"] == 2
    assert sorted(path.name for path in (run / "checkpoint").iterdir()) == ["state.pt"]
    disk.make_room()
    resumed = train(CONFIG, tiny_benchmark, run, resume=True, progress=False)
    a, b = (load_file(folder / "model.safetensors") for folder in (undisturbed.path, resumed.path))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_index(disk: Disk, tiny_benchmark: Benchmark) -> None:
    index = ShapeIndex.build(build_model(MODEL), tiny_benchmark)
    index.save(disk.root / "x.index")
    earlier = (disk.root / "x.index").read_bytes()
    disk.fill(leave=10_000)
    with pytest.raises(StorageError, match=r"x\.index: could not be written"):
        index.save(disk.root / "x.index")
    assert (disk.root / "x.index").read_bytes() == earlier
    assert {path.name for path in disk.root.iterdir()} == {"x.index", "ballast"}
    disk.make_room()
    index.save(disk.root / "x.index")
    assert ShapeIndex.load(disk.root / "x.index").shape_ids == index.shape_ids


def test_reproduce(disk: Disk) -> None:
    root = make_book(disk.root)
    write_chapter(root, "second", "\n# %%\nprint('x' * 100_000)\n", needs="first")

    def reproduce(say) -> runner.Result:
        return runner.reproduce(root, profile="smoke", benchmark_hash=lambda: "hash", say=say, at_once=1)

    def fill_at_second(line: str) -> None:
        if "second" in line:
            disk.fill(leave=20_000)

    with pytest.raises(StorageError, match=r"could not be written \(No space left on device\)[\s\S]*make room"):
        reproduce(fill_at_second)
    assert runner.read_record(root / "outputs/smoke")["chapters"]["first"]["status"] == "ok"
    disk.make_room()
    result = reproduce(print)
    assert (result.current, result.ran, result.failed) == (["first"], ["second", "third"], [])


def test_the_command_line_says_it_without_a_traceback(disk: Disk, tiny_benchmark: Benchmark) -> None:
    disk.fill()
    command = ["prepare", "folder", "--input", str(tiny_benchmark.path / "meshes"), "--output", str(disk.root / "b")]
    code = "from cmiclib.cli import app; app()"
    done = subprocess.run([sys.executable, "-c", code, *command, "--jobs", "1"], capture_output=True, text=True)
    assert done.returncode == 2 and "No space left on device" in done.stderr and "Traceback" not in done.stderr
