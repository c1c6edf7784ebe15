"""Our lists of which photo belongs to which part: ``data/splits``."""

from pathlib import Path

from ..errors import SourceError
from ..io.files import read_table
from .checks import SPLITS

FOLDER = Path(__file__).resolve().parents[2] / "data" / "splits"
OUT = "none"  # the part of photos that belong nowhere


def read_split(name: str | Path) -> dict[str, str]:
    """Return name of a photo → its part, from a list in ``data/splits`` such as ``pix3d-photo-9``, or from a CSV file.

    The columns are ``name`` and ``split``: train, val, test, or none for a photo that has to stay out.
    """
    path = Path(name) if str(name).endswith(".csv") else FOLDER / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.csv")))
        raise SourceError("no such list of photos", path=path, fix=f"use one of: {known}; or the path of a CSV file")
    table = read_table(path, ["name", "split"], SourceError, fix="give the columns name and split")
    names, parts = table["name"], table["split"]
    if unknown := sorted(set(parts) - {*SPLITS, OUT}):
        raise SourceError(f"unknown part '{unknown[0]}'", path=path, fix=f"use {', '.join([*SPLITS, OUT])}")
    if repeated := sorted(names[names.duplicated()]):
        raise SourceError(f"'{repeated[0]}' occurs twice", path=path, fix="list each photo once")
    return dict(zip(names, parts, strict=True))
