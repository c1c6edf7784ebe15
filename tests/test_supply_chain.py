"""What comes from elsewhere comes by exact version and checksum."""

import base64
import re
import subprocess
import tomllib

import pytest
from toybook import REPOSITORY

from cmiclib.book import publish
from cmiclib.cli.common import SHIPPED
from cmiclib.silhouette import FILE
from cmiclib.weights import WEIGHTS_PACKAGE, WEIGHTS_SHA256

VERSION = re.compile(r"\d+(\.\d+)+([a-z.]+\d+)?")


@pytest.mark.parametrize("package", publish.VENDOR, ids=lambda package: package.name)
def test_scripts_of_the_report_have_an_exact_version_and_a_checksum(package) -> None:
    assert VERSION.fullmatch(package.version)
    method, _, digest = package.integrity.partition("-")
    assert method == "sha512" and len(base64.b64decode(digest, validate=True)) == 64


def test_what_is_installed_by_name_in_code_has_an_exact_version() -> None:
    audit = re.search(r"^AUDIT := (\S+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert audit
    for pin in (audit[1], publish.NODE, WEIGHTS_PACKAGE):
        assert VERSION.fullmatch(pin.partition("==")[2]), pin
    assert re.fullmatch("[0-9a-f]{64}", WEIGHTS_SHA256)


def test_every_pin_is_exact() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    pins = [line.partition(";")[0].strip() for line in lines if line and not line.startswith("#")]
    assert pins
    assert [pin for pin in pins if not VERSION.fullmatch(pin.partition("==")[2])] == []


def test_a_wheel_brings_the_weights_that_the_commands_use_by_default() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    brought = {
        place: {path.name for path in REPOSITORY.glob(each)} for place, (each,) in settings["data-files"].items()
    }
    assert brought["share/cmiclib/weights/general"] >= {"config.json", "model.safetensors"}
    assert "model.safetensors" in brought["share/cmiclib/weights/silhouette"]
    assert (SHIPPED / "model.safetensors").is_file() and SHIPPED.name == "general"
    assert FILE.is_file() and FILE.parent.name == "silhouette"


def test_what_git_tracks_stays_small_enough_to_travel() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout here")
    files = [REPOSITORY / name for name in listed.stdout.split("\0") if name and not name.startswith("data/weights/")]
    size = sum(file.stat().st_size for file in files if file.is_file())
    assert size < 42 * 2**20, "set something aside: a machine with a GPU takes 64 MiB with the wheels"
