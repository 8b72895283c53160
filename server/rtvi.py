"""RTVI 2.1 on the data channel, so that clients made for Pipecat's bots talk to an avatar.

Place in the flow: a data channel labelled ``rtvi-ai``, or ``chat`` as Pipecat's small WebRTC transport calls it ->
``ControlChannel`` with this ``Dialect`` in place of ``Flat``.

Messages are ``{"label": "rtvi-ai", "type", "id", "data"?}``. What means the same has RTVI's name; every other event is
a ``server-message`` whose ``data`` is our own message, and every command of ours can be sent as a ``client-message``
``{"t": type, "d": members}``, which is answered by a ``server-response`` or an ``error-response``.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from server.dialect import Message, Request, parse

LABELS = ("rtvi-ai", "chat")
VERSION = "2.1.0"

_SIGNALLING = "signalling"
_PEER_LEFT: Message = {"type": _SIGNALLING, "message": {"type": "peerLeft"}}
_SILENT_ANSWERS = {"send-text", "disconnect-bot"}
"""Requests that RTVI answers only when they fail."""


class Rtvi:
    """The dialect of one channel."""

    def __init__(self) -> None:
        self._segments = 0
        self._spoken: str | None = None
        """The sentence that is being spoken."""

    def read(self, message: str | bytes) -> Request:
        """See ``Dialect``."""
        if isinstance(message, str) and message.startswith("ping"):
            # A sign of life that wants no answer.
            return Request(None)
        said = parse(message)
        kind, data = said.get("type"), said.get("data")
        request_id = str(said.get("id") or "")[:100]
        members: Mapping[str, Any] = data if isinstance(data, dict) else {}
        match kind:
            case "signalling":
                # Which of its tracks are muted; what arrives is silence then.
                return Request(None)
            case "client-ready":
                about = {"library": "visavis"}
                return Request(None, replies=(_message("bot-ready", {"version": VERSION, "about": about}, request_id),))
            case "send-text":
                options = members.get("options")
                if isinstance(options, dict) and not (
                    options.get("run_immediately", True) and options.get("audio_response", True)
                ):
                    return self._refused(request_id, "A text is always answered at once, and aloud.")
                return Request({"type": "ask", "text": members.get("content")}, request_id, "send-text")
            case "disconnect-bot":
                return Request({"type": "close"}, request_id, "disconnect-bot")
            case "client-message":
                inner = members.get("d")
                if not isinstance(members.get("t"), str) or not isinstance(inner, dict | None):
                    return self._refused(request_id, "A client-message has a name t, and members d.")
                return Request({**(inner or {}), "type": members["t"]}, request_id, "client-message")
        return self._refused(request_id, f"There is no message {str(kind)[:40]!r} here.")

    def answer(self, request: Request | None, kind: str, data: Mapping[str, Any]) -> list[Message]:
        """See ``Dialect``."""
        if request is None or kind == "error":
            return [_message("error-response", {"error": str(data.get("message", ""))}, request.id if request else "")]
        told = self.event(kind, data) if kind == "interrupted" else []
        if request.kind in _SILENT_ANSWERS or request.command is None:
            return told
        answered = {"t": request.command["type"], "d": dict(data)}
        return [_message("server-response", answered, request.id), *told]

    def event(self, kind: str, data: Mapping[str, Any]) -> list[Message]:
        """See ``Dialect``."""
        match kind:
            case "speaking":
                if data.get("speaking"):
                    return [_message("bot-started-speaking")]
                return [*self._completed(), _message("bot-stopped-speaking")]
            case "user_speaking":
                return [_message("user-started-speaking" if data.get("speaking") else "user-stopped-speaking")]
            case "transcript":
                heard = {
                    "text": data.get("text", ""),
                    "user_id": "",
                    "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "final": bool(data.get("final")),
                }
                return [_message("user-transcription", heard)]
            case "caption":
                return [*self._completed(), *self._begun(str(data.get("text", "")))]
            case "interrupted":
                self._spoken = None
                return [_message("bot-interrupted"), _custom(kind, data)]
            case "error":
                return [_message("error", {"error": data.get("message", ""), "fatal": False}), _custom(kind, data)]
            case "latency":
                return [*_metrics(data), _custom(kind, data)]
            case "state" if data.get("state") == "ended":
                return [_custom(kind, data), _PEER_LEFT]
        return [_custom(kind, data)]

    def _begun(self, text: str) -> list[Message]:
        self._spoken = text
        self._segments += 1
        return [self._output("new", spoken="", left=text), _message("bot-transcription", {"text": text})]

    def _completed(self) -> list[Message]:
        if self._spoken is None:
            return []
        completed = self._output("completed", spoken=self._spoken, left="")
        self._spoken = None
        return [completed]

    def _output(self, status: str, *, spoken: str, left: str) -> Message:
        return _message(
            "bot-output",
            {
                "text": self._spoken,
                "aggregated_by": "sentence",
                "segment_id": self._segments,
                "will_be_spoken": True,
                "spoken_status": status,
                "spoken_progress": {"accumulated_text": spoken, "remaining_text": left},
                # What clients of RTVI 1 look at.
                "spoken": status == "completed",
            },
        )

    def _refused(self, request_id: str, why: str) -> Request:
        return Request(None, replies=(_message("error-response", {"error": why}, request_id),))


def _message(kind: str, data: Mapping[str, Any] | None = None, request_id: str = "") -> Message:
    message: Message = {"label": "rtvi-ai", "type": kind, "id": request_id or secrets.token_hex(4)}
    if data is not None:
        message["data"] = dict(data)
    return message


def _custom(kind: str, data: Mapping[str, Any]) -> Message:
    return _message("server-message", {**data, "type": kind})


def _metrics(data: Mapping[str, Any]) -> list[Message]:
    stages = data.get("stages_ms")
    if not isinstance(stages, Mapping) or "first_audio" not in stages or "first_heard" in stages:
        return []
    # From the end of what the person said to the first sound of the answer: what a person waits for.
    return [_message("metrics", {"ttfb": [{"processor": "visavis", "value": round(stages["first_audio"] / 1000, 4)}]})]
