"""The model that the repository ships: its file, and a visitor's photo in JupyterLab, with the right shape first."""

import io

import numpy as np
import pytest
from live import lab, names, notebook, send
from PIL import Image

from cmiclib.browser import app
from cmiclib.browser.retriever import Choice, Question
from cmiclib.browser.upload import read_upload
from cmiclib.sources.sweethome import open_sweethome

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def shipped():
    return app.shipped_retriever(app.SHIPPED, open_sweethome())


def test_it_is_as_good_as_it_says(shipped):
    retriever, origin = shipped, shipped.index.about
    gallery, rows = retriever.gallery, retriever.gallery.rows("test")
    scores = retriever.index.scores(retriever.embed_photos())
    assert origin["test photos"] == len(rows)
    top1 = gallery.relevant(rows)[np.arange(len(rows)), scores.argmax(dim=1).numpy()].mean()
    assert top1 == pytest.approx(origin["top1"], abs=2 / len(rows))  # vectors are kept in half precision


def test_photos_embedded_here_have_the_vectors_that_it_ships(shipped):
    retriever = shipped
    chosen = np.linspace(0, len(retriever.rows) - 1, 6).round().astype(int)
    vectors = retriever.index.embed(retriever.gallery.images[retriever.rows[chosen]])
    near = vectors @ retriever.embed_photos().T  # (6, Q)
    assert near.argmax(dim=1).tolist() == chosen.tolist()
    assert near.max(dim=1).values.min() > 0.995, near


def photo_of_one_s_own(retriever) -> tuple[bytes, str]:
    """Return a test photo as a visitor sends it, and its shape: the one that the library finds most surely."""
    best: tuple[float, bytes, str] = (0.0, b"", "")
    for row in retriever.rows[:: len(retriever.rows) // 24]:
        buffer = io.BytesIO()
        stored = Image.fromarray(retriever.stored(int(row)).photo)
        stored.resize((448, 448), Image.Resampling.BICUBIC).save(buffer, "PNG")
        found = retriever.answer(Question("own.png", read_upload(buffer.getvalue())[0]), Choice("none")).found
        own = retriever.gallery.queries.shape_id[int(row)]
        if found[0].shape_id == own and (margin := found[0].score - found[1].score) > best[0]:
            best = (margin, buffer.getvalue(), own)
    assert best[1], "the library finds none of these photos"
    return best[1], best[2]


def test_in_jupyterlab_a_visitors_photo_has_its_shape_first(shipped, tmp_path):
    content, own = photo_of_one_s_own(shipped)
    before = "from pathlib import Path\nfrom cmiclib.browser import app\n\napp.OUTPUTS = Path('nowhere')\n"
    with lab(notebook(before=before), tmp_path) as watched:
        tab = watched.page
        assert "The repository's own model" in tab.locator(".jp-OutputArea").first.inner_text()
        tab.get_by_role("tab", name="Your photo").click()
        send(tab, "own.png", content)
        tab.wait_for_selector("text=own.png", timeout=60_000)
        assert names(tab)[0] == own
