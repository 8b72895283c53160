"""The way to one viewer: datagrams to the socket, as many as possible in one system call.

Place in the flow: ``RtpStream`` -> ``Way.send`` -> the nominated candidate pair's transport, or its socket.

A system call is half of what a packet costs. Linux cuts one long datagram into many of equal length
(``UDP_SEGMENT``, from 4.18), so that a picture costs one call; where that is not possible (another system, a relay, a
path whose packets are smaller) the packets go one by one, as they always can.

Invariants:
    * packets leave in order;
    * nothing waits: what the system has no room for is queued by the transport, and beyond ``BACKLOG_BYTES`` refused.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any

BACKLOG_BYTES = 256_000
"""What may wait for the system to have room: a second and a half of pictures."""

_UDP_SEGMENT = 103
_SIZE = struct.Struct("=H")
_MOST_PACKETS = 40
"""In one call; fewer than the 64 that Linux takes, and less than a datagram may hold."""


class Way:
    """Takes datagrams for one address."""

    def __init__(self, transport: Any, address: tuple[str, int]) -> None:
        """Args: transport: an asyncio datagram transport or a relay's; address: where to."""
        self._sendto = transport.sendto
        self._address = address
        self._waiting = getattr(transport, "get_write_buffer_size", lambda: 0)
        # Only asyncio's own transport has it.
        found = getattr(transport, "_sock", None)
        self._socket: socket.socket | None = (
            found if sys.platform == "linux" and isinstance(found, socket.socket) else None
        )

    @property
    def is_full(self) -> bool:
        """Whether too much waits already."""
        return bool(self._waiting() > BACKLOG_BYTES)

    def send(self, packets: Sequence[bytes]) -> None:
        """Sends packets, each one datagram."""
        if self._socket is None or len(packets) == 1 or self._waiting():
            self._one_by_one(packets)
            return
        for batch in _batches(packets):
            if len(batch) == 1 or self._socket is None or self._waiting():
                self._one_by_one(batch)
                continue
            try:
                size = _SIZE.pack(len(batch[0]))
                self._socket.sendmsg(batch, [(socket.SOL_UDP, _UDP_SEGMENT, size)], 0, self._address)
            except BlockingIOError:
                self._one_by_one(batch)
            except OSError:
                # Not here, or not on this path; what is wrong with the path itself, the transport reports.
                self._socket = None
                self._one_by_one(batch)

    def _one_by_one(self, packets: Sequence[bytes]) -> None:
        for packet in packets:
            self._sendto(packet, self._address)


def _batches(packets: Sequence[bytes]) -> list[list[bytes]]:
    """Runs of packets of one length, each with one shorter packet at its end where that follows."""
    batches = [[packets[0]]]
    for packet in packets[1:]:
        batch = batches[-1]
        if len(batch[-1]) == len(batch[0]) >= len(packet) and len(batch) < _MOST_PACKETS:
            batch.append(packet)
        else:
            batches.append([packet])
    return batches
