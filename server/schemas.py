"""What clients send and get, checked at the door.

Place in the flow: bytes of a request -> model -> handler. openapi.json says the same to people and tools.

Invariants: unknown members are refused where they would be mistaken for an option; every text has a bound.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from engine.errors import InvalidInput
from engine.quality import Quality as Level
from server.access.embeds import origin_of


def _encodable(text: str) -> str:
    # JSON can carry half of a surrogate pair; nothing behind this door could write it down.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("is not valid Unicode") from error
    return text


Text = Annotated[StrictStr, AfterValidator(_encodable)]


def _no_look_alike(value: object) -> object:
    # To Python, true and 1.0 are 1.
    if type(value) not in (int, str):
        raise ValueError("is neither a whole number nor a text")
    return value


def _exact_origin(text: str) -> str:
    try:
        return origin_of(text)
    except InvalidInput as error:
        raise ValueError("is no origin such as https://shop.example") from error


Origin = Annotated[StrictStr, Field(max_length=300), AfterValidator(_exact_origin)]
Semitones = Annotated[StrictFloat | StrictInt, Field(ge=-12, le=12)]
Milliseconds = Annotated[StrictFloat | StrictInt, Field(ge=0, le=1e15)]
OutputName = Annotated[StrictStr, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
QualityLevel = Annotated[Level, BeforeValidator(_no_look_alike)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Offer(BaseModel):
    """A browser's session description. Other members (``pc_id``, ``requestData`` …) of other clients are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    sdp: Text = Field(min_length=1, max_length=64_000)
    type: Text = Field(max_length=20)
    avatar: Text | None = Field(default=None, max_length=200)
    mode: Literal["converse", "mirror", "say", "idle"] | None = None
    quality: QualityLevel | None = None
    style: Text | None = Field(default=None, max_length=100)
    language_model: Text | None = Field(default=None, max_length=300)
    background: Literal["filmed", "packed"] | None = None
    token: Text | None = Field(default=None, max_length=2000)
    ticket: Text | None = Field(default=None, max_length=100)
    session_id: Text | None = Field(default=None, max_length=100)
    watch: Text | None = Field(default=None, max_length=100)
    priority: StrictInt | None = Field(default=None, ge=0, le=9)


class BroadcastRequest(_Strict):
    """What a broadcast shows."""

    avatar: Text | None = Field(default=None, max_length=200)
    mode: Literal["converse", "say"] | None = None
    quality: QualityLevel | None = None
    style: Text | None = Field(default=None, max_length=100)
    language_model: Text | None = Field(default=None, max_length=300)
    outputs: list[OutputName] = Field(default_factory=list, max_length=20)


class TokenRequest(_Strict):
    """What a session token is to permit; or the page token of a frame, whose avatar and origin are settled."""

    avatar: Text | None = Field(default=None, max_length=64)
    origin: Origin | None = None
    duration_s: StrictInt | None = Field(default=None, ge=60, le=600)
    max_session_s: StrictFloat | StrictInt | None = Field(default=None, ge=10, le=604_800)
    priority: StrictInt | None = Field(default=None, ge=0, le=9)
    page_token: Text | None = Field(default=None, max_length=2000)

    @model_validator(mode="after")
    def _settled(self) -> TokenRequest:
        if self.page_token is not None and (self.avatar, self.origin, self.priority) != (None, None, None):
            raise ValueError("a page token settles avatar, origin and priority")
        return self


class PipecatOffer(BaseModel):
    """A session description in Pipecat's words; ``requestData`` has what else an ``Offer`` may have."""

    model_config = ConfigDict(extra="ignore", frozen=True, validate_by_name=True, validate_by_alias=True)

    sdp: Text = Field(min_length=1, max_length=64_000)
    type: Text = Field(max_length=20)
    pc_id: Text | None = Field(default=None, max_length=100)
    restart_pc: StrictBool | None = None
    request_data: Any = Field(default=None, alias="requestData")


class PipecatCandidate(BaseModel):
    """One way to reach the browser."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    candidate: Text = Field(max_length=1000)
    sdp_mid: Text | None = Field(default=None, max_length=64)
    sdp_mline_index: StrictInt | None = Field(default=None, ge=0, le=100)


class PipecatCandidates(BaseModel):
    """Ways to reach the browser that it found after its offer."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    pc_id: Text = Field(max_length=100)
    candidates: list[PipecatCandidate] = Field(max_length=64)


def _as_text(value: object) -> object:
    # Older clients have numbers for ids.
    return str(value) if type(value) is int else value


class LiveTalkingSession(BaseModel):
    """Which session a LiveTalking client means."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    sessionid: Annotated[Text, BeforeValidator(_as_text)] = Field(max_length=100)


class LiveTalkingText(LiveTalkingSession):
    """A text to say (``echo``) or to answer (``chat``); ``tts`` is not looked at, an avatar has its own voice."""

    text: Text
    type: Literal["echo", "chat"]
    interrupt: bool = False


class LiveTalkingRecord(LiveTalkingSession):
    """Whether a recording begins or ends."""

    type: Literal["start_record", "end_record"]


class Say(_Strict):
    """Text to speak; its limits belong to the session."""

    text: Text


class Ask(_Strict):
    """Text to answer; its limits belong to the session."""

    text: Text


class Mode(_Strict):
    """What becomes of the microphone."""

    mode: Literal["converse", "mirror", "say"]


class PushToTalk(_Strict):
    """The talk key goes down or up; null listens always again."""

    down: StrictBool | None


class Mirror(_Strict):
    """Microphone pass-through on or off."""

    on: StrictBool


class Listening(_Strict):
    """Whether somebody else has the floor."""

    on: StrictBool


class Action(_Strict):
    """Something the avatar is to do."""

    name: Text = Field(min_length=1, max_length=32)


class Quality(_Strict):
    """How much of the face is restored: a level from 0 to 5, or ``auto``."""

    quality: QualityLevel


class StyleChoice(_Strict):
    """In which style the avatar answers."""

    name: Text = Field(min_length=1, max_length=100)


class LanguageModelChoice(_Strict):
    """Who answers: an id of ``language_models`` in config.json."""

    id: Text = Field(min_length=1, max_length=300)


class VoiceChange(_Strict):
    """What becomes of the avatar's voice: moved by semitones, and converted where a conversion is named."""

    pitch: Semitones = 0.0
    formant: Semitones = 0.0
    conversion: Text = Field(default="", max_length=100)


class BackgroundChoice(_Strict):
    """Whether pictures come as filmed, or packed with the matte that lets a page change the background."""

    background: Literal["filmed", "packed"]


class Heard(_Strict):
    """The page heard the first sound of an answer, at a time of the server's clock as ``pong`` tells it."""

    turn_id: StrictInt
    server_ms: Milliseconds


class StartOutput(_Strict):
    """Where a session is sent, too: the name of a target of the option ``publish``."""

    name: OutputName


class PcmHello(_Strict):
    """First message of a PCM socket: what the binary ones will hold."""

    sample_rate: StrictInt
    channels: StrictInt = 1
    format: Text
    live: StrictBool = False


def explain_validation(error: ValidationError) -> str:
    """A pydantic error as one sentence without the caller's data."""
    details: list[Any] = error.errors(include_url=False, include_input=False, include_context=False)
    parts = [f"{'.'.join(map(str, d['loc'])) or 'body'}: {d['msg'][0].lower()}{d['msg'][1:]}" for d in details[:3]]
    return "The request does not fit: " + "; ".join(parts) + "."
