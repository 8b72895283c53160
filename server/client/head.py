"""An avatar as an object: connect, have it say things, hear it, see it.

Place in the flow: a program -> ``TalkingHead`` -> HTTP and WebRTC -> server.

Invariants:
    * everything that arrives is read from the first moment, whether somebody asks for it or not, and nothing is kept
      beyond a bound: who reads too slowly loses the oldest;
    * leaving it ends the session on the server, and every task here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from engine.aio import Broadcast, Subscription, Tasks
from engine.errors import BackendFailed, Closed, InvalidInput, VisavisError
from engine.types import PLAYOUT_RATE, Event, Playback
from server import signaling
from server.client.api import Api, file_bytes, session_path
from server.client.media import Picture, Sound, Speaking
from server.client.tape import Tape
from server.microphone import skip_jitter_buffer, to_mono

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
ANSWER_TIMEOUT_S = 10.0
MAX_PICTURES, MAX_SOUNDS, MAX_EVENTS = 50, 250, 1000
"""What a reader may leave unread: two seconds of pictures, five of sound."""


class TalkingHead:
    """One session with an avatar. Use as an async context manager.

    Args:
        url: the page's address.
        avatar: name of the face; None takes the server's own choice.
        mode: what becomes of the microphone, ``converse``, ``mirror`` or ``say``; None as the server has it.
        key: an API key or session token, where the server asks for one.
        connect_timeout_s: longest wait for the connection, seconds.
        wishes: what else an offer may have: ``quality``, ``style``, ``language_model``.

    Attributes:
        session_id: the session's id on the server; empty before it is connected.
        microphone: what is sent; ``hear`` feeds it.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        avatar: str | None = None,
        mode: str | None = None,
        key: str = "",
        connect_timeout_s: float = 15.0,
        **wishes: Any,
    ) -> None:
        self.session_id = ""
        self.microphone = Speaking()
        self._api = Api(url, key)
        self._wishes = {**wishes, "avatar": avatar, "mode": mode}
        self._connect_timeout_s = connect_timeout_s
        self._connection: RTCPeerConnection | None = None
        self._channel: Any = None
        self._tasks = Tasks("talking-head")
        self._opened = asyncio.Event()
        self._ended = asyncio.Event()
        self._commands = asyncio.Lock()
        self._pictures: Broadcast[Picture] = Broadcast(MAX_PICTURES)
        self._sounds: Broadcast[Sound] = Broadcast(MAX_SOUNDS)
        self._events: Broadcast[Event] = Broadcast(MAX_EVENTS)

    # Coming and going ---------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Opens a session and waits until it is connected.

        Raises:
            VisavisError: what the server refused, ``server_unreachable`` (also where something else answers), or
                ``connection_failed``.
        """
        signaling.allow_loopback_only_hosts()
        admission = await self._api.call("GET", "/config.json")
        if not isinstance(admission, dict):
            raise BackendFailed(
                "server_unreachable", f"What answers at {self._api.url} is no Visavis; check the address."
            )
        if admission.get("access") == "closed" and self._api.has_key:
            # Credentials for relays come with a token alone.
            admission = await self._api.call("POST", "/tokens", {})
            self._wishes["token"] = admission["token"]
        self._connection = connection = RTCPeerConnection(
            signaling.rtc_configuration(admission.get("ice_servers", ()))
        )
        self._channel = connection.createDataChannel("visavis")
        self._channel.on("open", self._opened.set)
        self._channel.on("message", self._on_message)
        connection.on("connectionstatechange", self._on_state)
        connection.on("track", self._on_track)
        sound = connection.addTransceiver(self.microphone, direction="sendrecv")
        connection.addTransceiver("video", direction="recvonly")
        await connection.setLocalDescription(await connection.createOffer())
        skip_jitter_buffer(sound.receiver)
        offer = {"sdp": connection.localDescription.sdp, "type": connection.localDescription.type}
        wishes = {name: value for name, value in self._wishes.items() if value is not None}
        answer = await self._api.call("POST", "/offer", {**wishes, **offer})
        self.session_id = answer["session_id"]
        await connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._opened.wait()
        except TimeoutError:
            raise BackendFailed(
                "connection_failed", "The server answered, but no connection came about; a firewall may stop UDP."
            ) from None
        self._tasks.start(self._beat(), "heartbeat")

    async def aclose(self) -> None:
        """Ends the session and frees everything. Idempotent."""
        self._finish()
        await self._tasks.aclose()
        try:
            if self.session_id:
                session_id, self.session_id = self.session_id, ""
                await self._api.call("POST", session_path(session_id, "/close"))
        except VisavisError as error:
            # It has ended already, or the server has.
            logger.debug("closing the session: %s", error.message)
        finally:
            if self._connection is not None:
                connection, self._connection = self._connection, None
                await connection.close()
                await signaling.stop_latecomers(connection)
            await self._api.aclose()

    async def __aenter__(self) -> TalkingHead:
        try:
            await self.connect()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def connected(self) -> bool:
        """Whether the session is there."""
        return self._opened.is_set() and not self._ended.is_set()

    async def ended(self) -> None:
        """Returns when the session has ended, whoever ended it."""
        await self._ended.wait()

    # What it is asked to do ---------------------------------------------------------------------------------------

    async def say(self, text: str) -> int:
        """Speaks a text after whatever is queued; returns the utterance's id."""
        return int((await self._post("/say", {"text": text}))["utterance_id"])

    async def ask(self, text: str) -> int:
        """Has a text answered in place of whatever is being said; returns the turn's id."""
        return int((await self._post("/ask", {"text": text}))["turn_id"])

    async def play(self, sound: str | Path | bytes) -> int:
        """Speaks a sound file, a path or its bytes, after whatever is queued; returns the utterance's id."""
        file = await asyncio.to_thread(file_bytes, sound)
        return int((await self._post("/audio", file))["utterance_id"])

    async def interrupt(self) -> Playback:
        """Silence now; returns what was really played."""
        return Playback(**await self._post("/interrupt"))

    async def act(self, name: str) -> None:
        """Plays a clip of the avatar."""
        await self._post("/actions", {"name": name})

    async def transcript(self) -> str:
        """What was said so far, for people."""
        return await self._api.call("GET", session_path(self._session(), "/transcript?format=text")) or ""

    async def command(self, kind: str, **members: Any) -> Event:
        """Sends a command that is answered by ``accepted``: ``mode``, ``style``, ``language_model``, ``voice`` …

        Raises:
            InvalidInput: what the server answered in its place.
            BackendFailed: ``no_answer``.
        """
        async with self._commands:
            answers = self.events()
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    self._send({**members, "type": kind})
                    async for event in answers:
                        if event.type == "accepted" and event.data.get("command") == kind:
                            return event
                        if event.type == "error" and not {"utterance_id", "turn_id"} & set(event.data):
                            raise InvalidInput(str(event.data.get("code")), str(event.data.get("message")))
            except TimeoutError:
                raise BackendFailed("no_answer", f"The server did not answer {kind!r}.") from None
            finally:
                await answers.aclose()
        raise Closed("session_ended", "The session has ended.")

    def hear(self, samples: Any) -> None:
        """Speaks to the avatar: (n,) int16 mono at 48 kHz, sent as fast as it would be spoken."""
        self.microphone.push(samples)

    # What comes back ----------------------------------------------------------------------------------------------

    def frames(self) -> Subscription[Picture]:
        """Pictures from now on; iterate over it, ``aclose`` it when done. Ends with the session."""
        return self._pictures.subscribe()

    def audio(self) -> Subscription[Sound]:
        """Sound from now on, as ``frames``."""
        return self._sounds.subscribe()

    def events(self) -> Subscription[Event]:
        """Events from now on, as server/README.md lists them; as ``frames``."""
        return self._events.subscribe()

    async def until(self, kind: str, wanted: Callable[[Event], bool] = lambda _: True) -> Event:
        """The next event of a kind for which a condition holds.

        Raises:
            Closed: ``session_ended``.
        """
        events = self.events()
        try:
            async for event in events:
                if event.type == kind and wanted(event):
                    return event
        finally:
            await events.aclose()
        raise Closed("session_ended", "The session has ended.")

    async def record(self, path: str | Path) -> None:
        """Records what is seen and heard into an mp4 until the session ends or this is cancelled.

        Raises:
            InvalidInput: ``output_invalid``, ``recording_empty``.
            BackendFailed: ``recording_failed``.
        """
        tape = Tape(str(path))
        pictures, sounds = self.frames(), self.audio()
        loop = asyncio.get_running_loop()
        # One thread, so that the end waits for whatever is being written when this is cancelled.
        with ThreadPoolExecutor(1, "tape") as thread:
            try:
                async for sound in sounds:
                    while len(pictures):
                        await loop.run_in_executor(thread, tape.picture, await pictures.get())
                    await loop.run_in_executor(thread, tape.sound, sound)
            finally:
                await asyncio.gather(pictures.aclose(), sounds.aclose())
                await loop.run_in_executor(thread, tape.close)

    # Inside -------------------------------------------------------------------------------------------------------

    def _session(self) -> str:
        if not self.session_id:
            raise Closed("session_ended", "There is no session.")
        return self.session_id

    async def _post(self, path: str, body: dict[str, Any] | bytes | None = None) -> Any:
        return await self._api.call("POST", session_path(self._session(), path), body)

    def _send(self, message: dict[str, Any]) -> None:
        if self._channel is None or self._channel.readyState != "open":
            raise Closed("session_ended", "The session has ended.")
        self._channel.send(json.dumps(message))

    def _on_message(self, text: str | bytes) -> None:
        message = json.loads(text)
        kind = str(message.pop("type", ""))
        self._events.publish(Event(kind, message))
        if kind == "state" and message.get("state") == "ended":
            self._finish()

    def _on_state(self) -> None:
        if self._connection is not None and self._connection.connectionState in ("failed", "closed"):
            self._finish()

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._tasks.start(self._read(track), track.kind)

    async def _read(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame: Any = await track.recv()
            except MediaStreamError:
                self._finish()
                return
            pts_s = float(frame.pts * frame.time_base)
            if track.kind == "video":
                self._pictures.publish(Picture(frame, pts_s))
            else:
                self._sounds.publish(Sound(to_mono(frame), frame.pts / PLAYOUT_RATE))

    async def _beat(self) -> None:
        while self.connected and self._channel.readyState == "open":
            self._send({"type": "ping", "t": round(time.monotonic() * 1000, 1)})
            await asyncio.sleep(HEARTBEAT_S)
        self._finish()

    def _finish(self) -> None:
        self._ended.set()
        for stream in (self._pictures, self._sounds, self._events):
            stream.close()
