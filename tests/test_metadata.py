"""What the files beside the code say of the project agrees with the code, and with each other."""

import json
import re
import subprocess
import tomllib

import licences
import pytest
import yaml
from toybook import REPOSITORY

import cmiclib

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
CODEMETA = json.loads((REPOSITORY / "codemeta.json").read_text("utf-8"))
PAGES = ("README.md", "CONTRIBUTING.md")


def test_codemeta_citation_and_package_agree() -> None:
    assert CODEMETA["name"] == CITATION["title"]
    assert CODEMETA["version"] == CITATION["version"] == cmiclib.__version__
    assert CODEMETA["dateModified"] == str(CITATION["date-released"])
    assert CODEMETA["license"].rpartition("/")[2] == CITATION["license"] == PROJECT["license"]
    assert [author["name"] for author in CODEMETA["author"]] == [author["name"] for author in CITATION["authors"]]
    assert (CODEMETA["identifier"], CODEMETA["description"]) == (PROJECT["name"], PROJECT["description"])
    assert CODEMETA["runtimePlatform"] == f"Python {PROJECT['requires-python']}"


def test_the_paper_is_cited_with_one_title_and_one_doi() -> None:
    paper, article = CITATION["preferred-citation"], CODEMETA["referencePublication"]
    bibtex = (REPOSITORY / "README.md").read_text("utf-8").partition("```bibtex")[2].partition("```")[0]
    assert article["name"] == paper["title"] and article["identifier"].endswith(paper["doi"])
    title = re.search(r"title += \{(.*)\},\n", bibtex)
    assert title and title[1].replace("{3D}", "3D") == paper["title"] and paper["doi"] in bibtex
    assert all(f"{author['family-names']}, {author['given-names']}" in bibtex for author in paper["authors"])


def test_every_locked_package_has_its_licence_listed() -> None:
    assert licences.main(["--check"]) == 0, "run `.venv/bin/python tools/pack/licences.py`"
    assert {package.name for package in licences.VENDOR} == set(licences.SCRIPTS)


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (REPOSITORY / page).read_text("utf-8")
    named = set(re.findall(r"\]\(([^):#]+)\)", text))
    named |= set(re.findall(r"`((?:cmiclib|book|tests|data|tools)/[\w./-]+)`", text))
    made_by_commands = ("data/prepared", "data/raw")
    named = {name for name in named if "NAME" not in name and not name.startswith(made_by_commands)}
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


def test_names_that_contributing_uses_are_in_the_code() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
    names = set(re.findall(r"`([A-Z]\w+|[a-z]+_[a-z_]+)(?:\(.*?\))?`", text))
    code = "\n".join(path.read_text("utf-8") for path in (REPOSITORY / "cmiclib").rglob("*.py"))
    assert {"LossConfig", "BenchmarkWriter", "total_loss"} <= names
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []


def test_workflows_are_yaml_and_ci_calls_what_is_run_here() -> None:
    files = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in REPOSITORY.glob(".github/workflows/*.yml")}
    assert set(files) == {"ci", "pages", "weekly", "release"}
    runs = {
        name: [step.get("run", "") for job in file["jobs"].values() for step in job["steps"]]
        for name, file in files.items()
    }
    assert "bash .ci/run" in runs["ci"]
    used = {target for lines in runs.values() for line in lines for target in re.findall(r"make ([a-z]+)", line)}
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    assert all(f"\n{target}:" in makefile for target in used | {"setup", "vendor", "reproduce"})
    for name in ("Dockerfile", ".devcontainer/devcontainer.json"):
        assert "Not built here" in (REPOSITORY / name).read_text("utf-8")


def test_no_package_or_archive_lies_at_the_top() -> None:
    """A package fetched for a measurement was once committed there."""
    done = subprocess.run(["git", "ls-files", "--", ":(glob)*"], cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git repository")
    assert [name for name in done.stdout.split() if name.endswith((".whl", ".gz", ".zip", ".safetensors"))] == []
