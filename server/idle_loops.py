"""Loops of pictures encoded once for everybody who is shown them: what an avatar at rest costs beyond its packets.

Place in the flow: ``AvatarFrame.still`` -> video track -> ``IdleLoops.find`` -> parcels, in place of an encoder's.

A loop is made in the background, or read from where it was kept, when somebody is first shown it or before; until
then, and whenever a frame is more than a picture of it, sessions encode themselves. It is cut into pieces of a second,
each of which a decoder can start at, so a session that goes over waits a second at most; and whoever lost something
leaves it, for a key frame at once.

Invariants:
    * one thread encodes; it rests as long as it works, unless somebody waits: nothing spares a busy machine more than
      the loop that many would otherwise encode themselves;
    * the pictures are of one quality throughout, so where a piece begins cannot be seen;
    * at most ``LIMIT_BYTES`` are kept, those least used go first, and all of an avatar go with it;
    * what cannot be encoded is tried once.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np

from engine.avatar.body import Pose
from engine.avatar.bundle import Avatar
from engine.avatar.fingerprint import fingerprint
from engine.marking import mark_h264
from engine.planner import SILENCE
from engine.types import FPS, AvatarFrame
from server.encoder import BUFFER_S, VideoCodec, describe_pictures, h264_options, to_frame
from server.loop_files import LoopFile
from server.packing import Packed
from server.rtp import PAYLOAD_LIMIT, Parcel, pack

logger = logging.getLogger(__name__)

PIECE_FRAMES = FPS
"""Pictures from one key frame to the next."""
LIMIT_BYTES = 64 << 20
"""Of all loops kept; ten seconds of 512 x 512 are 1.3 megabytes."""

_VERSION = "2"
"""Changes when the same pictures would give other parcels."""
_H264_QUALITY = "16"
_VP8_QUALITY = "4"
"""As good as sessions' own encoders are at rest, 51.5 to 52.2 dB; for a quarter less of the bitrate, as they try
harder."""


@dataclass(slots=True, eq=False)
class IdleLoop:
    """A stretch of an avatar's pictures that flows into itself, encoded.

    Attributes:
        start: number of its first picture.
        parcels: one a picture; every ``PIECE_FRAMES`` th is a key frame, the first among them.
        size_bytes: memory they take.
        used: grows with each use of any loop, so that it tells which was used last.
    """

    start: int
    parcels: tuple[Parcel, ...]
    size_bytes: int
    used: int = 0

    def at(self, index: int) -> Parcel | None:
        """Picture number ``index`` of the avatar; None when it is not of the loop."""
        position = index - self.start
        return self.parcels[position] if 0 <= position < len(self.parcels) else None

    def piece_frames(self, index: int) -> int:
        """Pictures from number ``index`` to the next key frame, itself included, if it is one."""
        return min(PIECE_FRAMES, len(self.parcels) - (index - self.start))

    def after(self, index: int) -> int:
        """Number of the picture that follows."""
        return self.start + (index - self.start + 1) % len(self.parcels)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a loop is made of, beside the avatar."""

    start: int
    count: int
    codec: VideoCodec
    bitrate: int
    dress: Packed | None

    def name(self, avatar: Avatar) -> str:
        """Of a file that holds it."""
        settings = f"{_VERSION} {_H264_QUALITY} {_VP8_QUALITY} {PIECE_FRAMES} {PAYLOAD_LIMIT} {av.library_versions}"
        made_of = f"{fingerprint(avatar)} {self.start} {self.count} {self.codec} {self.bitrate} {settings}"
        return hashlib.sha256(made_of.encode()).hexdigest()[:32]


_Kept: TypeAlias = dict[_Wanted, "IdleLoop | _Order"]
"""Loops of an avatar, or the order where one is being made or cannot be."""


@dataclass(slots=True)
class _Order:
    """Something to encode; the avatar may be gone by then."""

    avatar: weakref.ref[Avatar]
    wanted: _Wanted
    urgent: bool
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)


