"""How many sessions one renderer serves: they all speak, in real time, without WebRTC, and more and more of them.

    python -m tests.benchmarks.renderer_load [--lipsync builtin] [--restorer none] [--points 1 2 4] [--seconds 10]
        [--threads N] [--precision auto] [--quality auto] [--avatar maya] [--weights-dir DIR] [--model-process]
        [-o .bench/renderer_load.json]

Sessions are the product's own (speech, windows of sound, body, renderer, restorer and governor), on one event loop, fed
with recordings of speech, each with its own phase. Without ``--points`` their number doubles until the floor breaks,
and is then narrowed down. The floor: at most 0.5 % of the pictures held because they were late, no session below 24.5
frames a second, and 95 % of the frames out within 40 ms of their due time.

What encoding and sending cost comes on top of it: ``tests.benchmarks.load`` has the whole.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.audio.decode import decode_audio
from engine.avatar.bundle import Avatar, load_avatar
from engine.avatar.pictures import FOLDER, PictureFiles
from engine.config import Config
from engine.limits import SessionLimits
from engine.lipsync.base import FacePatch, LipJob, LipSync
from engine.metrics import EngineMetrics
from engine.model_process import ModelProcess
from engine.registry import create_lipsync, create_restorer
from engine.renderer import Renderer
from engine.restore.base import FaceRestorer
from engine.session import Session
from tests.fakes import FakeVoice, babble

HELD_PERCENT, FPS_FLOOR, LATE_MS = 0.5, 24.5, 40.0
SETTLE_S = 2.0
"""Of each point, left out: sessions begin, and the governor finds its level."""
_MOST = 512


@dataclass
class Counting:
    """A lip-sync model that counts how many mouths it is asked for at a time."""

    model: LipSync
    sizes: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict(self, jobs: Sequence[LipJob]) -> list[FacePatch]:
        self.sizes.append(len(jobs))
        return self.model.predict(jobs)


@dataclass
class Listener:
    """Reads the frames of one session, and notes how late they were."""

    session: Session
    late_ms: list[float] = field(default_factory=list)
    count: int = 0

    async def listen(self) -> None:
        async for frame in self.session:
            self.count += 1
            self.late_ms.append((time.monotonic() - self.session.clock.due_s(frame.pts)) * 1000)


def speech() -> np.ndarray:
    """(n,) int16 at 48 kHz, at least a minute: recordings beside the repository, else noise like syllables."""
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    folder = Path(os.environ.get("VISAVIS_SHARED", beside)) / "data" / "speech"
    found = sorted(folder.glob("*.wav"))
    parts = [decode_audio(path, 60.0) for path in found[:6]] or [babble(60.0)]
    sound = np.concatenate(parts)
    return np.tile(sound, -(-60 * 48_000 // len(sound)))


async def point(
    count: int,
    avatar: Avatar,
    lipsync: LipSync,
    restorer: FaceRestorer | None,
    sound: np.ndarray,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """One point of the ramp."""
    counting, metrics = Counting(lipsync), EngineMetrics()
    renderer = Renderer(counting, args.threads, restorer=restorer, metrics=metrics)  # type: ignore[arg-type]
    chance = random.Random(count)
    limits = SessionLimits(audio_s=3600.0)
    sessions: list[Session] = []
    tasks: list[asyncio.Task[None]] = []
    try:
        await renderer.prepare(avatar)
        await renderer.warmup()
        listeners = []
        for _ in range(count):
            session = Session(avatar, renderer, FakeVoice(), limits=limits, quality=args.quality, metrics=metrics)
            sessions.append(session)
            await session.start()
            start = chance.randrange(len(sound) // 2)
            session.play(sound[start : start + round((args.seconds + SETTLE_S + 5) * 48_000)])
            listeners.append(Listener(session))
            tasks.append(asyncio.create_task(listeners[-1].listen()))
            await asyncio.sleep(chance.uniform(0, 0.04))
        await asyncio.sleep(SETTLE_S)
        before = [_counts(session) for session in sessions]
        for listener in listeners:
            listener.late_ms.clear()
            listener.count = 0
        counting.sizes.clear()
        started_s, cpu_s = time.monotonic(), time.process_time()
        await asyncio.sleep(args.seconds)
        took_s, cpu_s = time.monotonic() - started_s, time.process_time() - cpu_s
        after = [_counts(session) for session in sessions]
        frames = [listener.count for listener in listeners]
        late_ms = np.sort(np.concatenate([listener.late_ms for listener in listeners]))
        levels = [session.quality.level for session in sessions]
        held = sum(now[0] - then[0] for then, now in zip(before, after, strict=True))
        unrestored = sum(now[1] - then[1] for then, now in zip(before, after, strict=True))
        sizes = list(counting.sizes)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(session.aclose() for session in sessions))
        await renderer.aclose()
    total = max(1, sum(frames))
    row = {
        "sessions": count,
        "held_percent": round(100 * held / total, 2),
        "unrestored_percent": round(100 * unrestored / total, 2),
        "fps_least": round(min(frames) / took_s, 2),
        "late_ms_p95": round(float(late_ms[int(0.95 * (len(late_ms) - 1))]), 1),
        "batch_mean": round(sum(sizes) / max(1, len(sizes)), 2),
        "levels": sorted(levels),
        "cpu_ms_per_frame": round(1000 * cpu_s / total, 2),
        "cores": round(cpu_s / took_s, 2),
        "load": os.getloadavg()[0],
    }
    row["holds"] = holds(row)
    return row


def holds(row: dict[str, Any]) -> bool:
    """Whether a point is above the floor."""
    return bool(row["held_percent"] <= HELD_PERCENT and row["fps_least"] >= FPS_FLOOR and row["late_ms_p95"] <= LATE_MS)


def _counts(session: Session) -> tuple[int, int]:
    counts = session._producer.counts  # type: ignore[union-attr]
    return counts.held, counts.unrestored


async def ramp(args: argparse.Namespace) -> dict[str, Any]:
    """All points, and the largest number of sessions above the floor."""
    config = Config(
        lipsync=args.lipsync, restorer=args.restorer, precision=args.precision, weights_dir=args.weights_dir
    )
    process = ModelProcess(config) if args.model_process else None
    try:
        socket = ""
        if process is not None:
            await process.start()
            socket = process.address
        options = {"precision": args.precision, "weights_dir": args.weights_dir, "socket": socket}
        lipsync = await asyncio.to_thread(lambda: create_lipsync(args.lipsync, **options))
        restorer = await asyncio.to_thread(lambda: create_restorer(args.restorer, **options))
        pictures = PictureFiles(config.cache_dir / FOLDER)
        avatar = await asyncio.to_thread(lambda: load_avatar(config.avatars_dir / args.avatar, pictures))
        sound = await asyncio.to_thread(speech)
        rows: list[dict[str, Any]] = []

        async def run(count: int) -> bool:
            row = await point(count, avatar, lipsync, restorer, sound, args)
            rows.append(row)
            print(json.dumps(row), flush=True)
            return bool(row["holds"])

        if args.points:
            for count in args.points:
                await run(count)
        else:
            good, bad = 0, 1
            while bad <= _MOST and await run(bad):
                good, bad = bad, 2 * bad
            while bad - good > max(1, good // 8):
                middle = (good + bad) // 2
                good, bad = (middle, bad) if await run(middle) else (good, middle)
    finally:
        if process is not None:
            await process.aclose()
    most = max((row["sessions"] for row in rows if row["holds"]), default=0)
    keys = ("lipsync", "restorer", "precision", "quality", "threads", "avatar", "seconds", "model_process")
    return {"talking_sessions": most, **{key: getattr(args, key) for key in keys}, "rows": rows}


def main() -> None:
    """Runs the ramp and writes what came of it."""
    usual = Config()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lipsync", default="builtin")
    parser.add_argument("--restorer", default="none")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--quality", default="auto", type=lambda word: int(word) if word.isdigit() else word)
    parser.add_argument("--avatar", default="maya")
    parser.add_argument("--threads", type=int, default=usual.render_threads)
    parser.add_argument("--weights-dir", type=Path, default=usual.weights_dir)
    parser.add_argument("--points", type=int, nargs="*")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--model-process", action="store_true", help="let another process run the models")
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/renderer_load.json"))
    args = parser.parse_args()
    cv2.setNumThreads(1)
    result = asyncio.run(ramp(args))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"talking sessions: {result['talking_sessions']}")


if __name__ == "__main__":
    main()
