"""Records what the governor does with a restorer that gets slow and fast again, in real time, frame by frame.

    python -m tests.benchmarks.governor [-o .bench/governor.jsonl] [--slow-ms 80] [--seconds 20] [--patience 1.0]

A session on real threads speaks for some seconds with models that take the time they are told to. One JSON line a
frame: ``at_s`` since the start, ``pts``, ``late_ms`` after its due time (below zero: before), ``held``, ``unrestored``,
``shown`` (level at which this very picture was restored), ``asked``, ``level`` and ``reason`` of the session, and
``restore_ms``, what the restorer takes at that time. The last line sums up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.config import usable_cores
from engine.governor import Governor
from engine.quality import Quality
from engine.renderer import Renderer
from engine.session import Session
from tests.fakes import FakeLipSync, FakeRestorer, FakeVoice, restored_level, tiny_avatar, tone

FAST_S, SLOW_S, DRAW_S = 0.004, 0.080, 0.003
IDLE_FRAMES = 10
"""Left out at the beginning: those that were there before somebody read them count as late."""


@dataclass
class Trace:
    """What was recorded.

    Attributes:
        rows: one a frame, see above.
        stolen_ms: longest time for which a thread that wanted to run did not; the machine's doing.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    stolen_ms: float = 0.0

    @property
    def levels(self) -> list[int]:
        """The levels that the session went through."""
        levels = [row["level"] for row in self.rows]
        return [level for at, level in enumerate(levels) if at == 0 or level != levels[at - 1]]

    def summary(self) -> dict[str, Any]:
        """The trace in a few figures."""
        last, first = self.rows[-1], self.rows[0]
        return {
            "frames": len(self.rows),
            "fps": round((len(self.rows) - 1) / (last["at_s"] - first["at_s"]), 2),
            "skipped": last["pts"] - first["pts"] + 1 - len(self.rows),
            "late": sum(row["late_ms"] > 0 for row in self.rows),
            "held": last["held"],
            "unrestored": last["unrestored"],
            "levels": self.levels,
            "stolen_ms": round(self.stolen_ms, 1),
        }


async def record(
    *,
    asked: Quality = 3,
    fast_s: float = FAST_S,
    slow_s: float = SLOW_S,
    slow_from_s: float = 3.0,
    slow_for_s: float = 5.0,
    seconds: float = 20.0,
    patience_s: float = 1.0,
    avatar_restored: bool = False,
) -> Trace:
    """Lets a session speak while the restorer is slow for a while.

    Args:
        asked: quality of the session.
        fast_s: what restoring a picture takes mostly.
        slow_s: what it takes meanwhile.
        slow_from_s: when it gets slow.
        slow_for_s: for how long.
        seconds: length of the speech.
        patience_s: the governor's.
        avatar_restored: the avatar's own pictures are restored at once; else not before the end.
    """
    restorer = FakeRestorer(compute_s=fast_s, avatar_gate=threading.Event())
    if avatar_restored and restorer.avatar_gate is not None:
        restorer.avatar_gate.set()
    renderer = Renderer(FakeLipSync(compute_s=DRAW_S), restorer=restorer)
    assert renderer.restoring is not None
    renderer.restoring.governor = Governor(1, usable_cores(), patience_s)
    session = Session(tiny_avatar(), renderer, FakeVoice(), quality=asked)
    trace, stop = Trace(), threading.Event()
    watch = threading.Thread(target=_watch, args=(trace, stop), daemon=True)
    try:
        await session.start()
        frames = aiter(session)
        for _ in range(IDLE_FRAMES):
            await anext(frames)
        session.play(tone(seconds))
        watch.start()
        started_s = time.monotonic()
        async for frame in frames:
            now_s = time.monotonic()
            at_s = now_s - started_s
            slow = slow_from_s <= at_s < slow_from_s + slow_for_s
            restorer.compute_s = slow_s if slow else fast_s
            counts = session._producer.counts  # type: ignore[union-attr]
            trace.rows.append(
                {
                    "at_s": round(at_s, 4),
                    "pts": frame.pts,
                    "late_ms": round((now_s - session.clock.due_s(frame.pts)) * 1000, 2),
                    "held": counts.held,
                    "unrestored": counts.unrestored,
                    "shown": restored_level(frame.image),
                    **session.quality.to_dict(),
                    "restore_ms": restorer.compute_s * 1000,
                }
            )
            if at_s >= seconds:
                break
    finally:
        stop.set()
        await session.aclose()
        await renderer.aclose()
    return trace


def _watch(trace: Trace, stop: threading.Event) -> None:
    while True:
        before_s = time.monotonic()
        if stop.wait(0.005):
            return
        trace.stolen_ms = max(trace.stolen_ms, (time.monotonic() - before_s - 0.005) * 1000)


def main() -> None:
    """Records and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/governor.jsonl"))
    parser.add_argument("--slow-ms", type=float, default=SLOW_S * 1000)
    parser.add_argument("--slow-from", type=float, default=3.0)
    parser.add_argument("--slow-for", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--patience", type=float, default=1.0)
    parser.add_argument("--avatar-restored", action="store_true")
    args = parser.parse_args()
    trace = asyncio.run(
        record(
            slow_s=args.slow_ms / 1000,
            slow_from_s=args.slow_from,
            slow_for_s=args.slow_for,
            seconds=args.seconds,
            patience_s=args.patience,
            avatar_restored=args.avatar_restored,
        )
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    lines = [*trace.rows, {"summary": trace.summary()}]
    args.output.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(json.dumps(trace.summary()))


if __name__ == "__main__":
    main()
