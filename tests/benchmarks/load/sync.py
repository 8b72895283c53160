"""Sound against picture, and the age of pictures, in content, while a crowd is there.

Place in the flow: ``__main__`` -> ``sync`` -> the stamped server (``probe_server``), a crowd, witnesses -> figures.

Every picture carries its number and on some beats flashes and beeps (see ``strip``); sessions speak all the while, so
that the machine does what it does in earnest. Two offsets are told: by arrival, and by the time stamps and sender
reports of both streams, which is how a browser lays them on each other.

Invariants: pictures are decoded after the measurement.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

from tests.benchmarks.load import figures, witness
from tests.benchmarks.load.ramp import witnesses
from tests.benchmarks.load.scenarios import Scene, Setting
from tests.benchmarks.serving import PROBE


def sync(setting: Setting, sessions: int) -> dict[str, Any]:
    """Measures with so many sessions that talk.

    Raises:
        ServerFailed, CrowdFailed: the server or a session did not come.
    """
    with Scene("talking", replace(setting, module=PROBE), sessions) as scene:
        scene.gather(sessions)
        watch = scene.crowd.start(setting.seconds, witnesses(sessions))
        time.sleep(setting.seconds + 1)
        start_ns, end_ns, _, received = watch()
    seen = []
    for one in received.values():
        if not one.clear["video"]:
            continue
        decoded = witness.decode(one.clear["video"])
        units = figures.between(figures.units(one.video), start_ns, end_ns)
        seen.append({
            **asdict(witness.beats(decoded, one.clear["audio"], one.due)),
            "decoded_fps": witness.decoded_fps(decoded, start_ns, end_ns),
            "corrupt": decoded.corrupt,
            "age_ms_p50": figures.age_ms(units, one.due.get("video"), figures.VIDEO_RATE),
        })  # fmt: skip
    return {"sessions": sessions, "witnesses": seen}
