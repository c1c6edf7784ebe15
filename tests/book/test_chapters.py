"""What single chapters compute from files, with files of our own."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import jupytext
import pandas as pd
import pytest
from toybook import REPOSITORY

from cmiclib.book.tables import percent, published_table, read_results


def cells(chapter: str, first: str, last: str) -> str:
    """The code of a chapter from the cell that holds ``first`` to the one that holds ``last``."""
    notebook = jupytext.read(REPOSITORY / "book" / f"{chapter}.py")
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    begin, end = (next(i for i, text in enumerate(code) if mark in text) for mark in (first, last))
    return "\n".join(code[begin : end + 1])


@pytest.fixture
def published(tmp_path: Path):
    """Run the table of the chapter on published benchmarks over these prepared benchmarks and metrics."""

    def table(prepared: list[str], metrics: dict[str, tuple[str, float]]) -> pd.DataFrame:
        for name in prepared:
            (tmp_path / "data/prepared" / name).mkdir(parents=True)
            (tmp_path / "data/prepared" / name / "benchmark.json").write_text(json.dumps({"name": name}))
        for profile, (benchmark, top1) in metrics.items():
            (tmp_path / "outputs" / profile).mkdir(parents=True)
            seen = {"top1": top1, "top10": 1.0}
            text = json.dumps({"benchmark": benchmark, "profile": profile, "seen": seen})
            (tmp_path / "outputs" / profile / "metrics.json").write_text(text)
        (tmp_path / "data/results").mkdir(parents=True)
        (tmp_path / "data/results/published.json").write_text((REPOSITORY / "data/results/published.json").read_text())
        chapter = SimpleNamespace(root=tmp_path, outputs=tmp_path / "outputs/demo")
        functions = {f.__name__: f for f in (percent, published_table, read_results)}
        names = {"pd": pd, "chapter": chapter, **functions}
        script = tmp_path / "cells.py"
        script.write_text(cells("14_published_benchmarks", "titles = {", "reported.join"), "utf-8")
        made = runpy.run_path(str(script), names)
        return made["reported"].join([made["is_prepared"], made["here"]])

    return table


def test_only_a_benchmark_of_that_very_name_counts_as_prepared_or_measured(published) -> None:
    shown = published(["pix3d-synthetic", "compcars3d"], {"demo": ("pix3d-synthetic", 0.9)})
    assert shown["prepared here"].to_dict() == {
        "pix3d": "no", "stanfordcars": "no", "compcars": "yes", "shapenet": "no"
    }  # fmt: skip
    assert (shown["here Top-1"] == "not run").all()


def test_of_two_profiles_the_larger_is_shown_and_named(published) -> None:
    shown = published(["pix3d"], {"smoke": ("pix3d", 0.1), "paper": ("pix3d", 0.8), "demo": ("pix3d", 0.5)})
    assert (shown.loc["pix3d", "here Top-1"], shown.loc["pix3d", "profile here"]) == ("80.0", "paper")
