"""Ask PyPI, by pip-audit, whether weaknesses of the pinned packages are known, and say so in one line.

Run by ``make audit``: ``python tools/check/audit.py PIP-AUDIT``. pip-audit itself finds nothing wrong with packages of
which the service knows nothing, as where a mirror without such data stands in for PyPI. Here that is no verdict. The
exit status is 0 where every package was looked up and none is known to be weak, 1 where one is, 3 where there is no
verdict.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"


class Verdict(NamedTuple):
    """What was found: one line or more, and the exit status."""

    text: str
    status: int


def verdict(report: str, messages: str = "") -> Verdict:
    """Judge pip-audit's report in JSON; where there is none, its messages say why."""
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (messages.strip().splitlines() or ["no message"])[-1]
        return Verdict(f"no verdict: pip-audit gave no report ({reason})", 3)
    unknown = [package["name"] for package in packages if "vulns" not in package]
    weak = [
        f"{package['name']} {package['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or '–'}"
        for package in packages
        for known in package.get("vulns", [])
    ]
    if weak:
        count = f"{len(weak)} known weaknesses in {len(packages) - len(unknown)} packages; {len(unknown)} unknown"
        return Verdict("\n".join([*weak, count]), 1)
    if unknown or not packages:
        some = ", ".join(unknown[:4]) + (", …" if len(unknown) > 4 else "")
        return Verdict(
            f"no verdict: the package index has no data about {len(unknown)} of {len(packages)} packages ({some}); "
            "ask again where PyPI itself answers",
            3,
        )
    return Verdict(f"no known weaknesses in {len(packages)} packages", 0)


def main() -> int:
    """Run pip-audit over the lock file."""
    command = [sys.argv[1], "--requirement", str(LOCK), "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = verdict(done.stdout, done.stderr)
    print(found.text)
    return found.status


if __name__ == "__main__":
    sys.exit(main())
