"""A packed model answers like the one it was made from."""

import numpy as np
import pytest
import torch

from cmiclib.browser import app
from cmiclib.browser.packed import pack, unpack
from cmiclib.errors import CheckpointError


@pytest.fixture
def packed(retriever, tmp_path, monkeypatch):
    """The tiny model; its backbone, which would come from a package, is replaced by the one it has."""
    state = retriever.index.model.query_encoder.backbone.state_dict()

    def load(encoder, backbone, init):
        encoder.backbone.load_state_dict(state)

    monkeypatch.setattr("cmiclib.browser.packed.load_initial_weights", load)
    pack(retriever, tmp_path / "model.safetensors", {"trained": {"date": "today"}})
    return tmp_path / "model.safetensors"


def test_it_finds_the_same_shapes(packed, retriever, tiny_benchmark):
    found, origin = unpack(packed, tiny_benchmark)
    assert origin == {"trained": {"date": "today"}}
    for row in retriever.rows:
        expected, answer = (each.answer(each.stored(int(row))) for each in (retriever, found))
        scores = [{each.shape_id: each.score for each in one.found} for one in (expected, answer)]
        assert scores[1] == pytest.approx(scores[0], abs=2e-3)  # views in half precision
    for name in ("places", "category", "is_photo", "rows"):
        np.testing.assert_array_equal(getattr(found.atlas, name), getattr(retriever.atlas, name))
    torch.testing.assert_close(found.atlas.points, retriever.atlas.points, atol=2e-3, rtol=0)


def test_a_trained_backbone_and_another_gallery_are_refused(packed, retriever, tiny_benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr("cmiclib.browser.packed.load_initial_weights", lambda *arguments: None)
    with pytest.raises(CheckpointError, match="training changed backbone"):
        pack(retriever, tmp_path / "other.safetensors", {})
    monkeypatch.setattr(type(tiny_benchmark), "hash", "another")
    with pytest.raises(CheckpointError, match="another state of the benchmark"):
        unpack(packed, tiny_benchmark)
    with pytest.raises(CheckpointError, match="cannot be read"):
        unpack(tmp_path / "missing", tiny_benchmark)


def test_the_app_says_what_it_lacks_in_words(monkeypatch, tiny_benchmark, tmp_path):
    shown = []
    monkeypatch.setattr(app, "display", shown.append)
    monkeypatch.setattr(app, "open_sweethome", lambda: tiny_benchmark)
    monkeypatch.setattr(app, "newest_run", lambda *where: None)
    monkeypatch.setattr(app, "PACKED", tmp_path / "secret" / "missing")
    app.show()
    assert "cannot be read" in shown[0].value and "How to fix" in shown[0].value
    assert "Traceback" not in shown[0].value and "secret" not in shown[0].value


def test_voila_listens_on_loopback_only_and_shows_no_traceback():
    settings = app.settings(8866, tab=False)
    assert settings["Voila"]["ip"] == "127.0.0.1"
    assert settings["VoilaConfiguration"]["show_tracebacks"] is False
    assert settings["Voila"]["tornado_settings"]["websocket_max_message_size"] > app.MAX_BYTES
    assert "show('run', None)" in app.notebook("run", None)["cells"][0]["source"]
