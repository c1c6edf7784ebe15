# ---
# jupyter:
#   cmic:
#     needs: [06_training, 07_evaluation]
#     inputs: [data/prepared/*/benchmark.json, outputs/*/metrics.json, data/sweethome]
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Published benchmarks and your own folder
#
# The shipped benchmark is for trying things out. This chapter says how to get the benchmarks that papers report, which
# commands prepare each, and what was run here. Then it turns an ordinary folder of meshes and photos into a benchmark
# and searches it, with and without a mask of the object. Results on real photographs have a chapter of their own, *A
# photo and a box*.
#
# It needs a trained model, and creates everything else in a temporary folder.

# %% tags=["parameters"]
PROFILE = "demo"
BENCHMARK = "sweethome"
OUTPUTS = "outputs"
OVERRIDES = []
SHAPES = 12  # in the folder of this chapter
PHOTOS = 3  # of each shape, at most

# %%
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown
from PIL import Image

from cmiclib import figures
from cmiclib.book import open_benchmark, open_chapter
from cmiclib.book.trained import trained_run
from cmiclib.io.images import read_mask
from cmiclib.index import ShapeIndex
from cmiclib.index.query import read_query
from cmiclib.book.tables import percent, published_table, read_results
from cmiclib.sources import PrepareOptions
from cmiclib.sources.own.folder import prepare_folder

chapter = open_chapter(PROFILE, BENCHMARK, OUTPUTS, OVERRIDES)

# %% [markdown]
# ## The published benchmarks
#
# This repository ships none of them, and each has its own terms: read them where you get the data.
#
# | benchmark | what to get, by project name | licence, as far as we know |
# |---|---|---|
# | Pix3D | the archive of *Pix3D* {cite:p}`sun2018pix3d`: photos, masks, models, `pix3d.json` | CC BY 4.0 |
# | Stanford Cars 3D | photos of *Stanford Cars*, poses of *StanfordCars3D*, models of *ShapeNetCore* v1 | research |
# | Comp Cars 3D | photos of *CompCars*, poses of *CompCars3D*, models of *ShapeNetCore* v1 | research |
# | ShapeNet | *ShapeNetCore* v1 or v2, after registration; a gallery without photos | research, education |
#
# The poses of both car sets are those of Wang et al. (2018); "research" means that commercial use is excluded. Pix3D's
# licence covers what its authors made; the photos and models in it belong to others.
#
# One command converts each of them to the prepared format; after that all are used alike:
#
# ```
# cmic prepare pix3d          --input data/raw/pix3d      --output data/prepared/pix3d --categories paper
# cmic prepare stanfordcars3d --input data/raw/cars       --output data/prepared/stanfordcars3d
# cmic prepare compcars3d     --input data/raw/cars       --output data/prepared/compcars3d
# cmic prepare shapenet       --input data/raw/ShapeNetCore.v2 --output data/prepared/shapenet4
#
# cmic train    --benchmark data/prepared/pix3d --profile paper --output outputs/pix3d
# cmic evaluate --benchmark data/prepared/pix3d --run outputs/pix3d --json outputs/pix3d/test.json
# cmic evaluate --benchmark data/prepared/pix3d --run outputs/pix3d --mode shapenet --gallery data/prepared/shapenet4
# ```
#
# `--categories paper` takes bed, chair, sofa and table, as CMIC does; without it all nine categories are taken. The
# authors' split lists come inside their archive (`cmic prepare release` reads it); for the official Pix3D the split is
# this project's own (`data/splits`).
#
# `cmic prepare SOURCE --help` lists what each source needs; a command stops with one message that names all missing
# files. `make reproduce PROFILE=paper BENCHMARK=data/prepared/pix3d` writes this whole report for such a benchmark.
#
# What was run here? The code looks for prepared benchmarks in `data/prepared`, and for measured results in the output
# folder. The published figures of CMIC are second-hand; [Evaluation](07_evaluation.ipynb) says where they come from.

