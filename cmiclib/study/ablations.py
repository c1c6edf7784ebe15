"""Every design choice, taken away or replaced, one at a time: variants as data, runs that are kept, the stored table.

Each run's result is one small JSON file, named after variant, seed and a hash of what it depends on. The table
``data/results/ablations.json`` is put together from these files and from its own rows. Beside it,
``ablation_answers.json`` holds the first shape found for every validation photo; from these answers
:mod:`cmiclib.study.effects` computes differences with their intervals.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed

from ..benchmark import Benchmark
from ..config import AugmentConfig, Config, ModelConfig, TrainConfig
from ..embed import default_device, photo_vectors
from ..errors import BookError, CheckpointError, ConfigError
from ..evaluation.report import Scored, score_run
from ..index import ShapeIndex
from ..io.atomic import write_json
from ..io.code import code_digest
from ..io.files import read_json
from ..io.lock import alone
from ..io.provenance import environment
from ..training.features import FrozenFeatures
from ..training.loop import METHOD, train
from ..training.run import Run
from ..weights import init_digest
from .variants import UNCHANGED, Change, apply_variant

SEEDS = (0, 1, 2, 3, 4)
FULL = "full"
Row = dict[str, Any]
Known = dict[tuple[str, int], Row]  # by variant and seed


@dataclass(frozen=True)
class Variant:
    """One change of the full method."""

    title: str
    overrides: tuple[str, ...]
    part: str  # of the method
    against: str = FULL  # the variant that it is compared with
    data: Change = UNCHANGED

    @property
    def changes(self) -> list[str]:
        """Every change as ``key=value``; ``data.…`` are changes of the benchmark, the others of the configuration."""
        return [*self.overrides, *(f"data.{name}={value}" for name, value in self.data.values().items())]


VARIANTS: dict[str, Variant] = {
    FULL: Variant("the full method", (), "–"),
    "no-colour": Variant("no colour transfer", ("augment.color=none",), "augmentation"),
    "colour-jitter": Variant("colour jitter instead", ("augment.color=jitter",), "augmentation"),
    "released-colour": Variant("colour transfer as released", ("augment.color=reference",), "augmentation"),
    "no-category": Variant("no category loss", ("loss.category_weight=0.0",), "loss"),
    "category-1": Variant("category loss with weight 1", ("loss.category_weight=1.0",), "loss"),
    "triplet": Variant(
        "triplets, without category loss", ("loss.instance=triplet", "loss.category_weight=0.0"), "loss", "no-category"
    ),
    "hard-negatives": Variant("hard negatives weighted, β = 1", ("loss.hard_negatives=1.0",), "loss"),
    "symmetric": Variant("both directions of the loss", ("loss.symmetric=true",), "loss"),
    "tau-0.05": Variant("temperature 0.05", ("loss.tau=0.05",), "loss"),
    "tau-0.2": Variant("temperature 0.2", ("loss.tau=0.2",), "loss"),
    "mean-fusion": Variant("mean of the views", ("model.fusion=mean",), "fusion"),
    "max-fusion": Variant("best view only", ("model.fusion=max",), "fusion"),
    "views-6": Variant("6 views", (), "views", data=Change(views=6)),
    "views-3": Variant("3 views", (), "views", data=Change(views=3)),
    "views-1": Variant("1 view, the front", (), "views", data=Change(views=1)),
    "silhouettes": Variant("silhouettes as views", (), "views", data=Change(shading="none")),
    "no-mask": Variant("no mask", ("model.mask=none",), "mask"),
    "masks-0.6": Variant("masks slightly wrong", (), "mask", data=Change(mask_error=0.6)),
    "masks-0.8": Variant("masks corrupted", (), "mask", data=Change(mask_error=0.8)),
    "half-batch": Variant("half the batch", ("train.batch=96",), "batch"),
    "quarter-batch": Variant("a quarter of the batch", ("train.batch=48",), "batch"),
}
"""Name → what is changed. Views and masks change in training and in evaluation, see :mod:`cmiclib.study.variants`."""

REFERENCE = Config(
    profile="ablation",
    model=ModelConfig(
        query_backbone="tf_efficientnet_lite0", view_backbone="tf_efficientnet_lite0", image_size=128, mask="cutout",
        init="imagenet", frozen=8, grid=3, shared_head=True, attention_start=5.0, dropout=0.5,
    ),
    augment=AugmentConfig(query_scale=(0.8, 1.0), view_scale=(0.8, 1.0)),
    train=TrainConfig(
        batch=192, steps=400, views=3, copies=3, view_copies=1, optimizer="adamw", lr=2e-3, betas=(0.9, 0.99),
        weight_decay=0.05, schedule="cosine", warmup=20, precision="bf16", log_every=100, eval_every=400,
    ),
)  # fmt: skip
"""The full method at the scale of the ablations. It stands here whole, so that a change of the demo leaves it alone. It
validates once, at the end: the weights are the last ones, so none are chosen by the photos that compare variants."""

SMALL = (
    "model.image_size=96", "train.batch=12", "train.steps=60", "train.copies=1", "train.log_every=20",
    "train.eval_every=60",
)  # fmt: skip
"""What the profile ``smoke`` changes of the reference, for its 24 shapes."""
SMALL_BATCH = {"half-batch": ("train.batch=6",), "quarter-batch": ("train.batch=3",)}


def for_profile(profile: str) -> tuple[Config, dict[str, Variant]]:
    """Return the reference and the variants for a profile: small ones for ``smoke``, else those of this module."""
    if profile != "smoke":
        return REFERENCE, VARIANTS
    small = {name: replace(v, overrides=SMALL_BATCH.get(name, v.overrides)) for name, v in VARIANTS.items()}
    return REFERENCE.override(SMALL), small


def variant_config(
    name: str, seed: int, reference: Config = REFERENCE, variants: Mapping[str, Variant] = VARIANTS
) -> Config:
    """Return a variant's whole configuration; ConfigError for an unknown variant, or overrides that do not fit."""
    if name not in variants:
        raise ConfigError(f"unknown variant '{name}'", fix=f"use one of: {', '.join(variants)}")
    return reference.override([*variants[name].overrides, f"train.seed={seed}"])


