"""Blender side of the photo renderer: models, materials, floor, wall, light. Runs where `bpy` is installed."""

from __future__ import annotations

import base64
import colorsys
import re
from dataclasses import dataclass
from pathlib import Path

import bmesh
import bpy
import numpy as np
from catalogue import Model
from mathutils import Matrix
from photo_plan import Camera, repeated_faces

OBJECT, OCCLUDER = 1, 2  # pass indices
MAX_FACES = 150_000


@dataclass
class Mesh:
    """A model in the photo's frame: one Blender object, and samples of its surface to plan with."""

    object: bpy.types.Object
    points: np.ndarray  # (n, 3)
    plain: bool  # no texture and one colour


def reset(size: int, samples: int) -> bpy.types.Scene:
    """An empty scene with the renderer set for speed: one thread, few bounces, denoised, flat EXR output."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.render.resolution_percentage = 100
    scene.render.use_persistent_data = True
    scene.render.use_compositing = scene.render.use_sequencer = False
    image = scene.render.image_settings
    if hasattr(image, "media_type"):
        image.media_type = "MULTI_LAYER_IMAGE"
    image.file_format = "OPEN_EXR_MULTILAYER"
    image.color_depth, image.exr_codec = "32", "NONE"
    image.use_exr_interleave = True  # one part with all channels
    cycles = scene.cycles
    cycles.device, cycles.samples, cycles.use_adaptive_sampling = "CPU", samples, False
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 4, 2, 2
    cycles.transmission_bounces, cycles.transparent_max_bounces = 3, 8
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.sample_clamp_indirect, cycles.use_light_tree = 4.0, False
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.denoising_prefilter, cycles.denoising_input_passes = "FAST", "RGB_ALBEDO_NORMAL"
    cycles.denoising_quality = "FAST"
    view = scene.view_layers[0]
    view.use_pass_object_index = True
    view.pass_alpha_threshold = 0.0  # glass belongs to the mask
    scene.world = bpy.data.worlds.new("world")
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    return scene


def set_camera(scene: bpy.types.Scene, camera: Camera) -> None:
    """Look through a planned camera."""
    right, up, forward = camera.axes
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, up, -forward, camera.position], axis=1)
    scene.camera.matrix_world = Matrix(matrix.tolist())
    data = scene.camera.data
    data.sensor_width, data.lens, data.clip_start, data.clip_end = 36.0, camera.focal, 0.01, 500.0
    data.shift_x, data.shift_y = map(float, camera.shift)


def surface_samples(mesh: bpy.types.Mesh, count: int = 20_000) -> np.ndarray:
    """Points on the triangles, in proportion to their area, the vertices' extremes included."""
    mesh.calc_loop_triangles()
    corners = np.empty(len(mesh.loop_triangles) * 3, np.int32)
    mesh.loop_triangles.foreach_get("vertices", corners)
    vertices = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", vertices)
    vertices = vertices.reshape(-1, 3).astype(float)
    a, b, c = vertices[corners.reshape(-1, 3).T]
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) + 1e-12
    rng = np.random.default_rng(0)
    t = rng.choice(len(area), count, p=area / area.sum())
    u, v = rng.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    extremes = vertices[np.unique(np.concatenate([vertices.argmin(0), vertices.argmax(0)]))]
    return np.concatenate([a[t] + u * (b - a)[t] + v * (c - a)[t], extremes])


def _drop_missing_textures(material: bpy.types.Material) -> bool:
    """Remove image nodes without a file, which would render magenta; is a texture left?"""
    left = False
    for node in [n for n in material.node_tree.nodes if n.type == "TEX_IMAGE"]:
        path = Path(bpy.path.abspath(node.image.filepath)) if node.image else None
        if path is None or not path.is_file() or not node.image.size[0]:
            material.node_tree.nodes.remove(node)
        else:
            left = True
    return left


def _base_colour(material: bpy.types.Material | None) -> np.ndarray:
    shader = _shader(material)
    return np.array(shader.inputs["Base Color"].default_value[:3]) if shader else np.full(3, 0.8)


def _shader(material: bpy.types.Material | None) -> bpy.types.Node | None:
    nodes = material.node_tree.nodes if material and material.node_tree else []
    return next((n for n in nodes if n.type == "BSDF_PRINCIPLED"), None)


