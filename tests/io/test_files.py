"""Files from strangers: size, kind, place; each wrong one is one error that names it."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cmiclib.errors import SourceError
from cmiclib.io.files import (
    check_inside,
    check_stored,
    leads_inside,
    map_array,
    read_json,
    read_limited,
    read_member,
    read_table,
    release_pages,
    shown,
    usable_path,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.bin"
    path.write_bytes(b"12345")
    return path


def test_a_file_is_read_up_to_its_limit(file: Path) -> None:
    assert read_limited(file, 5, SourceError) == b"12345"
    with pytest.raises(SourceError, match=r"x\.bin: the file has"):
        read_limited(file, 4, SourceError)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_has_no_end_is_not_opened(tmp_path: Path, make) -> None:
    make(tmp_path / "odd")
    with pytest.raises(SourceError, match="odd: this is not a regular file"):
        read_limited(tmp_path / "odd", 1 << 40, SourceError)


def test_a_large_limit_claims_no_memory(file: Path) -> None:
    import tracemalloc

    tracemalloc.start()
    read_limited(file, 1 << 40, SourceError)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["../x.bin", "link", "folder/link", "round", "a\0b"])
def test_paths_that_lead_out_are_refused(file: Path, name: str) -> None:
    root = file.parent / "root"
    (root / "folder").mkdir(parents=True)
    (root / "link").symlink_to(file)
    (root / "folder" / "link").symlink_to("../../x.bin")
    (root / "round").symlink_to("round")
    assert not leads_inside(root / name, root)
    with pytest.raises(SourceError, match="leads out of"):
        check_inside(root / name, root, SourceError)


def test_links_within_the_root_and_a_linked_root_are_fine(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_text("")
    (tmp_path / "root" / "link").symlink_to("file")
    (tmp_path / "other").symlink_to("root")
    assert leads_inside(tmp_path / "root" / "link", tmp_path / "root")
    assert leads_inside(tmp_path / "other" / "file", tmp_path / "other")
    assert leads_inside(tmp_path / "root" / ".." / "other" / "file", tmp_path / "root")


@pytest.mark.parametrize("name", ["linked/x.bin", "folder/linked/x.bin", "folder/../../x.bin", "/etc/passwd"])
def test_folders_on_the_way_are_followed(file: Path, name: str) -> None:
    root = file.parent / "root"
    (root / "folder").mkdir(parents=True)
    (root / "linked").symlink_to(file.parent)
    (root / "folder" / "linked").symlink_to(root / "linked")
    assert not leads_inside(root / name, root)
    assert leads_inside(root / "folder" / "missing", root)


def test_paths_without_links_are_not_resolved(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "resolve", lambda path: pytest.fail("resolved"))
    assert leads_inside(file, file.parent)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "1" * 5000, "\xff"])
def test_what_is_no_json_is_named(file: Path, text: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match=r"x\.bin: cannot be read as JSON[\s\S]*How to fix: repair"):
        read_json(file, SourceError, "repair")


def test_a_table_has_its_columns_as_text(file: Path) -> None:
    file.write_text("a,b,c\n1,,NA\n")
    assert read_table(file, ["c", "a"], SourceError, "x").to_dict("records") == [{"c": "NA", "a": "1"}]
    file.write_text("a,b\n1\n")
    assert read_table(file, ["a", "b"], SourceError, "x").to_dict("records") == [{"a": "1", "b": ""}]
    for text in ("," * 2000, "a\n1\n", "a,b\n1,2,3,4\n1\n", '"a', "", "\0\0"):
        file.write_text(text)
        with pytest.raises(SourceError, match=r"x\.bin: this table"):
            read_table(file, ["a", "b"], SourceError, "x")


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_comes_back(tmp_path: Path, order: str) -> None:
    array = np.asarray(np.arange(24, dtype=">i4").reshape(2, 3, 4), order=order)
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(map_array(tmp_path / "a.npy", SourceError, "x"), array)
    np.save(tmp_path / "a.npy", array[:0])
    assert map_array(tmp_path / "a.npy", SourceError, "x").shape == (0, 3, 4)


def header(text: str) -> bytes:
    body = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


@pytest.mark.parametrize(
    "data",
    [
        b"", b"PK\x03\x04", header("(" * 900),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + b"x" * 8,
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 3)}"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}") + b"x" * 15,
    ],
    ids=["empty", "zip", "nested", "objects", "claims more", "negative", "cut off"],
)  # fmt: skip
def test_what_is_no_array_is_named(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(SourceError, match=r"x\.bin: is truncated or not an array"):
        map_array(file, SourceError, "make it again")


def test_a_member_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big", bytes(1000))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert read_member(archive, "big", 1000, SourceError, "x") == bytes(1000)
        with pytest.raises(SourceError, match=r"a\.zip: 'big' unpacks to"):
            read_member(archive, "big", 999, SourceError, "x")
        with pytest.raises(SourceError, match=r"a\.zip: 'other' cannot be unpacked"):
            read_member(archive, "other", 999, SourceError, "x")


def test_a_compressed_checkpoint_is_refused(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
            archive.writestr("data", bytes(1000))
        if method == zipfile.ZIP_STORED:
            check_stored(tmp_path / "a.zip")
        else:
            with pytest.raises(ValueError, match="compressed"):
                check_stored(tmp_path / "a.zip")


def test_values_are_shown_short() -> None:
    endless: list = []
    for _ in range(100):
        endless = [endless, endless]
    assert [shown(v) for v in (None, 3, 0.5, "x" * 99, endless, 10**5000)] == [
        "None", "3", "0.5", "'" + "x" * 60 + "'", "a list", "a int"
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", ".", "..", "a/..", "\ud800", "a" * 300, "a/" * 2000 + "b", "a\0b", "a\nb"])
def test_what_cannot_be_a_path(text: str) -> None:
    assert not usable_path(text)


def test_what_can_be_a_path() -> None:
    assert all(map(usable_path, ("a", "chair/mein Stühlchen.jpg", "ü" * 127)))


def in_memory() -> int:
    """Bytes of files that this process has mapped and looked at."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("needs Linux's /proc")
    return 1024 * int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("RssFile")))


def test_what_was_read_of_a_mapped_array_is_given_back(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(8_000_000))
    before, mapped = in_memory(), map_array(tmp_path / "a.npy", SourceError, "fix")
    total = mapped.sum()
    assert in_memory() - before > 60e6
    release_pages(mapped[10:20])
    assert in_memory() - before < 10e6
    assert mapped.sum() == total  # read again when it is asked for


def test_changes_of_an_array_are_not_given_back(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(1000))
    changed = np.load(tmp_path / "a.npy", mmap_mode="c")
    changed[:] = 7
    for array in (changed, np.full(3, 7)):
        release_pages(array)
        assert (array == 7).all()
