"""Chapters opened elsewhere: badges that open one in Colab, Binder or VS Code, and the cell that installs there.

The repository's public address stands once, in ``_config.yml`` under ``repository``. From it ``make notebooks`` writes,
into each chapter below its title, cells tagged ``launch``, and the badges of README.md. They are no part of a chapter's
cache key, and the report has badges of its own, so another address runs no chapter again.

What the first cell calls must work before anything is installed, so until then this module imports the standard
library only.
"""

import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from ..errors import BookError

TAG = "launch"
CELL = re.compile(rf'^# %%[^\n]*tags=\["{TAG}".*?(?=^# %%|\Z)', re.MULTILINE | re.DOTALL)
BEGIN, END = "<!-- badges: written by `make notebooks` -->", "<!-- end of badges -->"
PLACES = {
    "Colab": "https://colab.research.google.com/github/{owner}/blob/{branch}/{path}",
    "Binder": "https://mybinder.org/v2/gh/{owner}/{branch}?urlpath=lab/tree/{path}",
    "VS Code": "https://vscode.dev/github/{owner}/blob/{branch}/{path}",
}
GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
SERVERS = {"ipykernel", "jupyter-book", "jupyterlab", "voila"}
"""What runs a notebook where it is opened, or what no chapter calls: never replaced under a running kernel."""

SETUP = """# %% tags=["{tag}", "hide-cell"]
# Does nothing where the library can be imported. Elsewhere, as in Colab, it {does}.
import importlib.util
{more}import sys
from pathlib import Path

if importlib.util.find_spec("cmiclib") is None:
    above = [folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "cmiclib" / "launch.py").is_file()]
    checkout = above[0] if above else Path.cwd() / "{folder}"
    if not checkout.is_dir():
{fetch}
    sys.path.insert(0, str(checkout))
    from cmiclib.book.launch import install

    install(checkout)

"""
CLONE = """        url, branch = "{url}", "{branch}"
        subprocess.run(["git", "clone", "-q", "--depth=1", f"--branch={{branch}}", url, str(checkout)], check=True)"""
MISSING = """        raise ModuleNotFoundError("cmiclib is missing: open this in a checkout, after `make setup`")"""


class Repository(NamedTuple):
    """Where the repository is public."""

    url: str
    branch: str
    owner: str  # "owner/name" at GitHub

    def links(self, path: str) -> dict[str, str]:
        """Return service → address that opens a file of the repository there."""
        return {name: link.format(path=path, **self._asdict()) for name, link in PLACES.items()}


def repository(root: Path) -> Repository | None:
    """Return what ``_config.yml`` says of the repository; None where it names no address.

    Raises:
        BookError: an address that is not GitHub's, from where these services fetch.
    """
    import yaml

    values = yaml.safe_load((root / "_config.yml").read_text("utf-8")).get("repository") or {}
    if not (url := values.get("url") or ""):
        return None
    if not (github := GITHUB.fullmatch(str(url))):
        raise BookError(
            f"the repository's address '{url}' is not one at GitHub, which Colab, Binder and VS Code open",
            path=root / "_config.yml",
            fix='write https://github.com/OWNER/NAME, or ""',
        )
    return Repository(url, str(values.get("branch") or "main"), github[1])


def badges(where: Repository | None, path: str, pictures: str) -> str:
    """Return Markdown whose pictures open ``path`` in each service, side by side; empty where none can.

    Args:
        where: the repository.
        path: of a notebook, relative to the repository's root.
        pictures: the folder of the badges, relative to where the Markdown stands.
    """
    links = {
        name.lower().replace(" ", "-"): (name, link) for name, link in (where.links(path) if where else {}).items()
    }
    shown = [f"[![Open in {name}]({pictures}/open-{key}.svg)][{key}]" for key, (name, _) in links.items()]
    return "\n".join([*shown, "", *(f"[{key}]: {link}" for key, (_, link) in links.items())]) if links else ""


def cells(where: Repository | None, name: str) -> str:
    """Return the cells tagged ``launch`` of a chapter's script: its badges, and what installs the library."""
    lines = badges(where, f"book/{name}.ipynb", "_static").splitlines()
    comment = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    shown = f'# %% [markdown] tags=["{TAG}"]\n{comment}\n' if lines else ""
    fetch = CLONE.format(**where._asdict()) if where else MISSING
    does = "fetches it and what it needs" if where else "installs what a checkout around it lacks"
    folder = where.url.rstrip("/").removesuffix(".git").rpartition("/")[2] if where else "cmic"
    more = "import subprocess\n" if where else ""
    return shown + SETUP.format(tag=TAG, does=does, more=more, folder=folder, fetch=fetch)


def without(text: str) -> str:
    """Return a chapter's script without its cells tagged ``launch``."""
    return CELL.sub("", text)


def with_cells(text: str, where: Repository | None, name: str) -> str:
    """Return a chapter's script with these cells below its first one, in place of those that it had."""
    text = without(text)
    first = text.index("\n# %%") + 1
    second = text.index("\n# %%", first) + 1  # a chapter has more cells than its title
    return text[:second] + cells(where, name) + text[second:]


def with_badges(readme: str, where: Repository | None) -> str:
    """Return README's text with the badges between its marks; without the marks, as it was."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    line = badges(where, "book/intro.ipynb", "book/_static")
    return f"{before}{begin}\n{line}{line and chr(10)}{end}{after}" if end else readme


def write(root: Path, check: bool = False) -> list[Path]:
    """Write cells and badges anew; return the files that change, with ``check`` those that would."""
    where = repository(root)
    texts = {path: with_cells(path.read_text("utf-8"), where, path.stem) for path in sorted(root.glob("book/*.py"))}
    if (root / "README.md").is_file():
        texts[root / "README.md"] = with_badges((root / "README.md").read_text("utf-8"), where)
    changed = [path for path, text in texts.items() if text != path.read_text("utf-8")]
    for path in [] if check else changed:
        path.write_text(texts[path], "utf-8")
    return changed


def install(root: Path) -> None:
    """Install what the library needs and this Python lacks, at the versions of ``requirements.lock``.

    What is there and recent enough stays, so that a service's own PyTorch is used.

    Raises:
        BookError: a package that had to be replaced is in use; the kernel must be started again.
        CalledProcessError: pip failed; it has said why.
    """
    pins = missing(root)
    if pins:
        print(f"installing {', '.join(pins)}", flush=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *pins], check=True)
        importlib.invalidate_caches()
    if used := sorted({pin.partition("==")[0] for pin in pins} & {name.partition(".")[0] for name in sys.modules}):
        raise BookError(f"{', '.join(used)} was replaced while in use", fix="restart the kernel, then run this again")


def missing(root: Path) -> list[str]:
    """Return the pins of ``requirements.lock`` for what ``pyproject.toml`` needs and this Python lacks."""
    from packaging.requirements import Requirement

    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (root / "requirements.lock").read_text("utf-8").splitlines()
    lock = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = {pin.name: f"{pin.name}{pin.specifier}" for pin in lock}
    needed = [Requirement(text) for text in project["dependencies"]]
    return [pins[each.name] for each in needed if each.name not in SERVERS and not _fits(each.name, each.specifier)]


def _fits(name: str, specifier: object) -> bool:
    try:
        return metadata.version(name) in specifier  # type: ignore[operator]
    except metadata.PackageNotFoundError:
        return False
