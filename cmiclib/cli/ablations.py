"""Commands for the ablations: the grid, and one run of it."""

from pathlib import Path
from typing import Annotated

import typer

from ..book import find_root
from ..errors import ConfigError
from .common import BenchmarkName, Profile, file_option, flag, show, write_json

STORED = "data/results/ablations.json"
TABLE = f"the table to continue; default: {STORED} for the demo on sweethome, else outputs/PROFILE/ablations.json"


def ablations(
    jobs: Annotated[int, typer.Option(min=1, help="number of processes, which share the cores")] = 1,
    seed: Annotated[list[int] | None, typer.Option(help="seed to run; repeatable; default: 0 to 4")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="variant to run; repeatable; default: all")] = None,
    profile: Profile = "demo", benchmark: BenchmarkName = "sweethome",
    table: Annotated[Path | None, file_option(TABLE)] = None,
    same_code: Annotated[bool, flag("--same-code", "also repeat runs that another version of the code made")] = False,
    replace: Annotated[bool, flag("--replace", "drop the table's rows of another benchmark or configuration")] = False,
) -> None:  # fmt: skip
    """Run all variants and seeds that are missing from the table; write the table after each run."""
    from ..book import open_benchmark
    from ..study.ablations import SEEDS, for_profile, run_grid

    root = find_root(Path.cwd())
    _check_profile(profile)
    reference, variants = for_profile(profile)
    stored = (profile, benchmark) == ("demo", "sweethome")
    table = table or Path(STORED if stored else f"outputs/{profile}/ablations.json")
    opened, folder = open_benchmark(root, benchmark, profile), root / "outputs" / "ablations"
    run_grid(
        opened, folder, root / table, names=variant, seeds=seed or SEEDS, jobs=jobs, reference=reference,
        variants=variants, same_code=same_code, replace=replace, say=typer.echo,
    )  # fmt: skip
    typer.echo(f"table: {table}")


def ablation(
    variant: Annotated[str, typer.Argument(help="such as no-category; a wrong name lists all variants")],
    seed: Annotated[int, typer.Option(help="seed of the training")] = 0,
    output: Annotated[Path | None, file_option("write the result here")] = None,
    profile: Profile = "demo", benchmark: BenchmarkName = "sweethome",
) -> None:  # fmt: skip
    """Train and evaluate one variant again, even if it is stored, and compare it with the stored row."""
    from ..book import open_benchmark
    from ..study.ablations import for_profile, read_stored, run_variant, variant_config

    root = find_root(Path.cwd())
    _check_profile(profile)
    reference, variants = for_profile(profile)
    variant_config(variant, seed, reference, variants)  # a wrong name is known before anything is unpacked
    opened, folder = open_benchmark(root, benchmark, profile), root / "outputs" / "ablations"
    row = run_variant(variant, seed, opened, folder, reference=reference, variants=variants, again=True)
    write_json(output, row)
    table, same = root / STORED, ("variant", "seed", "config_hash", "benchmark")
    stored = [old for old in (read_stored(table) if table.is_file() else []) if all(old[k] == row[k] for k in same)]
    before = stored[0]["metrics"] if stored else {}
    lines = [[name, _percent(value), _percent(before.get(name))] for name, value in row["metrics"].items()]
    show([f"{variant}, seed {seed}", "now, %", "stored, %"], lines)


def _check_profile(profile: str) -> None:
    if profile not in ("demo", "smoke"):
        raise ConfigError(f"the ablations do not run at profile '{profile}'", fix="pass --profile demo or smoke")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