class IdleLoops:
    """The loops of one process.

    Args:
        on_kept: called with how many there are when that changed.
        limit_bytes: kept at most.

    Attributes:
        folder_of: where an avatar's loops are kept on disk; nowhere when None.
    """

    def __init__(self, on_kept: Callable[[int], None] = lambda count: None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder_of: Callable[[Avatar], Path | None] = lambda avatar: None
        self._on_kept = on_kept
        self._limit_bytes = limit_bytes
        self._kept: weakref.WeakKeyDictionary[Avatar, _Kept] = weakref.WeakKeyDictionary()
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._uses = itertools.count(1)

    def find(
        self, avatar: Avatar, index: int, codec: VideoCodec, bitrate: int, dress: Packed | None = None
    ) -> IdleLoop | None:
        """The loop that holds a picture; ordered when there is none yet. Call it on the event loop.

        Args:
            avatar: whose picture.
            index: its number.
            codec: what the peers agreed on.
            bitrate: bits per second at most.
            dress: how pictures are dressed; as filmed when None.
        """
        stretch = _stretch(avatar, index)
        if stretch is None:
            return None
        found = self._find(avatar, _Wanted(*stretch, codec, bitrate, dress), urgent=True)
        if isinstance(found, _Order):
            # Somebody waits from now on, though nobody may have when it was ordered.
            found.urgent = True
            return None
        found.used = next(self._uses)
        return found

    def prepare(self, avatar: Avatar, codec: VideoCodec, bitrate: int) -> None:
        """Makes an avatar's idle loop before anybody waits for it, as filmed. Call it on the event loop."""
        self._find(avatar, _Wanted(0, len(avatar.frames), codec, bitrate, None), urgent=False)

    def close(self) -> None:
        """Encodes no more, from the next picture on; idempotent."""
        self._closed.set()
        self._orders.put(None)

    @property
    def size_bytes(self) -> int:
        """Memory that all loops take."""
        return sum(loop.size_bytes for _, _, loop in self._all())

    def _all(self) -> list[tuple[_Kept, _Wanted, IdleLoop]]:
        return [
            (kept, wanted, loop)
            for kept in self._kept.values()
            for wanted, loop in kept.items()
            if isinstance(loop, IdleLoop)
        ]

    def _find(self, avatar: Avatar, wanted: _Wanted, *, urgent: bool) -> IdleLoop | _Order:
        kept = self._kept.setdefault(avatar, {})
        if wanted not in kept:
            kept[wanted] = order = _Order(weakref.ref(avatar), wanted, urgent)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="idle-loops", daemon=True)
                self._thread.start()
            self._orders.put(order)
        return kept[wanted]

    def _keep(self, order: _Order, loop: IdleLoop) -> None:
        avatar = order.avatar()
        if avatar is None:
            return
        loop.used = next(self._uses)
        self._kept.setdefault(avatar, {})[order.wanted] = loop
        everything = sorted(self._all(), key=lambda entry: entry[2].used)
        size_bytes = sum(kept.size_bytes for *_, kept in everything)
        # The new one stays, however large.
        for kept, wanted, old in everything[:-1]:
            if size_bytes > self._limit_bytes:
                del kept[wanted]
                size_bytes -= old.size_bytes
        self._on_kept(len(self._all()))

    def _work(self) -> None:
        while (order := self._orders.get()) is not None and not self._closed.is_set():
            try:
                loop = self._read_or_make(order)
            except Exception:
                # Whatever it is: there is one thread for the loops of all avatars.
                logger.exception("an idle loop could not be encoded; its sessions encode themselves")
                continue
            if loop is not None:
                # The server may have closed its event loop meanwhile.
                with suppress(RuntimeError):
                    order.loop.call_soon_threadsafe(self._keep, order, loop)

    def _read_or_make(self, order: _Order) -> IdleLoop | None:
        avatar, wanted = order.avatar(), order.wanted
        if avatar is None:
            return None
        folder = self.folder_of(avatar) if wanted.dress is None else None
        file = LoopFile(folder, wanted.name(avatar)) if folder is not None else None
        # Nothing of the avatar is held while this waits.
        del avatar
        parcels = file.read() if file is not None else None
        if parcels is None or not _is_whole(parcels, wanted):
            parcels = self._make(order)
            if parcels is None:
                return None
            if not _is_whole(parcels, wanted):
                raise ValueError("the encoder did not return a picture for each it got")
            if file is not None:
                file.write(parcels)
        size_bytes = sum(len(payload) for parcel in parcels for payload in parcel.payloads)
        return IdleLoop(wanted.start, parcels, size_bytes)

    def _make(self, order: _Order) -> tuple[Parcel, ...] | None:
        wanted = order.wanted
        encoder: av.VideoCodecContext | None = None
        data: list[tuple[bytes, bool]] = []
        for position in range(wanted.count):
            started_s = time.monotonic()
            avatar = order.avatar()
            if avatar is None or self._closed.is_set():
                return None
            image = _picture(avatar, wanted.start + position, wanted.dress)
            del avatar
            if encoder is None:
                encoder = _encoder(wanted, image.shape[1], image.shape[0])
            data += _encode(encoder, to_frame(encoder, image, position, position % PIECE_FRAMES == 0))
            if self._closed.wait(0 if order.urgent else time.monotonic() - started_s):
                return None
        assert encoder is not None, "a loop has two pictures at least"
        data += _encode(encoder, None)
        return tuple(pack(wanted.codec, packet, key_frame) for packet, key_frame in data)


