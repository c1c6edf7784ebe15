import importlib.metadata
import json
import re

from cmiclib.io import provenance
from cmiclib.io.provenance import PACKAGES, environment


def test_environment_says_what_is_installed_and_fits_into_json():
    found = json.loads(json.dumps(environment()))
    assert found["versions"] == {name: importlib.metadata.version(name) for name in PACKAGES}
    assert found["cores"] >= 1 and found["processor"] and found["accelerator"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", found["date"])


def test_a_machine_that_only_trains_says_which_packages_it_lacks(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    versions = environment()["versions"]
    assert versions == {"torch": importlib.metadata.version("torch"), "no-such-package": "not installed"}
