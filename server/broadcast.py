"""Broadcasts: one face, any number of viewers, each picture encoded once.

Place in the flow: POST /broadcasts -> ``Broadcasts.open`` -> a session without a browser of its own; offers of viewers
-> ``watch`` -> ``Viewer``. What the face says and does comes in through the session's own routes.

Invariants:
    * a broadcast takes one place, its viewers take none, and there are never more of them than the limit;
    * its id lets people watch, the id of its session lets a program control it; neither tells the other;
    * a viewer that does not answer any more is let go; the broadcast ends with its session, and its viewers with it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from engine.errors import Busy, NotFound
from engine.session import Mode
from server import signaling
from server.live_session import LiveSession
from server.metrics import ServerMetrics
from server.peer_options import PeerOptions
from server.sessions import Sessions
from server.stage import NO_WISHES, Wishes
from server.viewer import Viewer

logger = logging.getLogger(__name__)

CHECK_S = 1.0


@dataclass(slots=True)
class Broadcast:
    """One face that many watch.

    Attributes:
        id: what viewers know.
        live: the session that is shown.
        viewers: by their ids, those still connecting included.
    """

    id: str
    live: LiveSession
    viewers: dict[str, Viewer] = field(default_factory=dict)
    _life: asyncio.Task[None] | None = field(default=None, repr=False)


class Broadcasts:
    """All broadcasts of a server."""

    def __init__(self, sessions: Sessions, options: PeerOptions, metrics: ServerMetrics, most_viewers: int) -> None:
        """Args: sessions: the places; options: how viewers connect; metrics: where to count; most_viewers: of each."""
        self._sessions = sessions
        self._options = options
        self._metrics = metrics
        self.most_viewers = most_viewers
        self._open: dict[str, Broadcast] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, avatar: str, mode: Mode = "say", wishes: Wishes = NO_WISHES) -> Broadcast:
        """Begins a broadcast.

        Args:
            avatar: name of a known avatar.
            mode: whether it answers what it is asked.
            wishes: what else is wanted of the session.

        Raises:
            NotFound, Busy, Closed: as ``Sessions.open``.
        """
        live = await self._sessions.open_unseen(avatar, mode, wishes)
        broadcast = Broadcast(self._sessions.new_id(), live)
        self._open[broadcast.id] = broadcast
        broadcast._life = asyncio.create_task(self._live_and_end(broadcast), name="broadcast-life")
        return broadcast

    def get(self, broadcast_id: str) -> Broadcast:
        """A broadcast by id.

        Raises:
            NotFound: ``broadcast_not_found``: never existed, or has ended.
        """
        broadcast = self._open.get(broadcast_id)
        if broadcast is None or broadcast.live.ended.done():
            raise NotFound("broadcast_not_found", "There is no such broadcast; it may have ended.")
        return broadcast

    async def watch(self, broadcast_id: str, sdp: str, kind: str) -> tuple[str, signaling.Description]:
        """Answers an offer of somebody who would watch.

        Args:
            broadcast_id: of what.
            sdp: the viewer's session description.
            kind: its type, ``offer``.

        Returns:
            The viewer's id, and the answer.

        Raises:
            NotFound: ``broadcast_not_found``.
            OfferInvalid: ``offer_invalid``.
            Busy: ``broadcast_full``.
        """
        broadcast = self.get(broadcast_id)
        offer = signaling.read_offer(sdp, kind)
        if len(broadcast.viewers) >= self.most_viewers:
            raise Busy("broadcast_full", f"{self.most_viewers} people watch already; try again in a moment.")
        viewer_id = self._sessions.new_id()
        viewer = broadcast.viewers[viewer_id] = Viewer(broadcast.live.fan, self._options, self._metrics)
        try:
            description = await viewer.answer(offer)
        except BaseException:
            self._let_go(broadcast, viewer_id)
            raise
        viewer.ended.add_done_callback(lambda _ended: self._let_go(broadcast, viewer_id))
        return viewer_id, description

    def viewer(self, broadcast_id: str, viewer_id: str) -> Viewer:
        """Somebody who watches.

        Raises:
            NotFound: ``broadcast_not_found``, ``viewer_not_found``.
        """
        viewer = self.get(broadcast_id).viewers.get(viewer_id)
        if viewer is None:
            raise NotFound("viewer_not_found", "There is no such viewer; it may have gone.")
        return viewer

    async def close(self, broadcast_id: str) -> None:
        """Ends a broadcast and returns when its place is free.

        Raises:
            NotFound: ``broadcast_not_found``.
        """
        broadcast = self.get(broadcast_id)
        await self._sessions.close(broadcast.live.id)
        if broadcast._life is not None:
            await asyncio.wait([broadcast._life])

    async def aclose(self) -> None:
        """Lets all viewers go; their sessions end with ``Sessions``. Idempotent."""
        lives = [broadcast._life for broadcast in self._open.values() if broadcast._life is not None]
        for life in lives:
            life.cancel()
        if lives:
            await asyncio.wait(lives)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _live_and_end(self, broadcast: Broadcast) -> None:
        try:
            while not broadcast.live.ended.done():
                await asyncio.wait([broadcast.live.ended], timeout=CHECK_S)
                for viewer in list(broadcast.viewers.values()):
                    viewer.check()
        finally:
            self._open.pop(broadcast.id, None)
            for viewer_id in list(broadcast.viewers):
                self._let_go(broadcast, viewer_id)
            logger.info("broadcast %s ended", broadcast.id[:6])

    def _let_go(self, broadcast: Broadcast, viewer_id: str) -> None:
        viewer = broadcast.viewers.pop(viewer_id, None)
        if viewer is not None:
            task = asyncio.create_task(viewer.aclose(), name="viewer-close")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
