"""What must hold in a prepared benchmark, whoever wrote it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import BenchmarkError
from ..io.files import release_pages, usable_path

SPLITS = ("train", "val", "test")
FIX = "prepare the benchmark again"
AT_ONCE = 1000  # shapes whose views are looked at before their memory is given back


def check_views(views: np.ndarray, shape_id: str, path: Path | None = None) -> None:
    """Refuse views that show nothing: all pixels are alike. Those of a round table are alike as views."""
    if views.size and (views == views.flat[0]).all():
        problem = f"the {len(views)} views of shape '{shape_id}' are empty"
        raise BenchmarkError(problem, path=path, fix="look at its mesh, or leave the shape out")


def check_gallery(views: np.ndarray, shape_ids: Iterable[str], path: Path) -> None:
    """Check the views (N, V, S, S) of all shapes, without more than a part of a mapped file in memory at once."""
    for row, (own, shape_id) in enumerate(zip(views, shape_ids, strict=True), 1):
        check_views(own, shape_id, path)
        if row % AT_ONCE == 0:
            release_pages(views)


def usable_id(shape_id: str) -> bool:
    """Tell whether a shape id can be a path below ``meshes/`` on every system, and be joined to others by ``|``."""
    return usable_path(shape_id) and not {"", ".", ".."} & {*shape_id.split("/")} and not {"|", "\\"} & {*shape_id}


def check_tables(shapes: pd.DataFrame, queries: pd.DataFrame, path: Path) -> None:
    """Refuse repeated and unusable ids, queries of shapes that are not in the gallery and unknown splits.

    A shape that is called unseen, or a variant in its group, must not have training photos, and a photo must not be in
    the training split and in another one.
    """
    for table, column in ((shapes, "shape_id"), (queries, "query_id")):
        if table[column].duplicated().any():
            raise damaged(path, f"{column} '{table[column][table[column].duplicated()].iloc[0]}' occurs twice")
    if unusable := [shape_id for shape_id in shapes["shape_id"] if not usable_id(shape_id)]:
        raise damaged(path / "shapes.csv", f"'{unusable[0]:.60}' cannot be a shape id")
    if unknown := set(queries["split"]) - set(SPLITS):
        raise damaged(path / "queries.csv", f"unknown split '{min(unknown)}'")

    pairs = queries.assign(shape_id=queries["shape_id"].str.split("|")).explode("shape_id")  # one row a pair
    if orphans := set(pairs["shape_id"]) - set(shapes["shape_id"]):
        raise damaged(path / "queries.csv", f"shape '{min(orphans)}' is not in shapes.csv")

    pairs["group"] = pairs["shape_id"].map(shapes.set_index("shape_id")["group"])
    trained = set(pairs["group"][pairs["split"] == "train"])
    leaks = pairs[~pairs["seen"].astype(bool) & pairs["group"].isin(trained)]
    if len(leaks):
        name, group = leaks.iloc[0][["query_id", "group"]]
        problem = f"query '{name}' is marked unseen, but a training photo shows group '{group}'"
        raise damaged(path / "queries.csv", problem)
    photos = queries[queries["photo"] != ""]
    training = photos["split"] == "train"
    if both := set(photos["photo"][training]) & set(photos["photo"][~training]):
        raise damaged(path / "queries.csv", f"photo '{min(both)}' is in the training split and in another")


def damaged(path: Path, problem: str) -> BenchmarkError:
    """Return the error of a benchmark that cannot be used as it is."""
    return BenchmarkError(problem, path=path, fix=FIX)
