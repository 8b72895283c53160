"""The cluster as a gateway sees it: ``Fleet`` and ``Memory`` by the directory.

Place in the flow: gateway -> ``RayFleet`` -> directory; media and signaling go to the worker's own address.

Invariants:
    * a gateway knows nothing that another one does not: any of them can end, and any number can be added;
    * while the directory is being restarted, sessions go on by the last view, and newcomers wait a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from engine.errors import AccessDenied, BackendFailed, Busy, VisavisError
from server.access.line import RETRY_AFTER_S, Waiting
from server.cluster.directory import View
from server.cluster.entrance import Placement
from server.cluster.ray_hands import find_directory
from server.cluster.ray_node import load_ray
from server.cluster.settings import Settings
from server.gateway.fleet import Snapshot, Wanted, WorkerState

logger = logging.getLogger(__name__)

REFRESH_S = 0.2
PATIENCE_S = 10.0
"""A directory that died is there again in about two seconds, and knows all workers in a few more."""
FRESH_S = 2.0
"""A worker that had a place is known at least so long."""
_ATTEMPT_S = 3.0


class DirectoryClient:
    """Calls of the directory that survive its death."""

    def __init__(self) -> None:
        self._handle: Any = None

    async def call(self, method: str, *arguments: Any, patience_s: float = PATIENCE_S) -> Any:
        """Asks the directory, again where it is being restarted.

        Raises:
            BackendFailed: ``cluster_unreachable``.
        """
        errors = load_ray().exceptions
        loop = asyncio.get_running_loop()
        until_s = loop.time() + patience_s
        while True:
            try:
                async with asyncio.timeout(_ATTEMPT_S):
                    if self._handle is None:
                        self._handle = await asyncio.to_thread(find_directory)
                    return await getattr(self._handle, method).remote(*arguments)
            except (errors.RayActorError, errors.GetTimeoutError, TimeoutError) as error:
                self._handle = None
                if loop.time() >= until_s:
                    raise BackendFailed(
                        "cluster_unreachable", "The directory of the cluster does not answer; try again in a moment."
                    ) from error
                await asyncio.sleep(0.1)


class RayFleet:
    """The workers of a Ray cluster."""

    def __init__(self, client: DirectoryClient) -> None:
        """Args: client: of the directory."""
        self._client = client
        self._view = View("", (), False)
        self._watch: asyncio.Task[None] | None = None
        self._placed: dict[str, tuple[WorkerState, float]] = {}
        self._new = asyncio.Event()
        self._told_key: Callable[[bytes], None] = lambda _key: None

    async def open(self, settings: Settings) -> None:
        """Says hello and returns when the first visitor need not wait."""
        while (agrees := await self._client.call("hello", settings, patience_s=60)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        if not agrees:
            logger.warning(
                "the workers run with other options than this gateway: python -m server.cluster rollout gives them"
                " these"
            )
        self._watch = asyncio.create_task(self._follow(), name="cluster-view")
        told = False
        while not any(worker.state == "ready" for worker in self._view.workers):
            if told is False and self._view.settled:
                logger.info("waiting for the first worker of the cluster")
                told = True
            await self._new.wait()
            self._new.clear()

    async def aclose(self) -> None:
        """Stops following the cluster, which goes on."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def workers(self) -> Sequence[WorkerState]:
        """See ``Fleet``."""
        return self._view.workers

    async def place(self, wanted: Wanted) -> WorkerState:
        """See ``Fleet``; the line and the tokens that were used are those of all gateways."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + PATIENCE_S
        while True:
            placement: Placement = await self._client.call("place", wanted)
            if placement.worker is not None:
                self._know(placement.worker)
                return placement.worker
            if placement.reason != "settling" or loop.time() >= until_s:
                raise _refusal(placement)
            # A directory that has just begun does not know all workers yet.
            await asyncio.sleep(0.2)

    async def give_back(self, token_id: str) -> None:
        """A token was used for a session that did not come about."""
        await self._client.call("give_back", token_id)

    async def lost(self, name: str) -> None:
        """See ``Fleet``."""
        # For this gateway at once, whether or not the directory is there to hear of it.
        self._placed.pop(name, None)
        self._view = replace(self._view, workers=tuple(it for it in self._view.workers if it.name != name))
        with contextlib.suppress(BackendFailed):
            await self._client.call("lost", name, patience_s=0)

    def on_token_key(self, told: Callable[[bytes], None]) -> None:
        """Has somebody told the key that signs tokens, now and whenever it changes."""
        self._told_key = told
        if self._view.token_key:
            told(self._view.token_key)

    async def _follow(self) -> None:
        while True:
            try:
                await self._refresh()
            except BackendFailed as error:
                logger.warning("%s", error.message)
            await asyncio.sleep(REFRESH_S)

    def _know(self, worker: WorkerState) -> None:
        """Adds one that came up since the last view, whose sessions are not to be taken for lost."""
        self._placed[worker.name] = (worker, asyncio.get_running_loop().time() + FRESH_S)
        self._view = self._with_placed(self._view)

    def _with_placed(self, view: View) -> View:
        known = {worker.name for worker in view.workers}
        now_s = asyncio.get_running_loop().time()
        self._placed = {name: it for name, it in self._placed.items() if name not in known and it[1] > now_s}
        return replace(view, workers=(*view.workers, *(worker for worker, _ in self._placed.values())))

    async def _refresh(self) -> None:
        former = self._view
        # It may have been on its way since before a place was given away.
        self._view = self._with_placed(await self._client.call("view"))
        if self._view.token_key != former.token_key:
            self._told_key(self._view.token_key)
        self._new.set()


class RayMemory:
    """``Memory`` for gateways. Workers have their own, which travels with their reports."""

    def __init__(self, client: DirectoryClient) -> None:
        """Args: client: of the directory."""
        self._client = client

    async def keep(self, session_id: str, snapshot: Snapshot) -> None:
        """See ``Memory``."""
        await self._client.call("keep", session_id, pack(snapshot))

    async def recall(self, session_id: str) -> Snapshot | None:
        """See ``Memory``."""
        found = await self._client.call("recall", session_id)
        return None if found is None else json.loads(found)

    async def forget(self, session_id: str) -> None:
        """See ``Memory``."""
        await self._client.call("forget", session_id)


def _refusal(placement: Placement) -> VisavisError:
    if placement.reason == "token_used":
        return AccessDenied("token_used", "This token was used before, and works once; ask for a new one.")
    if placement.ticket:
        return Waiting(placement.ticket, placement.position)
    if placement.reason == "line_full":
        return Busy("server_full", "All places are taken, and many wait for one; try again later.", retry_after_s=30)
    return Busy("server_full", "All places are taken; try again in a moment.", retry_after_s=RETRY_AFTER_S)


def pack(snapshot: Snapshot) -> bytes:
    """A snapshot as it travels."""
    return json.dumps(snapshot, ensure_ascii=False, separators=(",", ":")).encode()
