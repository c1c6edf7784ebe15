"""The two pages that go with a model: a model card and a data sheet, from stored figures alone.

Where nothing was measured or noted, the page says "not run" or "not noted".
"""

from pathlib import Path
from typing import Any

from ..benchmark import Benchmark
from ..config import Config, TrainConfig
from ..errors import CheckpointError
from ..io.atomic import write_json
from ..io.files import check_inside, read_json
from ..training.run import AGAIN, Run, check_unused

FILES = ("data.json", "environment.json", "metrics.json")

PAPER = (
    "Ming-Xian Lin, Jie Yang, He Wang, Yu-Kun Lai, Rongfei Jia, Binqiang Zhao, Lin Gao: Single Image 3D Shape "
    "Retrieval via Cross-Modal Instance and Category Contrastive Learning, ICCV 2021"
)
FIGURES = {"top1": "Top-1", "top10": "Top-10", "category": "Category", "mrr": "MRR"}

CARD = """---
library_name: cmiclib
pipeline_tag: image-feature-extraction
tags: [3d-shape-retrieval, cmic]
---

# {name}

A photo encoder, a view encoder and the score over a shape's {views} views ({fusion}), for cmiclib: a reproduction, by
others than its authors, of *{paper}*.

```python
from cmiclib.model import CMIC

model = CMIC.from_pretrained("FOLDER")  # or hf-hub:OWNER/NAME
query = model.embed_queries(photos)  # (B, 4, {size}, {size}) in [-1, 1], mask last → (B, {length})
views = model.embed_views(pictures)  # (N, {views}, 1, {size}, {size}) → (N, {views}, {length})
scores = model.score(query, views)  # (B, N)
```

`cmic find photo.jpg --shapes MESHES --run FOLDER` does all of it.

## Settings

Profile `{profile}`, digest `{digest}`; `config.json` has them all. Photo encoder {query}, view encoder {view}, from
`{init}`; first stages that keep these weights: {frozen} and {view_frozen}; mask: {mask}.

## Results

{results}

## Training

{training}

## Limits

- The figures hold for the benchmark named above and for masks as they come with it; they say nothing about other
  photos or shapes.
- A score is no probability: the first answer comes also where the gallery does not hold the object.
- What the training photos show, and what they do not, is in `DATASHEET.md`.
- Licence: not noted in the run. The code is MIT; the weights go back to those that `model.init` names ({init}) and to
  the data of the training, each with a licence of its own.
"""

SHEET = """# Data sheet: {name}

The questions follow *Datasheets for Datasets* (Gebru et al., 2021), as far as code can answer them.

## Composition

{composition}

## Origin and licences

{origin}

## Not answered by code

Why the data were gathered, who was asked for consent, who maintains them, and what they should not be used for: not
noted in the files that this page was written from.
"""


def pass_on(run: Run, folder: Path, benchmark: Benchmark | None = None) -> None:
    """Write a new folder to pass on: model, what the run says about itself, model card and data sheet.

    Every figure of the two pages comes from the run's files and from ``benchmark``, the training's; where there is
    none, they say so. CheckpointError: the folder is in use, or the benchmark is another one.
    """
    check_unused(folder)
    known = {}
    for name in FILES:
        if (run.path / name).exists():
            check_inside(run.path / name, run.path, CheckpointError)
            known[name] = read_json(run.path / name, CheckpointError, AGAIN)
    if not all(isinstance(values, dict) for values in known.values()):
        raise CheckpointError("a JSON file of the run is not an object", path=run.path, fix=AGAIN)
    if benchmark and benchmark.hash != known.get("data.json", {}).get("hash"):
        problem = f"the run was not trained on '{benchmark.name}' as it is"
        raise CheckpointError(problem, path=run.path, fix="pass the benchmark of the training, or none")
    run.model().save_pretrained(folder, run.config)
    for name, values in known.items():
        write_json(folder / name, values)
    (folder / "README.md").write_text(model_card(run.config, known), "utf-8")
    (folder / "DATASHEET.md").write_text(data_sheet(known, benchmark), "utf-8")


def model_card(config: Config, known: dict[str, Any]) -> str:
    """Return the model card of a run; ``known`` holds those of its JSON files that exist, by name."""
    model = config.model
    return CARD.format(
        name=f"CMIC, {known.get('data.json', {}).get('benchmark', 'training data not noted')}", paper=PAPER, views=12,
        size=model.image_size, length=model.length, profile=config.profile, digest=config.digest(), init=model.init,
        query=model.query_backbone, view=model.view_backbone, frozen=model.frozen, view_frozen=model.frozen_of_views,
        mask=model.mask, fusion=model.fusion, results=_results(known.get("metrics.json")),
        training=_training(known, config.train),
    )  # fmt: skip