def config_hash(config: Config, data: Change = UNCHANGED) -> str:
    """Hash the options that differ from their defaults, without seed and profile's name, and the content of files."""
    values = config.model_dump(mode="json", exclude_defaults=True, exclude={"profile": True, "train": {"seed"}})
    values |= {"data": data.values()} if data.values() else {}
    values |= {"init": digest} if (digest := init_digest(config.model)) else {}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def config_hashes(reference: Config = REFERENCE, variants: Mapping[str, Variant] = VARIANTS) -> dict[str, str]:
    """Return the hash of every variant's configuration."""
    return {n: config_hash(variant_config(n, 0, reference, variants), v.data) for n, v in variants.items()}


def run_variant(
    name: str, seed: int, benchmark: Benchmark, folder: Path, *,
    reference: Config = REFERENCE, variants: Mapping[str, Variant] = VARIANTS, again: bool = False,
) -> Row:  # fmt: skip
    """Return the result of a variant with a seed: loaded where its file is there, unless ``again``, else trained.

    The benchmark's validation photos search its whole gallery. ``folder`` keeps the results and, in ``maps``, what runs
    share. Errors are those of :func:`cmiclib.training.loop.train`.

    Returns:
        ``variant``, ``seed``, ``overrides``, ``metrics`` (``top1``, ``top10``, ``category`` of photos of seen shapes,
        ``unseen_top1``; None without such photos), ``seconds``, ``config_hash``, ``machine``, ``date``, ``benchmark``
        and ``code`` (hashes), and ``first``: the gallery row of the first shape found for each validation photo.
    """
    config = variant_config(name, seed, reference, variants)
    data = variants[name].data
    key = f"{config_hash(config, data)} {benchmark.hash} {code_digest(METHOD)}"
    path = folder / f"{name}-{seed}-{hashlib.sha256(key.encode()).hexdigest()[:10]}.json"
    if path.is_file() and not again:
        return read_stored(path)
    started, made = time.perf_counter(), environment()
    seen, features, running = apply_variant(benchmark, data), folder / "maps", folder / "running"
    running.mkdir(parents=True, exist_ok=True)
    # Each run has its own folder, because workers of a killed grid may still train the same variant. The folder is
    # removed with its weights, which nobody reads and which would fill a disk after a hundred runs.
    with tempfile.TemporaryDirectory(prefix=f"{path.stem}-", dir=running) as work:
        run = train(config, seen, Path(work) / "run", progress=False, features=features)
        scored = _score(run, seen, features) if config.train.copies else score_run(run, seen, "val")
    row = {
        "variant": name, "seed": seed, "overrides": variants[name].changes, "metrics": figures(scored),
        "seconds": round(time.perf_counter() - started, 1), "config_hash": config_hash(config, data),
        "machine": f"{made['processor']}, {made['cores']} cores, accelerator: {made['accelerator']}",
        "date": made["date"], "benchmark": benchmark.hash, "code": code_digest(METHOD),
        "first": " ".join(map(str, scored.scores.argmax(dim=1).tolist())),
    }  # fmt: skip
    write_json(path, row)
    return row


