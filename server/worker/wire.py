"""What gateway and worker tell each other, as both write and read it.

Place in the flow: ``RemoteSessions`` -> JSON -> ``server.worker.internal``, and back.

Invariants: both are of one version, so that nothing unknown is let pass in silence.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from engine.conversation.history import Line
from engine.conversation.voice.base import VoiceChange
from engine.quality import Quality
from engine.session import Mode
from server.packing import Background
from server.snapshot import KeptLine
from server.stage import Wishes

SECRET_HEADER = "X-Visavis-Worker-Secret"
MAX_BODY_BYTES = 2_000_000
"""An offer, and at most a hundred thousand characters of what was said before."""
BEAT_S = 0.5
"""Between two signs of life."""


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Voice(_Told):
    """How a voice is changed; see ``VoiceChange``."""

    pitch: float = 0.0
    formant: float = 0.0
    conversion: str = ""


class Opening(_Told):
    """A session that is wanted of a worker; members as in ``Sessions.open`` and ``Wishes``."""

    avatar: str
    sdp: str
    type: str
    mode: Mode
    max_duration_s: float | None = None
    quality: Quality | None = None
    style: str = ""
    language_model: str = ""
    background: Background | None = None
    priority: int = 5
    voice: Voice | None = None
    former: str = ""
    lines: tuple[KeptLine, ...] = ()

    @classmethod
    def of(
        cls, avatar: str, sdp: str, kind: str, mode: Mode, wishes: Wishes, max_duration_s: float | None
    ) -> Opening:
        """The arguments of ``Sessions.open`` as they travel."""
        change = wishes.voice
        return cls(
            avatar=avatar,
            sdp=sdp,
            type=kind,
            mode=mode,
            max_duration_s=max_duration_s,
            quality=wishes.quality,
            style=wishes.style,
            language_model=wishes.language_model,
            background=wishes.background,
            priority=wishes.priority,
            voice=None
            if change is None
            else Voice(pitch=change.pitch, formant=change.formant, conversion=change.conversion),
            former=wishes.former,
            lines=tuple(
                KeptLine(role=line.role, text=line.text, at_s=line.at_s, interrupted=line.interrupted)
                for line in wishes.lines
            ),
        )

    def wishes(self) -> Wishes:
        """What else is wanted of the session."""
        change = self.voice
        return Wishes(
            quality=self.quality,
            style=self.style,
            language_model=self.language_model,
            background=self.background,
            priority=self.priority,
            voice=None if change is None else VoiceChange(change.pitch, change.formant, change.conversion),
            former=self.former,
            lines=tuple(Line(line.role, line.text, line.at_s, line.interrupted) for line in self.lines),
        )


class Rejoining(_Told):
    """Another peer that is wanted for a session; members as in ``Sessions.rejoin``."""

    sdp: str
    type: str
    background: Background | None = None


class Opened(_Told):
    """A worker's answer to both."""

    session_id: str
    sdp: str
    type: str
    resumed: bool = False


class About(_Told):
    """What the page is told and only the process with the models knows; members as in ``Stage``."""

    restores: bool
    mode: Mode
    hears: bool
    note: str
    language_models: list[dict[str, str]]
    language_model: str


class Fullness(_Told):
    """How full a worker is; members as in ``WorkerState``.

    ``asked`` counts how often a session was asked for, so that whoever reserved a place knows that it was heard of.
    """

    places: int
    taken: int
    load: float
    avatars: list[str]
    yielding: int = 0
    draining: bool = False
    asked: int = 0
