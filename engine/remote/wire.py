"""The messages between a process that holds sessions and the one that runs their models.

Place in the flow: ``Lane`` <-> Unix socket <-> ``model_host``.

A message is its length, its kind and its body. What happens once is JSON; what happens 25 times a second and session
is packed, and says where in the shared memory the numbers are: sound, patches and pictures never pass the socket.

Invariants:
    * every message is bounded, and so is every list in it;
    * on one connection the client asks and then waits for the answer, so answers need no number;
    * nothing is ever unpickled.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from engine.types import MOUTH_SHAPES

MAX_BODY_BYTES = 1 << 16
MAX_JOBS = 256
"""In one message."""


class Kind(IntEnum):
    """What a message is."""

    HELLO = 1  # who connects
    WELCOME = 2  # what the models are
    ARENA = 3  # shared memory, its descriptor beside it
    DONE = 4
    PREPARE = 5  # an avatar
    PREPARED = 6
    PREDICT = 7  # mouths
    PATCHES = 8
    RESTORE = 9  # pictures
    RESTORED = 10
    RESTORE_AVATAR = 11
    PROGRESS = 12
    AVATAR = 13
    RELEASE = 14  # what is not needed any more; has no answer
    PING = 15
    PONG = 16
    TOO_SMALL = 17  # a patch needs more room than it was given
    FAILED = 18


class Broken(Exception):
    """The other side sent something that is no message."""


HEADER = struct.Struct("<IB")
COUNT = struct.Struct("<I")
NUMBER = struct.Struct("<Q")

PREDICT_JOB = struct.Struct("<QIddQBQQI")
"""Handle of the avatar, picture, strength; when due, owner, priority; where the sound is, where the patch goes, and how
many bytes it may have."""
PATCH = struct.Struct(f"<4iIIB{len(MOUTH_SHAPES)}f")
"""Box, height and width of image and mask, which follow each other; whether there is a mouth, and the mouth."""
RESTORE_JOB = struct.Struct("<BQdQBQII4i10f")
"""Level, trace; when due, owner, priority; where the picture is and its height and width; box; landmarks. What comes of
it takes the picture's place."""


def message(kind: Kind, body: bytes = b"") -> bytes:
    """A message to send."""
    return HEADER.pack(len(body), kind) + body


def words(kind: Kind, **members: Any) -> bytes:
    """A message in JSON."""
    return message(kind, json.dumps(members).encode())


def read_words(body: bytes) -> dict[str, Any]:
    """The members of a message in JSON. Raises Broken."""
    try:
        members = json.loads(body)
    except ValueError as error:
        raise Broken("a message is no JSON") from error
    if not isinstance(members, dict):
        raise Broken("a message has no members")
    return members


def rows(layout: struct.Struct, body: bytes) -> list[tuple[Any, ...]]:
    """The rows of a packed list. Raises Broken."""
    if len(body) % layout.size or len(body) > layout.size * MAX_JOBS:
        raise Broken("a list has the wrong length")
    return list(layout.iter_unpack(body))


class Reader:
    """Puts messages together from what arrives."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """The messages that are complete now. Raises Broken."""
        self._rest += data
        while len(self._rest) >= HEADER.size:
            size, kind = HEADER.unpack_from(self._rest)
            if size > MAX_BODY_BYTES:
                raise Broken("a message is too long")
            end = HEADER.size + size
            if len(self._rest) < end:
                return
            body = bytes(self._rest[HEADER.size : end])
            del self._rest[:end]
            try:
                yield Kind(kind), body
            except ValueError as error:
                raise Broken("a message of an unknown kind") from error
