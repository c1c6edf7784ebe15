"""Which chapter runs when: what it needs comes first, two run side by side, and one that measures times runs alone.

Few chapters keep two cores busy, so side by side they take less time. The order decides on nothing else.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from .chapters import Chapter

ROOMY = 12e9  # bytes of memory from which on two chapters run side by side
GRACE = 10.0  # seconds in which an interrupted kernel can save what it has
OVERLAP = 0.75  # of the time of one after the other: what two at once take, at first guess
Ran = TypeVar("Ran")


def usual_number(profile: str) -> int:
    """Return how many chapters run side by side: two, but one beside a GPU, on one core or in little memory."""
    with suppress(OSError, ValueError, AttributeError):  # Windows does not say
        memory, limit = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), ""
        with suppress(OSError):
            limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()  # of a container
        memory = min(memory, float(limit)) if limit.isdigit() else memory
        gpu = Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
        return 1 if profile == "paper" or gpu or len(os.sched_getaffinity(0)) == 1 or memory < ROOMY else 2
    return 1


def next_chapter(
    waiting: Sequence[Chapter], running: Sequence[Chapter], lost: Sequence[str], at_once: int
) -> Chapter | None:
    """Return the first chapter that can start now, or that has to be skipped because it needs one that is ``lost``."""
    ahead = {chapter.name for chapter in (*waiting, *running)}
    for chapter in waiting:
        if not set(lost).isdisjoint(chapter.needs):
            return chapter
        fits = len(running) < at_once and not any(each.alone for each in (chapter, *running))
        if ahead.isdisjoint(chapter.needs) and (fits or not running):
            return chapter
    return None


def side_by_side(
    chapters: Sequence[Chapter],
    at_once: int,
    run: Callable[[Chapter], Ran],
    began: Callable[[Chapter], None],
    ended: Callable[[Chapter, Ran], bool],
    skipped: Callable[[Chapter, list[str]], None],
    stop: Callable[[bool], None],
) -> None:
    """Run chapters in threads, ``at_once`` of them; the other functions are called in the thread of the caller.

    Args:
        chapters: in reading order.
        at_once: how many run side by side.
        run: runs one, in a thread.
        began: is told before a chapter runs.
        ended: is told what ``run`` returned, and says whether those that need the chapter can run.
        skipped: is told of a chapter that cannot run, and what it misses.
        stop: asks what runs to end, because an error or a signal ends this call; True: does not ask any more.
    """
    waiting, running, lost = list(chapters), dict[Future[Ran], Chapter](), list[str]()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            while waiting or running:
                chapter = next_chapter(waiting, list(running.values()), lost, at_once)
                if chapter is None:
                    for ran in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:  # Windows needs a time
                        if not ended(chapter := running.pop(ran), ran.result()):
                            lost.append(chapter.name)
                    continue
                waiting.remove(chapter)
                if missing := [need for need in chapter.needs if need in lost]:
                    lost.append(chapter.name)
                    skipped(chapter, missing)
                else:
                    began(chapter)
                    running[pool.submit(run, chapter)] = chapter
        except BaseException:
            end = time.monotonic() + GRACE
            stop(False)
            while wait(running, timeout=0.5).not_done:  # a kernel that only starts now ends as well
                stop(time.monotonic() > end)
            raise


class Clock:
    """Tells how long a run still takes, by the seconds that each chapter took before and the pace of this run.

    Args:
        expected: seconds by chapter.
        at_once: how many run side by side.
        now: the time in seconds.
    """

    def __init__(self, expected: dict[str, float], at_once: int = 1, now: Callable[[], float] = time.perf_counter):
        self.expected, self.share, self.now = expected, OVERLAP if at_once > 1 else 1.0, now
        self.began, self.took = now(), dict[str, float]()
        self.running = dict[str, float]()  # by chapter, when it began

    def begin(self, name: str) -> None:
        """Note that a chapter begins."""
        self.running[name] = self.now()

    def end(self, name: str) -> float:
        """Note that a chapter ended; return its seconds."""
        self.took[name] = self.now() - self.running.pop(name)
        return self.took[name]

    def left(self, waiting: Sequence[str]) -> str:
        """Return in words how long those that run and those that wait will take; nothing if one never ran before."""
        names = [*waiting, *self.running]
        if not names or not self.expected.keys() >= set(names):
            return ""
        now = self.now()
        begun = sum(min(now - since, self.expected[name]) for name, since in self.running.items())
        planned = sum(self.expected.get(name, seconds) for name, seconds in self.took.items()) + begun
        pace = (now - self.began + 30 * self.share) / (planned + 30)  # a short first chapter says little
        minutes = pace * (sum(self.expected[name] for name in names) - begun) / 60
        return f" (about {minutes:.0f} min left)" if minutes >= 1.5 else " (about a minute left)"