def _is_plain(mesh: bpy.types.Mesh) -> bool:
    """No texture, and at least 95 % of the surface has one colour."""
    if any(m and any(n.type == "TEX_IMAGE" for n in m.node_tree.nodes) for m in mesh.materials):
        return False
    if not len(mesh.materials):
        return True
    areas, slots = np.empty(len(mesh.polygons)), np.empty(len(mesh.polygons), np.int32)
    mesh.polygons.foreach_get("area", areas)
    mesh.polygons.foreach_get("material_index", slots)
    share = np.bincount(np.clip(slots, 0, len(mesh.materials) - 1), areas, len(mesh.materials)) / areas.sum()
    colours = np.array([_base_colour(m) for m in mesh.materials])
    near = np.abs(colours - colours[share.argmax()]).max(1) < 0.08
    return bool(share[near].sum() >= 0.95)


def _drop_repeated_faces(mesh: bpy.types.Mesh) -> None:
    """Leave one of several faces in one place."""
    starts, corners = np.empty(len(mesh.polygons), np.int32), np.empty(len(mesh.loops), np.int32)
    vertices = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.polygons.foreach_get("loop_start", starts)
    mesh.loops.foreach_get("vertex_index", corners)
    mesh.vertices.foreach_get("co", vertices)
    repeated = repeated_faces(vertices.reshape(-1, 3), starts, corners)
    if len(repeated):
        editable = bmesh.new()
        editable.from_mesh(mesh)
        editable.faces.ensure_lookup_table()
        bmesh.ops.delete(editable, geom=[editable.faces[n] for n in repeated], context="FACES_ONLY")
        editable.to_mesh(mesh)
        editable.free()


def load(scene: bpy.types.Scene, model: Model, libraries: Path) -> Mesh:
    """Import a model, apply its catalogue rotation, stand it on the floor in the photo's frame (`photo_plan`)."""
    before = set(bpy.data.objects)
    bpy.ops.wm.obj_import(
        filepath=str(libraries / model.obj_path), forward_axis="Y", up_axis="Z", use_split_objects=False
    )
    objects = [o for o in bpy.data.objects if o not in before]
    parts = [o for o in objects if o.type == "MESH" and len(o.data.polygons)]
    if len(parts) > 1:
        with bpy.context.temp_override(
            active_object=parts[0], object=parts[0], selected_objects=parts, selected_editable_objects=parts
        ):
            bpy.ops.object.join()
    thing = parts[0]
    for other in [o for o in objects if o not in parts]:
        bpy.data.objects.remove(other)
    if len(thing.data.polygons) > MAX_FACES:
        thing.modifiers.new("fewer", "DECIMATE").ratio = MAX_FACES / len(thing.data.polygons)
    turn = np.array(model.model_rotation.split(), float).reshape(3, 3) if model.model_rotation else np.eye(3)
    turn = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ turn  # +y up, front +z  →  +z up, front -y
    vertices = np.empty(len(thing.data.vertices) * 3, np.float32)
    thing.data.vertices.foreach_get("co", vertices)
    used = np.empty(len(thing.data.loops), np.int32)
    thing.data.loops.foreach_get("vertex_index", used)
    vertices = vertices.reshape(-1, 3) @ turn.T
    box = vertices[np.unique(used)]
    vertices -= (box.min(0) + box.max(0)) / 2
    vertices /= np.linalg.norm(vertices[np.unique(used)], axis=1).max()
    vertices[:, 2] -= vertices[np.unique(used)][:, 2].min()
    thing.matrix_world = Matrix.Identity(4)
    thing.data.vertices.foreach_set("co", vertices.astype(np.float32).ravel())
    thing.data.update()
    _drop_repeated_faces(thing.data)
    for material in thing.data.materials:
        if material:
            _drop_missing_textures(material)
    thing.pass_index = OBJECT
    return Mesh(thing, surface_samples(thing.data), _is_plain(thing.data))


def unload(mesh: Mesh) -> None:
    """Take a model and everything that came with it out of Blender's memory."""
    bpy.data.objects.remove(mesh.object)
    bpy.data.orphans_purge(do_recursive=True)


def colour(rng: np.random.Generator, bright: float = 0.25) -> tuple[float, float, float, float]:
    """A linear RGBA colour as furniture and floors have it: neutral, wood-like (a quarter), or bright."""
    u = rng.random()
    if u < 0.75 - bright:
        h, s = rng.uniform(0.05, 0.15), rng.uniform(0, 0.12)
        v = rng.choice([0.12, 0.35, 0.6, 0.85]) * rng.uniform(0.8, 1.1)
    elif u < 1 - bright:
        h, s, v = rng.uniform(0.04, 0.11), rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.8)
    else:
        h, s, v = rng.random(), rng.uniform(0.35, 0.9), rng.uniform(0.25, 0.9)
    return (*(float(c) ** 2.2 for c in colorsys.hsv_to_rgb(h, s, v)), 1.0)


