"""Tables of measured and published results."""

from pathlib import Path

import pandas as pd
import pytest

from cmiclib.book.tables import ROWS, measured_table, percent, published_table
from cmiclib.errors import BookError

PUBLISHED = Path(__file__).parents[2] / "data/results/published.json"
METRICS = {
    "gallery_size": 9,
    "chance": {"top1": 0.125, "top10": 1.0, "queries": 8},
    "seen": {"top1": 0.5, "top1_low": 0.25, "top1_high": 0.75, "top10": 1.0, "queries": 8},
}


def test_measured_rows_stand_in_the_order_of_rows_and_leave_out_what_was_not_measured():
    table = measured_table(METRICS)
    assert table.method.tolist() == [ROWS["seen"], ROWS["chance"]]
    assert set(table.kind) == {"measured"}
    assert table.label[1] == "chance (8 photos)"


def test_percent_shows_the_interval_where_there_is_one_and_a_dash_where_there_is_no_value():
    cells = percent(measured_table(METRICS), ["top1", "top10", "mrr"])
    assert cells.columns.tolist() == ["Top-1", "Top-10", "MRR"]
    assert cells.iloc[0].tolist() == ["50.0 (25.0 to 75.0)", "100.0", "–"]
    assert cells.iloc[1].tolist() == ["12.5", "100.0", "–"]


def test_percent_keeps_the_index_so_that_it_can_be_joined():
    table = pd.DataFrame({"top1": [0.1, 0.2]}, index=[7, 3])
    assert percent(table, ["top1"]).index.tolist() == [7, 3]


def test_published_figures_are_shares_with_source_and_mark():
    table = published_table(PUBLISHED)
    assert table[["top1", "top10"]].to_numpy().min() > 0.5 and table[["top1", "top10"]].to_numpy().max() <= 1
    assert (table.top1 <= table.top10).all()
    assert set(table.mark) <= {"P", "S", "C"} and table.source.str.len().min() > 0
    assert table.title.notna().all()  # every benchmark has a name in print
    ours = table[(table.method == "CMIC") & (table.benchmark == "pix3d")]
    assert ours[["top1", "top10"]].to_numpy().tolist() == [[0.789, 0.961]]


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(BookError, match=r"published\.json"):
        published_table(tmp_path / "published.json")