# %%
titles = {"pix3d": "Pix3D", "stanfordcars": "Stanford Cars", "compcars": "Comp Cars", "shapenet": "ShapeNet"}
NAMES = {  # that `cmic prepare` gives, from the official data or from the authors' archive
    "pix3d": ["pix3d"], "stanfordcars": ["stanfordcars3d", "stanfordcars"], "compcars": ["compcars3d", "compcars"],
    "shapenet": ["shapenetcore-v1", "shapenetcore-v2", "shapenet4", "shapenetcars"],
}  # fmt: skip
prepared = {read_results(path)["name"] for path in (chapter.root / "data/prepared").glob("*/benchmark.json")}
files = [chapter.outputs.parent / name / "metrics.json" for name in ("smoke", "demo", "photos", "paper")]
measured = {m["benchmark"]: m for m in (read_results(path) for path in files if path.exists())}  # the last one counts
own = {title: next((measured[name] for name in names if name in measured), None) for title, names in NAMES.items()}

# %%
published = (
    published_table(chapter.root / "data/results/published.json").query("method == 'CMIC'").set_index("benchmark")
)
reported = percent(published, ["top1", "top10"]).add_prefix("published ").reindex(titles).fillna("–")
runs = pd.DataFrame([own[name]["seen"] if own[name] else {} for name in titles], titles)
here = percent(runs, ["top1", "top10"]).add_prefix("here ").replace("–", "not run")
here["profile here"] = [own[name]["profile"] if own[name] else "–" for name in titles]
is_prepared = pd.Series({n: "yes" if prepared.intersection(NAMES[n]) else "no" for n in titles}, name="prepared here")
reported.join([is_prepared, here]).rename(index=titles).rename_axis("per cent")

# %%
run_here = [titles[name] for name in titles if own[name]]
Markdown(
    f"Source of the published figures: {', '.join(sorted(set(published.source)))}. "
    + (f"Measured here: {', '.join(run_here)}." if run_here else "**None of the four was run here.**")
)

# %% [markdown]
# ## Your own folder
#
# All you need is a photo and a folder of meshes, in subfolders of any depth: OBJ, GLB, glTF, PLY, STL, OFF, 3MF or DAE
# (STEP and IGES after `pip install 'cmiclib[cad]'`). One command gives the answer, as a table and as a page to look at;
# what it made of the meshes is kept for the next call:
#
# ```
# cmic find photo.jpg --shapes FOLDER --box 40,25,310,290
# ```
#
# To train or to measure, prepare the folder as a benchmark. A mesh's path is its id, its first folder is its category.
# Photos are optional: if you have some, put them in one folder per shape; a second folder tree with the same names
# holds the masks.
#
# The code builds such a folder from some shapes of the shipped benchmark, chosen at even intervals from all shapes that
# have test photos. The meshes are the simplified ones of the viewer, so their views differ slightly from those of the
# benchmark. The photos are already cropped to squares around the object.

# %%
shipped = open_benchmark(chapter.root, "sweethome", PROFILE)
test = shipped.queries.iloc[shipped.rows("test")]
names = test.shape_id.unique()
chosen = names[np.linspace(0, len(names) - 1, min(SHAPES, len(names))).astype(int)]
photos = test[test.shape_id.isin(chosen)].groupby("shape_id").head(PHOTOS)
folder = tempfile.TemporaryDirectory()
root = Path(folder.name)


# %%
def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


# %%
for shape_id in chosen:
    (root / "meshes" / shape_id).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(shipped.mesh_path(shape_id), root / "meshes" / f"{shape_id}.glb")
for row, shape_id in photos.shape_id.items():
    rgb, mask = shipped.images[row][:3].transpose(1, 2, 0), shipped.images[row][3]
    write(root / "photos" / shape_id / f"{row}.png", np.ascontiguousarray(rgb))
    write(root / "masks" / shape_id / f"{row}.png", np.where(mask > 127, 255, 0).astype(np.uint8))