def restyle(mesh: Mesh, rng: np.random.Generator, restyled: bool) -> None:
    """New colours and roughness for every material, or (not restyled) the model's own back."""
    for material in mesh.object.data.materials:
        shader = _shader(material)
        if shader is None:
            continue
        base, rough = shader.inputs["Base Color"], shader.inputs["Roughness"]
        if "own" not in material:
            material["own"] = [*base.default_value[:], rough.default_value]
        own = list(material["own"])
        base.default_value, rough.default_value = own[:4], own[4]
        tint = material.node_tree.nodes.get("tint")
        if base.is_linked and tint is None:
            tint = material.node_tree.nodes.new("ShaderNodeHueSaturation")
            tint.name = "tint"
            material.node_tree.links.new(base.links[0].from_socket, tint.inputs["Color"])
            material.node_tree.links.new(tint.outputs[0], base)
        if tint:
            values = (0.5, 1.0, 1.0)
            if restyled:
                values = (rng.uniform(0, 1), rng.uniform(0.3, 1.4), rng.uniform(0.6, 1.3))
            for name, value in zip(("Hue", "Saturation", "Value"), values, strict=True):
                tint.inputs[name].default_value = float(value)
        elif restyled:
            base.default_value = colour(rng)
        if restyled:
            rough.default_value = float(rng.uniform(0.15, 0.95))


def read_hdris(folders: list[Path], cache: Path) -> list[Path]:
    """Environments sorted by name: `.exr` as they are, `.exr.js` (base64 in JavaScript) decoded into `cache`."""
    cache.mkdir(parents=True, exist_ok=True)
    found = []
    for folder in folders:
        found += sorted(folder.glob("*.exr"))
        for source in sorted(folder.glob("*.exr.js")):
            target = cache / ("pmndrs_" + source.name.removesuffix(".js"))
            if not target.exists():
                encoded = re.search(r"base64,([A-Za-z0-9+/=]+)", source.read_text())
                partial = target.with_suffix(".part")  # Blender's Python has no cmiclib
                partial.write_bytes(base64.b64decode(encoded[1]))
                partial.replace(target)
            found.append(target)
    return found


def set_world(scene: bpy.types.Scene, hdri: Path, rotation: float) -> None:
    """Light the scene by an environment turned about the vertical, scaled to mean radiance 1."""
    tree = scene.world.node_tree
    if tree is None:
        scene.world.use_nodes = True
        tree = scene.world.node_tree
    if "environment" not in tree.nodes:
        tree.nodes.clear()
        environment = tree.nodes.new("ShaderNodeTexEnvironment")
        environment.name = "environment"
        mapping, source = tree.nodes.new("ShaderNodeMapping"), tree.nodes.new("ShaderNodeTexCoord")
        background, output = tree.nodes.new("ShaderNodeBackground"), tree.nodes.new("ShaderNodeOutputWorld")
        mapping.name, background.name = "mapping", "background"
        tree.links.new(source.outputs["Generated"], mapping.inputs["Vector"])
        tree.links.new(mapping.outputs[0], environment.inputs["Vector"])
        tree.links.new(environment.outputs[0], background.inputs["Color"])
        tree.links.new(background.outputs[0], output.inputs["Surface"])
        scene.world.cycles.sampling_method = "MANUAL"
        scene.world.cycles.sample_map_resolution = 256
    image = bpy.data.images.load(str(hdri), check_existing=True)
    if "mean" not in image:
        pixels = np.empty(image.size[0] * image.size[1] * 4, np.float32)
        image.pixels.foreach_get(pixels)
        rows = pixels.reshape(image.size[1], image.size[0], 4)[..., :3].mean((1, 2))
        weight = np.cos((np.arange(len(rows)) + 0.5) / len(rows) * np.pi - np.pi / 2)
        image["mean"] = float((rows * weight).sum() / weight.sum())
    image.use_fake_user = True
    tree.nodes["environment"].image = image
    tree.nodes["mapping"].inputs["Rotation"].default_value = (0.0, 0.0, rotation)
    tree.nodes["background"].inputs["Strength"].default_value = 1.0 / image["mean"]
