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
    StrictInt,
    StrictStr,
    ValidationError,
)

from engine.quality import Quality as Level


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
