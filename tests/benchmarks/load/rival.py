"""The usual design, to compare with: stock aiortc, a thread and a model loop for every session, every picture whole.

Place in the flow: ``python -m tests.benchmarks.load.rival`` in place of ``python -m server``; same viewers, same
avatar, same model, same interface as far as viewers need it.

How it is built follows the open-source talking heads on aiortc: each session starts a thread that makes its pictures
one after the other at 25 a second and puts them into a queue; ``recv`` of stock tracks takes them out, and aiortc
encodes them (x264 at its preset, on the default executor) and paces by the clock of the first picture. In silence the
thread shows the avatar's pictures without asking the model, but every picture is encoded for every viewer. A broadcast
is aiortc's ``MediaRelay`` before one session. It is spared what the rivals do besides: a mel spectrogram for every
window, full-frame blending in floats, a face restorer.

Invariants: nothing of the product's server is used; the product's model, avatar and paste-back are.
"""

from __future__ import annotations

import argparse
import asyncio
import fractions
import json
import logging
import queue
import secrets
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
from aiohttp import web
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
    VideoStreamTrack,
)
from aiortc.contrib.media import MediaRelay
from aiortc.mediastreams import MediaStreamError

from engine.audio.decode import decode_audio
from engine.audio.window import RollingWindows
from engine.avatar.body import Pose
from engine.avatar.bundle import Avatar, default_avatar, list_avatars, load_avatar
from engine.lipsync.base import LipSync, PreparedAvatar
from engine.registry import create_lipsync
from engine.renderer import PictureJob, render_now
from engine.types import CHUNK_SAMPLES, CHUNKS_PER_FRAME, FPS, FRAME_SAMPLES, PLAYOUT_RATE
from server.signaling import allow_loopback_only_hosts

FRAME_S = 1 / FPS
QUEUE_FRAMES = 4
AVATARS = Path(__file__).resolve().parents[3] / "avatars"
_CLOCK = fractions.Fraction(1, 90_000)

Frame = tuple[np.ndarray, np.ndarray]


class Loop:
    """A session's thread: makes its pictures and their sound, one after the other."""

    def __init__(self, lipsync: LipSync, prepared: PreparedAvatar, avatar: Avatar) -> None:
        """Args: lipsync, prepared: the model, shared; avatar: whose pictures are shown."""
        self._lipsync, self._prepared, self._avatar = lipsync, prepared, avatar
        self.frames: queue.Queue[Frame] = queue.Queue(QUEUE_FRAMES)
        self.made = {"idle": 0, "speaking": 0}
        self._speech: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._dropped = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def say(self, samples: np.ndarray) -> None:
        """Speaks (N,) int16 at 48 kHz after whatever waits."""
        self._speech.put(samples)

    def interrupt(self) -> None:
        """Drops what is spoken and what waits."""
        self._dropped.set()

    def close(self) -> None:
        """Ends the thread."""
        self._ended.set()

    def _run(self) -> None:
        picture = 0
        speech: RollingWindows | None = None
        while not self._ended.is_set():
            if self._dropped.is_set():
                self._dropped.clear()
                speech = None
                while not self._speech.empty():
                    self._speech.get_nowait()
            if speech is None and not self._speech.empty():
                speech = RollingWindows(self._lipsync.window)
                speech.push(self._speech.get_nowait())
                speech.end()
            image, sound = self._avatar.frames[picture], np.zeros(FRAME_SAMPLES, np.int16)
            if speech is not None:
                _, window, sound = speech.next()
                image = render_now(self._lipsync, PictureJob(self._prepared, Pose(picture), window)).image
            self.made["idle" if speech is None else "speaking"] += 1
            if speech is not None and not speech.frames_ready:
                speech = None
            picture = (picture + 1) % len(self._avatar.frames)
            self._put((image, sound))

    def _put(self, made: Frame) -> None:
        while not self._ended.is_set():
            try:
                return self.frames.put(made, timeout=0.5)
            except queue.Full:
                continue


class Player:
    """Hands a session's pictures and sound to its two tracks, each paced by the clock of its first frame."""

    def __init__(self, loop: Loop) -> None:
        """Args: loop: where they come from."""
        self._loop = loop
        self.video = Picture(self)
        self.audio = Sound(self)
        self._task = asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        while True:
            image, sound = await asyncio.to_thread(self._loop.frames.get)
            await self.video.waiting.put(image)
            for first in range(0, FRAME_SAMPLES, CHUNK_SAMPLES):
                await self.audio.waiting.put(sound[first : first + CHUNK_SAMPLES])

    def close(self) -> None:
        """Ends both tracks."""
        self._task.cancel()
        self._loop.close()
        self.video.stop()
        self.audio.stop()


class _Paced:
    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._start_s: float | None = None
        self._count = 0

    async def next(self) -> int:
        """Waits until the next frame is due; its number."""
        if self._start_s is None:
            self._start_s = time.time()
        else:
            self._count += 1
            await asyncio.sleep(max(0.0, self._start_s + self._count * self._step_s - time.time()))
        return self._count


class Picture(VideoStreamTrack):
    """Pictures for aiortc to encode."""

    def __init__(self, player: Player) -> None:
        """Args: player: whose pictures."""
        super().__init__()
        self.waiting: asyncio.Queue[np.ndarray] = asyncio.Queue(1)
        self._player = player
        self._pace = _Paced(FRAME_S)

    async def recv(self) -> av.VideoFrame:
        """The next one, when it is due."""
        image = await self.waiting.get()
        if self.readyState != "live":
            raise MediaStreamError
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts, frame.time_base = await self._pace.next() * 90_000 // FPS, _CLOCK
        return frame


