"""The person's turns on their way to the service as sound, and their words on the way back.

Place in the flow: Ear -> RealtimeListening -> Hearing -> Link -> service -> words of the turn.

The service has one buffer for sound, and a turn may begin while the one before it is not committed yet. So turns queue:
the first one streams its sound as it comes, the others keep theirs until they are first.

Invariants:
    * a turn's sound is kept until its words are there, so a connection that is lost costs time and no words;
    * a turn without enough sound for a word is never committed;
    * a turn that is given up leaves nothing at the service.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import numpy as np

from engine.audio.pcm import PlayoutResampler
from engine.conversation.asr.base import MAX_TURN_S, Transcript
from engine.conversation.realtime import wire
from engine.conversation.realtime.items import Entry, Items
from engine.conversation.realtime.link import Endpoint, Link
from engine.errors import BackendFailed, Cancelled, Closed
from engine.types import ANALYSIS_RATE, PLAYOUT_RATE

_LEAST_S = 0.1  # the service refuses to commit less
_SILENT_PEAK = 0.002  # -54 dBFS
_MAX_TEXT_CHARS = 8000
_EVERY = PLAYOUT_RATE // wire.RATE
_EMPTY_COMMIT = "input_audio_buffer_commit_empty"

_log = logging.getLogger(__name__)


class RealtimeListening:
    """One turn; made by ``Hearing.listen``. See ``Listening``.

    Attributes:
        sound: int16 little-endian at ``wire.RATE``, in pieces.
        sent: pieces that are in the service's buffer.
        over: no more sound comes.
        given_up: nobody wants its words.
        asked: a connection was asked for while it comes.
        tried: times it was committed.
        entry: the turn in the service's conversation, once committed.
        words: the transcript, or what went wrong.
    """

    def __init__(self, hearing: Hearing) -> None:
        self.sound: list[bytes] = []
        self.sent = 0
        self.over = False
        self.given_up = False
        self.asked = False
        self.tried = 0
        self.entry: Entry | None = None
        self.words: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        self._hearing = hearing
        self._resampler = PlayoutResampler(ANALYSIS_RATE)
        self._phase = 0
        self._room = int(MAX_TURN_S * ANALYSIS_RATE)
        self._samples = 0
        self._peak = 0.0
        self._told = False

    @property
    def speech(self) -> bool:
        """Whether it holds enough sound for a word."""
        return self._samples >= _LEAST_S * ANALYSIS_RATE and self._peak >= _SILENT_PEAK

    def push(self, samples: np.ndarray) -> None:
        """Hears more; see ``Listening.push``."""
        if self.over or not self._room or not len(samples):
            return
        kept = samples[: self._room]
        self._room -= len(kept)
        self._samples += len(kept)
        self._peak = max(self._peak, float(np.abs(kept).max()))
        self._keep(self._resampler.push(kept))
        if not self._room:
            _log.warning("a turn is longer than %.0f s; the rest of it is not heard", MAX_TURN_S)
        self._hearing.flow()

    async def partial(self) -> None:
        """None: the service tells the words when the turn is over."""
        return None

    async def finish(self) -> Transcript:
        """Ends the turn and waits for its words; see ``Listening.finish``."""
        if self.given_up:
            raise _given_up()
        self._keep(self._resampler.flush())
        self.over = True
        if not self.speech:
            self.given_up = self._told = True
            self._hearing.flow()
            return Transcript("", True, self._hearing.language)
        self._hearing.flow()
        try:
            async with asyncio.timeout(self._hearing.patience_s):
                transcript = await self.words
            self._told = True
            return transcript
        except BackendFailed:
            self._told = True
            raise
        except TimeoutError:
            self.cancel()
            raise self._hearing.too_late() from None
        except asyncio.CancelledError:
            if self.given_up:
                raise _given_up() from None
            self.cancel()
            raise

    def cancel(self) -> None:
        """Gives the turn up, or, once its words are there, says that whatever came of it is over. Idempotent."""
        if not self._told and not self.given_up:
            self.over = self.given_up = True
            self.words.cancel()
            self.sound.clear()
        self._hearing.leave(self)

    def _keep(self, playout: np.ndarray) -> None:
        """(n,) int16 at 48 kHz; what it holds ends at 8 kHz, so taking every other sample loses nothing."""
        kept = playout[self._phase :: _EVERY]
        self._phase = (self._phase - len(playout)) % _EVERY
        if len(kept):
            self.sound.append(kept.astype("<i2").tobytes())


class Hearing:
    """All turns of one conversation.

    Args:
        endpoint: of the service.
        items: what the service remembers; turns are added.
        language: two-letter code of what is spoken.
        on_wanted: called when a connection is needed and there is none.
        on_committed: called with a turn that has just become part of the service's conversation.
        on_left: called with a turn of which nothing more will come.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        items: Items,
        language: str,
        *,
        on_wanted: Callable[[], None],
        on_committed: Callable[[Entry], None],
        on_left: Callable[[Entry], None],
    ) -> None:
        self.language = language
        self.patience_s = endpoint.timeouts.connect_s + endpoint.timeouts.first_byte_s
        self._endpoint = endpoint
        self._items = items
        self._on_wanted = on_wanted
        self._on_committed = on_committed
        self._on_left = on_left
        self._link: Link | None = None
        self._waiting: deque[RealtimeListening] = deque()
        self._committed: dict[str, RealtimeListening] = {}  # by the id of the commit, in order
        self._transcribed: dict[str, RealtimeListening] = {}  # by item, until the words come
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether words of a turn are awaited."""
        return bool(self._committed or self._transcribed)

    def listen(self) -> RealtimeListening:
        """Begins a turn; see ``Recogniser.listen``."""
        if self._closed:
            raise Closed("asr_closed", "The recogniser is closed.")
        listening = RealtimeListening(self)
        self._waiting.append(listening)
        self.flow()
        return listening

    def close(self) -> None:
        """Gives every turn up. Idempotent."""
        self._closed = True
        for listening in [*self._waiting, *self._committed.values(), *self._transcribed.values()]:
            listening.cancel()

    # The connection -----------------------------------------------------------------------------------------------

    def connected(self, link: Link) -> None:
        """There is a new connection."""
        self._link = link
        self.flow()

    def lost(self, error: BackendFailed) -> None:
        """The connection is gone: turns without words are sent again, once."""
        self._link = None
        again = [*self._transcribed.values(), *self._committed.values()]
        self._transcribed.clear()
        self._committed.clear()
        for listening in reversed(again):
            listening.entry = None
            if listening.tried > 1:
                self._fail(listening, error)
            elif not listening.given_up:
                self._waiting.appendleft(listening)
        for listening in self._waiting:
            listening.sent = 0
        if any(listening.over for listening in self._waiting):
            self._on_wanted()

    def unreachable(self, error: BackendFailed) -> None:
        """There is no connection to be had: turns that are over have failed, the others may be luckier."""
        for listening in [listening for listening in self._waiting if listening.over]:
            self._waiting.remove(listening)
            self._fail(listening, error)

    def flow(self) -> None:
        """Sends what can be sent."""
        while self._waiting:
            listening, link = self._waiting[0], self._link
            if listening.given_up:
                self._waiting.popleft()
                if listening.sent and link is not None:
                    link.send(wire.clear())
                continue
            if link is None:
                # While the person speaks one attempt has to do; it comes with every 20 ms of their sound.
                if listening.over or not listening.asked:
                    listening.asked = True
                    self._on_wanted()
                return
            for piece in listening.sound[listening.sent :]:
                link.send(wire.append(piece))
            listening.sent = len(listening.sound)
            if not listening.over:
                return
            self._waiting.popleft()
            event = wire.commit()
            link.send(event)
            listening.tried += 1
            listening.entry = self._items.add(Entry("user"))
            self._committed[event["event_id"]] = listening
            self._on_committed(listening.entry)

    # What the service tells ---------------------------------------------------------------------------------------

    def take(self, event: wire.Event) -> None:
        """Takes an event of the service."""
        item_id = wire.text_member(event, "item_id")
        match event["type"]:
            case "input_audio_buffer.committed" if self._committed:
                listening = self._committed.pop(next(iter(self._committed)))
                if listening.given_up:
                    self._delete(item_id)
                elif listening.entry is not None:
                    listening.entry.item_ids.append(item_id)
                    self._transcribed[item_id] = listening
            case "conversation.item.input_audio_transcription.completed" if item_id in self._transcribed:
                text = " ".join(wire.text_member(event, "transcript").split())[:_MAX_TEXT_CHARS]
                self._transcript(self._transcribed.pop(item_id), text)
            case "conversation.item.input_audio_transcription.failed" if item_id in self._transcribed:
                listening = self._transcribed.pop(item_id)
                self._forget(listening)
                self._fail(listening, self._endpoint.refused(event.get("error")))

    def refused(self, event_id: str, error: object) -> None:
        """A commit was refused."""
        listening = self._committed.pop(event_id, None)
        if listening is None:
            return
        if isinstance(error, dict) and error.get("code") == _EMPTY_COMMIT:
            self._transcript(listening, "")
        else:
            self._forget(listening)
            self._fail(listening, self._endpoint.refused(error))

    def leave(self, listening: RealtimeListening) -> None:
        """A turn is over, one way or the other."""
        if listening.given_up:
            for item_id in [item for item, other in self._transcribed.items() if other is listening]:
                del self._transcribed[item_id]
            self._forget(listening)
            self.flow()
        entry, listening.entry = listening.entry, None
        if entry is not None:
            self._on_left(entry)

    def too_late(self) -> BackendFailed:
        """The error for words that did not come."""
        what = f"did not tell what was said within {self.patience_s:g} s."
        return self._endpoint.error("service_timeout", what)

    def _transcript(self, listening: RealtimeListening, text: str) -> None:
        if listening.entry is not None:
            listening.entry.text = text
        if not text:
            self._forget(listening)
        listening.sound.clear()
        if not listening.words.done():
            listening.words.set_result(Transcript(text, True, self.language))

    def _fail(self, listening: RealtimeListening, error: BackendFailed) -> None:
        listening.sound.clear()
        if not listening.words.done():
            listening.words.set_exception(error)
            # Whoever does not wait for the words does not want to know either.
            listening.words.exception()

    def _forget(self, listening: RealtimeListening) -> None:
        """Takes a turn out of the service's conversation."""
        if listening.entry is not None:
            self._items.remove(listening.entry)
            for item_id in listening.entry.item_ids:
                self._delete(item_id)
            listening.entry.item_ids.clear()

    def _delete(self, item_id: str) -> None:
        if self._link is not None:
            self._link.send(wire.delete(item_id))


def _given_up() -> Cancelled:
    return Cancelled("asr_cancelled", "The recogniser was stopped before it had the words.")
