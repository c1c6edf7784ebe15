import importlib.metadata
import json
import re

import pytest

from cmiclib.io import provenance
from cmiclib.io.provenance import PACKAGES, code_digest, environment


def test_environment_says_what_is_installed_and_fits_into_json():
    found = json.loads(json.dumps(environment()))
    assert found["versions"] == {name: importlib.metadata.version(name) for name in PACKAGES}
    assert found["cores"] >= 1 and found["processor"] and found["accelerator"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", found["date"])


def test_a_machine_that_only_trains_says_which_packages_it_lacks(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    versions = environment()["versions"]
    assert versions == {"torch": importlib.metadata.version("torch"), "no-such-package": "not installed"}


@pytest.fixture
def package(monkeypatch, tmp_path):
    (tmp_path / "sources").mkdir()
    for name, text in (("a", "x = 1\n"), ("b", "x = 1\n"), ("sources/c", "y = 2\n")):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
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
