"""A client's connections to the process that runs the models: one for each thread that asks, and all of them again when
that process was restarted.

Place in the flow: ``lipsync.remote``, ``restore.remote`` -> ``Link.lane`` -> Lane -> Unix socket and shared memory.

Invariants:
    * a thread has a lane of its own and waits on it for its answer: no thread wakes another one;
    * while the process is away everybody is told so at once (ModelAway); one thread notices, tries to reach it again,
      and first has everything prepared there anew that is in use here;
    * what is not in use here any more is let go there, with the next question or by the end of the connection.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from engine.errors import BackendFailed, ModelAway, VisavisError
from engine.remote.arena import Arena, make_arena
from engine.remote.wire import HEADER, MAX_BODY_BYTES, NUMBER, Broken, Kind, message, read_words, words

REPLY_S = 3.0
"""Longest wait for a picture; it is of no use long before."""
PREPARE_S = 300.0
OPEN_S = 60.0
"""Longest wait for the process to be there in the beginning."""

_CONNECT_S = 2.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0

_log = logging.getLogger(__name__)


class Renewed(Protocol):
    """Something that must be made anew over there when the process was restarted."""

    def renew(self, lane: Lane) -> None:
        """Makes it anew. Raises BackendFailed when that cannot be done, OSError when the process is gone again."""
        ...


class Lane:
    """One connection, with memory that both sides share; one thread asks at a time.

    Attributes:
        boot: tells one run of the process from the next.
        welcome: what the models are.
        closed: it is of no use any more.
    """

    def __init__(self, address: str, client: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._arena: Arena | None = None
        self.closed = False
        try:
            self._socket.settimeout(_CONNECT_S)
            self._socket.connect(address)
            self.welcome = read_words(self.ask(words(Kind.HELLO, client=client), Kind.WELCOME)[1])
        except BaseException:
            self._socket.close()
            raise
        self.boot = str(self.welcome["boot"])

    def ask(self, question: bytes, *answers: Kind, timeout_s: float = REPLY_S) -> tuple[Kind, bytes]:
        """Sends a message and waits for one of these answers.

        Raises:
            BackendFailed: the other side says that it failed.
            OSError, Broken: the connection is of no use any more.
        """
        self._socket.settimeout(timeout_s)
        self._socket.sendall(question)
        return self.wait(*answers)

    def send(self, statement: bytes) -> None:
        """Sends a message that has no answer. Raises OSError."""
        self._socket.settimeout(REPLY_S)
        self._socket.sendall(statement)

    def wait(self, *answers: Kind) -> tuple[Kind, bytes]:
        """Waits for one more answer; see ``ask``."""
        size, number = HEADER.unpack(self._read(HEADER.size))
        if size > MAX_BODY_BYTES:
            raise Broken("an answer is too long")
        body = self._read(size)
        if number == Kind.FAILED:
            said = read_words(body)
            raise BackendFailed(str(said.get("code", "model_failed")), str(said.get("message", "The model failed.")))
        if number not in answers:
            raise Broken("an answer to another question")
        return Kind(number), body

    def arena(self, size: int) -> Arena:
        """The shared memory, with room for at least ``size`` bytes; what was in it may be lost."""
        if self._arena is None or len(self._arena) < size:
            arena, descriptor = make_arena(size)
            try:
                socket.send_fds(self._socket, [message(Kind.ARENA)], [descriptor])
            finally:
                os.close(descriptor)
            self.wait(Kind.DONE)
            self._arena = arena
        return self._arena

    def until_ended(self) -> None:
        """Waits until the other side, or another thread, ends the connection; nothing else may use it meanwhile."""
        with contextlib.suppress(OSError):
            self._socket.settimeout(None)
            self._socket.recv(1)

    def close(self) -> None:
        """Ends the connection, and the waiting for its end."""
        self.closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionResetError("the model process has ended")
            data += part
        return bytes(data)


class Link:
    """All lanes of one client; made by ``open_link``.

    Args:
        address: path of the Unix socket.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = secrets.token_hex(8)
        self._boot: str | None = None
        # What is in use belongs to the client as long as it has a connection at all; this one stays.
        self._keeper: list[Lane] = []
        weakref.finalize(self, _end, self._keeper)
        self._lock = threading.Lock()
        self._local = threading.local()
        self._in_use: weakref.WeakSet[Renewed] = weakref.WeakSet()
        self._released: deque[int] = deque()

    @contextlib.contextmanager
    def lane(self) -> Iterator[Lane]:
        """The calling thread's lane.

        Raises:
            ModelAway: the process is not there, or went away while it was asked.
        """
        lane = self._mine()
        try:
            self._release(lane)
            yield lane
        except (OSError, Broken) as error:
            self._lost(lane)
            raise away() from error

    def use(self, thing: Renewed) -> None:
        """Has something made anew whenever the process is, as long as it exists here."""
        with self._lock:
            self._in_use.add(thing)

    def release(self, handle: int) -> None:
        """Something over there is not needed any more; told with the next question."""
        self._released.append(handle)

    def _mine(self) -> Lane:
        boot = self._boot
        if boot is None:
            raise away()
        lane: Lane | None = getattr(self._local, "lane", None)
        if lane is not None and lane.boot == boot and not lane.closed:
            return lane
        if lane is not None:
            lane.close()
        try:
            lane = self._local.lane = Lane(self.address, self.client)
        except (OSError, Broken, BackendFailed) as error:
            self._lost(None)
            raise away() from error
        if lane.boot != boot:
            # Restarted just now: before anybody asks, everything must be prepared there anew.
            lane.close()
            self._lost(None)
            raise away()
        return lane

    def _release(self, lane: Lane) -> None:
        handles: list[int] = []
        while self._released and len(handles) < MAX_BODY_BYTES // NUMBER.size:
            with contextlib.suppress(IndexError):
                handles.append(self._released.popleft())
        if handles:
            lane.send(message(Kind.RELEASE, b"".join(NUMBER.pack(handle) for handle in handles)))

    def _lost(self, lane: Lane | None) -> None:
        if lane is not None:
            lane.close()
            self._local.lane = None
        with self._lock:
            # Another thread's lane may have noticed before, or the process may be back already.
            if self._boot is None or (lane is not None and lane.boot != self._boot):
                return
            self._boot = None
        _log.warning("the model process is away; faces are shown at rest until it is back")
        # Whoever watches this one goes about reaching the process again.
        _end(self._keeper)

    def watch(self) -> None:
        """Watches the process from now on, on a thread of its own, and reaches it again whenever it is away."""
        threading.Thread(target=_watch, args=(weakref.ref(self),), name="visavis-model-link", daemon=True).start()

    def watched(self) -> Lane | None:
        """The connection whose end is that of the process."""
        with contextlib.suppress(IndexError):
            return self._keeper[0]
        return None

    def ended(self) -> None:
        """The process is away."""
        self._lost(None)

    def reach(self) -> dict[str, Any]:
        """Connects, and has everything in use prepared; returns what the models are.

        Raises:
            OSError, Broken: the process is not there.
        """
        lane = Lane(self.address, self.client)
        try:
            with self._lock:
                in_use = list(self._in_use)
            for thing in in_use:
                try:
                    thing.renew(lane)
                except VisavisError as error:
                    _log.warning("after a restart of the model process: %s", error.message)
        except BaseException:
            lane.close()
            raise
        _end(self._keeper)
        self._keeper.append(lane)
        self._boot = lane.boot
        return lane.welcome


