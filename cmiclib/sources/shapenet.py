"""ShapeNetCore in its own layout to a gallery: a prepared benchmark of shapes without photos.

::

    ROOT/taxonomy.json                                        names of synsets; optional
    ROOT/<synset>/<model>/model.obj                           version 1
    ROOT/<synset>/<model>/models/model_normalized.obj         version 2

A synset is a number of eight digits, such as 03001627 for chairs. ShapeNet is free for research after registration at
shapenet.org; nothing of it is shipped here.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..benchmark.writer import BenchmarkWriter
from ..errors import SourceError
from ..io.files import check_inside, leads_inside, read_json
from ..io.protocol import frame_rotation
from . import DEFAULT, Prepared, PrepareOptions, listed
from .building import build
from .meshes import MeshFile

# The released code's categories.
SYNSETS = {"bed": "02818832", "chair": "03001627", "sofa": "04256520", "table": "04379243", "car": "02958343"}
PAPER = "bed,chair,sofa,table"
TAXONOMY_LIMIT = 1 << 26
NUMBER = re.compile("[0-9]{8}")


class Layout(NamedTuple):
    """Where a version keeps the mesh of a model, below the model's folder, and in which frame."""

    file: str
    up: str
    front: str


# Up and front are those of the README.txt of each release. A car of version 1 agrees: its red tail lights lie at
# x = -0.4, its headlights at x = +0.4. Version 2 could not be checked against a mesh. Its README calls the other front
# a correction of mirrored models; the rotation that is used here does not undo such a mirroring.
LAYOUTS = {
    "v1": Layout("model.obj", up="+y", front="+x"),
    "v2": Layout("models/model_normalized.obj", up="+y", front="-z"),
}


def prepare_shapenet(
    root: str | Path,
    output: str | Path,
    options: PrepareOptions = DEFAULT,
    *,
    synsets: str = PAPER,
    version: str = "auto",
    limit: int | None = None,
    up: str | None = None,
    front: str | None = None,
) -> Prepared:
    """Turn ShapeNetCore, or some of its synsets, into a gallery.

    A shape's id is ``category/model``. A model that is filed under two synsets becomes two shapes of one group.
    ``synsets`` are names and numbers, joined by commas, or ``all``, every synset below the root; ``limit`` takes only
    the first models of each, by name. ``version`` is ``v1``, ``v2`` or ``auto``: the one whose files are there. ``up``
    and ``front``, the axes of the files that point up and to the front, are by default the version's. A SourceError
    lists unknown and missing synsets, and models without a mesh or with a broken one.
    """
    root = Path(root)
    folders = find_synsets(root, synsets)
    models = {name: find_models(folder)[:limit] for name, folder in folders.items()}
    version = find_version(root, [model for part in models.values() for model in part], version)
    up, front = up or LAYOUTS[version].up, front or LAYOUTS[version].front
    frame_rotation(up, front)
    found, missing = find_meshes(root, models, version, up, front)
    if missing and not options.allow_missing:
        fix = "unpack them again, or pass --allow-missing"
        raise SourceError(listed(missing, "model", " without a mesh"), path=root, fix=fix)
    if synsets == "all":
        packed = {path for path in root.glob("[0-9]*.zip") if path.stem not in {f.name for f in folders.values()}}
        missing += [f"{path}: not unpacked" for path in sorted(packed)]
    writer = BenchmarkWriter(
        output, name=f"shapenetcore-{version}", source=f"ShapeNetCore {version}", size=options.size,
        licence="terms of use of shapenet.org: non-commercial research and education",
        extra={"synsets": [folder.name for folder in folders.values()], "limit": limit, "up": up, "front": front},
    )  # fmt: skip
    return build(writer, found, [], options, missing)


