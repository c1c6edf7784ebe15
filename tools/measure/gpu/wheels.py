"""Collect the wheels that a GPU machine without a network lacks, for gpu_report.py.

    python tools/measure/gpu/wheels.py                     # for CPython 3.12 on x86-64 Linux, into outputs/gpu-wheels

Versions are those of requirements.lock. The machine's own image has to bring what IMAGE lists. Embree, Jupyter and the
tools that build the book are in neither list, because the report casts no rays and opens no notebook.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "outputs" / "gpu-wheels"
WHEELS = (
    "annotated-types", "kornia", "kornia-rs", "pydantic", "pydantic-core", "trimesh", "typing-extensions",
    "typing-inspection",
)  # fmt: skip
IMAGE = (
    "filelock", "joblib", "llvmlite", "networkx", "numba", "numpy", "opencv-python-headless", "pandas", "pillow",
    "pytest", "pyyaml", "rich", "safetensors", "scikit-image", "scikit-learn", "scipy", "timm", "torch", "torchvision",
    "tqdm", "typer",
)  # fmt: skip
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
LIMIT = 16 << 20
"""Bytes of all wheels: with the repository, its stored weights set aside, they stay below 64 MiB."""


def pins(lock: Path = ROOT / "requirements.lock") -> list[str]:
    """Return ``name==version`` of each wheel as requirements.lock has it.

    Raises:
        SystemExit: the lock has no line for one of them.
    """
    lines = [line.partition(";")[0].strip() for line in lock.read_text().splitlines() if "==" in line]
    locked = {line.partition("==")[0].lower().replace("_", "-"): line for line in lines}
    if missing := [name for name in WHEELS if name not in locked]:
        raise SystemExit(f"error: {lock} does not pin {', '.join(missing)}")
    return [locked[name] for name in WHEELS]


def command(output: Path, python: str) -> list[str]:
    """Return pip's command line; nothing is built, and nothing is fetched that is not named."""
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    return [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--python-version", python, *platforms, "--dest", str(output), *pins(),
    ]  # fmt: skip


def main() -> None:
    """Fill the folder and print how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--python", default="3.12", help="the GPU machine's Python")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for old in arguments.output.glob("*.whl"):
        old.unlink()
    subprocess.run(command(arguments.output, arguments.python), check=True)
    wheels = sorted(arguments.output.glob("*.whl"))
    size = sum(file.stat().st_size for file in wheels)
    if len(wheels) != len(WHEELS) or size > LIMIT:
        raise SystemExit(
            f"error: {len(wheels)} wheels of {size:,} bytes; expected {len(WHEELS)}, below {LIMIT:,} bytes"
        )
    print(f"{arguments.output}: {len(wheels)} wheels, {size / (1 << 20):.1f} MiB")


if __name__ == "__main__":
    main()