def _score(run: Run, benchmark: Benchmark, features: Path) -> Scored:
    """Score the validation photos as `score_run` does, without running the frozen stages once more."""
    model, rows = run.model(default_device()), benchmark.rows("val")
    still = FrozenFeatures(model, benchmark, run.config, features).validation()
    index = ShapeIndex.build(model, benchmark, run.config, maps=still.views)
    return Scored(index.scores(photo_vectors(model, still.queries, run.config)), rows, benchmark)


def figures(scored: Scored) -> dict[str, float | None]:
    """Return the four figures of a row from the scores of all validation photos."""
    seen = scored.benchmark.queries.seen.to_numpy()[scored.rows].astype(bool)
    values = {name: value.numpy() for name, value in scored.metrics().items()}
    mean = {name: float(values[name][seen].mean()) if seen.any() else None for name in ("top1", "top10", "category")}
    return mean | {"unseen_top1": float(values["top1"][~seen].mean()) if not seen.all() else None}


def run_grid(
    benchmark: Benchmark, folder: Path, table: Path, *, names: Sequence[str] | None = None,
    seeds: Sequence[int] = SEEDS, jobs: int = 1, reference: Config = REFERENCE,
    variants: Mapping[str, Variant] = VARIANTS, same_code: bool = False, replace: bool = False,
    say: Callable[[str], None] = print,
) -> list[Row]:  # fmt: skip
    """Run what is missing of variants × seeds, seed by seed; write the table after each run and return its rows.

    A run is finished if the JSON file ``table``, or a file in ``folder``, holds its variant, seed, configuration and
    benchmark; ``same_code`` repeats those that another state of the method's code computed. Nothing is written before
    the first result. ``replace`` drops rows of the table that are of another benchmark or configuration, or of none of
    the variants. ``names`` are by default all; ``jobs`` processes share the cores; ``say`` receives a line for each
    run.

    BookError where another grid uses the folder, or rows would be dropped without ``replace``; others as
    :func:`run_variant`.
    """
    wanted, hashes, code = list(names or variants), config_hashes(reference, variants), code_digest(METHOD)
    for name in wanted:
        variant_config(name, 0, reference, variants)
    with alone(folder, BookError):
        rows = read_stored(table) if table.is_file() else []
        known = _finished(rows, table, folder, hashes, benchmark.hash)
        lost = sum(not _belongs(row, hashes, benchmark.hash) for row in rows)
        if lost and not replace:
            problem = f"{lost} of {len(rows)} rows are of another benchmark or configuration and would be dropped"
            raise BookError(problem, path=table, fix="give another file with --table, or drop them with --replace")
        done = {at for at, row in known.items() if not same_code or row["code"] == code}
        todo = [(name, seed) for seed in seeds for name in wanted if (name, seed) not in done]
        say(f"{len(wanted) * len(seeds) - len(todo)} of {len(wanted) * len(seeds)} runs are there, {len(todo)} to do")
        options = {"reference": reference, "variants": variants}
        if jobs == 1:
            results = (run_variant(name, seed, benchmark, folder, **options) for name, seed in todo)  # type: ignore[arg-type]
        else:
            threads = max(1, (os.cpu_count() or 1) // jobs)
            work = (delayed(_job)(name, seed, benchmark.path, folder, threads, options) for name, seed in todo)
            results = Parallel(jobs, return_as="generator_unordered", batch_size=1)(work)
        if not todo:
            _write(table, known, benchmark, variants)
        for row in results:
            known[row["variant"], row["seed"]] = row
            _write(table, known, benchmark, variants)
            top1 = row["metrics"]["top1"]
            shown = "of seen shapes –" if top1 is None else f"{top1:.1%}"
            say(f"{row['variant']}, seed {row['seed']}: Top-1 {shown} in {row['seconds']:.0f} s")
        return _ordered(known, variants)


def _job(name: str, seed: int, path: Path, folder: Path, threads: int, options: dict[str, Any]) -> Row:
    torch.set_num_threads(threads)
    return run_variant(name, seed, Benchmark.open(path, verify=False), folder, **options)


def read_stored(path: Path) -> Any:
    """Read a file of results; CheckpointError if it is missing or damaged."""
    return read_json(path, CheckpointError, fix="take it from the repository again, or run `make ablations`")


def answers_path(table: Path) -> Path:
    """Return where the answers of a table's runs are."""
    return table.with_name("ablation_answers.json")


def _belongs(row: Row, hashes: Mapping[str, str], benchmark: str) -> bool:
    return bool((row["config_hash"], row["benchmark"]) == (hashes.get(row["variant"]), benchmark))


def _finished(stored: list[Row], table: Path, folder: Path, hashes: Mapping[str, str], benchmark: str) -> Known:
    """Return the known results by variant and seed; of several, those of the present code first, then the table's."""
    first = read_stored(answers_path(table))["first"] if answers_path(table).is_file() else {}
    rows = [row | {"first": first.get(f"{row['variant']} {row['seed']}")} for row in stored]
    rows = [read_stored(path) for path in sorted(folder.glob("*.json"))] + rows
    code, rows = code_digest(METHOD), [row for row in rows if row["first"] and _belongs(row, hashes, benchmark)]
    return {(row["variant"], row["seed"]): row for row in sorted(rows, key=lambda row: row["code"] == code)}


def _ordered(known: Known, variants: Mapping[str, Variant]) -> list[Row]:
    return sorted(known.values(), key=lambda row: (list(variants).index(row["variant"]), row["seed"]))


def _write(table: Path, known: Known, benchmark: Benchmark, variants: Mapping[str, Variant]) -> None:
    """Write the answers, then the rows, so that no row is ever without its answers."""
    photos = benchmark.queries.iloc[benchmark.rows("val")]
    answers = {
        "benchmark": benchmark.hash,
        "photos": {name: photos[name].tolist() for name in ("query_id", "shape_id", "category", "seen")},
        "shapes": {name: benchmark.shapes[name].tolist() for name in ("shape_id", "category")},
        "first": {f"{name} {seed}": row["first"] for (name, seed), row in known.items()},
    }
    write_json(answers_path(table), answers)
    write_json(table, [{k: v for k, v in row.items() if k != "first"} for row in _ordered(known, variants)])