def _results(metrics: dict[str, Any] | None) -> str:
    """Return the stored figures as a table, in per cent, with their intervals where the file has them."""
    rows = {name: row for name, row in (metrics or {}).items() if isinstance(row, dict) and "top1" in row}
    if not metrics or not rows:
        return "Not run: the run holds no `metrics.json` of an evaluation."

    def shown(row: dict[str, Any], figure: str) -> str:
        if figure not in row:
            return "not run"
        low, high = row.get(f"{figure}_low"), row.get(f"{figure}_high")
        interval = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
        return f"{100 * row[figure]:.1f}{interval}"

    lines = [f"| % | photos | {' | '.join(FIGURES.values())} |", "|---|---:|" + "---:|" * len(FIGURES)]
    for name, row in rows.items():
        figures = " | ".join(shown(row, figure) for figure in FIGURES)
        lines.append(f"| {name} | {row.get('queries', 'not noted')} | {figures} |")
    where = (
        f"Split `{metrics.get('split', 'not noted')}` of benchmark `{metrics.get('benchmark', 'not noted')}`, "
        f"gallery of {metrics.get('gallery_size', 'not noted')} shapes. Brackets: 95 % bootstrap intervals over "
        "shapes. "
        "`seen` and `unseen` are this model on shapes with and without training photos; the other rows are baselines."
    )
    return "\n".join([*lines, "", where])


def _training(known: dict[str, Any], asked: TrainConfig) -> str:
    data, made = known.get("data.json"), known.get("environment.json")
    lines = ["No training is noted: the folder names no training data, so the steps of `config.json` may not be run."]
    if data:
        photos = ", ".join(f"{count} {split}" for split, count in data.get("photos", {}).items()) or "not noted"
        lines = [f"Benchmark `{data.get('benchmark')}`, {data.get('shapes')} shapes; photos: {photos}."]
        lines.append(f"Its hash: `{data.get('hash')}`.")
        lines.append(f"`config.json` asks for {asked.steps} steps of {asked.batch} photos, with seed {asked.seed}.")
    if not made:
        return "\n".join([*lines, "Machine, date and duration: not noted."])
    versions = ", ".join(f"{name} {version}" for name, version in made.get("versions", {}).items())
    lines.append(
        f"On {made.get('date')}, {made.get('processor')}, {made.get('cores')} cores, accelerator: "
        f"{made.get('accelerator')}; {made.get('seconds', 'not noted')} seconds. Python {made.get('python')}, "
        f"{versions}."
    )
    return "\n".join(lines)


def data_sheet(known: dict[str, Any], benchmark: Benchmark | None) -> str:
    """Return the data sheet of a run's benchmark; without that, of what the run noted about it."""
    data = known.get("data.json", {})
    if benchmark is None:
        photos = ", ".join(f"{count} {split}" for split, count in data.get("photos", {}).items()) or "not noted"
        noted = f"Shapes: {data.get('shapes', 'not noted')}. Photos: {photos}. Hash: `{data.get('hash', 'not noted')}`."
        ask = "Not noted in the run; pass the benchmark to have its shapes, photos and licences counted here."
        return SHEET.format(name=data.get("benchmark", "not noted"), composition=noted, origin=ask)
    shapes, queries = benchmark.shapes, benchmark.queries
    splits = queries.groupby("split").agg(photos=("query_id", "size"), shapes=("shape_id", "nunique"))
    lines = [
        f"- {len(shapes)} shapes in {shapes.category.nunique()} categories, each with {benchmark.views.shape[1]} views "
        f"of {benchmark.size} px; {int(benchmark.photographed.sum())} of them are on photos.",
        *(f"- {row.photos} {split} photos of {row.shapes} shapes." for split, row in splits.iterrows()),
        f"- {int((~queries.seen.astype(bool)).sum())} photos show shapes that no training photo shows.",
        f"- Shapes of each category: {', '.join(f'{n} {c}' for n, c in shapes.category.value_counts().items())}.",
    ]
    licences = shapes.licence.fillna("").replace("", "not noted").value_counts()
    origin = [
        f"- Source: {benchmark.meta.get('source') or 'not noted'}. Licence of the whole: "
        f"{benchmark.meta.get('licence') or 'not noted'}. Hash: `{benchmark.hash}`.",
        f"- Licences of the shapes: {', '.join(f'{name} ({count})' for name, count in licences.items())}; creators: "
        f"{shapes.creator.fillna('').replace('', 'not noted').nunique()}.",
    ]
    return SHEET.format(name=benchmark.name, composition="\n".join(lines), origin="\n".join(origin))
