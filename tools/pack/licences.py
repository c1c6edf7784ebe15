"""Write THIRD_PARTY_LICENSES: what the installed packages, the report's scripts and the shipped data say of themselves.

    python tools/pack/licences.py [--check]

A package's licence is what its own metadata state, unread by a lawyer; the texts lie in the packages. With ``--check``
nothing is written, and the status is 1 if the file has other packages than requirements.lock.
"""

import importlib.metadata
import re
import sys
from collections import Counter
from pathlib import Path

from packaging.requirements import Requirement

from cmiclib.book.publish import VENDOR
from cmiclib.errors import BenchmarkError
from cmiclib.io.files import read_table

ROOT = Path(__file__).parents[2]
FILE = ROOT / "THIRD_PARTY_LICENSES"
# As `npm view NAME@VERSION license` answered for the versions in cmiclib/book/publish.py.
SCRIPTS = {
    "requirejs": "MIT",
    "@jupyter-widgets/html-manager": "BSD-3-Clause",
    "mathjax": "Apache-2.0",
    "@google/model-viewer": "Apache-2.0",
}
SHIPPED = {
    "photos and views of data/sweethome": "rendered from these models and CC0 environments; the models' terms hold",
    "ImageNet weights of EfficientNet-Lite0, in data/weights": "Apache-2.0; the package that brings them states none",
    "data/weights/pix3d-synthetic": "learnt from renderings of Pix3D's shapes, whose terms are not noted here",
    "tests/data/parity, arrays computed by the released code": "MIT (the released code's; text beside them)",
}


def packages() -> list[tuple[str, str, str]]:
    """Return name, version and stated licence of every package in requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [(pin.name, str(pin.specifier).removeprefix("=="), stated(pin.name)) for pin in pins]


def stated(name: str) -> str:
    """Return the licence that an installed package's metadata state, in one line."""
    try:
        found = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed where this list was made"
    if expression := found.get("License-Expression"):
        return expression
    classifiers = [entry.split(" :: ")[-1] for entry in found.get_all("Classifier", []) if entry.startswith("License")]
    names = [entry for entry in classifiers if entry != "OSI Approved"]
    text = (found.get("License") or "").strip()
    first = text.splitlines()[0].strip() if text else ""
    usable = first not in ("", "UNKNOWN") and len(first) < 80 and not first.startswith("Copyright")
    return ", ".join(names) or (first if usable else "not stated; see the package")


def text() -> str:
    """Return the whole file."""
    table = ROOT / "data" / "sweethome" / "ATTRIBUTION.csv"
    models = read_table(table, ["licence"], BenchmarkError, "restore it").licence
    licences = Counter(re.sub(r" \(.*", "", str(name)) for name in models)
    blocks = {
        "Models of data/sweethome (creators and changes: data/sweethome/ATTRIBUTION.csv)": [
            f"{name}: {count} models" for name, count in licences.most_common()
        ],
        "Other data and weights in this repository": [f"{what}: {terms}" for what, terms in SHIPPED.items()],
        "Scripts that `make vendor` fetches and the report loads": [
            f"{name} {version}: {SCRIPTS[name]}" for name, version in {p.name: p.version for p in VENDOR}.items()
        ],
        "Python packages of requirements.lock": [f"{name} {version}: {terms}" for name, version, terms in packages()],
    }
    head = "This project's code is MIT, see LICENSE. What it uses comes under terms of its own; written by\n"
    head += "tools/pack/licences.py from what packages and tables state of themselves.\n"
    return head + "".join(f"\n{title}\n" + "".join(f"  {line}\n" for line in lines) for title, lines in blocks.items())


def main(given: list[str]) -> int:
    """Write the file, or check its packages."""
    if "--check" not in given:
        FILE.write_text(text(), "utf-8")
        return 0
    listed = set(re.findall(r"^  (\S+ \S+): ", FILE.read_text("utf-8"), re.MULTILINE))
    return int(not {f"{name} {version}" for name, version, _ in packages()} <= listed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
