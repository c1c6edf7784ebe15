from pathlib import Path

import numpy as np
import pytest

from cmiclib.errors import SourceError
from cmiclib.evaluation import parity
from cmiclib.evaluation.parity import parity_table

FOLDER = Path(__file__).parents[1] / "data" / "parity"


def test_every_quantity_agrees():
    table = parity_table(FOLDER)
    assert len(table) == 11 and table.agrees.all(), table.to_string()
    assert (table.tolerance <= 7e-4).all() and (table.absolute > 0).any()


def test_a_difference_is_seen_and_measured(monkeypatch):
    original = parity.attention_scores
    monkeypatch.setattr(parity, "attention_scores", lambda *inputs: original(*inputs) + 1e-3)
    table = parity_table(FOLDER)
    assert not table.agrees["scores"] and table.absolute["scores"] == pytest.approx(1e-3, rel=1e-2)
    with np.load(FOLDER / "parity_attention.npz") as arrays:
        largest = max(np.abs(arrays[name]).max() for name in arrays.files if name.endswith(("/scores", "prod_mat")))
    assert table.relative["scores"] == pytest.approx(1e-3 / largest, rel=1e-2)
    assert table.agrees["weights of the views"]


def test_missing_arrays_say_so(tmp_path):
    with pytest.raises(SourceError, match=r"parity_color\.npz"):
        parity_table(tmp_path)
