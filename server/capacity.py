"""How many talking sessions this machine carries: measured once, remembered, and made the number of places.

Place in the flow: ``server.__main__`` -> ``settle_places`` (one process) or ``measured_places`` (several) ->
``Sessions``; what is measured is ``server.calibration``'s business.

Invariants:
    * a number that somebody gave is left alone;
    * nobody waits for a measurement: until there is one a rough guess stands in its place;
    * what was measured while something else kept the machine busy is never remembered;
    * a fifth of the machine stays free, for whatever a measurement of a second does not see.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.avatar.bundle import default_avatar
from engine.config import Config, usable_cores
from engine.errors import BackendFailed, VisavisError
from engine.types import FPS
from server.library import Library

logger = logging.getLogger(__name__)

ROOM = 0.2
"""Share of the machine that is left free."""
WHOLE_SESSION = 1.4
"""What a talking session costs, by what its pictures and its sound cost: clock, events, a microphone that comes in."""
DISTURBED = 0.25
"""Share of the processors that others may have had during a measurement that counts."""
TIMEOUT_S = 90.0
"""Of a measurement with everything it loads; a large model is converted for the machine at its first start."""

_FILE = "capacity.json"
_VERSION = 1
"""Changes when the same machine would be measured differently."""
_REPOSITORY = Path(__file__).resolve().parents[1]
_RETRY_S = 20.0
_TRIES = 5
# The process needs no option of the server but those of its task, and none of the keys in the environment.
_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS", "XDG_CACHE_HOME", "XDG_DATA_HOME",
)  # fmt: skip


class Places(Protocol):
    """The part of ``Sessions`` that is used here: ``places`` may change at any time, and who is here stays."""

    places: int

    @property
    def taken(self) -> int:
        """Places in use."""
        ...


class Shown(Protocol):
    """A gauge."""

    def set(self, value: float) -> None:
        """Shows a value."""
        ...


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a measurement says.

    Attributes:
        pictures_per_s: talking pictures that the machine would make with all its processors.
        undisturbed: hardly anything else was going on.
    """

    pictures_per_s: float
    undisturbed: bool = True

    @property
    def talking_sessions(self) -> int:
        """That this machine carries with some room left; at least one."""
        return max(1, int((1 - ROOM) * self.pictures_per_s / (FPS * WHOLE_SESSION)))


def rough_places(config: Config) -> int:
    """The option, or a guess by the processors alone where it says ``auto``: half a core a session."""
    return config.max_sessions or 2 * usable_cores()


async def measured_places(config: Config, processes: int = 1) -> int:
    """The option, or what this machine carries where it says ``auto``: remembered, or measured now.

    Args:
        config: options.
        processes: that will serve.
    """
    if config.max_sessions:
        return config.max_sessions
    capacity = remembered(config, processes)
    if capacity is None:
        try:
            capacity = await measure(config, processes)
        except VisavisError as error:
            logger.warning("%s", error.message)
            return rough_places(config)
        if capacity.undisturbed:
            remember(config, processes, capacity)
    _announce(capacity)
    return capacity.talking_sessions


async def settle_places(config: Config, places: Places, shown: Shown) -> None:
    """Gives a server that is up as many places as its machine carries; measures while nobody is there to be disturbed.

    Args:
        config: options; nothing happens unless ``max_sessions`` is ``auto``.
        places: of the server.
        shown: the metric.
    """
    if config.max_sessions:
        return
    capacity = remembered(config)
    tries = 0
    while capacity is None:
        if not places.taken:
            try:
                found = await measure(config)
            except VisavisError as error:
                logger.warning("%s", error.message)
                return
            tries += 1
            if found.undisturbed and not places.taken:
                remember(config, 1, found)
            if (found.undisturbed and not places.taken) or tries == _TRIES:
                capacity = found
                break
        await asyncio.sleep(_RETRY_S)
    shown.set(capacity.talking_sessions)
    places.places = capacity.talking_sessions
    _announce(capacity)


def _announce(capacity: Capacity) -> None:
    many = capacity.talking_sessions
    logger.info("This machine carries %d talking session%s.", many, "" if many == 1 else "s")


def remembered(config: Config, processes: int = 1) -> Capacity | None:
    """What was measured on this machine with these options before; None when nothing was."""
    try:
        known = json.loads((config.cache_dir / _FILE).read_text("utf-8"))
        return Capacity(float(known[_key(_task(config, processes), processes)]["pictures_per_s"]))
    except (OSError, ValueError, KeyError, TypeError, VisavisError):
        return None


