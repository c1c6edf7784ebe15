# ---
# jupyter:
#   cmic:
#     needs: []
#     alone: true
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Views: how a shape becomes something to compare a photo with
#
# A photo is a picture and a CAD model is a list of triangles. CMIC {cite:p}`lin2021cmic` makes them comparable by
# rendering: each shape becomes twelve gray pictures, taken from a circle around it. This chapter renders these pictures
# from a mesh, compares them with the stored ones, and then shows the two other forms in which a shape is stored, points
# and voxels, with the two distances that are computed from them.
#
# **What it needs:** a benchmark that has meshes, points and voxels, as `sweethome` has. It needs neither a GPU nor a
# display.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
CATEGORY = "chair"  # category of the shape shown; the first category if the benchmark lacks this one

# %%
import time

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from cmiclib import figures, geometry
from cmiclib.augment import resample
from cmiclib.book import open_chapter
from cmiclib.evaluation.report import packed_iou
from cmiclib.figures.grids import compare_views, grid
from cmiclib.geometry.render import camera, project, render_views
from cmiclib.io.protocol import ViewProtocol

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS)
benchmark = chapter.benchmark
shapes = benchmark.shapes

# %% [markdown]
# ## A mesh
#
# This is the simplified mesh that the benchmark keeps for the viewer. `load_mesh` joins the parts of the file. It
# refuses a mesh without faces and a mesh with NaN or Inf among its coordinates.

# %%
category = CATEGORY if CATEGORY in set(shapes.category) else shapes.category[0]
row = int(np.argmax(shapes.category == category))
mesh = geometry.load_mesh(benchmark.mesh_path(shapes.shape_id[row]))
Markdown(
    f"**{shapes.name[row]}** (`{shapes.shape_id[row]}`, by {shapes.creator[row]}): {len(mesh.vertices):,} vertices, "
    f"{len(mesh.faces):,} triangles, bounding box {' × '.join(f'{side:.2f}' for side in mesh.extents)} in the "
    "file's own unit."
)

# %% [markdown]
# ## Normalise
#
# CAD models come in millimetres, in inches or without a unit, and anywhere in space. `normalise` moves the centre of
# the bounding box to the origin and scales the mesh so that its farthest vertex is at distance 1. From here on all
# lengths are in this unit. To show that the original unit and place leave no trace, a copy of the mesh is first
# enlarged and moved away.

# %%
elsewhere = mesh.copy()
elsewhere.apply_scale(1000)
elsewhere.apply_translation((500, -200, 30))
mesh, moved = geometry.normalise(mesh), geometry.normalise(elsewhere)
Markdown(
    f"Largest difference of a coordinate: {np.abs(mesh.vertices - moved.vertices).max():.0e}. The farthest vertex is "
    "at distance 1."
)

# %% [markdown]
# ## Twelve cameras
#
# The protocol is part of the benchmark (`benchmark.json`): scores against views of another protocol mean nothing. The
# authors released twelve gray views of 224 × 224 pixels for each shape, but no renderer. This project keeps their
# number of views; elevation, field of view and shading are its own. Azimuths, elevation and field of view are in
# degrees; the distance is in units of the farthest vertex's distance from the centre.

# %%
protocol = benchmark.protocol
settings = protocol.model_dump() | {"distance": protocol.distance}
pd.Series(settings, name="value").to_frame().style.format(precision=3)

# %% [markdown]
# Azimuth 0° looks at the front (+z), 90° at the side that faces +x. The unit sphere just touches the borders of the
# picture, so the picture shows the whole shape, however it is turned. The table gives the camera's position in the unit
# of the normalised shape:

# %%
pd.DataFrame([camera(azimuth, protocol)[0].round(2) for azimuth in protocol.azimuths[:4]],
             index=[f"{azimuth:.0f}°" for azimuth in protocol.azimuths[:4]], columns=["x", "y", "z"])  # fmt: skip

# %% [markdown]
# ## Render
#
# Each pixel casts four rays, which return the first triangle hit. The gray of a triangle depends only on the angle
# between it and a light that moves with the camera: there are no colours, textures or shadows. So the colours of a
# photo cannot help to find its shape; the next chapter returns to this.

