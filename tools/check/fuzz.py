"""Damage files in thousands of ways and read them: every failure must be one message of `cmiclib.errors`.

Run from the repository's root: ``python tools/check/fuzz.py [--short] [--case NAME]``. Cases, seeds and files made to
harm are in ``tests/fuzz_cases.py``. Reading happens in a child process with a limit on memory. A child that works at
one file for ten seconds, of the processor's time and not by the clock, is killed, the file counts as a hang, and
another child goes on. While a file is read, nothing may start a program, open a connection, write outside the case's
folder, or open the file that lies beside it; Python's audit hooks tell. The last line is JSON.

The same call damages the same files; ``--seed`` gives others. A file that goes wrong is kept in ``tests/data/fuzz``, by
the name of its case, and read again at each call from then on, and by the quick tests: commit it with its cure.
"""

import argparse
import hashlib
import json
import os
import queue
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "data" / "fuzz"
KEPT_SIZE = 1 << 20  # bytes; a larger one was made by a line of code, which stands in the cases
MEMORY = 3 << 30  # bytes of data that a child may hold; what it used at most is in the result
FULL, SHORT = 44, 3  # damaged files of each case


@dataclass(frozen=True)
class Patience:
    """How long a child may say nothing."""

    silence: float = 10.0  # seconds of a processor for one file
    start: float = 300.0  # seconds of a processor, for the import and the seeds
    tick: float = 0.5  # seconds between two looks at a child
    blocked: int = 20  # looks in a row at which a file is neither done nor worked at: it waits for something


def edits(data: bytes, other: bytes, draw: Callable) -> bytes:
    """Return a damaged copy: up to six cuts, flips, forged numbers, repetitions, or pieces of another file."""
    from hypothesis import strategies as st

    numbers = [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\xff\xff\xff\x7f",
        b"\0\0\0\x80",
        b"\xff" * 8,
        b"-1",
        b"1e999",
        b"NaN",
    ]
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["flip", "cut", "insert", "forge", "repeat", "splice", "byte"]))
        place = int(draw(st.floats(0, 1)) ** draw(st.sampled_from([1, 4])) * len(data))  # headers more than bodies
        length = draw(st.integers(1, 64))
        match kind:
            case "flip" if data:
                place = min(place, len(data) - 1)
                data = data[:place] + bytes([data[place] ^ (1 << length % 8)]) + data[place + 1 :]
            case "byte":
                data = data[:place] + draw(st.binary(min_size=1, max_size=1)) + data[place + 1 :]
            case "cut":
                data = data[:place] if length < 16 else data[:place] + data[place + length :]
            case "insert":
                data = data[:place] + draw(st.binary(max_size=16)) + data[place:]
            case "forge":
                number = draw(st.sampled_from(numbers))
                data = data[:place] + number + data[place + len(number) :]
            case "repeat":
                data = data[:place] + data[place : place + length] * draw(st.sampled_from([2, 9, 500])) + data[place:]
            case "splice":
                start = int(draw(st.floats(0, 1)) * len(other))
                data = data[:place] + other[start : start + 4 * length] + data[place:]
    return data


def changed_tree(data: bytes, draw: Callable) -> bytes:
    """Return JSON with one value, somewhere, replaced by any other."""
    from hypothesis import strategies as st

    leaf = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(["../x", "/"])
    )
    anything = st.recursive(
        leaf, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3)
    )
    tree = [json.loads(data)]
    place, key = tree, 0
    while isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 3)):
        place = place[key]
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    if isinstance(place, dict) and draw(st.booleans()):
        del place[key]
    else:
        place[key] = draw(anything)
    return json.dumps(tree[0]).encode()


def changed_header(data: bytes, name: str, draw: Callable) -> bytes | None:
    """Return a file whose JSON has one value replaced, all of it or its header; None where it has none."""
    length, place = {".safetensors": ("<Q", 0), ".index": ("<Q", 0), ".glb": ("<I", 12)}.get(Path(name).suffix, ("", 0))
    if name.endswith(".json"):
        return changed_tree(data, draw)
    if not length:
        return None
    start = struct.calcsize(length) + place + (4 if name.endswith(".glb") else 0)
    end = start + struct.unpack_from(length, data, place)[0]
    header = changed_tree(data[start:end], draw)
    return data[:place] + struct.pack(length, len(header)) + data[start - 4 : start] * bool(place) + header + data[end:]


