"""The times of the query browser: what the tool measures, and that the stored ones keep the promise."""

import json

import pytest
from measure_browser import LIMITS, jpeg, measure
from PIL import Image
from toybook import REPOSITORY

from cmiclib.browser import QueryBrowser
from cmiclib.browser.upload import MAX_BYTES


def test_each_question_is_measured_and_answered(index, tiny_benchmark):
    browser = QueryBrowser(index, tiny_benchmark)
    result = measure(browser, times=3, size=(400, 300))
    for name in LIMITS:
        assert len(result[name]["seconds"]) == 3 and min(result[name]["seconds"]) > 0
        assert min(result[name]["seconds"]) <= result[name]["median"] <= max(result[name]["seconds"])
    assert result["upload"]["pixels"] == [400, 300] and "4.jpg" in browser.photo_html.value


def test_a_question_without_an_answer_ends_it(index, tiny_benchmark, monkeypatch):
    monkeypatch.setattr("measure_browser.jpeg", lambda photo, size: b"no photo")
    with pytest.raises(SystemExit, match="not an image"):
        measure(QueryBrowser(index, tiny_benchmark), times=1)


def test_its_uploads_are_photos_of_a_telephone(retriever, tmp_path):
    content = jpeg(retriever.stored(int(retriever.rows[0])).photo)
    (tmp_path / "photo.jpg").write_bytes(content)
    assert Image.open(tmp_path / "photo.jpg").size == (4000, 3000) and len(content) < MAX_BYTES


def test_all_stored_times_are_within_the_limits():
    stored = json.loads((REPOSITORY / "data/results/browser.json").read_text())
    assert stored["measured"]["shapes"] > 500 and stored["environment"]["cores"] <= 2
    for name, limit in LIMITS.items():
        times = sorted(stored[name]["seconds"])
        assert len(times) >= 5 and stored[name]["median"] == times[len(times) // 2]
        assert times[-1] <= limit == stored[name]["limit"]
