"""A process full of viewers: opens them, reads for all of them, and hands what they received to the ramp.

Place in the flow: ``Crowd`` -> pipe -> here -> viewers <-> server under load.

Invariants: one answer to each order, in their order; a failed order is answered with its reason and ends nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from tests.benchmarks.load.client import HEARTBEAT_S, REPORT_S, Door, Viewer
from tests.benchmarks.load.figures import Packets
from tests.benchmarks.load.wire import Reader

TICK_S = 0.05
"""How often sockets are read: often enough for connectivity checks and the data channel, seldom enough to be cheap."""
CONNECTING_AT_ONCE = 4
FIRST_PICTURE_S = 10.0
LEAD_S = 0.5
"""Watched before and after the time that counts."""
KINDS = ("video", "audio")
_OTHER = 255


@dataclass(frozen=True, slots=True)
class Received:
    """What one viewer received while it was watched, and what it knows besides.

    Attributes:
        video, audio: headers, in the order of arrival.
        video_bytes: of datagrams with pictures.
        due: (Unix seconds, RTP time stamp) of the newest sender report of ``video`` and ``audio``, if any came.
        connect_s: from its offer to a connection.
        lost: whether the server ended it.
        events: messages on its data channel since it connected.
        clear: (arrival, packet) of a witness, decrypted, in the order of arrival, by kind; empty for others.
    """

    video: Packets
    audio: Packets
    video_bytes: int
    due: dict[str, tuple[float, int]]
    connect_s: float
    lost: bool
    events: int
    clear: dict[str, list[tuple[int, bytes]]]


class Watchers:
    """All viewers of this process and what they received."""

    def __init__(self) -> None:
        self.viewers: dict[int, Viewer] = {}
        self._reader = Reader()
        self._kinds = np.full(128, _OTHER, np.uint8)
        self._columns: list[tuple[np.ndarray, ...]] = []
        self._witnesses: dict[int, list[tuple[int, int, bytes]]] = {}

    async def open(self, indices: Sequence[int], door: Door, http: aiohttp.ClientSession) -> list[float]:
        """Lets viewers in, a few at a time.

        Returns:
            Seconds that each took to connect.

        Raises:
            ViewerFailed: one of them was refused or did not connect.
        """
        gate = asyncio.Semaphore(CONNECTING_AT_ONCE)

        async def one(index: int) -> float:
            async with gate:
                viewer = Viewer(index, http, door)
                try:
                    await viewer.connect()
                except BaseException:
                    await viewer.close()
                    raise
                for payload_type, kind in viewer.payload_types.items():
                    self._kinds[payload_type] = KINDS.index(kind)
                self.viewers[index] = viewer
                return viewer.connect_s

        results = await asyncio.gather(*map(one, indices), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if not isinstance(result, BaseException)]

    async def run(self) -> None:
        """Reads, beats and reports until cancelled."""
        for turn in itertools.count():
            next_s = time.monotonic() + TICK_S
            viewers = [viewer for viewer in self.viewers.values() if not viewer.lost]
            self._drain(viewers)
            # A second's worth of reports and heartbeats, spread over its ticks.
            ticks = round(1 / TICK_S)
            for viewer in viewers:
                if (viewer.index + turn) % round(ticks * REPORT_S) == 0:
                    viewer.report()
                if (viewer.index + turn + ticks // 2) % round(ticks * HEARTBEAT_S) == 0:
                    viewer.beat()
            await asyncio.sleep(max(0.001, next_s - time.monotonic()))

    def _drain(self, viewers: list[Viewer]) -> None:
        sockets = [(viewer, place) for viewer in viewers for place in range(len(viewer.handles))]
        came = self._reader.drain([(at, viewer.handles[place]) for at, (viewer, place) in enumerate(sockets)])
        if not len(came):
            return
        first, second = came.data[:, 0], came.data[:, 1]
        rtp = (first > 127) & (first < 192) & ((second < 192) | (second > 223))
        for row in np.flatnonzero(~rtp):
            viewer, place = sockets[came.owners[row]]
            viewer.take(came.data[row, : came.lengths[row]].tobytes(), place, came.sender(int(row)))
        kinds = np.where(rtp, self._kinds[second & 127], _OTHER)
        media = kinds != _OTHER
        if not media.any():
            return
        head = came.data[media, :12].copy()
        owners = np.array([viewer.index for viewer, _ in sockets], np.int32)[came.owners[media]]
        sequence = head[:, 2:4].copy().view(">u2")[:, 0].astype(np.uint16)
        stamp = head[:, 4:8].copy().view(">u4")[:, 0].astype(np.uint32)
        ssrc = head[:, 8:12].copy().view(">u4")[:, 0].astype(np.int64)
        self._columns.append((
            owners, kinds[media], sequence, stamp, head[:, 1] > 127, came.times_ns[media],
            came.lengths[media].astype(np.int32),
        ))  # fmt: skip
        # The last packet of each stream of each viewer, and how many there were.
        streams = owners.astype(np.int64) << 32 | ssrc
        found, last, counts = np.unique(streams[::-1], return_index=True, return_counts=True)
        newest, of_kind = sequence[::-1][last], kinds[media][::-1][last]
        for stream, kind, number, count in zip(
            found.tolist(), of_kind.tolist(), newest.tolist(), counts.tolist(), strict=True
        ):
            self.viewers[stream >> 32].received(stream & 0xFFFFFFFF, KINDS[kind], number, count)
        if self._witnesses:
            for row, owner in zip(np.flatnonzero(media), owners.tolist(), strict=True):
                if (kept := self._witnesses.get(owner)) is not None:
                    packet = came.data[row, : came.lengths[row]].tobytes()
                    kept.append((int(kinds[row]), int(came.times_ns[row]), packet))

    async def measure(self, seconds: float, witnesses: Sequence[int]) -> tuple[int, int]:
        """Forgets what was received and receives for a time, with a second on either side of it.

        Returns:
            Beginning and end of the time, CLOCK_MONOTONIC nanoseconds.
        """
        self._columns.clear()
        self._witnesses = {index: [] for index in witnesses if index in self.viewers}
        for index in self._witnesses:
            self.viewers[index].ask_key_frame()
        start_ns = time.monotonic_ns() + int(LEAD_S * 1e9)
        await asyncio.sleep(seconds + 2 * LEAD_S)
        return start_ns, start_ns + int(seconds * 1e9)

    def received(self) -> dict[int, Received]:
        """What each viewer received since ``measure`` began; then it is forgotten."""
        if self._columns:
            columns = map(np.concatenate, zip(*self._columns, strict=True))
            owners, kinds, sequence, stamp, marker, times, lengths = columns
        else:
            owners = kinds = sequence = stamp = marker = times = lengths = np.zeros(0, np.int64)
        result = {}
        for index, viewer in self.viewers.items():
            mine = [(owners == index) & (kinds == kind) for kind in range(len(KINDS))]
            video, audio = (Packets(sequence[m], stamp[m], marker[m], times[m]) for m in mine)
            result[index] = Received(
                video,
                audio,
                int(lengths[mine[0]].sum()),
                {stream.kind: stream.due for stream in viewer.streams.values() if stream.due is not None},
                viewer.connect_s,
                viewer.lost,
                viewer.events,
                self._testimony(index),
            )
        self._columns.clear()
        self._witnesses = {}
        return result

    def _testimony(self, index: int) -> dict[str, list[tuple[int, bytes]]]:
        clear: dict[str, list[tuple[int, bytes]]] = {kind: [] for kind in KINDS}
        for kind, at_ns, packet in self._witnesses.get(index, ()):
            if (plain := self.viewers[index].decrypt(packet)) is not None:
                clear[KINDS[kind]].append((at_ns, plain))
        return clear

    async def first_pictures(self) -> None:
        """Waits until every viewer has received something of a picture.

        Raises:
            TimeoutError: one of them did not in time.
        """
        async with asyncio.timeout(FIRST_PICTURE_S):
            for viewer in list(self.viewers.values()):
                await viewer.sees.wait()

    async def close(self, indices: Sequence[int]) -> None:
        """Lets viewers go."""
        gate = asyncio.Semaphore(CONNECTING_AT_ONCE)

        async def one(viewer: Viewer) -> None:
            async with gate:
                await viewer.close()

        await asyncio.gather(*(one(self.viewers.pop(index)) for index in indices if index in self.viewers))


async def speak(http: aiohttp.ClientSession, url: str, session_id: str, sound: Path) -> None:
    """Has a session say a sound file instead of whatever it says.

    Raises:
        RuntimeError: the server would not.
    """
    async with http.post(f"{url}/sessions/{session_id}/interrupt"):
        pass
    headers = {"Content-Type": "audio/wav"}
    content = await asyncio.to_thread(sound.read_bytes)
    async with http.post(f"{url}/sessions/{session_id}/audio", data=content, headers=headers) as response:
        if response.status != 202:
            raise RuntimeError(f"A session would not speak: {response.status} {await response.text()}")


def run(pipe: Connection) -> None:
    """The process: takes orders from a pipe until it closes."""
    asyncio.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    orders: asyncio.Queue[tuple[str, tuple[Any, ...]] | None] = asyncio.Queue()

    def readable() -> None:
        try:
            orders.put_nowait(pipe.recv())
        except EOFError:
            asyncio.get_running_loop().remove_reader(pipe.fileno())
            orders.put_nowait(None)

    asyncio.get_running_loop().add_reader(pipe.fileno(), readable)
    watchers = Watchers()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
        reading = asyncio.create_task(watchers.run())
        try:
            while (order := await orders.get()) is not None:
                if reading.done():
                    reading.result()
                try:
                    answer = await _carry_out(watchers, http, *order)
                except Exception as error:
                    answer = RuntimeError(f"{error} ({''.join(traceback.format_exception_only(error)).strip()})")
                pipe.send(answer)
        finally:
            reading.cancel()
            await watchers.close(list(watchers.viewers))


async def _carry_out(watchers: Watchers, http: aiohttp.ClientSession, name: str, arguments: tuple[Any, ...]) -> Any:
    match name:
        case "open":
            indices, door = arguments
            return await watchers.open(indices, door, http)
        case "sessions":
            return {index: viewer.session_id for index, viewer in watchers.viewers.items()}
        case "first":
            return await watchers.first_pictures()
        case "speak":
            url, sounds = arguments
            for index, sound in sounds.items():
                if index in watchers.viewers:
                    await speak(http, url, watchers.viewers[index].session_id, sound)
            return None
        case "measure":
            return await watchers.measure(*arguments)
        case "received":
            return watchers.received()
        case "close":
            return await watchers.close(*arguments)
        case "usage":
            times = os.times()
            return times.user + times.system
    raise ValueError(f"There is no order {name!r}.")
