"""Rays against a mesh, by Embree on the CPU: what each meets first, how far away, what stands in its way."""

import numpy as np
import trimesh


class Rays:
    """What rays are cast into, built once for a mesh in any frame and any unit; vertices are rounded to float32.

    With ``seamless`` no ray slips through the seam of two triangles, which takes a little longer. Rays are given as
    origins, one (3,) for all or (R, 3), and directions (R, 3) of any length.
    """

    def __init__(self, mesh: trimesh.Trimesh, seamless: bool = True) -> None:
        from embreex.mesh_construction import TriangleMesh  # training and search need no rays, hence no Embree
        from embreex.rtcore_scene import EmbreeScene

        self._scene = EmbreeScene(robust=seamless)
        TriangleMesh(self._scene, mesh.triangles.astype(np.float32))

    def faces(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return the face that each ray meets first, int (R,); -1 where it meets none."""
        faces: np.ndarray = self._scene.run(*_whole(origins, directions))
        return faces

    def hits(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return `faces`, and how many lengths of its direction each is away, float32 (R,); 0 where there is none."""
        hit = self._scene.run(*_whole(origins, directions), output=True)
        return hit["primID"], np.where(hit["primID"] >= 0, hit["tfar"], 0)

    def blocked(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return where anything stands in the way, bool (R,)."""
        free: np.ndarray = self._scene.run(*_whole(origins, directions), query="OCCLUDED") != 0
        return ~free


def _whole(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as Embree takes them: float32 (R, 3), rows without gaps."""
    directions = np.ascontiguousarray(directions, np.float32)
    return np.broadcast_to(np.asarray(origins, np.float32), directions.shape).copy(), directions
