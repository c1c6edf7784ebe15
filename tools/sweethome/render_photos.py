"""Path-trace the photos of the shipped benchmark, with exact masks. Runs where `bpy` is installed.

Each photo leaves `<query_id>.png` (frame), `.mask.png` (what is seen of the object), `.amodal.png` (the whole
object inside the frame, where an occluder hides a part) and `.json` in the output folder. The record is written
last: a photo with a record is complete, and a run that was cut off continues where it stopped.

    python tools/sweethome/render_photos.py --libraries LIBS --hdris DIR DIR --output RAW --worker 0/2
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np
from catalogue import DISTRACTORS, MODELS, Model, read_models
from photo_pixels import develop, layer, read_exr
from photo_plan import Camera, choose_camera, place_occluder, rng_of, truncate
from photo_room import paint, plane, stand_wall
from photo_scene import OBJECT, OCCLUDER, Mesh, load, read_hdris, reset, restyle, set_camera, set_world, unload
from PIL import Image

MIN_MASK, ATTEMPTS = 0.04, 4
OCCLUDER_CATEGORIES = {
    "chair", "table", "cabinet", "desk", "bench", "sofa", "bookcase", "wardrobe", "misc", "decoration",
    "lamp", "kitchen", "leisure", "container", "electronics", "cycle", "outdoor",
}  # fmt: skip


def query_id(shape_id: str, k: int) -> str:
    """Name of a photo, safe as a file name: `chair__C0_armchair2__03`."""
    return f"{shape_id.replace('/', '__')}__{k:02d}"


class Studio:
    """One Blender scene that takes one photo after another."""

    def __init__(self, libraries: Path, hdris: list[Path], scratch: Path, size: int, samples: int):
        self.libraries, self.hdris, self.scratch, self.samples = libraries, hdris, scratch, samples
        self.scene = reset(size, samples)
        self.floor, self.wall = plane("floor"), plane("wall")
        everything = read_models(MODELS) + read_models(DISTRACTORS)
        self.occluders = [m for m in everything if m.faces <= 6000 and m.category in OCCLUDER_CATEGORIES]
        self.shape: tuple[str, Mesh] | None = None

    def mesh(self, model: Model) -> Mesh:
        """The model's mesh, kept until another shape is asked for."""
        if self.shape is None or self.shape[0] != model.shape_id:
            if self.shape is not None:
                unload(self.shape[1])
            self.shape = model.shape_id, load(self.scene, model, self.libraries)
        return self.shape[1]

    def shoot(self) -> dict[str, np.ndarray]:
        """Render the scene; the channels of its EXR."""
        self.scene.render.filepath = str(self.scratch)
        bpy.ops.render.render(write_still=True)
        return read_exr(self.scratch)

    def seen(self, channels: dict[str, np.ndarray]) -> np.ndarray:
        """Mask of the object: the index pass of the very same render."""
        return np.abs(layer(channels, "Object Index.X") - OBJECT) < 0.5

    def amodal(self) -> np.ndarray:
        """The object's silhouette now that the occluder has gone: one sample of the same camera."""
        cycles = self.scene.cycles
        cycles.samples, cycles.use_denoising = 1, False
        try:
            return self.seen(self.shoot())
        finally:
            cycles.samples, cycles.use_denoising = self.samples, True

    def occlude(
        self, model: Model, k: int, attempt: int, points: np.ndarray, camera: Camera
    ) -> tuple[Mesh, str, float] | None:
        """Find an occluder of another group that hides the right share; (mesh, its shape_id, share) or None."""
        rng = rng_of(model.shape_id, k, "occluder", attempt)
        choices = [m for m in self.occluders if m.group != model.group]
        for _ in range(3):
            other = choices[rng.integers(len(choices))]
            mesh = load(self.scene, other, self.libraries)
            found = place_occluder(camera, points, mesh.points, rng)
            if found:
                placement, share = found
                mesh.object.pass_index = OCCLUDER
                mesh.object.scale = (placement.scale,) * 3
                mesh.object.rotation_euler = (0, 0, float(np.radians(placement.yaw)))
                mesh.object.location = placement.position.tolist()
                restyle(mesh, rng, bool(mesh.plain or rng.random() < 0.3))
                return mesh, other.shape_id, share
            unload(mesh)
        return None

    def photograph(self, model: Model, k: int, attempt: int) -> tuple[dict, dict[str, np.ndarray]]:
        """Photo k of a model: its record and its images (frame, mask, amodal)."""
        mesh = self.mesh(model)
        plan, camera, attempt = choose_camera(model.shape_id, k, mesh.points, attempt)
        rng = rng_of(model.shape_id, k, "look", attempt)
        kind, share, occluder = plan.kind, 1.0, None
        if kind == "occluded":
            occluder = self.occlude(model, k, attempt, mesh.points, camera)
            kind = "occluded" if occluder else "truncated"
        if kind == "truncated":
            camera, share = truncate(camera, mesh.points, rng)
        restyled = plan.restyled or mesh.plain
        restyle(mesh, rng, restyled)
        hdri, rotation = self.hdris[rng.integers(len(self.hdris))], float(rng.uniform(0, 2 * np.pi))
        set_world(self.scene, hdri, rotation)
        floor = paint(self.floor, rng)
        self.wall.hide_render = plan.wall is None
        wall = ""
        if plan.wall is not None:
            wall = paint(self.wall, rng, ("plain", "plain", "tiles", "speckled"))
            stand_wall(self.wall, mesh.points, -camera.axes[2], plan.wall, plan.wall_gap)
        set_camera(self.scene, camera)
        self.scene.cycles.seed = int(rng.integers(2**31))
        channels = self.shoot()
        mask = self.seen(channels)
        images = {"mask": mask}
        if occluder:
            unload(occluder[0])
            images["amodal"] = self.amodal() | mask
            share = float(mask.sum() / max(1, images["amodal"].sum()))
        rgb = np.stack([layer(channels, f"Combined.{c}") for c in "RGB"], axis=-1)
        images["frame"] = develop(rgb, mask, rng)
        record = {
            "query_id": query_id(model.shape_id, k),
            "shape_id": model.shape_id,
            "category": model.category,
            "k": k,
            "truncated": kind == "truncated",
            "occluded": kind == "occluded" and share <= 0.85,
            "slightly_occluded": kind == "occluded" and share > 0.85,
            "visible_share": round(share, 3),
            "restyled": restyled,
            "azimuth": round(plan.azimuth, 2),
            "elevation": round(plan.elevation, 2),
            "roll": round(plan.roll, 2),
            "focal": round(camera.focal, 2),
            "distance": round(camera.distance, 4),
            "shift_x": round(float(camera.shift[0]), 4),
            "shift_y": round(float(camera.shift[1]), 4),
            "hdri": hdri.stem,
            "hdri_rotation": round(rotation, 3),
            "floor": floor,
            "wall": wall,
            "occluder": occluder[1] if occluder else "",
            "attempt": attempt,
            "mask_share": round(float(mask.mean()), 4),
        }
        return record, images

    def take(self, model: Model, k: int) -> tuple[dict, dict[str, np.ndarray]]:
        """Photo k; taken again with another view if too little of the object is seen, the largest mask counts."""
        best, attempt = None, 0
        for _ in range(ATTEMPTS):
            record, images = self.photograph(model, k, attempt)
            good = record["mask_share"] >= MIN_MASK and record["visible_share"] >= 0.5
            if best is None or good or record["mask_share"] > best[0]["mask_share"]:
                best = record, images
            if good:
                break
            attempt = record["attempt"] + 1
        return best