# %%
started = time.perf_counter()
fresh = render_views(mesh, benchmark.size, protocol)
seconds = time.perf_counter() - started
figures.captioned(
    figures.views(fresh, protocol.azimuths, shapes.name[row]), "2.1",
    f"All that the encoder receives of a shape: twelve gray views, {360 / len(protocol.azimuths):.0f}° apart, from an "
    f"elevation of {protocol.elevation:.0f}°. Opposite sides look alike, back and front do not.",
    f"Twelve gray renderings of one {category}, from all sides, each with its azimuth in degrees.", cut=False,
)  # fmt: skip

# %%
assert (render_views(mesh, benchmark.size, protocol) == fresh).all()
Markdown(
    f"Twelve views of {benchmark.size} px took {seconds:.2f} s on one core, and a second call gave the same bytes. The "
    f"{len(shapes)} shapes of this gallery would take {seconds * len(shapes) / 60:.1f} minutes."
)

# %% [markdown]
# ## Stored and live views
#
# The same function rendered the stored views, but from the original model. The shipped mesh is a simplified one, with
# small parts merged and coordinates rounded, so the two cannot be equal. The third row shows the difference; check thin
# parts, edges, and the shading of curved surfaces.

# %%
stored = benchmark.views[row]
change = np.abs(stored.astype(int) - fresh)
figures.captioned(
    compare_views(stored, fresh, protocol.azimuths), "2.2",
    f"Stored views, views of the shipped mesh, and their difference in gray levels. The mesh is simplified, so "
    f"{(change > 16).mean():.1%} of the pixels differ by more than 16 of 255 levels; the outline stays.",
    "Three rows of twelve small renderings: stored, live, and a dark picture of where they differ.",
    cut=False,
)  # fmt: skip

# %%
outlines = [geometry.voxel_iou(a < 255, b < 255) for a, b in zip(stored, fresh, strict=True)]
Markdown(
    f"Mean difference {change.mean():.1f} of 255 gray levels; {(change > 16).mean():.1%} of the pixels differ by more "
    f"than 16. The outlines overlap with an IoU of {np.mean(outlines):.3f} on average and {min(outlines):.3f} at worst."
)

# %% [markdown]
# ## What the encoder sees
#
# The image size is not part of the protocol: a model resizes its input, in the demo to a larger picture. The figure
# shows one view as it is stored, at the size that this profile's encoder sees, and at half of that size. Legs and slats
# vanish first as pictures get smaller.

