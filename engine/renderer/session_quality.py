"""The quality of one session: what it asks for, what it gets, and which pictures of its avatar it shows.

Place in the flow: Session -> ``SessionQuality`` -> Restoring, Governor; producer -> ``look_of`` -> PictureJob.

Invariants:
    * the first picture waits for nothing: a session begins with the avatar's own pictures and passes into the restored
      ones when they are there;
    * without a restorer nothing is asked, nothing changes, and every frame shows the avatar as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from engine.aio import Tasks
from engine.avatar.head_move import ease
from engine.errors import VisavisError
from engine.lipsync.base import PreparedAvatar
from engine.metrics import EngineMetrics
from engine.quality import OFF, RESTORED_AVATAR, Quality, QualityState
from engine.renderer.restoring import Restoring, SessionRestoring
from engine.schedule import PRIORITY

LOOK_FRAMES = 10
"""Frames in which an avatar's own pictures pass into its restored ones, or back: 0.4 s."""

_log = logging.getLogger(__name__)


class Looks:
    """Which pictures of the avatar the frames of a session show: its own, or its restored ones.

    Frames are told apart by ``FramePlan.sequence`` alone, so those that are planned anew look the same again.

    Args:
        own: the avatar as it is.

    Attributes:
        restored: the same avatar restored; None while there is none.
    """

    def __init__(self, own: PreparedAvatar) -> None:
        self.restored: PreparedAvatar | None = None
        self._own = own
        self._wanted = False
        self._share = 0.0
        self._since = 0

    def turn(self, restored: bool, sequence: int) -> None:
        """From the frame ``sequence`` on pass into the restored pictures, where there are any, or back."""
        if self.would_turn(restored):
            self._share, self._since = self._share_at(sequence - 1), sequence
            self._wanted = not self._wanted

    def would_turn(self, restored: bool) -> bool:
        """Whether ``turn`` would change anything."""
        return (restored and self.restored is not None) != self._wanted

    def at(self, sequence: int) -> tuple[PreparedAvatar, PreparedAvatar | None, float]:
        """What a frame shows: pictures, others that are seen through them or None, and how much of those."""
        share = self._share_at(sequence)
        if self.restored is None or share <= 0:
            return self._own, None, 0.0
        return (self.restored, None, 0.0) if share >= 1 else (self._own, self.restored, ease(share))

    def _share_at(self, sequence: int) -> float:
        passed = max(0, sequence - self._since + 1) / LOOK_FRAMES
        return min(1.0, self._share + passed) if self._wanted else max(0.0, self._share - passed)


class SessionQuality:
    """What one session asks of the restorer, and shows of it.

    Args:
        own: the avatar as it is.
        restoring: the restorer; None when there is none.
        asked: the quality asked for.
        on_change: called with every change of the state.
        metrics: where to count.
        priority: of the session, 0 to 9.

    Attributes:
        live: with what live pictures are restored; None before ``start``, and without a restorer.
    """

    def __init__(
        self,
        own: PreparedAvatar,
        restoring: Restoring | None,
        asked: Quality,
        on_change: Callable[[QualityState], None],
        metrics: EngineMetrics,
        priority: int = PRIORITY,
    ) -> None:
        self.live: SessionRestoring | None = None
        self._avatar = own.avatar
        self._looks = Looks(own)
        self._restoring = restoring
        self._asked = asked
        self._on_change = on_change
        self._metrics = metrics
        self._priority = priority
        self._passing = self._finding = False
        self._tasks = Tasks("quality")

    def start(self) -> None:
        """Takes a seat at the governor, and has the avatar restored if that is asked for."""
        if self._restoring is not None:
            self.live = self._restoring.open(self._avatar, self._asked, self._on_change, self._priority)
            self._find_look()

    async def aclose(self) -> None:
        """Gives the seat back. Idempotent and time-limited."""
        await self._tasks.aclose()
        if self._restoring is not None and self.live is not None:
            self._restoring.close_session(self.live)

    @property
    def state(self) -> QualityState:
        """What is asked for, and what is had."""
        return QualityState(self._asked, OFF, "no_restorer") if self.live is None else self.live.state

    def ask(self, asked: Quality) -> None:
        """Asks for another quality from now on."""
        self._asked = asked
        if self._restoring is not None and self.live is not None:
            self._restoring.ask(self.live, asked)
            self._find_look()

    @property
    def passing(self) -> bool:
        """Whether the last frame asked about is between two looks, which takes twice as long to draw."""
        return self._passing

    @property
    def restless(self) -> bool:
        """Whether the next frame may be between two looks."""
        return self._passing or (self.live is not None and self._looks.would_turn(self._is_restored(self.live)))

    def look_of(self, sequence: int, settled: bool = False) -> tuple[PreparedAvatar, PreparedAvatar | None, float]:
        """What a frame shows, see ``Looks.at``.

        Args:
            sequence: of the frame's plan.
            settled: the body is not between two pictures itself, so the look may begin to change.
        """
        if settled and self.live is not None:
            self._looks.turn(self._is_restored(self.live), sequence)
        look = self._looks.at(sequence)
        self._passing = look[1] is not None
        return look

    def unrestored(self) -> None:
        """A picture went out unrestored, because that took too long."""
        self._metrics.unrestored.inc()
        if self._restoring is not None and self.live is not None:
            self._restoring.missed(self.live)

    def observe(self, stage: str, seconds: float) -> None:
        """What a stage cost for one frame."""
        self._metrics.stage_ms(stage).observe(seconds * 1000)
        if self._restoring is not None:
            self._restoring.observe(stage, seconds)

    @staticmethod
    def _is_restored(live: SessionRestoring) -> bool:
        return live.seat.level >= RESTORED_AVATAR

    def _find_look(self) -> None:
        wanted = self.live is not None and self.live.seat.wanted >= RESTORED_AVATAR
        if wanted and not self._finding and self._looks.restored is None:
            self._finding = True
            self._tasks.start(self._restore_look(), "look")

    async def _restore_look(self) -> None:
        assert self._restoring is not None and self.live is not None
        try:
            self._looks.restored = await self._restoring.look(self.live)
        except VisavisError as error:
            _log.warning("%s is shown without restoring: %s", self._avatar.name, error.message)
        finally:
            self._finding = False