def save(folder: Path, record: dict, images: dict[str, np.ndarray]) -> None:
    """Write a photo's files, the record last and at once."""
    stem = folder / record["query_id"]
    Image.fromarray(images["frame"]).save(f"{stem}.png", compress_level=1)
    for name in ("mask", "amodal"):
        if name in images:
            Image.fromarray(images[name]).save(f"{stem}.{name}.png", optimize=False)
        else:
            Path(f"{stem}.{name}.png").unlink(missing_ok=True)
    partial = Path(f"{stem}.json.part")  # Blender's Python has no cmiclib
    partial.write_text(json.dumps(record, indent=1))
    partial.replace(f"{stem}.json")


def tasks(models: list[Model], worker: tuple[int, int], rounds: list[tuple[int, int]]) -> Iterator[tuple[Model, int]]:
    """Round after round, each round over all shapes of this worker: what is done early covers all shapes evenly."""
    for first, last in rounds:
        for n, model in enumerate(models):
            if n % worker[1] == worker[0]:
                yield from ((model, k) for k in range(first, last))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--libraries", type=Path, required=True, help="folder of the unzipped libraries")
    parser.add_argument("--hdris", type=Path, nargs="+", required=True, help="folders with .exr or .exr.js")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--worker", default="0/1", help="i/n: this process takes every n-th shape, from the i-th on")
    parser.add_argument("--rounds", default="0-4,4-8,8-12", help="photo numbers of each round, end excluded")
    parser.add_argument("--only", nargs="*", help="shape ids, all if left out")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--samples", type=int, default=8)
    args = parser.parse_args()
    worker = tuple(map(int, args.worker.split("/")))
    rounds = [tuple(map(int, r.split("-"))) for r in args.rounds.split(",")]
    args.output.mkdir(parents=True, exist_ok=True)
    models = [m for m in read_models(MODELS) if not args.only or m.shape_id in args.only]
    scratch = args.output / f"scratch-{worker[0]}.exr"
    hdris = read_hdris(args.hdris, args.output / "hdris")
    studio = Studio(args.libraries, hdris, scratch, args.size, args.samples)
    start, done = time.monotonic(), 0
    for model, k in tasks(models, worker, rounds):
        if (args.output / f"{query_id(model.shape_id, k)}.json").exists():
            continue
        record, images = studio.take(model, k)
        save(args.output, record, images)
        done += 1
        print(f"{done} {(time.monotonic() - start) / done:.2f} s a photo, {record['query_id']}", flush=True)
    scratch.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
