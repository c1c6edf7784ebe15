"""The harness itself: a child that hangs, dies or ends; damaged headers; what is kept."""

import json
import struct
import sys
from pathlib import Path

import fuzz
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FIRST = "import json; print(json.dumps({'file': 1, 'path': '/x'}), flush=True); "


IMPATIENT = fuzz.Patience(silence=1.0, start=20.0, tick=0.25, blocked=4)


@pytest.mark.parametrize("line", ["while True: pass", "import time; time.sleep(600)"], ids=["works", "waits"])
def test_a_child_that_finds_no_end_is_a_hang(line: str) -> None:
    first, last = fuzz.read_lines([sys.executable, "-c", FIRST + f"exec({line!r})"], IMPATIENT)
    assert first == {"file": 1, "path": "/x"} and last["hang"] and last["problem"].startswith("no end after")


def test_a_child_that_dies_is_noticed_and_one_that_ends_is_not() -> None:
    *_, last = fuzz.read_lines([sys.executable, "-c", FIRST + "import os; os.kill(os.getpid(), 11)"], IMPATIENT)
    assert last == {"problem": "the process died with status -11", "dead": True}
    assert list(fuzz.read_lines([sys.executable, "-c", FIRST], IMPATIENT)) == [{"file": 1, "path": "/x"}]
    with pytest.raises(SystemExit, match="did not begin"):
        list(fuzz.read_lines([sys.executable, "-c", "raise ValueError"], IMPATIENT))


HEADER = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
FILES = {
    "x.safetensors": struct.pack("<Q", len(HEADER)) + HEADER + bytes(4),
    "x.glb": struct.pack("<IIIII", 0x46546C67, 2, 24 + len(HEADER), len(HEADER), 0x4E4F534A) + HEADER + bytes(4),
    "x.json": HEADER,
}


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_damaged_header_has_its_true_length(data: st.DataObject) -> None:
    for name, content in FILES.items():
        changed = fuzz.changed_header(content, name, data.draw)
        assert changed is not None
        form, place, start = {"x.safetensors": ("<Q", 0, 8), "x.glb": ("<I", 12, 20), "x.json": ("", 0, 0)}[name]
        end = start + struct.unpack_from(form, changed, place)[0] if form else len(changed)
        json.loads(changed[start:end])
        assert not form or (changed[:place] == content[:place] and changed[end:] == bytes(4))
    assert fuzz.changed_header(b"x", "x.png", data.draw) is None


def test_a_file_is_kept_once_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"bad")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    for name in ("x", "x", "link", ".", "missing"):
        fuzz.keep("photo png", tmp_path / name, tmp_path / "kept")
    assert [path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()] == [b"bad"]
