"""The server's own metrics, beside the engine's in one registry.

Place in the flow: sessions, peers and tracks count here; ``GET /metrics`` shows it.

Invariants: no label holds a session, an avatar, an address or a text, so the number of series does not grow with use.

| metric | type | meaning |
|---|---|---|
| ``visavis_peers`` | gauge | peers that are connected |
| ``visavis_offers_total{outcome}`` | counter | ``answered``, ``full``, ``invalid``, ``failed`` |
| ``visavis_sessions_ended_total{reason}`` | counter | see ``EndReason`` |
| ``visavis_connect_ms`` | histogram | from the answer to a connected peer |
| ``visavis_encode_ms`` | histogram | one picture in the encoder, waiting for a thread included |
| ``visavis_pictures_dropped_total`` | counter | pictures no encoder had time for |
| ``visavis_http_requests_total{status}`` | counter | answered requests by status class, ``2xx`` … ``5xx`` |
"""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_ENCODE_BUCKETS_MS = (1, 2, 3, 4, 6, 8, 12, 20, 40, 80)
_CONNECT_BUCKETS_MS = (25, 50, 100, 200, 400, 800, 1600, 5000, 15000)


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
        for outcome in ("answered", "full", "invalid", "failed"):
            self._offers.labels(outcome)
        for reason in EndReason:
            self._ended.labels(reason.value)

    def offer(self, outcome: str) -> None:
        """Counts an offer: ``answered``, ``full``, ``invalid`` or ``failed``."""
        self._offers.labels(outcome).inc()

    def ended(self, reason: EndReason) -> None:
        """Counts the end of a session."""
        self._ended.labels(reason.value).inc()

    def request(self, status: int) -> None:
        """Counts an answered request."""
        self._requests.labels(f"{status // 100}xx").inc()
