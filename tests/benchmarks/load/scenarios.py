"""What crowds do: all talk, all are silent, many watch one; each a ramp until the floor breaks.

Place in the flow: ``__main__`` -> ``climb`` -> points.

Invariants: a ramp goes on the same server and crowd, so that what accumulates is seen; it ends with the first point
that does not hold, after a second try where the machine was busy with something else, and a try in between.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import sounds
from tests.benchmarks.load.client import Door
from tests.benchmarks.load.crowd import PER_PROCESS, Crowd, CrowdFailed
from tests.benchmarks.load.ramp import Point, measure_point
from tests.benchmarks.load.server import LoadedServer
from tests.benchmarks.serving import PRODUCT, REPOSITORY, ServerFailed

SETTLE_S = 3.0
"""From the last arrival, or from asking for speech, to the measurement."""
SPARE_S = 10.0
"""Speech beyond that: the first session is asked to speak long before the last."""
BUSY_PERCENT = 25.0
"""So much of a core used by others makes a failed point doubtful."""
VOICES = 8
"""Sessions say the same recordings from so many different places on."""

SCENARIOS = {
    "talking": (2, 4, 6, 8, 10, 12, 14, 16, 20, 24),
    "idle": (20, 40, 80, 120, 160, 200, 300),
    "broadcast": (50, 100, 150, 200, 300, 400),
}
RIVAL_POINTS = {"talking": (1, 2, 3, 4), "idle": (1, 2, 4, 6, 8), "broadcast": (1, 2, 4, 6, 8)}


@dataclass(frozen=True, slots=True)
class Setting:
    """How a ramp is run.

    Attributes:
        folder: for sounds and logs.
        seconds: each point is watched for so long.
        module, tree, options: what is run, in which checkout, with which further options.
        processes: of viewers; as many as it takes when 0.
        say: told what happens.
    """

    folder: Path
    seconds: float
    module: str = PRODUCT
    tree: Path = REPOSITORY
    options: tuple[str, ...] = ()
    processes: int = 0
    say: Callable[[str], None] = print


class Scene:
    """A server, a crowd before it, and what they do."""

    def __init__(self, name: str, setting: Setting, most: int) -> None:
        """
        Args:
            name: of ``SCENARIOS``.
            setting: how it is run.
            most: viewers there will be at most.
        """
        self._name, self._setting = name, setting
        options = ("--max-sessions", str(most + 2), "--idle-session-s", "7200", *setting.options)
        if name == "broadcast" and setting.module == PRODUCT:
            options += ("--broadcast-viewers", str(most + 2))
        log = setting.folder / f"{name}-{setting.module}.log"
        self.server = LoadedServer(log, setting.module, options, setting.tree)
        try:
            self.crowd = Crowd(setting.processes or -(-most // PER_PROCESS))
            self._sounds = _speech(setting.folder, setting.seconds + SETTLE_S + SPARE_S)
            self._broadcast = self._post("/broadcasts", {}) if name == "broadcast" else {}
        except BaseException:
            self.server.stop()
            raise

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.crowd.__exit__()
        self.server.stop()

    def gather(self, count: int) -> None:
        """Lets viewers in until there are so many, or out, and has them do what the scene is about.

        Raises:
            CrowdFailed: somebody was refused.
        """
        if count < len(self.crowd):
            self.crowd.close_to(count)
        watch = self._broadcast.get("id", "")
        self.crowd.open_to(count, Door(self.server.url, watch=watch, channel=not watch))
        if self._name == "talking":
            self.crowd.speak(self.server.url, {index: self._sounds[index % VOICES] for index in range(count)})
        elif self._broadcast:
            session = f"/sessions/{self._broadcast['session_id']}"
            self._post(f"{session}/interrupt", b"")
            self._post(f"{session}/audio", self._sounds[0].read_bytes())
        time.sleep(SETTLE_S)

    def measure(self) -> Point:
        """Watches everybody who is there."""
        return measure_point(self.server, self.crowd, self._setting.seconds)

    def _post(self, path: str, body: dict[str, Any] | bytes) -> dict[str, Any]:
        data, kind = (body, "audio/wav") if isinstance(body, bytes) else (json.dumps(body).encode(), "application/json")
        request = urllib.request.Request(self.server.url + path, data, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.loads(response.read() or b"{}")  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            raise ServerFailed(f"{path} was answered with {error.code}: {error.read()[:200]!r}") from error


def climb(name: str, setting: Setting, points: Sequence[int], *, to_the_end: bool = False) -> list[Point]:
    """Measures point after point until one does not hold.

    Args:
        name: of ``SCENARIOS``.
        setting: how it is run.
        points: numbers of viewers, growing.
        to_the_end: measure all of them, once, whatever comes.

    Raises:
        ServerFailed: the server did not start, or refused what was asked, before there was any point.
        CrowdFailed: viewers were refused or got lost, likewise.
    """
    measured: list[Point] = []
    with Scene(name, setting, max(points)) as scene:

        def measure(count: int) -> Point:
            scene.gather(count)
            point = scene.measure()
            setting.say(line(name, point))
            if not point.holds and not to_the_end and point.others_percent > BUSY_PERCENT:
                setting.say(f"others used {point.others_percent:.0f} % of a core: once more")
                scene.gather(count)
                point = scene.measure()
                setting.say(line(name, point))
            measured.append(point)
            return point

        held = 0
        for count in points:
            try:
                if measure(count).holds:
                    held = count
                elif not to_the_end:
                    if count - held > 1 and held:
                        measure((held + count) // 2)
                    break
            except (CrowdFailed, ServerFailed) as error:
                if not measured:
                    raise
                setting.say(f"{name} ends before {count}: {error}")
                break
    return sorted(measured, key=lambda point: point.viewers)


def largest(points: Sequence[Point]) -> int:
    """Viewers of the largest point that held; 0 when none did."""
    return max((point.viewers for point in points if point.holds), default=0)


def line(name: str, point: Point) -> str:
    """A point in a line."""
    verdict = "holds" if point.holds else "BREAKS"
    decoded = "  –  " if point.decoded_fps is None else f"{point.decoded_fps:5.1f}"
    return (
        f"{name:10}{point.viewers:4}  {verdict:7}{point.fps:5.1f} fps, fresh {point.fresh_fps:5.1f}, decoded {decoded}"
        f"{point.freezes:5} freezes  late p95 {point.late_ms_p95:7.1f} ms (middle {point.late_ms_p95_median:6.1f})"
        f"  CPU {point.cpu_percent:5.0f} % ({point.cpu_percent_each:5.2f} each), viewers {point.crowd_percent:4.1f} %,"
        f" others {point.others_percent:3.0f} %  {point.pss_mb:5.0f} MB  {point.threads} threads"
        + (f"  {point.ended} ENDED" if point.ended else "")
    )


def _speech(folder: Path, seconds: float) -> list[Path]:
    """Recordings of people from different places on, as files; made once in a folder."""
    paths = [folder / f"speech-{number}.wav" for number in range(VOICES)]
    if not all(path.exists() for path in paths):
        sound = sounds.speech(sounds.load_sources(), max(seconds, 60.0))
        length = int(seconds * sounds.PLAYOUT_RATE)
        for number, path in enumerate(paths):
            sounds.write_wav(path, np.roll(sound, -number * len(sound) // VOICES)[:length])
    return paths
