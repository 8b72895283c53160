"""Datagrams of many sockets read at once, each with the time at which it reached the machine.

Place in the flow: kernel -> ``Reader.drain`` -> crowd_process, every few dozen milliseconds.

A hundred viewers receive ten thousand packets a second; a callback for each would cost more than the server that is
to be measured. So nobody is woken by a packet: the kernel notes when it came and keeps it, one system call per socket
fetches whatever is there, and the headers of all of them are taken apart by numpy in one go. That the reader comes
late does not show in the figures.

Invariants: Linux only (``recvmmsg``, ``SO_TIMESTAMPNS``); times are CLOCK_MONOTONIC, which the server counts by, too.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
from dataclasses import dataclass

import numpy as np

SLOT_BYTES = 2048
"""More than any datagram of WebRTC."""
RECEIVE_BUFFER_BYTES = 1 << 20
"""A second of pictures, should the reader be kept from its work."""

_CONTROL_BYTES = 64
_NAME_BYTES = 32
_SO_TIMESTAMPNS = 35
_MSG_DONTWAIT = 0x40
_HEADER = np.dtype([
    ("name", "u8"), ("name_length", "u8"), ("vector", "u8"), ("vector_length", "u8"),
    ("control", "u8"), ("control_length", "u8"), ("flags", "u4"), ("pad", "u4"),
    ("length", "u4"), ("pad_after", "u4"),
])  # fmt: skip
"""``struct mmsghdr`` on a 64-bit machine."""
_VECTOR = np.dtype([("base", "u8"), ("length", "u8")])

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Datagrams:
    """What was waiting in the sockets; valid until the next ``drain``.

    Attributes:
        data: (n, SLOT_BYTES) uint8, each datagram at the start of its row.
        lengths: (n,) bytes of each.
        times_ns: (n,) when each came, CLOCK_MONOTONIC.
        owners: (n,) index of the socket it came through.
        names: (n, 32) uint8, socket addresses of the senders.
    """

    data: np.ndarray
    lengths: np.ndarray
    times_ns: np.ndarray
    owners: np.ndarray
    names: np.ndarray

    def sender(self, row: int) -> tuple[str, int]:
        """Address and port from which a datagram came."""
        name = self.names[row].tobytes()
        port = int.from_bytes(name[2:4], "big")
        if int.from_bytes(name[:2], sys.byteorder) == socket.AF_INET6:
            return socket.inet_ntop(socket.AF_INET6, name[8:24]), port
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port

    def __len__(self) -> int:
        return len(self.lengths)


def prepare(handle: socket.socket) -> None:
    """Has the kernel note arrival times on a socket, and keep what a late reader has not fetched."""
    handle.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)


class Reader:
    """Reads whatever waits in a list of sockets, without blocking."""

    def __init__(self, slots: int = 4096) -> None:
        """Args: slots: datagrams that one ``drain`` can take; what is more waits for the next one."""
        self._slots = slots
        self._data = np.zeros((slots, SLOT_BYTES), np.uint8)
        self._control = np.zeros((slots, _CONTROL_BYTES), np.uint8)
        vectors = np.zeros(slots, _VECTOR)
        self._headers = np.zeros(slots, _HEADER)
        rows = np.arange(slots, dtype=np.uint64)
        vectors["base"] = self._data.ctypes.data + rows * SLOT_BYTES
        vectors["length"] = SLOT_BYTES
        self._headers["vector"] = vectors.ctypes.data + rows * _VECTOR.itemsize
        self._headers["vector_length"] = 1
        self._headers["control"] = self._control.ctypes.data + rows * _CONTROL_BYTES
        self._vectors = vectors
        self._names = np.zeros((slots, _NAME_BYTES), np.uint8)
        self._headers["name"] = self._names.ctypes.data + rows * _NAME_BYTES
        self._owners = np.zeros(slots, np.int32)

    def drain(self, handles: list[tuple[int, int]]) -> Datagrams:
        """Takes what waits.

        Args:
            handles: (owner, file descriptor) of each socket, prepared with ``prepare``.

        Raises:
            OSError: a socket failed otherwise than by what its other side said (a port that is closed by now).
        """
        self._headers["control_length"] = _CONTROL_BYTES
        self._headers["name_length"] = _NAME_BYTES
        address, size, taken = self._headers.ctypes.data, _HEADER.itemsize, 0
        receive = _libc.recvmmsg
        for owner, handle in handles:
            room = self._slots - taken
            if not room:
                break
            count = receive(
                handle, ctypes.c_void_p(address + taken * size), ctypes.c_uint(room), ctypes.c_int(_MSG_DONTWAIT), None
            )
            if count > 0:
                self._owners[taken : taken + count] = owner
                taken += count
            elif count < 0 and (error := ctypes.get_errno()) not in (11, 111):
                # 11: nothing there. 111: the server's port is closed, which its farewell says better.
                raise OSError(error, os.strerror(error))
        # cmsghdr (16 bytes), then seconds and nanoseconds of CLOCK_REALTIME.
        stamps = self._control[:taken].view(np.int64)
        offset_ns = time.monotonic_ns() - time.time_ns()
        return Datagrams(
            self._data[:taken],
            self._headers["length"][:taken].astype(np.int64),
            stamps[:, 2] * 1_000_000_000 + stamps[:, 3] + offset_ns,
            self._owners[:taken],
            self._names[:taken],
        )
