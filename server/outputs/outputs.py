"""All outputs of all sessions: which targets there are, and which session is sent where.

Place in the flow: routes -> ``Outputs.start`` -> Output; the session's end -> ``Outputs`` ends them.

Invariants:
    * targets are those of the options and are named, so no request can make the server connect anywhere else;
    * one session is sent to a target at a time, since a second one would push the first aside;
    * an output ends with its session at the latest, and all with the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge

from engine.errors import Busy, NotFound
from engine.targets import PublishTarget
from server.encoder_pool import EncoderPool
from server.live_session import LiveSession
from server.outputs.base import Delivery, Kind, Output, OutputState
from server.outputs.rtmp import RtmpDelivery
from server.outputs.whip import WhipDelivery

_KINDS: tuple[Kind, ...] = ("whip", "rtmp")


class OutputMetrics:
    """Counts outputs.

    | metric | type | meaning |
    |---|---|---|
    | ``visavis_outputs{kind,state}`` | gauge | running outputs: ``connecting``, ``live``, ``waiting`` |
    | ``visavis_output_failures_total{kind}`` | counter | connections that did not come about, or were lost |
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Args: registry: the engine's, so that one page shows all."""
        self.running = Gauge("visavis_outputs", "Running outputs", ["kind", "state"], registry=registry)
        self.failures = Counter("visavis_output_failures", "Failed connections", ["kind"], registry=registry)
        for kind in _KINDS:
            self.failures.labels(kind)
            for state in OutputState:
                self.running.labels(kind, state)

    def follower(self, kind: Kind) -> Callable[[OutputState | None], None]:
        """Counts one output: told its states, and None at its end."""
        before: list[OutputState] = []

        def follow(state: OutputState | None) -> None:
            while before:
                self.running.labels(kind, before.pop()).dec()
            if state is not None:
                self.running.labels(kind, state).inc()
                before.append(state)
            if state is OutputState.WAITING:
                self.failures.labels(kind).inc()

        return follow


class Outputs:
    """The outputs of one server."""

    def __init__(
        self,
        targets: Sequence[PublishTarget],
        pool: EncoderPool,
        video_bitrate: int,
        ice_servers: Callable[[], Sequence[dict[str, Any]]],
        registry: CollectorRegistry,
    ) -> None:
        """
        Args:
            targets: of the options.
            pool: where sound is encoded.
            video_bitrate: of every session's pictures, bits per second.
            ice_servers: to connect through, for one connection.
            registry: of metrics.
        """
        self._targets = {target.name: target for target in targets}
        self._pool = pool
        self._video_bitrate = video_bitrate
        self._ice_servers = ice_servers
        self._metrics = OutputMetrics(registry)
        self._running: dict[str, tuple[str, Output]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> list[str]:
        """Of all targets."""
        return list(self._targets)

    def known(self, names: Iterable[str]) -> None:
        """Checks names before anything is begun.

        Raises:
            NotFound: ``output_unknown``.
            Busy: ``output_taken``.
        """
        for name in names:
            if name not in self._targets:
                raise NotFound("output_unknown", "There is no such target; the option publish names them.")
            if name in self._running:
                raise Busy("output_taken", "A session is sent there already; end that first.")

    def start(self, live: LiveSession, name: str) -> Output:
        """Sends a session to a target from now on, until ``stop`` or its end.

        Raises:
            NotFound: ``output_unknown``.
            Busy: ``output_taken``.
        """
        self.known([name])
        delivery = self._delivery(self._targets[name])
        output = Output(name, delivery, live, self._metrics.follower(delivery.kind))
        self._running[name] = (live.id, output)
        live.ended.add_done_callback(lambda _ended: self._end(name, output))
        return output

    def of(self, session_id: str) -> list[Output]:
        """Those of one session."""
        return [output for owner, output in self._running.values() if owner == session_id]

    async def stop(self, session_id: str, name: str) -> None:
        """Ends an output; returns when its connection is closed.

        Raises:
            NotFound: ``output_not_running``: this session is not sent there.
        """
        owner, output = self._running.get(name, ("", None))
        if output is None or owner != session_id:
            raise NotFound("output_not_running", "This session is not sent there.")
        self._running.pop(name)
        await output.aclose()

    async def aclose(self) -> None:
        """Ends all; idempotent and bounded in time."""
        for name, (_owner, output) in list(self._running.items()):
            self._end(name, output)
        if self._ending:
            await asyncio.wait(self._ending)

    def _end(self, name: str, output: Output) -> None:
        if self._running.get(name, ("", None))[1] is output:
            del self._running[name]
            task = asyncio.create_task(output.aclose(), name="output-end")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _delivery(self, target: PublishTarget) -> Delivery:
        if target.url.startswith("rtmp"):
            return RtmpDelivery(target.url, self._pool, self._video_bitrate)
        return WhipDelivery(target.url, target.token, self._ice_servers)


OUTPUTS: web.AppKey[Outputs] = web.AppKey("outputs", Outputs)
