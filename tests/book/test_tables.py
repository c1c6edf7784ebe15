"""Folded tables: all rows, safe texts, a search field that refers to them; and networks that did not run."""

import json
from html.parser import HTMLParser

import pandas as pd

from cmiclib.book.tables import DOWNLOADED, NOT_RUN, downloaded_table, searchable


class Elements(HTMLParser):
    """Collects tags with their attributes, and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def parse(html: str) -> Elements:
    elements = Elements()
    elements.feed(html)
    return elements


def test_all_rows_are_there_and_folded() -> None:
    table = pd.DataFrame({"shape": [f"chair/{i}" for i in range(500)], "licence": "CC0-1.0"})
    found = parse(searchable(table, "500 shapes"))
    assert found.tags[0] == ("details", {})
    assert sum(tag == "tr" for tag, _ in found.tags) == 501
    assert "chair/0" in found.text and "chair/499" in found.text and "500 shapes" in found.text


def test_texts_are_escaped() -> None:
    html = searchable(pd.DataFrame({"name": ["<script>alert(1)</script>"]}), "a < b")
    assert all(tag != "script" for tag, _ in parse(html).tags)
    assert "a < b" in parse(html).text


def test_search_field_needs_no_kernel_and_no_file() -> None:
    tags = parse(searchable(pd.DataFrame({"a": [1]}), "one")).tags
    fields = [attributes for tag, attributes in tags if tag == "input"]
    assert len(fields) == 1
    assert "row.hidden" in fields[0]["oninput"]


def test_networks_that_need_a_download_say_so_until_they_were_measured(tmp_path) -> None:
    path = tmp_path / "downloaded.json"
    table = downloaded_table(path)
    assert len(table) == 6 and (table == NOT_RUN).all(axis=None)
    name, title = next(iter(DOWNLOADED.items()))
    path.write_text(json.dumps({name: {"untrained": {"top1": 0.5, "top1_low": 0.4, "top1_high": 0.6}}}))
    table = downloaded_table(path)
    assert table.loc[(title, "whole picture"), "Top-1"] == "50.0 (40.0 to 60.0)"
    assert (table.drop((title, "whole picture")) == NOT_RUN).all(axis=None)
