"""AMF0, the values that RTMP's commands are written in (Adobe's Action Message Format, version 0).

Place in the flow: ``rtmp_connection`` <-> bytes.

Invariants: what cannot be read is a ``ValueError``, never anything else, and nesting is bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

Value = float | bool | str | None | dict[str, "Value"] | list["Value"]

_NUMBER, _BOOLEAN, _STRING, _OBJECT, _NULL, _UNDEFINED, _MAP, _END, _LIST, _DATE, _LONG = (
    0, 1, 2, 3, 5, 6, 8, 9, 10, 11, 12
)  # fmt: skip
_DEEPEST = 8


def encode(*values: float | bool | str | Mapping[str, float | bool | str] | None) -> bytes:
    """Values one after the other; mappings become objects."""
    said = bytearray()
    for value in values:
        if value is None:
            said.append(_NULL)
        elif isinstance(value, bool):
            said += bytes([_BOOLEAN, value])
        elif isinstance(value, str):
            text = value.encode()
            short = len(text) < 1 << 16
            said += struct.pack(">BH" if short else ">BI", _STRING if short else _LONG, len(text))
            said += text
        elif isinstance(value, Mapping):
            said.append(_OBJECT)
            for name, member in value.items():
                said += struct.pack(">H", len(name.encode())) + name.encode() + encode(member)
            said += bytes([0, 0, _END])
        else:
            said += struct.pack(">Bd", _NUMBER, value)
    return bytes(said)


def decode(data: bytes) -> list[Value]:
    """All values of a message.

    Raises:
        ValueError: it is cut off, or not AMF0.
    """
    values = []
    at = 0
    try:
        while at < len(data):
            value, at = _value(data, at, _DEEPEST)
            values.append(value)
    except (struct.error, IndexError) as error:
        raise ValueError("AMF0 that is cut off") from error
    return values


def _value(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    kind, at = data[at], at + 1
    if kind == _NUMBER:
        return struct.unpack_from(">d", data, at)[0], at + 8
    if kind == _BOOLEAN:
        return bool(data[at]), at + 1
    if kind in (_STRING, _LONG):
        return _text(data, at, 2 if kind == _STRING else 4)
    if kind in (_NULL, _UNDEFINED):
        return None, at
    if kind == _DATE:
        return struct.unpack_from(">d", data, at)[0], at + 10
    if depth and kind in (_OBJECT, _MAP):
        return _members(data, at + (4 if kind == _MAP else 0), depth - 1)
    if depth and kind == _LIST:
        items: list[Value] = []
        (count,) = struct.unpack_from(">I", data, at)
        at += 4
        for _ in range(count):
            item, at = _value(data, at, depth - 1)
            items.append(item)
        return items, at
    raise ValueError(f"AMF0 of type {kind}")


def _members(data: bytes, at: int, depth: int) -> tuple[dict[str, Value], int]:
    members: dict[str, Value] = {}
    while True:
        name, at = _text(data, at, 2)
        if not name and data[at] == _END:
            return members, at + 1
        members[name], at = _value(data, at, depth)


def _text(data: bytes, at: int, width: int) -> tuple[str, int]:
    begin = at + width
    end = begin + int.from_bytes(data[at:begin], "big")
    if end > len(data):
        raise ValueError("AMF0 that is cut off")
    return data[begin:end].decode(errors="replace"), end
