"""Files that once broke a reader, read again; `make fuzz` puts new ones into tests/data/fuzz."""

import shutil
import sys
from pathlib import Path
from types import FrameType

import pytest
from fuzz_cases import CASES
from toybook import REPOSITORY

from cmiclib.errors import CMICError

KEPT = sorted((REPOSITORY / "tests" / "data" / "fuzz").glob("*/*"))
BY_NAME = {case.name: case for case in CASES}
ONE_PLACE = "noqa: TID251"
"""Marks the lines of the library that may call a forbidden reader; see pyproject.toml."""
OWN = ("(drawn here)", "(the hash is known)")
"""They read what the line before made, or what has one known content."""


def places() -> set[tuple[str, int]]:
    """File and line of every reader that can be handed a stranger's file."""
    found = set()
    for path in (REPOSITORY / "cmiclib").rglob("*.py"):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if ONE_PLACE in line and not line.endswith(OWN) and line.startswith(" "):
                found.add((str(path), number))
    return found


@pytest.mark.slow
def test_every_reader_is_fuzzed(tmp_path: Path) -> None:
    """What no case reaches with its undamaged files, `make fuzz` does not damage."""
    unreached = places()
    files = {file for file, _ in unreached}
    assert len(files) > 5

    def lines(frame: FrameType, event: str, argument: object) -> object:
        unreached.discard((frame.f_code.co_filename, frame.f_lineno))
        return lines

    def calls(frame: FrameType, event: str, argument: object) -> object:
        return lines if frame.f_code.co_filename in files else None

    before = sys.gettrace()
    for case in CASES:
        folder = tmp_path / case.name.replace("/", "-")
        folder.mkdir()
        case.write(folder)
        sys.settrace(calls)
        try:
            case.read(folder)
        finally:
            sys.settrace(before)
    assert unreached == set()


def test_names_are_unique_and_files_are_kept() -> None:
    assert len(BY_NAME) == len(CASES) and len(KEPT) > 0


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: f"{path.parent.name} {path.name}")
def test_what_broke_a_reader_is_read_or_one_message(kept: Path, tmp_path: Path) -> None:
    case = BY_NAME[kept.parent.name]
    case.write(tmp_path)
    shutil.copyfile(kept, tmp_path / case.target)
    try:
        case.read(tmp_path)
    except CMICError as error:
        assert error.path is not None or error.fix