class Watch:
    """Says what a file did besides being read, by the interpreter's audit hooks."""

    BAD = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "socket.connect",
           "socket.bind", "socket.getaddrinfo", "urllib.Request", "ctypes.dlopen")  # fmt: skip

    def __init__(self, work: Path, secret: Path) -> None:
        self.work, self.secret, self.on, self.seen = str(work), str(secret), False, list[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event in self.BAD:
            self.seen.append(event)
        elif event == "open" and isinstance(arguments[0], str | bytes | Path):
            self.on = False
            path, mode = os.path.realpath(os.fsdecode(arguments[0])), str(arguments[1] or "")
            if path in (self.secret, "/etc/passwd"):
                self.seen.append(f"opened {path}")
            if set(mode) & set("wax+") and not path.startswith((self.work, "/dev/null")):
                self.seen.append(f"wrote {path}")
            self.on = True


class Child:
    """Reads damaged files, case by case, and prints a line before and after each."""

    def __init__(self, work: Path) -> None:
        from fuzz_cases import SECRET

        self.work = work.resolve()
        self.secret = self.work / SECRET
        self.secret.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
        os.chdir(self.work)
        self.watch = Watch(self.work, self.secret)

    def run(self, names: list[str], count: int, skip: int, number: int) -> None:
        """Read the files of these cases, of the first case those after the first ``skip``; ``number`` is the seed."""
        from fuzz_cases import CASES

        cases = {case.name: case for case in CASES}
        for name in names:  # every seed must be readable; this also loads what is imported late
            self._seed(cases[name])
            cases[name].read(self.work / "seed")
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        for name in names:
            self._case(cases[name], cases[names[(names.index(name) + 1) % len(names)]], count, skip, number)
            skip = 0
            say(end=name)

    def _seed(self, case: Any) -> bytes:
        shutil.rmtree(self.work / "seed", ignore_errors=True)
        (self.work / "seed").mkdir()
        case.write(self.work / "seed")
        return (self.work / "seed" / case.target).read_bytes()

    def _case(self, case: Any, neighbour: Any, count: int, skip: int, number: int) -> None:
        from fuzz_cases import payloads, special
        from hypothesis import HealthCheck, Phase, given, seed, settings
        from hypothesis import strategies as st

        other, data = self._seed(neighbour), self._seed(case)
        done = 0

        def attempt(make: Callable[[Path], object]) -> None:
            nonlocal done
            done += 1
            if done > skip:
                self._attempt(case, done, make)

        say(case=case.name, file=skip)
        for path in sorted((KEPT / case.name).glob("*")):
            attempt(partial(shutil.copyfile, path))
        for name, content in payloads():
            if name == case.name:
                attempt(lambda path, c=content: path.write_bytes(c() if callable(c) else c))
        for name, make in special(self.secret):
            if name == case.name:
                attempt(make)

        @seed(number)
        @settings(max_examples=count, database=None, deadline=None,
                  suppress_health_check=list(HealthCheck), phases=[Phase.generate])  # fmt: skip
        @given(st.data())
        def mutate(source: st.DataObject) -> None:
            damaged = changed_header(data, case.target, source.draw) if source.draw(st.booleans()) else None
            damaged = damaged or edits(data, other, source.draw)
            attempt(lambda path: path.write_bytes(damaged))

        mutate()

    def _attempt(self, case: Any, number: int, make: Callable[[Path], object]) -> None:
        from fuzz_cases import CANARY

        from cmiclib.errors import CMICError
        from cmiclib.study.speed import peak_memory

        folder, watch = self.work / "case", self.watch
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.work / "seed", folder)
        (folder / case.target).unlink()
        make(folder / case.target)
        say(case=case.name, file=number, path=str(folder / case.target))  # from here on the seconds count
        problem, watch.seen, watch.on = "", [], True
        try:
            case.read(folder)
        except CMICError as error:
            if error.path is None and "How to fix: " not in str(error):
                problem = f"the message names neither file nor cure: {error}"
        except BaseException as error:
            problem = f"{type(error).__name__}: {error!s:.300}"
        watch.on = False
        ran = [path for path in (self.work / CANARY, folder / CANARY) if path.exists()]
        executed = [*watch.seen, *(f"{path.name} is there" for path in ran)]
        for path in ran:
            path.unlink()
        if problem or executed:
            keep(case.name, folder / case.target)
        peak = peak_memory()
        say(case=case.name, done=number, problem=problem, executed=executed, peak=peak)


def keep(name: str, path: Path, root: Path = KEPT) -> None:
    """Keep a file that went wrong, by its case and its content; what is no file is made by code anyway."""
    if path.is_file() and not path.is_symlink() and path.stat().st_size <= KEPT_SIZE:
        data = path.read_bytes()
        kept = root / name / hashlib.sha256(data).hexdigest()[:12]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(data)


