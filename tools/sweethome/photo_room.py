"""Floor and wall of a photo: planes with procedural materials that change from photo to photo."""

from __future__ import annotations

import bpy
import numpy as np
from photo_scene import colour

KINDS = ("plain", "wood", "tiles", "speckled", "checker")


def plane(name: str) -> bpy.types.Object:
    """A large square with its own material, created once per scene."""
    if name in bpy.data.objects:
        return bpy.data.objects[name]
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata([(-40, -40, 0), (40, -40, 0), (40, 40, 0), (-40, 40, 0)], [], [(0, 1, 2, 3)])
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    mesh.materials.append(material)
    thing = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(thing)
    return thing


def paint(thing: bpy.types.Object, rng: np.random.Generator, kinds: tuple[str, ...] = KINDS) -> str:
    """Give the plane a material of a drawn kind; its name."""
    kind = str(rng.choice(kinds))
    tree = thing.data.materials[0].node_tree
    tree.nodes.clear()
    shader, output = tree.nodes.new("ShaderNodeBsdfPrincipled"), tree.nodes.new("ShaderNodeOutputMaterial")
    tree.links.new(shader.outputs[0], output.inputs["Surface"])
    shader.inputs["Roughness"].default_value = float(rng.uniform(0.25, 0.9))
    first = np.array(colour(rng, bright=0.1))
    second = np.clip(first * rng.choice([0.55, 0.8, 1.2, 1.6]), 0, 0.95)
    second[3] = 1.0
    scale = float(np.exp(rng.uniform(np.log(0.7), np.log(4))))
    shader.inputs["Base Color"].default_value = first.tolist()
    if kind == "plain":
        return kind
    coordinates, mapping = tree.nodes.new("ShaderNodeTexCoord"), tree.nodes.new("ShaderNodeMapping")
    tree.links.new(coordinates.outputs["Object"], mapping.inputs["Vector"])
    mapping.inputs["Rotation"].default_value = (0, 0, float(rng.uniform(0, np.pi)))
    if kind == "speckled":
        texture, mix = tree.nodes.new("ShaderNodeTexNoise"), tree.nodes.new("ShaderNodeMix")
        texture.inputs["Scale"].default_value = scale * float(rng.choice([3, 12, 40]))
        mix.data_type = "RGBA"
        tree.links.new(texture.outputs[0], mix.inputs["Factor"])
        mix.inputs[6].default_value, mix.inputs[7].default_value = first.tolist(), second.tolist()
        tree.links.new(mix.outputs[2], shader.inputs["Base Color"])
    else:
        texture = tree.nodes.new("ShaderNodeTexChecker" if kind == "checker" else "ShaderNodeTexBrick")
        texture.inputs["Color1"].default_value = first.tolist()
        texture.inputs["Color2"].default_value = second.tolist()
        texture.inputs["Scale"].default_value = scale
        if kind != "checker":
            wood = kind == "wood"
            texture.inputs["Mortar"].default_value = (second * [0.4, 0.4, 0.4, 1]).tolist()
            texture.inputs["Mortar Size"].default_value = 0.004 if wood else 0.015
            texture.inputs["Brick Width"].default_value = 1.6 if wood else 0.5
            texture.inputs["Row Height"].default_value = 0.18 if wood else 0.5
            texture.offset = 0.37 if wood else 0.0
        tree.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
    tree.links.new(mapping.outputs[0], texture.inputs["Vector"])
    return kind


def stand_wall(thing: bpy.types.Object, points: np.ndarray, towards: np.ndarray, yaw: float, gap: float) -> None:
    """Put the wall behind all points, `gap` away, facing the camera but for `yaw` degrees."""
    angle = np.arctan2(towards[1], towards[0]) + np.radians(yaw)
    normal = np.array([np.cos(angle), np.sin(angle), 0.0])
    behind = (points @ -normal).max() + gap
    thing.rotation_euler = (np.pi / 2, 0.0, float(angle + np.pi / 2))
    thing.location = (-normal * behind).tolist()
