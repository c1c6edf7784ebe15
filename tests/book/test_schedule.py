"""The order in which chapters run: needs, side by side, alone, failures, interruptions, the time that is left."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from toybook import make_book, write_chapter

from cmiclib.book import runner, schedule
from cmiclib.book.chapters import Chapter, read_book
from cmiclib.book.schedule import Clock, next_chapter, side_by_side


def chapter(name: str, *needs: str, alone: bool = False) -> Chapter:
    return Chapter(name, Path(f"{name}.py"), "", needs, (), frozenset(), alone)


def trace(chapters: list[Chapter], at_once: int, broken: str = "") -> list[str]:
    """Return what happened: +a began, -a ended, ~a was skipped; a chapter that can run beside others waits for one."""
    seen, busy, most = list[str](), list[str](), list[int]()
    meet = threading.Barrier(at_once)

    def run(each: Chapter) -> str:
        busy.append(each.name)
        most.append(len(busy))
        if at_once > 1 and not each.alone:
            try:
                meet.wait(0.2)
            except threading.BrokenBarrierError:
                meet.reset()
        busy.remove(each.name)
        return each.name

    def ended(each: Chapter, name: str) -> bool:
        assert each.name == name
        seen.append(f"-{name}")
        return name not in broken

    side_by_side(
        chapters, at_once, run, lambda each: seen.append(f"+{each.name}"), ended,
        lambda each, missing: seen.append(f"~{each.name}:{''.join(missing)}"), lambda kill: seen.append("stop"),
    )  # fmt: skip
    assert max(most) <= at_once
    return seen


def test_one_after_the_other_in_reading_order() -> None:
    chapters = [chapter("a"), chapter("b", "a"), chapter("c")]
    assert trace(chapters, 1) == ["+a", "-a", "+b", "-b", "+c", "-c"]


def test_two_run_side_by_side_and_what_is_needed_ends_first() -> None:
    seen = trace([chapter("a"), chapter("b", "a"), chapter("c"), chapter("d", "b", "c")], 2)
    assert seen[:2] == ["+a", "+c"], "b waits for a, so c begins beside it"
    assert seen.index("+b") > seen.index("-a") and seen[-2:] == ["+d", "-d"]


def test_nothing_runs_beside_a_chapter_that_runs_alone() -> None:
    seen = trace([chapter("a"), chapter("t", alone=True), chapter("b"), chapter("c")], 2)
    begin, end = seen.index("+t"), seen.index("-t")
    assert end == begin + 1
    assert sum(line[0] == "+" for line in seen[:begin]) == sum(line[0] == "-" for line in seen[:begin])


def test_what_needs_a_failed_chapter_is_skipped_and_others_run() -> None:
    chapters = [chapter("a"), chapter("b", "a"), chapter("c", "b"), chapter("d")]
    assert trace(chapters, 1, broken="a") == ["+a", "-a", "~b:a", "~c:b", "+d", "-d"]


def test_the_next_one_is_the_first_that_can_start() -> None:
    a, b, timed = chapter("a"), chapter("b", "a"), chapter("t", alone=True)
    assert next_chapter([timed, a], [], [], 2) is timed
    assert next_chapter([timed, b], [a], [], 2) is None
    assert next_chapter([timed, b], [], [], 2) is timed
    assert next_chapter([chapter("c")], [a, b], [], 2) is None
    assert next_chapter([chapter("c")], [timed], [], 2) is None


def test_an_error_stops_what_runs_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "GRACE", 1.0)
    released, seen = threading.Event(), list[str]()

    def run(each: Chapter) -> None:
        if each.name == "a":
            raise KeyboardInterrupt
        assert released.wait(30), "nobody ended it"

    def stop(kill: bool) -> None:
        seen.append(f"stop {kill}")
        if kill:
            released.set()

    with pytest.raises(KeyboardInterrupt):
        side_by_side(
            [chapter("b"), chapter("a")], 2, run, lambda each: None, lambda each, _: True, lambda each, _: None, stop
        )
    assert seen[0] == "stop False" and seen[-1] == "stop True", "asked, and some time later not asked any more"


def test_a_header_says_that_a_chapter_runs_alone(tmp_path: Path) -> None:
    root = make_book(tmp_path)
    path = root / "book/third.py"
    path.write_text(path.read_text("utf-8").replace("#     needs: []", "#     needs: []\n#     alone: true"), "utf-8")
    assert [each.name for each in read_book(root) if each.alone] == ["third"]


def test_two_real_chapters_run_at_the_same_time(tmp_path: Path) -> None:
    root = make_book(tmp_path)
    for own, other in (("first", "third"), ("third", "first")):
        body = (
            "\n# %%\nimport time\nfrom pathlib import Path\n\n"
            f"Path('{own}').touch()\nend = time.time() + 60\n"
            f"while not Path('{other}').exists():\n    assert time.time() < end\n    time.sleep(0.05)\n"
        )
        write_chapter(root, own, body)
    before = Path.cwd()
    lines: list[str] = []
    result = runner.reproduce(root, profile="smoke", benchmark_hash=lambda: "hash", at_once=2, say=lines.append)
    assert result.failed == [] and set(result.ran) == {"first", "second", "third"}
    assert Path.cwd() == before
    assert lines[0].startswith("[ 1/3] first …") and lines[1].startswith("[ 2/3] third …")


SIGTERM = """
import sys
from pathlib import Path
from cmiclib.book import runner
from cmiclib.cli.common import ended_by_sigterm
with ended_by_sigterm():
    runner.reproduce(Path(sys.argv[1]), profile="smoke", benchmark_hash=lambda: "hash", at_once=2)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="Windows has no SIGTERM")
def test_sigterm_ends_both_kernels(tmp_path: Path) -> None:
    root = make_book(tmp_path)
    body = "\n# %%\nimport os, time\nfrom pathlib import Path\n\nPath('{name}').write_text(str(os.getpid()))\n\n# %%\n"
    for name in ("first", "third"):
        write_chapter(root, name, body + "time.sleep(600)\n")
    process = subprocess.Popen([sys.executable, "-c", SIGTERM, str(root)], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    files = [root / "first", root / "third"]
    while not all(file.is_file() and file.read_text() for file in files):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    end = time.monotonic() + 20
    while any(lives(int(file.read_text())) for file in files):
        assert time.monotonic() < end, "a kernel stayed behind"
        time.sleep(0.1)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_time_left_follows_the_pace_of_this_run() -> None:
    seconds = [0.0]
    clock = Clock({"a": 60.0, "b": 600.0, "c": 30.0}, now=lambda: seconds[0])
    assert clock.left(["a", "b", "c"]) == " (about 12 min left)"  # 690 s
    clock.begin("a")
    seconds[0] = 150.0  # twice as long, the first half minute aside: (150 + 30) / (60 + 30)
    assert clock.end("a") == 150.0
    assert clock.left(["b", "c"]) == " (about 21 min left)"
    clock.begin("b")
    seconds[0] += 300  # (450 + 30) / (60 + 300 + 30) of the 300 s that b has left and of c
    assert clock.left(["c"]) == " (about 7 min left)"
    seconds[0] += 930
    clock.end("b")
    assert clock.left(["c"]) == " (about a minute left)"
    assert clock.left(["c", "never ran"]) == clock.left([]) == ""


def test_two_side_by_side_are_expected_to_take_less() -> None:
    clock = Clock({"a": 600.0, "b": 600.0}, at_once=2, now=lambda: 0.0)
    assert clock.left(["a", "b"]) == " (about 15 min left)"
