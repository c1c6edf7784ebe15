"""Tables of the CAD models behind the shipped benchmark: which model, whose, under which licence.

`models.csv` lists the shapes that photos show, `distractors.csv` further shapes of the same libraries that
only fill the gallery. Both are facts about the Sweet Home 3D furniture libraries; meshes and textures stay in
those libraries.

    python tools/sweethome/catalogue.py distractors --libraries LIBS     # rebuild data/sweethome/distractors.csv
    python tools/sweethome/catalogue.py check --libraries LIBS           # do both tables agree with the libraries?
"""

from __future__ import annotations

import argparse
import csv
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "data" / "sweethome" / "models.csv"
DISTRACTORS = ROOT / "data" / "sweethome" / "distractors.csv"
DISTRACTOR_LIST = Path(__file__).with_name("distractors.txt")

LICENCES = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0-US",
    "Scopia": "CC-BY-3.0",
}
PREFIXES = {"BlendSwap-CC-0": "C0", "BlendSwap-CC-BY": "BY", "KatorLegaz": "KL", "Scopia": "SC"}


@dataclass(frozen=True)
class Model:
    """One row of `models.csv` or `distractors.csv`; `obj_path` is relative to the folder of libraries."""

    shape_id: str
    category: str
    name: str
    creator: str
    licence: str
    source: str
    obj_path: str
    model_rotation: str
    faces: int
    textures: int
    missing_textures: int
    group: str
    dropped: str = ""


def shape_id(category: str, source: str) -> str:
    """`chair` and `BlendSwap-CC-0#armchair2` give `chair/C0_armchair2`: unique, and safe as a file name."""
    library, key = source.split("#", 1)
    return f"{category}/{PREFIXES[library]}_{re.sub(r'[^A-Za-z0-9_-]', '_', key)}"


def read_models(path: Path, include_dropped: bool = False) -> list[Model]:
    """Rows of a table, without the dropped ones unless asked for."""
    with path.open(newline="", encoding="utf-8") as f:
        rows = [
            Model(**{**r, **{k: int(r[k]) for k in ("faces", "textures", "missing_textures")}})
            for r in csv.DictReader(f)
        ]
    return [m for m in rows if include_dropped or not m.dropped]


def write_models(path: Path, models: list[Model]) -> None:
    """Write a table, one row a model."""
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, [x.name for x in fields(Model)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(m) for m in models)


def read_catalogue(library: Path) -> dict[str, dict[str, str]]:
    """Properties of every model of one unzipped library (latin-1 lines `key#N=value`), by the model's id."""
    entries: dict[str, dict[str, str]] = {}
    text = (library / "PluginFurnitureCatalog.properties").read_text(encoding="latin-1")
    for line in text.splitlines():
        if match := re.match(r"(\w+)#(\d+)=(.*)", line.strip()):
            entries.setdefault(match[2], {})[match[1]] = match[3]
    return {e["id"].split("#", 1)[1]: e for e in entries.values()}


def obj_facts(path: Path) -> tuple[int, int, int]:
    """(triangles, textures found, textures missing) of an OBJ file and the MTL files that it names."""
    triangles, used, libraries = 0, set(), set()
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith("f "):
            triangles += max(0, len(line.split()) - 3)
        elif line.startswith("usemtl "):
            used.add(line[7:].strip())
        elif line.startswith("mtllib "):
            libraries.add(path.parent / line[7:].strip())
    images, current = set(), ""
    for mtl in (m for m in libraries if m.exists()):
        for line in mtl.read_text(encoding="latin-1").splitlines():
            words = line.split(maxsplit=1)
            if len(words) == 2 and words[0] == "newmtl":
                current = words[1].strip()
            elif len(words) == 2 and words[0].lower() == "map_kd" and current in used:
                images.add(mtl.parent / words[1].strip())
    found = sum(i.is_file() for i in images)
    return triangles, found, len(images) - found


def licence_of(library: str, folder: Path) -> str:
    """The library's licence, unless the page that came with the model names another one."""
    for page in sorted(folder.glob("*[lL][iI][cC][eE][nN][sS][eE]*")):
        text = page.read_text(encoding="latin-1").lower()
        if library == "BlendSwap-CC-0" and "zero" not in text:
            return "CC-BY-3.0 (licence page in the CC-0 package says CC-BY)"
        if "noncommercial" in text or "non-commercial" in text or "share alike" in text:
            raise ValueError(f"{page}: a licence that does not allow redistribution here; leave the model out")
    return LICENCES[library]


def from_libraries(libraries: Path, library: str, key: str, category: str) -> Model:
    """The row of one model, from its library."""
    entry = read_catalogue(libraries / library)[key]
    path = library + entry["model"]
    source = f"{library}#{key}"
    identifier = shape_id(category, source)
    triangles, found, missing = obj_facts(libraries / path)
    return Model(
        shape_id=identifier,
        category=category,
        name=entry["name"],
        creator=entry["creator"],
        licence=licence_of(library, (libraries / path).parent),
        source=source,
        obj_path=path,
        model_rotation=entry.get("modelRotation", ""),
        faces=triangles,
        textures=found,
        missing_textures=missing,
        group=identifier,
    )


def read_distractor_list(path: Path) -> list[tuple[str, str, str]]:
    """(category, library, model) for each model named in the hand-made list."""
    chosen = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            head, keys = line.split(":", 1)
            category, library = head.split()
            chosen += [(category, library, key) for key in keys.split()]
    return chosen


def check(libraries: Path) -> list[str]:
    """Everything in which the two tables disagree with the libraries, with themselves or with each other."""
    models, distractors = (read_models(p, include_dropped=True) for p in (MODELS, DISTRACTORS))
    problems = []
    rows = models + distractors
    for column in ("shape_id", "obj_path"):
        values = [getattr(m, column) for m in rows]
        problems += [f"{column} {v} occurs twice" for v in sorted({v for v in values if values.count(v) > 1})]
    identifiers = {m.shape_id for m in rows}
    for m in rows:
        library, key = m.source.split("#", 1)
        if m.shape_id != shape_id(m.category, m.source):
            problems.append(f"{m.shape_id}: expected {shape_id(m.category, m.source)}")
        if m.group not in identifiers:
            problems.append(f"{m.shape_id}: group {m.group} is no shape")
        if not (libraries / m.obj_path).is_file():
            problems.append(f"{m.shape_id}: no file {m.obj_path}")
            continue
        fresh = from_libraries(libraries, library, key, m.category)
        for column in ("obj_path", "model_rotation", "creator", "licence", "faces"):
            if getattr(m, column) != getattr(fresh, column):
                ours, theirs = getattr(m, column), getattr(fresh, column)
                problems.append(f"{m.shape_id}: {column} is {ours!r}, in the library {theirs!r}")
    return problems


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=["distractors", "check"])
    parser.add_argument("--libraries", type=Path, required=True, help="folder that holds the unzipped libraries")
    args = parser.parse_args()
    if args.command == "distractors":
        chosen = read_distractor_list(DISTRACTOR_LIST)
        rows = [from_libraries(args.libraries, lib, key, category) for category, lib, key in chosen]
        write_models(DISTRACTORS, rows)
        print(f"{len(rows)} distractors")
    else:
        problems = check(args.libraries)
        print("\n".join(problems) or "both tables agree with the libraries")
        raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
