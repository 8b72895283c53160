"""The data channel: a session's events out, commands in, and the heartbeat that shows somebody is there.

Place in the flow: Session.events -> ``ControlChannel`` -> browser, and back; ``Peer`` owns it.

Messages are JSON objects with a ``type``; server/README.md lists them. A command that cannot be carried out is
answered with an ``error`` event and changes nothing.

Invariants:
    * a browser that does not read is not written to without bound: events that do not fit are dropped;
    * commands are carried out one after the other, in the order they came.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from pydantic import ValidationError

from engine.errors import Busy, InvalidInput, VisavisError
from engine.session import Session
from engine.types import Event
from server.schemas import Action, Ask, Listening, Mirror, Mode, PushToTalk, Quality, Say, explain_validation

logger = logging.getLogger(__name__)

LABEL = "visavis"
_SIGNS_OF_SPEECH = {"speaking", "caption", "viseme", "user_speaking", "transcript", "turn"}
MAX_MESSAGE_CHARS = 64_000
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

    def __init__(self, session: Session, session_id: str) -> None:
        """Args: session: whose events go out and who gets the commands; session_id: told to the browser."""
        self._session = session
        self._session_id = session_id
        self._channel: DataChannel | None = None
        self._commands: asyncio.Queue[str | bytes] = asyncio.Queue(MAX_WAITING_COMMANDS)
        self.last_seen_s: float | None = None
        """Monotonic time of the last message from the browser; None before it opened the channel."""
        self.last_speech_s = time.monotonic()
        """Monotonic time of the last sign that something was said; that of the start before the first."""

    def attach(self, channel: DataChannel) -> None:
        """Takes the channel the browser opened; another label is ignored, a second one replaces the first."""
        if channel.label != LABEL:
            logger.info("ignoring a data channel called %.40r", channel.label)
            return
        self._channel = channel
        self.last_seen_s = time.monotonic()
        channel.on("message", self._on_message)
        quality = self._session.quality.to_dict()
        self.send("state", {"state": "connected", "session_id": self._session_id, "quality": quality})

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
        channel = self._channel
        if channel is None or channel.readyState != "open" or channel.bufferedAmount > MAX_BUFFERED_BYTES:
            return
        channel.send(json.dumps({**data, "type": kind}, ensure_ascii=False, separators=(",", ":")))

    def _send_event(self, event: Event) -> None:
        if event.type in _SIGNS_OF_SPEECH:
            self.last_speech_s = time.monotonic()
        self.send(event.type, event.data)

    def _on_message(self, message: str | bytes) -> None:
        self.last_seen_s = time.monotonic()
        try:
            self._commands.put_nowait(message)
        except asyncio.QueueFull:
            busy = Busy("too_many_commands", "Too many commands at once; wait for the earlier ones.")
            self.send("error", busy.to_dict())

    async def _carry_out_commands(self) -> None:
        while True:
            message = await self._commands.get()
            try:
                await self._carry_out(message)
            except VisavisError as error:
                self.send("error", error.to_dict())
            except ValidationError as error:
                self.send("error", {"code": "invalid_request", "message": explain_validation(error)})
            except Exception:
                logger.exception("a command failed")
                self.send("error", {"code": "internal", "message": "The command failed on the server."})

    async def _carry_out(self, message: str | bytes) -> None:
        command = _parse(message)
        match command.get("type"):
            case "ping":
                self.send("pong", {"t": command.get("t"), "server_ms": round(time.monotonic() * 1000, 1)})
            case "say":
                utterance_id = self._session.say(Say.model_validate(_without_type(command)).text)
                self.send("accepted", {"command": "say", "utterance_id": utterance_id})
            case "ask":
                turn_id = await self._session.ask(Ask.model_validate(_without_type(command)).text)
                self.send("accepted", {"command": "ask", "turn_id": turn_id})
            case "mode":
                mode = Mode.model_validate(_without_type(command)).mode
                self._session.set_mode(mode)
                self.send("accepted", {"command": "mode", "mode": mode})
            case "push_to_talk":
                self._session.push_to_talk(PushToTalk.model_validate(_without_type(command)).down)
            case "interrupt":
                playback = await self._session.interrupt()
                self.send(
                    "interrupted",
                    {
                        "utterance_id": playback.utterance_id,
                        "played_ms": playback.played_ms,
                        "dropped_ms": playback.dropped_ms,
                    },
                )
            case "mirror":
                self._session.set_mirror(Mirror.model_validate(_without_type(command)).on)
            case "listening":
                self._session.set_listening(Listening.model_validate(_without_type(command)).on)
            case "act":
                name = Action.model_validate(_without_type(command)).name
                self._session.act(name)
                self.send("accepted", {"command": "act", "name": name})
            case "quality":
                self._session.set_quality(Quality.model_validate(_without_type(command)).quality)
                self.send("accepted", {"command": "quality"})
            case "stop_action":
                self._session.stop_action()
            case kind:
                raise InvalidInput("unknown_command", f"There is no command {str(kind)[:40]!r}.")


def _parse(message: str | bytes) -> dict[str, Any]:
    if not isinstance(message, str) or len(message) > MAX_MESSAGE_CHARS:
        raise InvalidInput("invalid_json", f"A command is JSON text of at most {MAX_MESSAGE_CHARS} characters.")
    try:
        command = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("invalid_json", "The command is not JSON.") from error
    if not isinstance(command, dict):
        raise InvalidInput("invalid_json", "A command is a JSON object with a type.")
    return command


def _without_type(command: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in command.items() if key != "type"}
