"""Listens on a Unix socket for the processes that hold sessions, and keeps track of who is there.

Place in the flow: ``python -m engine.model_host`` -> ``Host.serve`` -> Connection.

Invariants:
    * one thread reads everything that arrives and computes nothing; the models have threads of their own;
    * only processes of the same user are served;
    * a client is there as long as it has a connection; with the last one all goes that it held, memory included;
    * where descriptors run out newcomers wait outside, and those who are there are served on;
    * it ends with whoever started it: when its standard input does.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import selectors
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.errors import BackendFailed
from engine.lipsync.base import LipSync
from engine.model_host.connection import Connection, Models
from engine.model_host.desk import Desk
from engine.model_host.shelf import Shelf
from engine.remote.wire import Broken
from engine.restore.base import FaceRestorer

CONNECTIONS_LIMIT = 4096
"""A worker has one for each of its threads, about nine; one that is refused a single one takes the process for gone."""
ACCEPT_AGAIN_S = 0.05
"""How long nobody is let in when the process, or the machine, has no descriptor left."""
_NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_READ_BYTES = 1 << 16
_SWITCH_S = 0.0005
"""How long a thread computes in the interpreter before another one gets its turn: who reads must not wait for that."""
_BACKGROUND_NICE = 10

_log = logging.getLogger(__name__)


class Host:
    """The connections to one pair of models.

    Args:
        lipsync: the lip-sync model.
        restorer: the face restorer; None for none.
        threads: pictures that are computed at a time, on a CPU.
        cache_dir: where decoded pictures of avatars are kept.
        made_dir: folders of avatars that people made here.
    """

    def __init__(
        self, lipsync: LipSync, restorer: FaceRestorer | None, threads: int, cache_dir: Path, made_dir: Path
    ) -> None:
        faces = None
        if restorer is not None:
            faces = Desk("restore", restorer.restore, getattr(restorer, "batch_limit", 1), threads, restorer.warmup)
        self._models = Models(
            boot=secrets.token_hex(8),
            lipsync=lipsync,
            restorer=restorer,
            lips=Desk("predict", lipsync.predict, getattr(lipsync, "batch_limit", 1), threads, lipsync.warmup),
            faces=faces,
            shelf=Shelf(lipsync, cache_dir, made_dir),
            preparing=ThreadPoolExecutor(1, thread_name_prefix="visavis-prepare"),
            restoring=ThreadPoolExecutor(1, thread_name_prefix="visavis-restore-avatar", initializer=_yield_to_others),
        )
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, Connection] = {}
        self._stopping = False
        # The listener while it may not be asked, and until when.
        self._resting: tuple[socket.socket, float] | None = None
        self._told_full = False
        self._woken, self._waker = os.pipe()
        self._selector.register(self._woken, selectors.EVENT_READ)

    def listen(self, address: Path) -> None:
        """Begins to listen, once the models are warm.

        Raises:
            BackendFailed: ``model_socket_unusable``.
        """
        for desk in (self._models.lips, self._models.faces):
            if desk is not None:
                desk.until_warm()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            address.unlink(missing_ok=True)
            listener.bind(str(address))
            address.chmod(0o600)
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise BackendFailed(
                "model_socket_unusable", f"The socket {address} cannot be made: {error.strerror or error}."
            ) from error
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def serve(self, until_closed: int | None = None) -> None:
        """Serves until ``stop``, or until this descriptor (standard input) is closed on the other side."""
        sys.setswitchinterval(_SWITCH_S)
        if until_closed is not None:
            self._selector.register(until_closed, selectors.EVENT_READ)
        while not self._stopping:
            for key, _ in self._selector.select(self._rest()):
                if key.fd == until_closed:
                    self._stopping = not os.read(key.fd, 1)
                elif key.fd in self._connections:
                    self._read(self._connections[key.fd])
                elif isinstance(key.fileobj, socket.socket):
                    self._accept(key.fileobj)
        self.close()

    def stop(self) -> None:
        """Ends ``serve`` soon; from any thread, and from signal handlers."""
        self._stopping = True
        with contextlib.suppress(OSError):
            os.write(self._waker, b".")

    def close(self) -> None:
        """Ends all connections, and the threads after what they are at."""
        for connection in list(self._connections.values()):
            self._end(connection)
        if self._resting is not None:
            self._resting[0].close()
            self._resting = None
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                self._selector.unregister(key.fileobj)
                key.fileobj.close()
        self._selector.close()
        os.close(self._woken)
        os.close(self._waker)
        for desk in (self._models.lips, self._models.faces):
            if desk is not None:
                desk.close()
        for threads in (self._models.preparing, self._models.restoring):
            threads.shutdown(wait=False, cancel_futures=True)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connected, _ = listener.accept()
        except OSError as error:
            if error.errno in _NONE_LEFT:
                # It stays readable: asked again at once it would leave no time for those who are there.
                self._selector.unregister(listener)
                self._resting = listener, time.monotonic() + ACCEPT_AGAIN_S
                self._tell_full(os.strerror(error.errno))
            return
        with contextlib.suppress(OSError):
            if len(self._connections) >= CONNECTIONS_LIMIT:
                self._tell_full("the most there may be")
            if len(self._connections) >= CONNECTIONS_LIMIT or not _is_own(connected):
                connected.close()
                return
            connected.setblocking(False)
            connection = Connection(connected, self._models, lambda known: self._models.shelf.admit(known.client))
            self._connections[connected.fileno()] = connection
            self._selector.register(connected, selectors.EVENT_READ)

    def _rest(self) -> float | None:
        """Lets the listener be asked again when its time has come; returns how long that is yet, None for none."""
        if self._resting is None:
            return None
        listener, until_s = self._resting
        if (left_s := until_s - time.monotonic()) > 0:
            return left_s
        self._resting = None
        self._selector.register(listener, selectors.EVENT_READ)
        return None

    def _tell_full(self, why: str) -> None:
        if not self._told_full:
            self._told_full = True
            _log.error(
                "nobody else is let in beside %d connections (%s): there are too many workers for one model process, "
                "or it may open too few files", len(self._connections), why,
            )  # fmt: skip

    def _read(self, connection: Connection) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(connection.socket, _READ_BYTES, 2)
            if data:
                connection.feed(data, descriptors)
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        except Broken as error:
            _log.warning("a client was disconnected: %s", error)
        self._end(connection)

    def _end(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        del self._connections[connection.socket.fileno()]
        connection.close()
        if connection.client and not any(other.client == connection.client for other in self._connections.values()):
            self._models.shelf.forget(connection.client)


def _is_own(connected: socket.socket) -> bool:
    """Whether the other side is of the same user, where the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    layout = struct.Struct("iII")
    _, user, _ = layout.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size))
    return user in (os.getuid(), 0)


def _yield_to_others() -> None:
    if hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND_NICE)
