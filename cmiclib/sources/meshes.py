"""Mesh files that become the shapes of a benchmark."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..benchmark.checks import check_views
from ..benchmark.growing import origin_of
from ..benchmark.writer import BenchmarkWriter
from ..io.protocol import ViewProtocol

if TYPE_CHECKING:
    import trimesh

VIEWER_FACES = 4_000


class Shape(NamedTuple):
    """What a benchmark holds of a shape."""

    views: np.ndarray  # uint8 (12, S, S)
    points: np.ndarray | None = None  # float (10000, 3)
    voxels: np.ndarray | None = None  # uint8 (262144,), packed
    mesh: bytes | None = None  # a GLB file
    note: str = ""  # what is to be noted about it


def prepare_mesh(
    mesh: "MeshFile",
    size: int,
    protocol: ViewProtocol,
    load: "Callable[[Path, str, str], trimesh.Trimesh] | None" = None,
    measured: bool = True,
) -> Shape:
    """Return what a gallery needs of a mesh file.

    Args:
        mesh: the file.
        size: side S of the views in pixels.
        protocol: how views are made.
        load: turns path, up and front into a mesh, whose ``metadata["note"]`` becomes the shape's note; default:
            `cmiclib.geometry.load_mesh`.
        measured: points and voxels are wanted, to compare shapes; a search needs neither.

    Raises:
        MeshError: the file cannot be used.
        BenchmarkError: the views are empty.
    """
    from ..geometry import export_glb, load_mesh, normalise, pack_voxels, sample_points, simplify, voxelise
    from ..geometry.render import render_views  # these load trimesh, which a folder that is known does without

    shape = normalise((load or load_mesh)(mesh.path, mesh.up, mesh.front))
    views = render_views(shape, size, protocol)
    check_views(views, mesh.shape_id)  # here, so that it is listed with the other problems
    glb = export_glb(simplify(shape, VIEWER_FACES))
    points, voxels = (sample_points(shape), pack_voxels(voxelise(shape))) if measured else (None, None)
    return Shape(views, points, voxels, glb, str(shape.metadata.get("note", "")))


@dataclass(frozen=True)
class MeshFile:
    """A file that becomes a shape; its repr and its files tell whether the shape has to be made again."""

    shape_id: str  # unique, such as chair/IKEA_MARKUS
    category: str
    path: Path = field(repr=False)
    up: str = "+y"  # the axis of the file's frame that points up
    front: str = "+z"  # the axis that the object's front looks along
    name: str = ""  # what people call it
    creator: str = ""
    licence: str = ""  # SPDX identifier
    source: str = ""  # where it comes from; the shape's note is added
    group: str = ""  # variants of one mesh share it; default: the shape's own id
    also: tuple[Path, ...] = field(default=(), repr=False)  # further files that it is made of
    make: Callable[["MeshFile", int, ViewProtocol], Shape] = field(default=prepare_mesh, repr=False, compare=False)

    def needed(self, writer: BenchmarkWriter) -> bool:
        """Announce the shape; tell whether it is still to be made, or to be made again."""
        return writer.needs_shape(self.shape_id, origin_of(self, files=(self.path, *self.also)))

    def add(self, writer: BenchmarkWriter, made: Shape) -> None:
        """Add what was made of the file."""
        writer.add_shape(
            self.shape_id, self.category, made.views, name=self.name, creator=self.creator, licence=self.licence,
            source=", ".join(filter(None, (self.source, made.note))), group=self.group, points=made.points,
            voxels=made.voxels, mesh=made.mesh,
        )  # fmt: skip
