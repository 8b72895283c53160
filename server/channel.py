"""The data channel: a session's events out, commands in, and the heartbeat that shows somebody is there.

Place in the flow: Session.events -> ``ControlChannel`` -> browser, and back; ``Peer`` owns it.

Messages are JSON objects with a ``type``; server/README.md lists them. A command that cannot be carried out is
answered with an ``error`` event and changes nothing. A channel with one of RTVI's labels says the same in its words.

Invariants:
    * a browser that does not read is not written to without bound: events that do not fit are dropped;
    * commands are carried out one after the other, in the order they came.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from pydantic import ValidationError

from engine.errors import Busy, InvalidInput, VisavisError
from engine.session import Session
from engine.types import Event
from server import rtvi, schemas
from server.dialect import Dialect, Flat, Message, Request
from server.manner import Manner
from server.packing import Background
from server.schemas import explain_validation

logger = logging.getLogger(__name__)

LABEL = "visavis"
_SIGNS_OF_SPEECH = {"speaking", "caption", "viseme", "user_speaking", "transcript", "turn"}
MAX_WAITING_COMMANDS = 32
MAX_BUFFERED_BYTES = 256_000
"""What may wait inside the channel before events are dropped; about a minute of them."""


class DataChannel(Protocol):
    """The part of an RTCDataChannel that is used here."""

    label: str
    readyState: str
    bufferedAmount: int

    def on(self, event: str, listener: Callable[[str | bytes], None], /) -> Any:
        """Calls back for each ``message``."""
        ...

    def send(self, data: str, /) -> None:
        """Queues a message."""
        ...


class ControlChannel:
    """One browser's data channel, from its opening to the end of the session."""

    def __init__(
        self, session: Session, manner: Manner, session_id: str, on_close: Callable[[], None] = lambda: None
    ) -> None:
        """
        Args:
            session: whose events go out and who gets the commands.
            manner: how it answers.
            session_id: told to the browser.
            on_close: called when the browser asks for the end.
        """
        self._session = session
        self._manner = manner
        self._session_id = session_id
        self._on_close = on_close
        self._dialect: Dialect = Flat()
        self._channel: DataChannel | None = None
        self._continues = False
        self._commands: asyncio.Queue[str | bytes] = asyncio.Queue(MAX_WAITING_COMMANDS)
        self.last_seen_s: float | None = None
        """Monotonic time of the last message from the browser; None before it opened the channel."""
        self.on_background: Callable[[Background], None] = lambda background: None
        """Called when the browser wants its pictures with a matte, or as filmed."""
        self.last_speech_s = time.monotonic()
        """Monotonic time of the last sign that something was said; that of the start before the first."""
        self.speaking = False
        """Whether the avatar says something."""
        self._speech: Mapping[str, Any] = {}

    @property
    def known(self) -> bool:
        """Whether the browser has opened it, or the one before that it continues."""
        return self.last_seen_s is not None or self._continues

    def continue_from(self, former: ControlChannel) -> None:
        """Goes on where a channel of the same session broke off. Call it before ``attach``."""
        self._continues = former.known
        self.last_speech_s, self.speaking, self._speech = former.last_speech_s, former.speaking, former._speech

    def attach(self, channel: DataChannel) -> None:
        """Takes the channel the browser opened; another label is ignored, a second one replaces the first."""
        if channel.label != LABEL and channel.label not in rtvi.LABELS:
            logger.info("ignoring a data channel called %.40r", channel.label)
            return
        self._channel = channel
        self._dialect = Flat() if channel.label == LABEL else rtvi.Rtvi()
        self.last_seen_s = time.monotonic()
        channel.on("message", self._on_message)
        quality = self._session.quality.to_dict()
        self.send("state", {"state": "connected", "session_id": self._session_id, "quality": quality})
        if self._continues:
            if self.speaking:
                self.send("speaking", self._speech)
            # It was silent while nobody heard it.
            self._session.resume()

    async def run(self) -> None:
        """Carries events and commands until the session ends. Cancellation loses what was not yet sent."""
        async with asyncio.TaskGroup() as group:
            commands = group.create_task(self._carry_out_commands(), name="channel-commands")
            async with aclosing(self._session.events()) as events:
                async for event in events:
                    self._send_event(event)
            commands.cancel()

    @property
    def is_open(self) -> bool:
        """Whether the browser can be told something."""
        return self._channel is not None and self._channel.readyState == "open"

    def send(self, kind: str, data: Mapping[str, Any]) -> None:
        """Sends one event if the channel is open and is being read; drops it otherwise."""
        self._send(self._dialect.event(kind, data))

    def _answer(self, request: Request | None, kind: str, data: Mapping[str, Any]) -> None:
        self._send(self._dialect.answer(request, kind, data))

    def _send(self, messages: Iterable[Message]) -> None:
        channel = self._channel
        if channel is None or channel.readyState != "open" or channel.bufferedAmount > MAX_BUFFERED_BYTES:
            return
        for message in messages:
            channel.send(json.dumps(message, ensure_ascii=False, separators=(",", ":")))

    def _send_event(self, event: Event) -> None:
        if event.type == "speaking":
            self.speaking, self._speech = bool(event.data.get("speaking")), event.data
        if event.type in _SIGNS_OF_SPEECH:
            self.last_speech_s = time.monotonic()
        self.send(event.type, event.data)

    def _on_message(self, message: str | bytes) -> None:
        self.last_seen_s = time.monotonic()
        try:
            self._commands.put_nowait(message)
        except asyncio.QueueFull:
            busy = Busy("too_many_commands", "Too many commands at once; wait for the earlier ones.")
            self._answer(None, "error", busy.to_dict())

    async def _carry_out_commands(self) -> None:
        while True:
            message = await self._commands.get()
            request: Request | None = None
            try:
                request = self._dialect.read(message)
                self._send(request.replies)
                if request.command is not None:
                    await self._carry_out(request)
            except VisavisError as error:
                self._answer(request, "error", error.to_dict())
            except ValidationError as error:
                self._answer(request, "error", {"code": "invalid_request", "message": explain_validation(error)})
            except Exception:
                logger.exception("a command failed")
                self._answer(request, "error", {"code": "internal", "message": "The command failed on the server."})

    async def _carry_out(self, request: Request) -> None:
        command = request.command or {}
        match command.get("type"):
            case "ping":
                self._answer(request, "pong", {"t": command.get("t"), "server_ms": round(time.monotonic() * 1000, 1)})
            case "say":
                utterance_id = self._session.say(schemas.Say.model_validate(_without_type(command)).text)
                self._answer(request, "accepted", {"command": "say", "utterance_id": utterance_id})
            case "ask":
                turn_id = await self._session.ask(schemas.Ask.model_validate(_without_type(command)).text)
                self._answer(request, "accepted", {"command": "ask", "turn_id": turn_id})
            case "mode":
                mode = schemas.Mode.model_validate(_without_type(command)).mode
                self._session.set_mode(mode)
                self._answer(request, "accepted", {"command": "mode", "mode": mode})
            case "push_to_talk":
                self._session.push_to_talk(schemas.PushToTalk.model_validate(_without_type(command)).down)
            case "interrupt":
                playback = await self._session.interrupt()
                self._answer(
                    request,
                    "interrupted",
                    {
                        "utterance_id": playback.utterance_id,
                        "played_ms": playback.played_ms,
                        "dropped_ms": playback.dropped_ms,
                    },
                )
            case "mirror":
                self._session.set_mirror(schemas.Mirror.model_validate(_without_type(command)).on)
            case "listening":
                self._session.set_listening(schemas.Listening.model_validate(_without_type(command)).on)
            case "act":
                name = schemas.Action.model_validate(_without_type(command)).name
                self._session.act(name)
                self._answer(request, "accepted", {"command": "act", "name": name})
            case "quality":
                self._session.set_quality(schemas.Quality.model_validate(_without_type(command)).quality)
                self._answer(request, "accepted", {"command": "quality"})
            case "style":
                name = schemas.StyleChoice.model_validate(_without_type(command)).name
                self._manner.set_style(name)
                self._answer(request, "accepted", {"command": "style", "name": name})
            case "language_model":
                model_id = schemas.LanguageModelChoice.model_validate(_without_type(command)).id
                self._manner.set_language_model(model_id)
                self._answer(request, "accepted", {"command": "language_model", "id": model_id})
            case "voice":
                voice = schemas.VoiceChange.model_validate(_without_type(command))
                await self._session.set_voice(pitch=voice.pitch, formant=voice.formant, conversion=voice.conversion)
                self._answer(request, "accepted", {"command": "voice"})
            case "heard":
                heard = schemas.Heard.model_validate(_without_type(command))
                self._session.heard_by_viewer(heard.turn_id, heard.server_ms / 1000)
                self._answer(request, "accepted", {"command": "heard"})
            case "background":
                background = schemas.BackgroundChoice.model_validate(_without_type(command)).background
                self._answer(request, "accepted", {"command": "background", "background": background})
                self.on_background(background)
            case "stop_action":
                self._session.stop_action()
            case "close":
                self._on_close()
            case kind:
                raise InvalidInput("unknown_command", f"There is no command {str(kind)[:40]!r}.")


def _without_type(command: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in command.items() if key != "type"}
