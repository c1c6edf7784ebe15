"""The folded table: all rows, safe texts, and a search field that refers to them."""

from html.parser import HTMLParser

import pandas as pd

from cmiclib.book.tables import searchable


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
