"""Mesh formats where trimesh errs, or has no reader: each takes bytes and gives parts, or mended bytes."""
