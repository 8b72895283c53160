"""A process that finds out how many talking pictures a second it can make: draws, encodes, encrypts and sends them.

Place in the flow: ``server.capacity`` starts ``python -m server.calibration``, one for each process that will serve,
and tells all of them to begin at once; task on stdin -> ``{"ready": …}`` -> a line -> result, all JSON, a line each.

What a talking session does for a picture is really done, by the same code, from all threads at once, as fast as it
goes: so the result has in it how this model gains from the machine's cores, and what the interpreter lock takes again.

Invariants:
    * nothing leaves the machine: packets go to a socket of its own that nobody reads;
    * it ends by itself, also when whoever started it is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from pylibsrtp import Policy, Session

from engine.audio.window import RollingWindows
from engine.avatar.body import Pose
from engine.avatar.bundle import Avatar, load_avatar
from engine.avatar.pictures import FOLDER, PictureFiles
from engine.config import usable_cores
from engine.lipsync.base import PreparedAvatar
from engine.registry import create_lipsync
from engine.renderer import Renderer
from engine.renderer.draw import PictureJob
from engine.types import CHUNK_SAMPLES, CHUNKS_PER_FRAME, PLAYOUT_RATE
from server.encoder import OpusEncoder, VideoCodec, create_video_encoder
from server.rtp import Codec, pack

MEASURED_S = 1.2
_WARM_S = 0.4
_PATIENCE_S = 20.0
"""Every picture is wanted in the end: none is given up for being late."""
_RTP_HEADER_BYTES = 20
_SYLLABLES_HZ, _PITCH_HZ = 4.0, 140


async def measure(task: dict[str, Any]) -> dict[str, float]:
    """Prepares, tells that it is ready, waits for a line, and measures.

    Args:
        task: ``avatar`` (its folder), ``cache_dir``, ``lipsync``, ``precision``, ``weights_dir``, ``render_threads``,
            ``codec`` and ``bitrate``.

    Returns:
        ``pictures_per_s`` of this process, ``cpu_s`` that it spent in ``wall_s``, and ``busy_s``, processor time that
        everything on the machine spent.
    """
    loop = asyncio.get_running_loop()
    lipsync = create_lipsync(task["lipsync"], precision=task["precision"], weights_dir=Path(task["weights_dir"]))
    avatar = load_avatar(Path(task["avatar"]), PictureFiles(Path(task["cache_dir"]) / FOLDER))
    renderer = Renderer(lipsync, task["render_threads"])
    encoders = ThreadPoolExecutor(usable_cores(), thread_name_prefix="encode")
    try:
        prepared = await renderer.prepare(avatar)
        await renderer.warmup()
        sound = _syllables(4.0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink, socket.socket(
            socket.AF_INET, socket.SOCK_DGRAM
        ) as out:
            sink.bind(("127.0.0.1", 0))
            out.setblocking(False)
            out.connect(sink.getsockname())
            talkers = [
                _Talker(renderer, prepared, sound, encoders, out, task["codec"], task["bitrate"], number)
                # More than can be served at once, or the last thread would wait for the first.
                for number in range(2 * usable_cores() + task["render_threads"])
            ]
            print(json.dumps({"ready": True}), flush=True)
            if not await loop.run_in_executor(None, sys.stdin.readline):
                return {}
            running = [asyncio.create_task(talker.talk(), name=f"talker-{talker.number}") for talker in talkers]
            await asyncio.sleep(_WARM_S)
            began_s, cpu_s, busy_s = time.monotonic(), time.process_time(), machine_busy_s()
            done = sum(talker.pictures for talker in talkers)
            await asyncio.wait(running, timeout=MEASURED_S, return_when=asyncio.FIRST_EXCEPTION)
            wall_s, made = time.monotonic() - began_s, sum(talker.pictures for talker in talkers) - done
            cpu_s, busy_s = time.process_time() - cpu_s, machine_busy_s() - busy_s
            for talking in running:
                if talking.done():
                    await talking
                talking.cancel()
            await asyncio.wait(running)
        return {"pictures_per_s": made / wall_s, "cpu_s": cpu_s, "busy_s": busy_s, "wall_s": wall_s}
    finally:
        encoders.shutdown(wait=False, cancel_futures=True)
        await renderer.aclose()


class _Talker:
    """A session that talks without a pause and waits for no clock.

    Attributes:
        pictures: that it has sent.
    """

    def __init__(
        self,
        renderer: Renderer,
        prepared: PreparedAvatar,
        sound: np.ndarray,
        encoders: ThreadPoolExecutor,
        out: socket.socket,
        codec: VideoCodec,
        bitrate: int,
        number: int,
    ) -> None:
        self.number, self.pictures = number, 0
        self._renderer, self._prepared, self._sound = renderer, prepared, sound
        self._encoders, self._out, self._codec = encoders, out, codec
        self._video = create_video_encoder(codec, *prepared.avatar.size, bitrate)
        self._opus = OpusEncoder()
        self._srtp = Session(Policy(key=os.urandom(30), ssrc_type=Policy.SSRC_ANY_OUTBOUND))
        self._sequence = 0

    async def talk(self) -> None:
        """Goes on until it is cancelled."""
        loop = asyncio.get_running_loop()
        avatar: Avatar = self._prepared.avatar
        windows = RollingWindows(self._renderer.lipsync.window)
        for frame in count():
            while not windows.frames_ready:
                windows.push(self._sound)
            _, mel, sound = windows.next()
            pose = Pose((11 * self.number + frame) % len(avatar.frames))
            job = PictureJob(self._prepared, pose, mel, sequence=frame)
            drawn = await self._renderer.submit(job, time.monotonic() + _PATIENCE_S).result
            packet = await loop.run_in_executor(self._encoders, self._video.encode, drawn.image, frame, False)
            self._send(self._codec, bytes(packet))
            for chunk in range(CHUNKS_PER_FRAME):
                samples = sound[chunk * CHUNK_SAMPLES : (chunk + 1) * CHUNK_SAMPLES]
                at = (CHUNKS_PER_FRAME * frame + chunk) * CHUNK_SAMPLES
                heard = await loop.run_in_executor(self._encoders, self._opus.encode, samples, at)
                self._send("opus", bytes(heard))
            self.pictures += 1

    def _send(self, codec: Codec, data: bytes) -> None:
        for payload in pack(codec, data).payloads:
            self._sequence = (self._sequence + 1) & 0xFFFF
            header = b"\x80\x60" + self._sequence.to_bytes(2, "big") + bytes(_RTP_HEADER_BYTES - 4)
            try:
                self._out.send(self._srtp.protect(header + payload))
            except BlockingIOError:
                continue  # the way to the socket nobody reads is full, which costs as much


def machine_busy_s() -> float:
    """Processor time that everything on this machine has spent since it began, seconds; 0 where nobody tells."""
    try:
        words = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, *rest = (int(word) for word in words[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def _syllables(seconds: float) -> np.ndarray:
    """(n,) int16 at 48 kHz: a buzz that opens and closes four times a second, so that mouths move as in speech."""
    time_s = np.arange(round(seconds * PLAYOUT_RATE)) / PLAYOUT_RATE
    buzz = sum(np.sin(2 * np.pi * _PITCH_HZ * k * time_s) / k for k in range(1, 20))
    loud = np.clip(np.sin(2 * np.pi * _SYLLABLES_HZ * time_s), 0, 1)
    return np.asarray(9000 * buzz * loud, np.int16)


def main() -> int:
    """Reads a task, tells what came of it. Returns the exit code."""
    print(json.dumps(asyncio.run(measure(json.loads(sys.stdin.readline())))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
