"""Where the server's processor time goes: samples of all its threads from outside, added up by what they work on.

Place in the flow: ``__main__`` -> ``sample`` (py-spy beside a running scene) -> ``costs``.

A stack belongs to the innermost function of the product in it, or to the library at its end where there is none: what
a function spends in a library it called is its own cost. Sampling does not stop the server, so a few samples are torn;
they are a few.

Invariants: what is measured is never profiled; a profile is a run of its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RATE = 100
LARGEST = 12
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>[^():]+)(?::\d+)?\)$")
_OURS = ("engine/", "server/")
_ENTRY = "server/__main__.py"
_WAITING = ("selectors.py", "threading.py")
"""Threads that are only about to sleep, or just awake."""


class NoProfiler(Exception):
    """py-spy is not there, or may not look into other processes; the message says what to do."""


def sample(pid: int, seconds: float, output: Path) -> None:
    """Writes the stacks of a process and its children, one a line with its count.

    Raises:
        NoProfiler: it could not be done.
    """
    program = Path(sys.executable).with_name("py-spy")
    if not program.exists():
        raise NoProfiler("py-spy is not installed: pip install -r requirements-dev.txt")
    command = [
        str(program), "record", "--pid", str(pid), "--subprocesses", "--nonblocking", "--threads",
        "--rate", str(RATE), "--duration", str(round(seconds)), "--format", "raw", "--output", str(output),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not output.exists():
        raise NoProfiler(f"py-spy could not sample the server: {(done.stderr or done.stdout).strip()[-300:]}")


def costs(lines: Iterable[str]) -> dict[str, Any]:
    """What took how much of the time in which threads ran, in percent.

    Args:
        lines: ``frame;frame;… count``, outermost first, as py-spy writes them.

    Returns:
        ``places``: the largest by file; ``functions``: by function; ``threads``: by kind of thread.
    """
    places: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    threads: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.strip().rpartition(" ")
        frames = [found for frame in stack.split(";") if (found := _FRAME.match(frame))]
        if not frames or not count.isdigit() or frames[-1]["file"] in _WAITING:
            continue
        owner = next((frame for frame in reversed(frames) if _is_ours(frame["file"])), frames[-1])
        places[owner["file"]] += int(count)
        functions[f"{owner['function']} ({owner['file']})"] += int(count)
        thread = re.search(r"thread \([^)]*\): ([^;]*)|(MainThread)", stack)
        threads[re.sub(r"[-_ ]*[\d_]+$", "", (thread[1] or thread[2]) if thread else "other") or "other"] += int(count)
    total = max(1, sum(places.values()))

    def largest(counted: Counter[str]) -> dict[str, float]:
        return {name: round(100 * count / total, 1) for name, count in counted.most_common(LARGEST)}

    return {"samples": total, "places": largest(places), "functions": largest(functions), "threads": largest(threads)}


def _is_ours(file: str) -> bool:
    # Everything on the event loop is inside the program's entry.
    return file.startswith(_OURS) and file != _ENTRY