# %%
seen = chapter.config.model.image_size
view = torch.from_numpy(np.array(stored[1]))[None, None]  # (1, 1, S, S)
sides = (benchmark.size, seen, seen // 2)
sizes = [resample(view, side)[0, 0].clip(0, 255).numpy() / 255 for side in sides]
figures.captioned(
    grid(sizes, [f"{side} px" for side in sides]), "2.3",
    f"One view at {', '.join(map(str, sides))} pixels a side. An encoder that sees fewer pixels loses the thin parts "
    "first, and these are what tells one chair from another.",
    "The same gray rendering three times, each time with other pixels.",
)  # fmt: skip

# %% [markdown]
# ## Points and voxels
#
# The benchmark stores two more forms of the same shape: 10,000 points spread evenly over the surface, and a solid grid
# of 128³ cells. A cell is solid if the surface passes through it or if the outside cannot reach it. No encoder sees
# points or voxels. They measure how wrong a wrong answer is.

# %%
points, voxels = benchmark.points[row].astype(np.float32), geometry.unpack_voxels(benchmark.voxels[row])
figures.captioned(
    figures.voxel_plot(stored[1], points, voxels), "2.4",
    f"Three forms of one shape: a rendering, surface points, and a solid grid, of whose cells {voxels.mean():.1%} are "
    "solid. All three are in the unit of the normalised shape, in which the farthest vertex is at distance 1.",
    "A gray rendering, a cloud of points coloured by height, and a blocky solid of the same shape.",
    cut=False,
)  # fmt: skip

# %% [markdown]
# All forms must agree with each other. Projected into the views, the points have to fall on the silhouette.

# %%
pixel = [project(points, azimuth, benchmark.size, protocol).astype(int) for azimuth in protocol.azimuths]
inside = [(view[y, x] < 255).mean() for view, (x, y) in zip(stored, (p.T for p in pixel), strict=True)]
Markdown(
    f"{np.mean(inside):.1%} of the points fall on the silhouette, {min(inside):.1%} in the worst view; "
    f"{voxels.mean():.1%} of the cells are solid."
)

# %% [markdown]
# ## Two distances
#
# The released code measures the distance between the retrieved and the true shape in two ways:
#
# - $d_{IoU}$, the intersection over union of the solid grids, without a unit: 1 means equal, 0 means no overlap.
# - $d_{HAU}$, a modified Hausdorff distance {cite:p}`dubuisson1994hausdorff`: the mean distance from each point of
#   either shape to the nearest point of the other. Coordinates are halved first, so the unit is twice the distance from
#   the centre to the farthest vertex. For point sets $A$ and $B$,
#
# $$ d_{HAU} = \frac{\sum_a d(a, B) + \sum_b d(b, A)}{|A| + |B|}, \quad d(a, B) = \min_{b \in B} \lVert a - b \rVert. $$
#
# For comparison, take the shapes of the same category that overlap most and least with this one, and one shape of
# another category.

# %%
same = np.setdiff1d(np.flatnonzero(shapes.category == category), row)
overlap = [packed_iou(benchmark.voxels[row], benchmark.voxels[i]) for i in same]
others = {
    "most overlap": same[np.argmax(overlap)],
    "least overlap": same[np.argmin(overlap)],
    "another category": np.argmax(shapes.category != category),
}
names = [f"{title}:\n{shapes.name[i]}" for title, i in ({"the shape": row} | others).items()]
figures.captioned(
    grid([benchmark.views[i][1] for i in (row, *others.values())], names, across=4),
    "2.5",
    f"A shape, and three others to compare it with. Within the category the solid grids overlap with an IoU from "
    f"{min(overlap):.2f} to {max(overlap):.2f}.",
    "Four gray renderings side by side: the shape, its nearest and farthest in the category, and another category.",
)  # fmt: skip

# %% [markdown]
# The second row of the table is the shape's own simplified mesh, sampled and voxelised again. Its $d_{HAU}$ is not 0,
# because even two samples of one surface differ. This is the noise floor, below which differences mean nothing. Its
# $d_{IoU}$ can be far below 1: a mesh is filled only where its surface is closed, and simplification may open a gap,
# which turns a solid into a thin shell. The column `solid`, the share of cells that are solid, shows whether that
# happened.

# %%
again = geometry.sample_points(mesh, len(points), seed=1)
sets = [points, again, *(benchmark.points[i].astype(np.float32) for i in others.values())]
solids = [voxels, geometry.voxelise(mesh), *(geometry.unpack_voxels(benchmark.voxels[i]) for i in others.values())]

# %%
distances = pd.DataFrame(index=["itself", "its simplified mesh", *others])
distances["d_HAU"] = [geometry.modified_hausdorff(points / 2, candidate / 2) for candidate in sets]
distances["d_IoU"] = [geometry.voxel_iou(voxels, candidate) for candidate in solids]
distances["solid"] = [f"{candidate.mean():.2%}" for candidate in solids]
distances.style.format("{:.4f}", subset=["d_HAU", "d_IoU"]).set_caption(f"Distances from {shapes.name[row]}")

# %% [markdown]
# $d_{IoU}$ is strict with thin parts: shift a chair leg by its own width, and the two no longer overlap at all. So a
# low $d_{IoU}$ between two chairs does not mean that they look different. Read the two distances together.
#
# ## What we learned

# %%
Markdown(
    f"Twelve gray views stand for a mesh. They took {seconds:.2f} s on one core, and they are the same bytes each "
    f"time. The shipped, simplified mesh changes them by {change.mean():.1f} of 255 gray levels on average. Two "
    f"samples of almost the same surface have a d_HAU of {distances.d_HAU['its simplified mesh']:.4f}; differences "
    "below that mean nothing."
)

# %% [markdown]
# ## Try it
#
# Raise the cameras. From an elevation of 60° seats and table tops become clearly visible, and legs vanish. Which
# elevation would you choose for photos taken from standing height?

# %%
raised = render_views(mesh, benchmark.size, ViewProtocol(elevation=60))
figures.captioned(
    figures.views(raised, protocol.azimuths, "Elevation 60°"), "2.6",
    f"The same shape from 60° instead of {protocol.elevation:.0f}°: surfaces that face upwards fill the picture, and "
    "legs are hidden below them. Photos from standing height lie between the two.",
    f"Twelve gray renderings of the {category} from high above, each with its azimuth in degrees.", cut=False,
)  # fmt: skip
