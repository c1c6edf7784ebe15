"""Results of a tool, kept with the machine and the date beside those of other tools."""

import json
from pathlib import Path
from typing import Any

from cmiclib.io.atomic import write_json
from cmiclib.io.provenance import environment


def keep(path: Path, part: str, values: dict[str, Any]) -> None:
    """Put a tool's result under its name into a JSON file; what else is there stays."""
    before = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    about = {key: value for key, value in environment().items() if key != "versions"}
    write_json(path, before | {part: {**values, "environment": about}})
