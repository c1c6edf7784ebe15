"""Mesh files to the gallery of a benchmark: views, points, voxels and a small mesh for the viewer, in parallel."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import trimesh

from ..benchmark.checks import check_views
from ..benchmark.writer import BenchmarkWriter
from ..errors import CMICError, SourceError
from ..geometry import export_glb, load_mesh, normalise, pack_voxels, sample_points, simplify, voxelise
from ..geometry.render import ViewProtocol, render_views
from .workers import results

VIEWER_FACES = 4_000


@dataclass(frozen=True)
class MeshFile:
    """A mesh that becomes a shape.

    Attributes:
        shape_id: unique, such as ``chair/IKEA_MARKUS``.
        category: name of the category.
        path: OBJ, GLB, PLY, STL or OFF.
        up: the axis of the file's frame that points up.
        front: the axis that the object's front looks along.
        name: what people call it.
        creator: who made it.
        licence: SPDX identifier.
        source: where it comes from.
        group: variants of one mesh share it; default: the shape's own id.
        load: turns path, up and front into a mesh; default: `cmiclib.geometry.load_mesh`. What it writes into
            ``metadata["note"]`` is added to the source.
    """

    shape_id: str
    category: str
    path: Path
    up: str = "+y"
    front: str = "+z"
    name: str = ""
    creator: str = ""
    licence: str = ""
    source: str = ""
    group: str = ""
    load: Callable[[Path, str, str], trimesh.Trimesh] | None = None


def add_meshes(
    writer: BenchmarkWriter,
    meshes: Iterable[MeshFile],
    *,
    jobs: int = 2,
    allow_missing: bool = False,
    progress: bool = True,
) -> list[tuple[MeshFile, str]]:
    """Add every mesh to a benchmark, in order; those that it has already cost nothing.

    Args:
        writer: the benchmark that grows.
        meshes: the files.
        jobs: processes.
        allow_missing: leave out meshes that cannot be used instead of refusing.
        progress: show a bar.

    Returns:
        The meshes that were left out, each with what is wrong; empty without ``allow_missing``.

    Raises:
        SourceError: meshes cannot be used; all are listed. What was made of the others is kept, so that a second
            call goes on from there.
        StorageError: the write failed.
    """
    todo = [mesh for mesh in meshes if not writer.has_shape(mesh.shape_id)]
    prepare = partial(prepare_mesh, size=writer.size, protocol=writer.protocol)
    left_out: list[tuple[MeshFile, str]] = []
    with results(prepare, todo, jobs=jobs, what="shapes", progress=progress) as made:
        for mesh, result in made:
            if isinstance(result, CMICError):
                left_out.append((mesh, f"{result.path or mesh.path}: {result.problem}"))
                continue
            views, points, voxels, glb, note = result
            writer.add_shape(
                mesh.shape_id, mesh.category, views, name=mesh.name, creator=mesh.creator, licence=mesh.licence,
                source=", ".join(filter(None, (mesh.source, note))), group=mesh.group, points=points, voxels=voxels,
                mesh=glb,
            )  # fmt: skip
    if left_out and not allow_missing:
        raise SourceError(
            listed([problem for _, problem in left_out], "meshes cannot be used"),
            fix="repair them, or pass --allow-missing",
        )
    return left_out


Prepared = tuple[np.ndarray, np.ndarray, np.ndarray, bytes, str]


def prepare_mesh(mesh: MeshFile, size: int, protocol: ViewProtocol) -> Prepared:
    """Return what a gallery needs of a mesh file.

    Returns:
        Views uint8 (12, size, size), points float32 (10000, 3), packed voxels uint8 (262144,), a GLB file, and what is
        to be noted about the mesh.

    Raises:
        MeshError: the file cannot be used.
        BenchmarkError: all views are alike, which a body of revolution with 12, 24 or 36 sides brings about, too.
    """
    shape = normalise((mesh.load or load_mesh)(mesh.path, mesh.up, mesh.front))
    views = render_views(shape, size, protocol)
    check_views(views, mesh.shape_id)  # here, so that it is listed with the other problems
    glb = export_glb(simplify(shape, VIEWER_FACES))
    return views, sample_points(shape), pack_voxels(voxelise(shape)), glb, str(shape.metadata.get("note", ""))


def listed(problems: Sequence[str], what: str, most: int = 12) -> str:
    """Return one sentence that counts problems and names the first ones."""
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return f"{len(problems)} {what}: {'; '.join(problems[:most])}{more}"
