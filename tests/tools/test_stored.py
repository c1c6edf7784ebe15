"""Results of tools: kept side by side, with machine and date."""

import json
from pathlib import Path

from stored import keep


def test_a_result_stands_beside_the_others(tmp_path: Path) -> None:
    path = tmp_path / "robustness.json"
    keep(path, "fuzz", {"files": 3})
    keep(path, "kills", {"kills": 25})
    keep(path, "fuzz", {"files": 4})
    found = json.loads(path.read_text())
    assert (found["fuzz"]["files"], found["kills"]["kills"]) == (4, 25)
    assert all(found[name]["environment"].keys() >= {"date", "cores", "processor"} for name in found)


def test_the_stored_results_are_of_the_full_harnesses() -> None:
    path = Path(__file__).resolve().parents[2] / "data" / "results" / "robustness.json"
    found = json.loads(path.read_text())
    assert found["fuzz"]["files"] >= 2000 and found["fuzz"]["peak_rss_gb"] < 2
    assert [found["fuzz"][name] for name in ("crashes", "hangs", "executed")] == [0, 0, 0]
    assert (found["kills"]["kills"], found["kills"]["prepare_kills"]) == (25, 10)
    assert found["kills"]["bit_equal"] and found["kills"]["hashes_equal"]
