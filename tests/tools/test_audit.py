import json
import re

import pytest
from audit import verdict

SOUND = {"name": "idna", "version": "3.10", "vulns": []}
WEAK = {"name": "idna", "version": "3.6", "vulns": [{"id": "PYSEC-2024-60", "fix_versions": ["3.7"]}]}
UNKNOWN = {"name": "tqdm", "skip_reason": "Dependency not found on PyPI and could not be audited: tqdm (4.67.1)"}


@pytest.mark.parametrize(
    "packages, said, status",
    [
        ([SOUND], "no known weaknesses in 1 packages", 0),
        ([SOUND, UNKNOWN], r"no verdict: .* no data about 1 of 2 packages \(tqdm\)", 3),
        ([UNKNOWN] * 9, r"no verdict: .* no data about 9 of 9 packages \(tqdm, tqdm, tqdm, tqdm, …\)", 3),
        ([], "no verdict", 3),
        ([WEAK, UNKNOWN], r"idna 3\.6: PYSEC-2024-60, mended in 3\.7\n1 known weaknesses in 1 packages; 1 unknown", 1),
    ],
)
def test_what_nobody_knows_is_no_verdict(packages: list[dict], said: str, status: int) -> None:
    found = verdict(json.dumps({"dependencies": packages, "fixes": []}))
    assert found.status == status
    assert re.search(said, found.text)


def test_no_report_is_no_verdict_with_its_reason() -> None:
    assert verdict("", "WARNING: x\nConnection refused\n") == (
        "no verdict: pip-audit gave no report (Connection refused)", 3
    )  # fmt: skip