class Sound(MediaStreamTrack):
    """Sound for aiortc to encode."""

    kind = "audio"

    def __init__(self, player: Player) -> None:
        """Args: player: whose sound."""
        super().__init__()
        self.waiting: asyncio.Queue[np.ndarray] = asyncio.Queue(CHUNKS_PER_FRAME)
        self._player = player
        self._pace = _Paced(FRAME_S / CHUNKS_PER_FRAME)

    async def recv(self) -> av.AudioFrame:
        """The next 20 ms, when they are due."""
        samples = await self.waiting.get()
        if self.readyState != "live":
            raise MediaStreamError
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = PLAYOUT_RATE
        frame.pts, frame.time_base = await self._pace.next() * CHUNK_SAMPLES, fractions.Fraction(1, PLAYOUT_RATE)
        return frame


class Rival:
    """The server: sessions by their ids."""

    def __init__(self, avatar: Avatar, lipsync: LipSync) -> None:
        """Args: avatar, lipsync: shared by all sessions."""
        self._avatar, self._lipsync, self._prepared = avatar, lipsync, lipsync.prepare(avatar)
        self._relay = MediaRelay()
        self._loops: dict[str, Loop] = {}
        self._players: dict[str, Player] = {}
        self._peers: dict[str, RTCPeerConnection] = {}

    def _begin(self) -> str:
        session_id = secrets.token_urlsafe(9)
        self._loops[session_id] = Loop(self._lipsync, self._prepared, self._avatar)
        self._players[session_id] = Player(self._loops[session_id])
        return session_id

    async def _answer(
        self, sdp: str, video: MediaStreamTrack, audio: MediaStreamTrack
    ) -> tuple[RTCPeerConnection, str]:
        allow_loopback_only_hosts()
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.addTrack(audio)
        peer.addTrack(video)
        codecs = RTCRtpSender.getCapabilities("video").codecs
        wanted = [codec for codec in codecs if codec.mimeType == "video/H264"]
        wanted += [codec for codec in codecs if codec.mimeType in ("video/VP8", "video/rtx")]
        for transceiver in peer.getTransceivers():
            if transceiver.kind == "video":
                transceiver.setCodecPreferences(wanted)
        await peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        return peer, peer.localDescription.sdp

    async def offer(self, request: web.Request) -> web.Response:
        """A session and its viewer."""
        asked = await request.json()
        session_id = self._begin()
        player = self._players[session_id]
        self._peers[session_id], sdp = await self._answer(asked["sdp"], player.video, player.audio)
        return web.json_response({"sdp": sdp, "type": "answer", "session_id": session_id})

    async def broadcast(self, _request: web.Request) -> web.Response:
        """A session that many watch."""
        session_id = self._begin()
        return web.json_response({"id": session_id, "session_id": session_id}, status=201)

    async def watch(self, request: web.Request) -> web.Response:
        """A viewer of such a session."""
        player = self._players[request.match_info["session_id"]]
        tracks = [self._relay.subscribe(track) for track in (player.video, player.audio)]
        viewer_id = secrets.token_urlsafe(9)
        self._peers[viewer_id], sdp = await self._answer(await request.text(), *tracks)
        headers = {"Location": f"/sessions/{viewer_id}"}
        return web.Response(status=201, text=sdp, content_type="application/sdp", headers=headers)

    async def audio(self, request: web.Request) -> web.Response:
        """Speaks a sound file."""
        samples = await asyncio.to_thread(decode_audio, await request.read(), 600.0)
        self._loops[request.match_info["session_id"]].say(samples)
        return web.json_response({}, status=202)

    async def interrupt(self, request: web.Request) -> web.Response:
        """Silence now."""
        self._loops[request.match_info["session_id"]].interrupt()
        return web.json_response({})

    async def close(self, request: web.Request) -> web.Response:
        """Ends a session or a viewer."""
        name = request.match_info["session_id"]
        if (player := self._players.pop(name, None)) is not None:
            player.close()
        self._loops.pop(name, None)
        if (peer := self._peers.pop(name, None)) is not None:
            await peer.close()
        return web.Response(status=204)

    async def metrics(self, _request: web.Request) -> web.Response:
        """What the loops have made, in the product's words; a loop that is slow makes fewer, it holds nothing."""
        lines = [
            f'visavis_frames_total{{kind="{kind}"}} {float(sum(loop.made[kind] for loop in self._loops.values()))}'
            for kind in ("idle", "speaking")
        ]
        return web.Response(text="\n".join(lines) + "\n")


async def _healthy(_request: web.Request) -> web.Response:
    return web.Response(text=json.dumps({"status": "ok"}))


def main(argv: list[str] | None = None) -> int:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load.rival", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--avatar", default="")
    args, _others = parser.parse_known_args(argv)
    logging.basicConfig(level="WARNING")
    avatar = load_avatar(AVATARS / (args.avatar or default_avatar(list_avatars(AVATARS))))
    lipsync = create_lipsync("builtin", threads=1)
    lipsync.warmup([1])
    rival = Rival(avatar, lipsync)
    app = web.Application(client_max_size=1 << 26)
    app.add_routes([
        web.get("/healthz", _healthy),
        web.get("/metrics", rival.metrics),
        web.post("/offer", rival.offer),
        web.post("/broadcasts", rival.broadcast),
        web.post("/whep/watch/{session_id}", rival.watch),
        web.post("/sessions/{session_id}/audio", rival.audio),
        web.post("/sessions/{session_id}/interrupt", rival.interrupt),
        web.delete("/sessions/{session_id}", rival.close),
    ])  # fmt: skip
    web.run_app(app, host=args.host, port=args.port, print=None, access_log=None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
