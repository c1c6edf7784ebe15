import os
import sys

import pytest

from cmiclib.io import code
from cmiclib.io.code import code_digest


@pytest.fixture
def package(monkeypatch, tmp_path):
    (tmp_path / "sources").mkdir()
    for name, text in (("a", "x = 1\n"), ("b", "x = 1\n"), ("sources/c", "y = 2\n")):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(code, "PACKAGE", tmp_path)
    return tmp_path


def test_digest_follows_the_text_of_the_named_modules_and_no_other(package):
    before, other = code_digest(["a", "sources/c"]), code_digest(["b"])
    assert code_digest(["sources/c", "a"]) == before
    (package / "a.py").write_text("x = 2\n")
    assert code_digest(["a", "sources/c"]) != before
    assert code_digest(["b"]) == other


def test_digest_tells_equal_texts_of_different_modules_apart(package):
    assert code_digest(["a"]) != code_digest(["b"])


def test_comments_and_docstrings_do_not_count(package):
    (package / "a.py").write_text("def f():\n    return 1\n")
    before = code_digest(["a"])
    (package / "a.py").write_text('"""Prose."""\n\n\ndef f():\n    """More prose."""\n    return 1  # why\n')
    assert code_digest(["a"]) == before
    (package / "a.py").write_text('def f():\n    return "1"\n')
    assert code_digest(["a"]) != before


def test_a_kept_digest_is_used_while_no_file_changes(package, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    first = code_digest(["a", "b"])
    monkeypatch.setattr(code, "code_text", lambda file: pytest.fail("the code is read again"))
    assert code_digest(["b", "a"]) == first
    (kept,) = (package / "__pycache__").iterdir()
    monkeypatch.undo()
    monkeypatch.setattr(code, "PACKAGE", package)
    (package / "a.py").write_text("x = 3\n")  # of the same size
    os.utime(package / "a.py", ns=(0, 1))
    assert code_digest(["a", "b"]) != first
    kept.write_text("damaged")
    (package / "a.py").write_text("x = 1\n")
    os.utime(package / "a.py", ns=(0, 2))
    assert code_digest(["a", "b"]) == first


def test_a_package_that_cannot_be_written_has_digests(package, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (package / "__pycache__").write_text("no folder")
    assert code_digest(["a"]) == code_digest(["a"])


def test_a_name_without_code_is_refused():
    with pytest.raises(ValueError, match=r"no code named evaluation\.projection"):
        code_digest(["evaluation.projection"])