def _is_whole(parcels: Sequence[Parcel], wanted: _Wanted) -> bool:
    return len(parcels) == wanted.count and all(parcel.key_frame for parcel in parcels[::PIECE_FRAMES])


def _stretch(avatar: Avatar, index: int) -> tuple[int, int] | None:
    """First number and count of the loop that a picture belongs to; None where it belongs to none."""
    if index < len(avatar.frames):
        return 0, len(avatar.frames)
    for name, start in avatar.starts.items():
        clip = avatar.clips[name]
        if start <= index < start + len(clip.frames):
            return (start, len(clip.frames)) if clip.loop else None
    return None


def _picture(avatar: Avatar, index: int, dress: Packed | None) -> np.ndarray:
    image = avatar.picture(index)
    return image if dress is None else dress(AvatarFrame(image, SILENCE, 0, pose=Pose(index)))


def _encoder(wanted: _Wanted, width: int, height: int) -> av.VideoCodecContext:
    if wanted.codec == "H264":
        context = av.CodecContext.create("libx264", "w")
        options = h264_options(wanted.bitrate)
        # A key frame no better than its neighbours, and every part of a picture as good as the next: what was spared
        # where nothing moves would come back with each key frame, and be seen as a pulse. The rest is for the headers.
        options["x264-params"] += ":ipratio=1.0:mbtree=0:aq-mode=0:psy=0:force-cfr=1"
        context.options = options | {"preset": "medium", "crf": _H264_QUALITY}
    else:
        context = av.CodecContext.create("libvpx", "w")
        context.bit_rate = wanted.bitrate
        context.qmin, context.qmax = 2, 56
        context.options = {
            "deadline": "good",
            "cpu-used": "0",
            "crf": _VP8_QUALITY,
            "auto-alt-ref": "0",
            "lag-in-frames": "0",
            "maxrate": str(wanted.bitrate),
            "bufsize": str(int(wanted.bitrate * BUFFER_S)),
        }
    describe_pictures(context, width, height)
    return context


def _encode(encoder: av.VideoCodecContext, frame: av.VideoFrame | None) -> Iterator[tuple[bytes, bool]]:
    for packet in encoder.encode(frame):
        key_frame = bool(packet.is_keyframe)
        data = bytes(packet)
        yield (mark_h264(data) if key_frame and encoder.name == "libx264" else data), key_frame
