"""Connections from a gateway to its workers: one pool a worker, errors as the typed ones they were.

Place in the flow: ``RemoteSessions``, ``Forwarder``, metrics and health -> ``Links`` -> a worker's routes.

Invariants:
    * a worker that cannot be reached is told from one that refuses: ``WorkerLost``, and the fleet hears of it;
    * connecting takes a second at most, so that a node that is gone holds nobody up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from engine.errors import (
    AccessDenied,
    AudioInvalid,
    BackendFailed,
    Busy,
    Closed,
    InvalidInput,
    NotFound,
    OfferInvalid,
    VisavisError,
)
from server.gateway.fleet import Fleet, WorkerState
from server.worker.wire import SECRET_HEADER

CONNECT_S = 1.0
ANSWER_S = 20.0
"""What a worker may take to open a session: an avatar that was never shown is read and prepared."""
LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError)

_CLASSES: dict[int, type[VisavisError]] = {
    400: OfferInvalid, 401: AccessDenied, 403: AccessDenied, 404: NotFound, 409: Closed, 415: AudioInvalid,
    429: Busy, 503: Busy,
}  # fmt: skip


class WorkerLost(Exception):
    """There is no worker at its address any more."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the worker {name} cannot be reached")
        self.name = name


class Links:
    """Clients of all workers, each made when it is first needed."""

    def __init__(self, fleet: Fleet) -> None:
        """Args: fleet: hears of workers that cannot be reached."""
        self._fleet = fleet
        self._clients: dict[tuple[str, str], aiohttp.ClientSession] = {}

    def client(self, worker: WorkerState) -> aiohttp.ClientSession:
        """The client of one worker; it shows the secret by itself and sends nothing that was not asked for."""
        key = (worker.name, worker.address)
        if key not in self._clients:
            connector: aiohttp.BaseConnector
            if worker.address.startswith("unix:"):
                connector = aiohttp.UnixConnector(worker.address.removeprefix("unix:"), limit=0)
            else:
                connector = aiohttp.TCPConnector(limit=0)
            self._clients[key] = aiohttp.ClientSession(
                connector=connector,
                headers={SECRET_HEADER: worker.secret},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            )
        return self._clients[key]

    def url(self, worker: WorkerState, path: str) -> URL:
        """The address of a worker's route; the path is taken as it is."""
        base = "http://worker" if worker.address.startswith("unix:") else worker.address
        return URL(base + path, encoded=True)

    async def call(
        self,
        worker: WorkerState,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = ANSWER_S,
    ) -> Any:
        """What a worker answers: a JSON document, or None.

        Raises:
            WorkerLost: it cannot be reached, or left while it answered.
            VisavisError: what it refused; ``worker_silent`` when it does not answer in time.
        """
        try:
            async with self.client(worker).request(
                method,
                self.url(worker, path),
                json=body,
                # The client adds none of its own, for the sake of what is forwarded.
                headers=None if body is None else {"Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S),
            ) as response:
                if response.status >= 400:
                    raise await refusal(response)
                return await response.json() if response.status != 204 else None
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                await self.lost(worker)
                raise WorkerLost(worker.name) from error
            raise BackendFailed("worker_silent", "The process of this session does not answer; try again.") from error
        except LOST as error:
            await self.lost(worker)
            raise WorkerLost(worker.name) from error

    async def lost(self, worker: WorkerState) -> None:
        """Tells the fleet that a worker could not be reached."""
        await self._fleet.lost(worker.name)

    async def retain(self, names: set[str]) -> None:
        """Closes the clients of all workers but these."""
        for key in [key for key in self._clients if key[0] not in names]:
            # Closing takes a moment, in which somebody else may have the same in mind.
            if (client := self._clients.pop(key, None)) is not None:
                await client.close()

    async def aclose(self) -> None:
        """Closes all connections. Idempotent."""
        await self.retain(set())


async def refusal(response: aiohttp.ClientResponse) -> VisavisError:
    """A worker's error as the typed one that it was."""
    code, message = "internal", "Something went wrong on the server; its log says what."
    with contextlib.suppress(ValueError, KeyError, TypeError):
        told = (await response.json(content_type=None))["error"]
        code, message = str(told["code"]), str(told["message"])
    kind = _CLASSES.get(response.status, InvalidInput if response.status < 500 else BackendFailed)
    if kind is Busy:
        with contextlib.suppress(ValueError):
            return Busy(code, message, retry_after_s=int(response.headers.get("Retry-After", "")))
    return kind(code, message)
