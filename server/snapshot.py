"""What has to be known of a session so that it can go on in another process: what was heard, and how it is answered.

Place in the flow: LiveSession -> ``Snapshot.of`` -> a memory outside its process -> ``Snapshot.wishes`` -> another
LiveSession.

Invariants:
    * what was said is what was heard: an answer that is cut off by the loss ends where its listener stopped hearing it;
    * its size is bounded, and with it what is sent after every turn; the newest lines are kept.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from engine.conversation.history import Line
from engine.conversation.voice.base import VoiceChange
from engine.quality import Quality
from engine.session import Mode
from server.packing import Background
from server.stage import Wishes

if TYPE_CHECKING:
    from server.live_session import LiveSession

MAX_LINES = 500
MAX_CHARS = 100_000


class KeptLine(BaseModel):
    """One contribution; see ``engine.conversation.history.Line``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["user", "assistant"]
    text: str
    at_s: float
    interrupted: bool = False


class Snapshot(BaseModel):
    """One session as it is to go on.

    Attributes:
        avatar: name of the face.
        mode: what becomes of the microphone.
        style, language_model: how it is answered.
        quality: how much is restored.
        background: what is behind the person.
        pitch, formant, conversion: how the voice is changed.
        priority: 0 to 9.
        end_at_s: when it has lasted for as long as it may, seconds since 1970.
        lines: what was said.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    avatar: str
    mode: Mode
    style: str
    language_model: str
    quality: Quality
    background: Background
    pitch: float
    formant: float
    conversion: str
    end_at_s: float
    priority: int = 5
    lines: tuple[KeptLine, ...] = ()

    @classmethod
    def of(cls, live: LiveSession) -> Snapshot:
        """A session as it is now."""
        session, voice = live.session, live.session.voice_change
        return cls(
            avatar=live.avatar,
            mode=session.mode,
            style=live.manner.style,
            language_model=live.manner.language_model,
            quality=session.quality.asked,
            background=live.peer.packing.background,
            pitch=voice.pitch,
            formant=voice.formant,
            conversion=voice.conversion,
            # Rounded, so that a session in which nothing happens looks the same each time.
            priority=live.priority,
            end_at_s=float(round(time.time() + live.end_s - time.monotonic())),
            lines=_newest(session.said_so_far()),
        )

    def left_s(self) -> float:
        """How long it may still last; at least long enough to say so."""
        return max(1.0, self.end_at_s - time.time())

    def wishes(self, former: str, background: Background | None = None) -> Wishes:
        """What is wanted of the session that goes on.

        Args:
            former: id of the one that was lost.
            background: what its browser wants behind the person now; as before when None.
        """
        return Wishes(
            quality=self.quality,
            style=self.style,
            language_model=self.language_model,
            background=background or self.background,
            priority=self.priority,
            voice=VoiceChange(self.pitch, self.formant, self.conversion),
            former=former,
            lines=tuple(Line(line.role, line.text, line.at_s, line.interrupted) for line in self.lines),
        )


def _newest(lines: list[Line]) -> tuple[KeptLine, ...]:
    kept: list[KeptLine] = []
    chars = 0
    for line in reversed(lines[-MAX_LINES:]):
        chars += len(line.text)
        if chars > MAX_CHARS:
            break
        kept.append(KeptLine(role=line.role, text=line.text, at_s=line.at_s, interrupted=line.interrupted))
    return tuple(reversed(kept))
