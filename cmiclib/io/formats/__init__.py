"""Mesh formats where trimesh errs, or has no reader: each takes bytes and gives parts, or mended bytes."""

FORMATS = (".obj", ".glb", ".gltf", ".ply", ".stl", ".off", ".3mf", ".dae", ".step", ".stp", ".iges", ".igs")
REFUSED = {
    ".fbx": "FBX", ".usd": "USD", ".usda": "USD", ".usdc": "USD", ".usdz": "USD", ".blend": "Blender's own format",
    ".3ds": "3D Studio", ".max": "3ds Max's own format", ".skp": "SketchUp's own format", ".3dm": "Rhino's own format",
    ".c4d": "Cinema 4D's own format", ".lwo": "LightWave's own format", ".sldprt": "SolidWorks's own format",
    ".wrl": "VRML", ".x3d": "X3D", ".3dxml": "3DXML", ".ifc": "IFC", ".abc": "Alembic", ".vrm": "VRM", ".jt": "JT",
}  # fmt: skip
"""Endings of meshes that are not read, and what they are."""
WAY_OUT = "open it in Blender or the program that wrote it, and export it as GLB"
CUT = "download or export it again: the rest is missing"