def _end(lanes: list[Lane]) -> None:
    while lanes:
        lanes.pop().close()


def _watch(reference: weakref.ref[Link]) -> None:
    while (link := reference()) is not None:
        lane = link.watched()
        del link  # nobody is kept alive by being watched
        if lane is not None:
            lane.until_ended()
        if (link := reference()) is not None:
            link.ended()
            del link
            _reach(reference)


def _reach(reference: weakref.ref[Link]) -> None:
    pause_s = _FIRST_PAUSE_S
    while (link := reference()) is not None:
        try:
            link.reach()
        except (OSError, Broken, VisavisError):
            del link
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            continue
        _log.info("the model process is back")
        return


def open_link(address: str, timeout_s: float = OPEN_S) -> tuple[Link, dict[str, Any]]:
    """Connects to a model process, waiting for it to be there; takes seconds, so call it off the event loop.

    Returns:
        The link, and what the models are.

    Raises:
        ModelAway: it is not there.
    """
    link, end_s = Link(address), time.monotonic() + timeout_s
    while True:
        try:
            welcome = link.reach()
            link.watch()
            return link, welcome
        except (OSError, Broken, json.JSONDecodeError) as error:
            if time.monotonic() >= end_s:
                raise ModelAway(
                    "model_away", f"No model process answers at {address}; start it first, or leave out --model-socket."
                ) from error
            time.sleep(_LONGEST_PAUSE_S / 5)


def away() -> ModelAway:
    """What everybody is told meanwhile."""
    return ModelAway("model_away", "The process that runs the models is away; it is being restarted.")
