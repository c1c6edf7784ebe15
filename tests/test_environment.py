"""requirements.lock, environment.yml, pyproject.toml and what is installed say the same."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib

import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from toybook import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]


def pins() -> dict[str, Requirement]:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in parsed}


def pinned_version(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    assert specifier.operator == "==" and "*" not in specifier.version, f"{pin} is not an exact pin"
    return specifier.version


def test_every_dependency_is_pinned_within_its_range() -> None:
    locked = pins()
    for requirement in DIRECT:
        pin = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned_version(pin)), f"{pin} does not satisfy {requirement}"


def test_the_lock_is_complete_and_holds_nothing_else() -> None:
    """Follow the requirements of what is installed: each package in the lock, at that version, and no others."""
    locked, found, waiting = pins(), set[str](), [(requirement, "") for requirement in DIRECT]
    seen = set[tuple[str, str]]()
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate(default_environment() | {"extra": extra}):
            continue
        found.add(name)
        distribution = importlib.metadata.distribution(name)
        if name in locked:
            assert Version(distribution.version) == Version(pinned_version(locked[name])), f"{name} is not as locked"
        for wanted in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, wanted))
            waiting += [(Requirement(text), wanted) for text in distribution.requires or []]
    needed_here = {
        name for name, pin in locked.items() if pin.marker is None or pin.marker.evaluate(default_environment())
    }
    assert found - needed_here == set(), "missing from requirements.lock"
    assert needed_here - found == set(), "nothing needs these"


def test_cuda_packages_are_only_asked_for_where_they_exist() -> None:
    for name, pin in pins().items():
        if name.startswith(("nvidia-", "cuda-")) or name == "triton":
            assert pin.marker is not None, f"{name} would be installed on every machine"


def test_conda_takes_the_same_lock_and_a_python_that_the_project_allows() -> None:
    listed = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    conda = dict(entry.partition("=")[::2] for entry in listed if isinstance(entry, str))
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{conda['python']}.0")
    assert set(conda) == {"python", "pip", "nodejs"}, "all other packages belong into requirements.lock"


def test_makefile_and_project_ask_for_the_same_python() -> None:
    asked = re.search(r"version_info >= \((\d+), (\d+)\)", (REPOSITORY / "Makefile").read_text())
    assert asked and PROJECT["requires-python"] == f">={asked[1]}.{asked[2]}"
    assert sys.version_info >= (3, 11)


def test_lightning_is_not_installed() -> None:
    assert "lightning" not in pins()


def test_help_explains_every_target() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    done = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    explained = set(re.findall(r"^  make (\S+)\s+\S", done.stdout, re.MULTILINE))
    assert explained == targets


def test_an_unknown_wheel_is_refused() -> None:
    done = subprocess.run(["make", "-n", "help", "TORCH=tpu"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode != 0 and "TORCH=tpu is not known" in done.stderr
