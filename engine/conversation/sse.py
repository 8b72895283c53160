"""Server-sent events as streaming services send them.

Place in the flow: chunks of an HTTP body -> ``EventParser`` -> data of events.

Invariant: the same events come out however the bytes were cut into chunks.
"""

from __future__ import annotations

END_OF_EVENTS = "[DONE]"
MAX_EVENT_BYTES = 1 << 20


class EventParser:
    """Bytes of a ``text/event-stream`` -> the data of its events, in order.

    Each ``data:`` line is an event: no service of this kind spreads one over lines, and some leave out the blank
    line in between. Comments and other fields are skipped; lines end in LF or CRLF; a letter may be split over chunks.
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[str]:
        """Data of the events that are complete now.

        Raises:
            ValueError: a line without an end.
        """
        self._rest += chunk
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        if len(rest) > MAX_EVENT_BYTES:
            raise ValueError("a line without an end")
        return [data for line in lines if (data := self._data(line)) is not None]

    def end(self) -> list[str]:
        """Data of a last event whose line was not ended."""
        data, self._rest = self._data(self._rest), bytearray()
        return [] if data is None else [data]

    @staticmethod
    def _data(line: bytearray) -> str | None:
        text = line.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\r")
        return text[5:].removeprefix(" ") if text.startswith("data:") else None