def say(**facts: object) -> None:
    """Print one line for the parent."""
    print(json.dumps(facts), flush=True)


def lines_of(process: subprocess.Popen) -> "queue.Queue[str | None]":
    """Collect a child's lines without waiting for them; None at the end."""
    found: queue.Queue[str | None] = queue.Queue()

    def collect() -> None:
        for line in process.stdout or ():
            found.put(line)
        found.put(None)

    threading.Thread(target=collect, daemon=True).start()
    return found


def seconds_of(pid: int) -> tuple[float, bool]:
    """Return the processor time that a process has had, and whether it would go on; nothing where nobody tells.

    It would go on where it runs or waits for its turn (R), for a disk (D), or was stopped by somebody (T).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0] in "RDT"
    except (OSError, IndexError):
        return 0.0, False


def run(names: list[str], count: int, number: int) -> Iterator[dict]:
    """Run children until the files of all cases are read; yields one dictionary a file.

    Args:
        names: of the cases.
        count: damaged files of each.
        number: the seed.
    """
    skip = 0
    while names:
        with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as work:
            options, reading = (
                ["--work", work, "--count", str(count), "--seed", str(number), "--skip", str(skip)],
                Path(),
            )
            for facts in read_lines([sys.executable, __file__, *options, *names]):
                if "file" in facts:
                    reading, skip = Path(facts.get("path", "")), facts["file"]
                if "problem" in facts:
                    yield {"case": names[0], "done": skip} | facts
                if "end" in facts:
                    names, skip = names[1:], 0
                if facts.get("dead"):
                    if reading == Path():
                        sys.exit("it ended before it read anything: another one would, too")
                    keep(names[0], reading)


def read_lines(command: list[str], patience: Patience = Patience()) -> Iterator[dict]:
    """Start a child and yield what it says, and at last why it was ended or ended before its time, if so."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    lines, used, before, idle, facts = lines_of(child), 0.0, 0.0, 0, dict[str, Any]()
    while True:
        try:
            line = lines.get(timeout=patience.tick)
        except queue.Empty:
            seconds, willing = seconds_of(child.pid)
            idle = 0 if willing or seconds > before else idle + 1  # looks, so that a pause of the machine is none
            before, limit = seconds, patience.silence if "path" in facts else patience.start
            if seconds - used < limit and idle * patience.silence < limit * patience.blocked:
                continue
            child.kill()
            said = f"no end after {seconds - used:.0f} s of work and {idle * patience.tick:.0f} s of waiting"
            yield {"problem": said, "hang": True, "dead": True}
            return
        if line is None:
            break
        facts, used, idle = json.loads(line), seconds_of(child.pid)[0], 0
        yield facts
    if child.wait() != 0 and not facts:
        sys.exit("the child did not begin: its message is above")
    if child.returncode != 0:
        yield {"problem": f"the process died with status {child.returncode}", "dead": True}


def main() -> int:
    """Fuzz every case, or one; return 0 where nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="few damaged files of each case")
    parser.add_argument("--case", help="only cases whose name contains this")
    parser.add_argument("--count", type=int, default=0, help="damaged files of each case")
    parser.add_argument("--seed", type=int, default=0, help="another number damages files in other ways")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the result into this JSON file")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    if given.work:
        Child(given.work).run(given.names, given.count, given.skip, given.seed)
        return 0
    from fuzz_cases import CASES
    from stored import keep

    total: dict[str, Any] = {"files": 0, "crashes": 0, "hangs": 0, "executed": 0, "peak_rss_gb": 0.0}
    names = [case.name for case in CASES if not given.case or given.case in case.name]
    for facts in run(names, given.count or (SHORT if given.short else FULL), given.seed):
        total["files"] += 1
        total["hangs"] += bool(facts.get("hang"))
        total["crashes"] += bool(facts["problem"]) and not facts.get("hang")
        total["executed"] += bool(facts.get("executed"))
        total["peak_rss_gb"] = max(total["peak_rss_gb"], round(facts.get("peak", 0) / 1e9, 3))
        if facts["problem"] or facts.get("executed"):
            print(
                f"{facts['case']}, file {facts['done']}: {facts['problem']} {facts.get('executed') or ''}", flush=True
            )
    print(json.dumps(total))
    if given.output:
        keep(given.output, "fuzz", total)
    return 1 if total["crashes"] or total["hangs"] or total["executed"] or total["peak_rss_gb"] >= 2 else 0


if __name__ == "__main__":
    sys.exit(main())
