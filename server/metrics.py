"""The server's own metrics, beside the engine's in one registry.

Place in the flow: sessions, peers and tracks count here; ``GET /metrics`` shows it.

Invariants: no label holds a session, an avatar, an address or a text, so the number of series does not grow with use.

| metric | type | meaning |
|---|---|---|
| ``visavis_peers`` | gauge | peers that are connected |
| ``visavis_viewers`` | gauge | viewers of broadcasts that are connected |
| ``visavis_offers_total{outcome}`` | counter | ``answered``, ``full``, ``invalid``, ``failed`` |
| ``visavis_sessions_ended_total{reason}`` | counter | see ``EndReason`` |
| ``visavis_connect_ms`` | histogram | from the answer to a connected peer |
| ``visavis_capacity_sessions`` | gauge | talking sessions that the machine carries; 0 while that is not measured |
| ``visavis_encode_ms`` | histogram | one picture in the encoder, waiting for a thread included |
| ``visavis_pictures_dropped_total`` | counter | pictures no encoder had time for |
| ``visavis_pictures_looped_total`` | counter | pictures that came out of an idle loop instead of an encoder |
| ``visavis_looped_viewers`` | gauge | viewers whose pictures come out of an idle loop |
| ``visavis_idle_loops`` | gauge | idle loops kept in memory |
| ``visavis_sound_spared_total`` | counter | packets of silence that were not sent |
| ``visavis_encoders_hurried`` | gauge | 1 while encoders are made with the fast preset |
| ``visavis_encoder_steps_total{direction}`` | counter | the preset went ``up`` (fine) or ``down`` (fast) |
| ``visavis_tasks`` | gauge | asyncio tasks; with no sessions always the same few |
| ``visavis_http_requests_total{status}`` | counter | answered requests by status class, ``2xx`` … ``5xx`` |
"""

from __future__ import annotations

import asyncio
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_ENCODE_BUCKETS_MS = (1, 2, 3, 4, 6, 8, 12, 20, 40, 80)
_CONNECT_BUCKETS_MS = (25, 50, 100, 200, 400, 800, 1600, 5000, 15000)


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # asked outside a loop
        return 0


class EndReason(StrEnum):
    """Why a session ended."""

    CLOSED = "closed"
    """Asked for: DELETE, the page's farewell, or the browser closed the connection."""
    VANISHED = "vanished"
    """No sign of life from the browser for the time allowed."""
    NEVER_CONNECTED = "never_connected"
    """The offer was answered, but nobody came."""
    CONNECTION_FAILED = "connection_failed"
    """ICE or DTLS failed."""
    IDLE = "idle"
    """Nothing was said for the time allowed."""
    TOO_LONG = "too_long"
    """The longest allowed time is over."""
    FAILED = "failed"
    """The server could not go on; the log says why."""
    SHUTDOWN = "shutdown"
    """The server is stopping."""


class ServerMetrics:
    """Metrics of one server; make one per process, or per test."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Args: registry: the engine's, so that one page shows both."""
        self.registry = registry
        self.peers = Gauge("visavis_peers", "Connected peers", registry=registry)
        self.viewers = Gauge("visavis_viewers", "Connected viewers of broadcasts", registry=registry)
        Gauge("visavis_tasks", "Tasks of the event loop", registry=registry).set_function(_tasks)
        self.capacity_sessions = Gauge(
            "visavis_capacity_sessions", "Talking sessions that the machine carries", registry=registry
        )
        self._offers = Counter("visavis_offers", "Offers by outcome", ["outcome"], registry=registry)
        self._ended = Counter("visavis_sessions_ended", "Ended sessions by reason", ["reason"], registry=registry)
        self._requests = Counter("visavis_http_requests", "Requests by status class", ["status"], registry=registry)
        self.connect_ms = Histogram(
            "visavis_connect_ms", "From answer to connected", buckets=_CONNECT_BUCKETS_MS, registry=registry
        )
        self.encode_ms = Histogram(
            "visavis_encode_ms", "One picture in the encoder", buckets=_ENCODE_BUCKETS_MS, registry=registry
        )
        self.pictures_dropped = Counter(
            "visavis_pictures_dropped", "Pictures no encoder had time for", registry=registry
        )
        self.pictures_looped = Counter(
            "visavis_pictures_looped", "Pictures out of an idle loop instead of an encoder", registry=registry
        )
        self.looped_viewers = Gauge("visavis_looped_viewers", "Viewers of an idle loop", registry=registry)
        self.idle_loops = Gauge("visavis_idle_loops", "Idle loops kept in memory", registry=registry)
        self.sound_spared = Counter("visavis_sound_spared", "Packets of silence that were not sent", registry=registry)
        self._encoders_hurried = Gauge(
            "visavis_encoders_hurried", "Whether encoders are made with the fast preset", registry=registry
        )
        self._encoder_steps = Counter(
            "visavis_encoder_steps", "Changes of the encoders' preset", ["direction"], registry=registry
        )
        for direction in ("up", "down"):
            self._encoder_steps.labels(direction)
        for outcome in ("answered", "full", "invalid", "failed"):
            self._offers.labels(outcome)
        for reason in EndReason:
            self._ended.labels(reason.value)

    def hurried(self, hurried: bool) -> None:
        """Counts that encoders hurry from now on, or do no more."""
        self._encoders_hurried.set(hurried)
        self._encoder_steps.labels("down" if hurried else "up").inc()

    def offer(self, outcome: str) -> None:
        """Counts an offer: ``answered``, ``full``, ``invalid`` or ``failed``."""
        self._offers.labels(outcome).inc()

    def ended(self, reason: EndReason) -> None:
        """Counts the end of a session."""
        self._ended.labels(reason.value).inc()

    def request(self, status: int) -> None:
        """Counts an answered request."""
        self._requests.labels(f"{status // 100}xx").inc()
