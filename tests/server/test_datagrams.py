"""The way to one viewer, over real sockets: everything arrives, in order, whatever the system can do."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from server.datagrams import BACKLOG_BYTES, Way, _batches


@pytest.fixture
async def ends():
    """A transport, and the socket it is to reach."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(1)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    yield transport, receiver
    transport.close()
    receiver.close()


def received(receiver: socket.socket, count: int) -> list[bytes]:
    return [receiver.recv(2000) for _ in range(count)]


PACKETS = [b"small", *(bytes([index]) * 1100 for index in range(50)), b"end" * 30, b"x" * 700, b"x" * 900]


async def test_packets_of_all_lengths_arrive_as_they_were_sent(ends):
    transport, receiver = ends
    Way(transport, receiver.getsockname()).send(PACKETS)
    assert received(receiver, len(PACKETS)) == PACKETS


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux cuts datagrams")
async def test_a_picture_is_one_system_call(ends, monkeypatch):
    transport, receiver = ends
    way = Way(transport, receiver.getsockname())
    monkeypatch.setattr(way, "_sendto", lambda *_: pytest.fail("sent one by one"))
    way.send([b"a" * 1000] * 5 + [b"a" * 300])
    assert received(receiver, 6) == [b"a" * 1000] * 5 + [b"a" * 300]


async def test_where_the_system_refuses_packets_go_one_by_one_from_then_on(ends):
    transport, receiver = ends
    way = Way(transport, receiver.getsockname())

    class Refusing:
        calls = 0

        def sendmsg(self, *_):
            self.calls += 1
            raise OSError(5, "no checksums here")

    way._socket = refusing = Refusing()
    for _ in range(2):
        way.send([b"a" * 100] * 3)
    assert received(receiver, 6) == [b"a" * 100] * 6
    assert refusing.calls == 1


async def test_a_transport_that_is_not_asyncios_gets_packets_one_by_one():
    class Relay:
        def __init__(self) -> None:
            self.sent: list[tuple[bytes, tuple[str, int]]] = []

        def sendto(self, data: bytes, address: tuple[str, int]) -> None:
            self.sent.append((data, address))

    relay = Relay()
    way = Way(relay, ("192.0.2.1", 9))
    way.send([b"a", b"a"])
    assert relay.sent == [(b"a", ("192.0.2.1", 9))] * 2
    assert not way.is_full


async def test_a_way_on_which_too_much_waits_is_full(ends):
    transport, receiver = ends
    way = Way(transport, receiver.getsockname())
    assert not way.is_full
    transport.get_write_buffer_size = lambda: BACKLOG_BYTES + 1
    assert Way(transport, receiver.getsockname()).is_full


def test_a_batch_is_packets_of_one_length_and_at_most_one_shorter_at_its_end():
    sizes = [[len(packet) for packet in batch] for batch in _batches([b"x" * size for size in (5, 5, 3, 3, 9, 9, 9)])]
    assert sizes == [[5, 5, 3], [3], [9, 9, 9]]