def remember(config: Config, processes: int, capacity: Capacity) -> None:
    """Keeps a measurement for the next start; where nothing can be written it is measured again."""
    path = config.cache_dir / _FILE
    key = _key(_task(config, processes), processes)
    with contextlib.suppress(OSError):
        try:
            known = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            known = {}
        known = known if isinstance(known, dict) else {}
        known[key] = {
            "pictures_per_s": round(capacity.pictures_per_s, 1), "talking_sessions": capacity.talking_sessions,
            "processes": processes,
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(known, indent=1), "utf-8")
        partial.replace(path)


async def measure(config: Config, processes: int = 1) -> Capacity:
    """Measures with so many processes at once; takes about four seconds, two of them loading.

    Raises:
        BackendFailed: ``capacity_unknown``.
    """
    task = json.dumps(_task(config, processes)).encode() + b"\n"
    running = [await _start() for _ in range(processes)]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            for process in running:
                assert process.stdin is not None, "it is a pipe"
                process.stdin.write(task)
            # All of them at once, or each would have the machine to itself.
            for process in running:
                await _told(process)
            for process in running:
                assert process.stdin is not None, "it is a pipe"
                process.stdin.write(b"\n")
            return combined([await _told(process) for process in running])
    except (OSError, ValueError, TimeoutError, KeyError) as error:
        raise BackendFailed(
            "capacity_unknown", f"What this machine carries could not be measured ({error or 'it took too long'});"
            " --max-sessions says how many may come in.",
        ) from error  # fmt: skip
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*(process.wait() for process in running))


def combined(told: Sequence[dict[str, float]]) -> Capacity:
    """What several processes together say that measured at the same time."""
    cores, machine = usable_cores(), os.cpu_count() or 1
    made = sum(one["pictures_per_s"] for one in told)
    own = sum(one["cpu_s"] / one["wall_s"] for one in told)
    busy = sum(one["busy_s"] / one["wall_s"] for one in told) / len(told)
    # On a machine of which this is a part, others are busy elsewhere.
    others = min(max(0.0, busy - own), cores - 0.1) if cores == machine else 0.0
    return Capacity(made * cores / (cores - others), others <= DISTURBED * cores)


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server.calibration",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        cwd=_REPOSITORY, env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    )  # fmt: skip


async def _told(process: asyncio.subprocess.Process) -> dict[str, float]:
    """The next line of a process. Raises ValueError when it has none."""
    assert process.stdout is not None, "it is a pipe"
    told = json.loads(await process.stdout.readline() or b"null")
    if not isinstance(told, dict) or not told:
        raise ValueError("a measuring process ended early")
    return told


def _task(config: Config, processes: int) -> dict[str, Any]:
    library = Library(config.avatars_dir, config.data_dir / "avatars")
    if not library.cards:
        raise BackendFailed("capacity_unknown", "What this machine carries cannot be measured without an avatar.")
    shipped = [name for name in library.cards if not library.is_made(name)]
    name = config.avatar or default_avatar(shipped or library.cards)
    return {
        "avatar": str(library.folder(name).absolute()),
        "cache_dir": str(config.cache_dir.absolute()),
        "lipsync": config.lipsync,
        "precision": config.precision,
        "weights_dir": str(config.weights_dir.absolute()),
        "render_threads": max(1, round(config.render_threads / processes)),
        "codec": "VP8" if config.video_codec == "vp8" else "H264",
        "bitrate": config.video_kbps * 1000,
        "size": library.cards[name].size,
    }


def _key(task: dict[str, Any], processes: int) -> str:
    """Everything on which a measurement depends."""
    told = {name: value for name, value in task.items() if name not in ("avatar", "cache_dir")}
    machine = [_VERSION, sys.version_info[:2], usable_cores(), _processor(), processes]
    return hashlib.sha256(json.dumps([told, machine], default=str).encode()).hexdigest()[:16]


def _processor() -> str:
    """What the processors call themselves, and how much of them a container may use."""
    said = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        said = next((line for line in lines if line.startswith("model name")), "")
    with contextlib.suppress(OSError):
        said += Path("/sys/fs/cgroup/cpu.max").read_text("ascii")
    return said
