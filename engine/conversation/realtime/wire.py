"""The events of OpenAI's Realtime interface: ours as JSON, the service's under one name, its errors typed.

Place in the flow: RealtimeConversation -> these -> Link -> service, and back.

The interface has two dialects, the general one and the beta that many compatible servers speak; the service's first
event, ``session.created``, tells which. Reference: OpenAI, "Realtime client events" and "Realtime server events".

Invariant: what a service writes in an error reaches no message, only its code decides.
"""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Dialect = Literal["general", "beta"]
Event = dict[str, Any]

RATE = 24_000
"""Sound in both directions, Hz, int16 mono."""

BETA_TEMPERATURE = (0.6, 1.2)
"""What the beta allows; the general dialect has none."""

_GENERAL_NAMES = {
    "response.audio.delta": "response.output_audio.delta",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.text.delta": "response.output_text.delta",
}
_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Setting:
    """How a service is to converse, but for its instructions.

    Attributes:
        voice: its voice; empty for its own choice.
        language: two-letter code of what is spoken; empty when that is not known.
        transcriber: model that writes down what people say.
    """

    voice: str = ""
    language: str = ""
    transcriber: str = ""


def new_id(kind: str) -> str:
    """An id for an event or item of ours, such as ``cancel-7``; services allow 32 characters."""
    return f"{kind}-{next(_ids)}"


def kind_of_id(event_id: object) -> str:
    """``cancel`` for ``cancel-7``; empty for what is no id of ours."""
    return event_id.rpartition("-")[0] if isinstance(event_id, str) else ""


def parse(text: str | bytes) -> Event:
    """One event of the service, by its general name.

    Raises:
        ValueError: it is none.
    """
    try:
        event = json.loads(text)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise ValueError("an event has a type")
    event["type"] = _GENERAL_NAMES.get(event["type"], event["type"])
    return event


def member(event: Event, *path: str) -> Any:
    """A member of an event, however deep; None where there is none."""
    value: Any = event
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_member(event: Event, *path: str) -> str:
    """A text of an event; empty where there is none."""
    value = member(event, *path)
    return value if isinstance(value, str) else ""


def sound_of(event: Event) -> np.ndarray:
    """The (n,) int16 of a delta of sound.

    Raises:
        ValueError: it holds none.
    """
    raw = base64.b64decode(text_member(event, "delta"), validate=True)
    return np.frombuffer(raw, "<i2").astype(np.int16)


def dialect_of(created: Event) -> Dialect:
    """Which dialect a service speaks, by its ``session.created``."""
    session = member(created, "session")
    beta = isinstance(session, dict) and ("input_audio_format" in session or "modalities" in session)
    return "beta" if beta else "general"


def set_up(dialect: Dialect, instructions: str, setting: Setting) -> Event:
    """Sets a session up. The turns are ours, so the service's own are off."""
    transcription: Event = {"model": setting.transcriber}
    if setting.language:
        transcription["language"] = setting.language
    voice = {"voice": setting.voice} if setting.voice else {}
    if dialect == "beta":
        session: Event = {
            "modalities": ["audio", "text"],
            "instructions": instructions,
            "input_audio_format": "pcm16",
            "output_audio_format": "pcm16",
            "input_audio_transcription": transcription,
            "turn_detection": None,
            **voice,
        }
    else:
        sound = {"type": "audio/pcm", "rate": RATE}
        session = {
            "type": "realtime",
            "output_modalities": ["audio"],
            "instructions": instructions,
            "audio": {
                "input": {"format": sound, "transcription": transcription, "turn_detection": None},
                "output": {"format": sound, **voice},
            },
        }
    return {"type": "session.update", "session": session}


def instruct(dialect: Dialect, instructions: str) -> Event:
    """Tells a session that is set up something else about itself."""
    session: Event = {"instructions": instructions, **({"type": "realtime"} if dialect == "general" else {})}
    return {"type": "session.update", "event_id": new_id("instruct"), "session": session}


def append(sound: bytes) -> Event:
    """Sound of the person, int16 little-endian at ``RATE``."""
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(sound).decode("ascii")}


def commit() -> Event:
    """What was appended becomes an item of the conversation."""
    return {"type": "input_audio_buffer.commit", "event_id": new_id("commit")}


def clear() -> Event:
    """What was appended was no turn."""
    return {"type": "input_audio_buffer.clear", "event_id": new_id("clear")}


def respond(dialect: Dialect, temperature: float | None) -> Event:
    """Asks for an answer to the conversation as it is."""
    event: Event = {"type": "response.create", "event_id": new_id("respond")}
    if dialect == "beta" and temperature is not None:
        low, high = BETA_TEMPERATURE
        event["response"] = {"temperature": min(high, max(low, temperature))}
    return event


def cancel(response_id: str) -> Event:
    """Ends the answer that is being made; without an id, whichever that is."""
    event: Event = {"type": "response.cancel", "event_id": new_id("cancel")}
    return {**event, "response_id": response_id} if response_id else event


def truncate(item_id: str, heard_ms: int) -> Event:
    """Makes the service forget what was not heard of an answer."""
    return {
        "type": "conversation.item.truncate",
        "event_id": new_id("truncate"),
        "item_id": item_id,
        "content_index": 0,
        "audio_end_ms": heard_ms,
    }


def delete(item_id: str) -> Event:
    """Takes an item out of the conversation."""
    return {"type": "conversation.item.delete", "event_id": new_id("delete"), "item_id": item_id}


def create(dialect: Dialect, role: str, text: str, item_id: str, after: str | None) -> Event:
    """Puts a text into the conversation. Args: after: item before it, ``root`` for none; None: at the end."""
    spoken = "text" if dialect == "beta" else "output_text"
    part = {"type": "input_text" if role == "user" else spoken, "text": text}
    item = {"id": item_id, "type": "message", "role": role, "content": [part]}
    event: Event = {"type": "conversation.item.create", "event_id": new_id("create"), "item": item}
    return event if after is None else {**event, "previous_item_id": after}
