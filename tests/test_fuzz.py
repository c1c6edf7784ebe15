"""Files that once broke a reader, read again; `make fuzz` puts new ones into tests/data/fuzz."""

import shutil
from pathlib import Path

import pytest
from fuzz_cases import CASES
from toybook import REPOSITORY

from cmiclib.errors import CMICError

KEPT = sorted((REPOSITORY / "tests" / "data" / "fuzz").glob("*/*"))
BY_NAME = {case.name: case for case in CASES}


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