# %% [markdown]
# One call prepares the folder; on the command line it is `cmic prepare folder --input meshes --photos photos --masks
# masks --output own --test 1 --val 0`. The prepared folder holds `contact-sheet.jpg`, a view of each shape: look at it
# first. Furniture that seems to lie is named; nothing is turned without `--up +z --front -y`, which also take rules for
# files, such as `--up '*.stl=+z'`. Without folders for categories, give a table (`--categories`); without masks, add
# `--auto-mask`. One message lists all broken meshes, photos of unknown shapes and masks of another size.

# %%
own, _ = prepare_folder(
    root / "meshes", root / "own", PrepareOptions(size=shipped.size, progress=False),
    photos=root / "photos", masks=root / "masks", val=0, test=1,
)  # fmt: skip
counted = ", ".join(f"{count} {category}" for category, count in own.shapes.category.value_counts().items())
Markdown(f"{len(own.shapes)} shapes ({counted}) and {len(own.queries)} photos.")

# %% [markdown]
# Then the model that this report trained embeds the shapes once (`cmic index`).

# %%
run = trained_run(chapter)
index = ShapeIndex.build(run.model(), own, run.config)

# %% [markdown]
# ## What marks the object
#
# A photo can be searched in five ways: with a mask; with a box, or with neither, where everything inside counts; and
# with an automatic mask in both cases, where one is asked for. The automatic mask comes from GrabCut: colours outside a
# box, or along the photo's border, count as background. GrabCut knows nothing of furniture, so it fails where object
# and background have the same colours. If it finds almost nothing or almost everything, the box itself is used, and the
# answer says so. The learnt silhouette of [A photo and a box](17_photo_and_box.ipynb) is left out here.
#
# The model was trained with masks. How much does it lose without a good one? Every photo is searched in all five ways;
# the box is that of the true mask.


# %%
def ways(photo, mask):
    given = Image.fromarray(read_mask(mask)).getbbox()
    options = {"mask": {"mask": mask}, "box": {"box": given}, "box, GrabCut": {"box": given, "automatic": True},
               "photo alone": {}, "photo, GrabCut": {"automatic": True}}  # fmt: skip
    return {way: read_query(photo, **option) for way, option in options.items()}


# %%
files = [(root / "photos" / name, root / "masks" / name) for name in own.queries.photo]
queries = pd.DataFrame([ways(*pair) for pair in files], own.queries.query_id)
target = own.relevant(own.rows()).argmax(axis=1)  # (Q,)


# %%
def ranks(column):
    order, _ = index.rank(index.embed(np.stack([query.image for query in column])), len(index))  # (Q, N)
    return 1 + (order.numpy() == target[:, None]).argmax(axis=1)


rank = queries.apply(ranks)
pd.DataFrame({"Top-1, per cent": 100 * (rank == 1).mean(), "mean rank": rank.mean()}).round(1)


# %%
def overlap(query, mask):
    true = read_mask(mask)
    return (query.mask & true).sum() / (query.mask | true).sum()


automatic = queries[["box, GrabCut", "photo, GrabCut"]]
ious = automatic.apply(lambda column: [overlap(q, mask) for q, (_, mask) in zip(column, files, strict=True)])
given_up = automatic.map(lambda query: not query.how.startswith("automatic")).sum()
Markdown(
    f"{len(queries)} photos, {len(index)} shapes (Top-1 by chance: {100 / len(index):.0f} %). Mean overlap (IoU) of "
    f"the automatic mask with the true one: {ious['box, GrabCut'].mean():.2f} from the box, "
    f"{ious['photo, GrabCut'].mean():.2f} from the photo alone. GrabCut gave up on {given_up['box, GrabCut']} and "
    f"{given_up['photo, GrabCut']} photos."
)

# %% [markdown]
# The figure shows one photo in all five ways: the one whose automatic mask has the median overlap, so neither a good
# nor a bad case. The orange line is the mask, where one was used. To its right are the photo's own shape and the first
# five found.