def find_synsets(root: Path, chosen: str) -> dict[str, Path]:
    """Return category name → folder of the synsets that are wanted, in the order given; ``all``: by number."""
    there = {path.name: path for path in sorted(root.glob("[0-9]*")) if NUMBER.fullmatch(path.name) and path.is_dir()}
    if not there and not list(root.glob("[0-9]*.zip")):
        problem = "no folder of a synset, such as 03001627, is here" if root.is_dir() else "no such folder"
        fix = "give the folder that ShapeNetCore.v1.zip or ShapeNetCore.v2.zip unpacks to"
        raise SourceError(problem, path=root, fix=fix)
    names = read_taxonomy(root / "taxonomy.json") | {number: name for name, number in SYNSETS.items()}
    wanted = list(there) if chosen == "all" else [_number(word.strip(), names, there) for word in chosen.split(",")]
    if lost := [number for number in dict.fromkeys(wanted) if number not in there]:
        zipped = [f"{number}.zip" for number in lost if (root / f"{number}.zip").is_file()]
        problem = f"there is no folder of {', '.join(f'{names.get(number, number)} ({number})' for number in lost)}"
        fix = f"unzip {', '.join(zipped)} there" if zipped else "unpack these synsets, or leave them out"
        raise SourceError(problem, path=root, fix=fix)
    labels = {number: names.get(number, number) for number in wanted}
    often = Counter(labels.values())  # two synsets of one name stay two categories
    return {name if often[name] == 1 else f"{name}-{number}": there[number] for number, name in labels.items()}


def read_taxonomy(path: Path) -> dict[str, str]:
    """Return number → first name of every synset in ``taxonomy.json``; empty where there is no such file."""
    if not path.is_file():
        return {}
    check_inside(path, path.parent, SourceError)
    fix = "unpack it again, or remove it"
    try:
        nodes = read_json(path, SourceError, fix, TAXONOMY_LIMIT)
        # Some nodes occur twice (04591713, the wine bottle), below two parents, with the same name.
        return {str(node["synsetId"]): str(node["name"]).partition(",")[0].strip() for node in nodes}
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"this is not a taxonomy ({type(error).__name__}: {error})", path=path, fix=fix) from None


def find_models(folder: Path) -> list[Path]:
    """Return the models' folders of one synset, in the order of their names; SourceError: there are none."""
    models = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")
    if not models:
        raise SourceError("this synset holds no models", path=folder, fix="unpack it again, or leave it out")
    return models


def find_meshes(
    root: Path, models: dict[str, list[Path]], version: str, up: str, front: str
) -> tuple[list[MeshFile], list[str]]:
    """Return the meshes of models, given as category → folders, and one line for each model without one in the root."""
    found, missing = [], []
    for category, folders in models.items():
        for model in folders:
            path = model / LAYOUTS[version].file
            if not path.is_file():
                missing.append(f"{model}: no {LAYOUTS[version].file}")
            elif not leads_inside(path, root):
                missing.append(f"{path}: a link out of {root}")
            else:
                name, source = f"{category}/{model.name}", f"ShapeNetCore {version}"
                found.append(MeshFile(name, category, path, up, front, source=source, group=model.name))
    return found, missing


def find_version(root: Path, models: Sequence[Path], version: str) -> str:
    """Return ``v1`` or ``v2``: the given one, or for ``auto`` the only one whose files these models hold."""
    if version in LAYOUTS:
        return version
    if version != "auto":
        raise SourceError(f"unknown version '{version}'", fix=f"use one of: auto, {', '.join(LAYOUTS)}")
    held = [name for name, layout in LAYOUTS.items() if any((model / layout.file).is_file() for model in models)]
    if len(held) != 1:
        files = " and ".join(layout.file for layout in LAYOUTS.values())
        problem = f"{'both' if held else 'neither'} {files} {'are' if held else 'is'} in the models' folders"
        raise SourceError(problem, path=root, fix="say which with --version" if held else "unpack the synsets again")
    return held[0]


def _number(word: str, names: dict[str, str], there: dict[str, Path]) -> str:
    """Return the number of a name or number; a name of several synsets means the one that has a folder."""
    if NUMBER.fullmatch(word):
        return word
    known = [number for number, name in names.items() if name == word]
    number = SYNSETS.get(word) or next((number for number in known if number in there), next(iter(known), None))
    if number is None:
        fix = f"use {', '.join(SYNSETS)}, a first name of taxonomy.json, a number of eight digits, or all"
        raise SourceError(f"'{word}' is not a known synset", fix=fix)
    return number