# %%
median = ious["photo, GrabCut"].to_numpy().argsort()[len(ious) // 2]
asked = queries.iloc[median]
found = index.search(index.embed(np.stack([query.image for query in asked])), 5)
columns = np.array([own.shapes.index[own.shapes.shape_id == name][0] for ids in found.ids for name in ids]).reshape(
    len(asked), -1
)
pictures = own.views[columns, found.weights.argmax(dim=2).numpy()]  # (5 ways, 5 shapes, S, S)

# %%
figures.captioned(
    figures.retrieval_rows(
        np.stack([query.image for query in asked]), np.stack([own.views[target[median], 1]] * len(asked)), pictures,
        found.scores.numpy(), columns == target[median], [f"{way}, rank {r}" for way, r in rank.iloc[median].items()],
    ),
    "14.1",
    "One photo, marked in five ways, and the first five shapes of each. The rank of the own shape: "
    + ", ".join(f"{way} {r}" for way, r in rank.iloc[median].items()) + ".",
    "Five rows: the photo with the outline of its mask, a view of its own shape, and the first five shapes found, with "
    "their scores; the own shape is marked.",
    cut=False,
)  # fmt: skip

# %%
Markdown("\n".join(f"- **{way}**: {query.how.replace(str(root), '…')}" for way, query in asked.items()))

# %% [markdown]
# The commands below do the same; in a box a learnt silhouette weighs in, unless you add `--no-mask`. The first search
# saves the mask that it used, so that you can correct it and search again:
#
# ```
# cmic index  --run RUN --benchmark own --output own.index
# cmic search photo.jpg --index own.index --auto-mask --save-mask mask.png
# cmic search photo.jpg --index own.index --box 40,25,310,290
# cmic search photo.jpg --index own.index --mask mask.png
# ```
#
# `cmic fit --shapes meshes --output fit` adapts the shipped weights to a folder: it renders practice photos of each
# mesh, trains heads on them (`model.fixed` keeps the untrained features beside what is learnt), and compares the result
# with the shipped weights on photos rendered anew:

# %%
kept = chapter.root / "data/results/fit.json"
fitted = read_results(kept) if kept.exists() else None
if fitted is not None:
    gain, made = [f"{100 * value:+.1f}" for value in fitted["gain"]], fitted["environment"]
    about = (
        f"{fitted['shapes']} models of Pix3D, {fitted['photos']} practice photos each, {fitted['minutes']:.0f} minutes "
        f"on {made['cores']} cores, {made['date']}: on held-out renderings Top-1 was {fitted['before']['top1']:.1%} "
        f"before and {fitted['after']['top1']:.1%} after ({gain[0]} to {gain[1]} points)."
    )
Markdown("**Not run.**" if fitted is None else about)

# %% [markdown]
# These held-out photos are renderings too. They show that the shapes are told apart better, not what a camera's photos
# gain.
#
# Photos can also be searched against shapes that are already prepared: `cmic prepare folder --queries crops.json
# --gallery data/prepared/pix3d --output crops --auto-mask`.

# %% [markdown]
# ## What we learned

# %%
best = rank.eq(1).mean().sort_values(ascending=False)
Markdown(
    f"- A mask is worth most: of {len(queries)} photos it brings the own shape first for {best['mask']:.0%}, a box for "
    f"{best['box']:.0%}, the photo alone for {best['photo alone']:.0%}.\n"
    f"- GrabCut changes that to {best['box, GrabCut']:.0%} and {best['photo, GrabCut']:.0%}. These photos are "
    "synthetic and cleanly lit; on real ones an automatic mask loses to none (*A photo and a box*), so it is never the "
    "default.\n- An ordinary folder needs no structure beyond one subfolder for each category."
)

# %% [markdown]
# ## Try it
#
# Put five meshes and a photo of your own into a folder, and run the commands above. Is the right shape first? If not,
# save the automatic mask, correct it in any painting program, and search again with `--mask`: was the mask the cause?
