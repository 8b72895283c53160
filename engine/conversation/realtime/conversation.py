"""One conversation with a Realtime service: its ears and its voice over one connection, our turns in charge.

Place in the flow: Dialogue -> RealtimeConversation (recogniser and speaking model in one) <-> Link <-> service.

The service's own turn-taking is off. A turn of the person is streamed while they speak and committed when our
turn-taking says that it has ended; at that moment, where nothing speaks against it, its answer is asked for too, before
anybody knows the words. Whoever asks for an answer later gets that one if it answers the right conversation, else
another one is made.

Invariants:
    * at most one answer is made at a time; the next is asked for when the service says that the one before is over;
    * before an answer is used the service's conversation equals the history, see ``items``;
    * a connection that is lost is opened again when something is to be said or heard, and the history put into it;
    * an answer of which nothing was heard yet survives one lost connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from engine.aio import Tasks
from engine.conversation.llm.base import Message
from engine.conversation.realtime import wire
from engine.conversation.realtime.answer_stream import AnswerStream
from engine.conversation.realtime.base import SpokenPart
from engine.conversation.realtime.hearing import Hearing, RealtimeListening
from engine.conversation.realtime.items import Agreement, Entry, Items
from engine.conversation.realtime.link import Endpoint, Link
from engine.conversation.realtime.wire import Setting
from engine.errors import BackendFailed, Closed, VisavisError

DEFAULT_TRANSCRIBER = "gpt-4o-mini-transcribe"
CANCEL_S = 2.0
"""How long a service may go on with an answer it was told to end; then the connection is given up."""

_WHOLE_MS = 40  # an answer of which less than a frame was not heard was heard
_OPTIONAL = ("cancel", "truncate", "delete", "clear")  # events that may come too late, which is no failure

_log = logging.getLogger(__name__)


class RealtimeService:
    """A configured service; makes a conversation for each session."""

    def __init__(self, endpoint: Endpoint, transcriber: str = "") -> None:
        """Nothing is sent yet.

        Args:
            endpoint: where it is.
            transcriber: model that writes down what people say; empty for ``DEFAULT_TRANSCRIBER``.
        """
        self._endpoint = endpoint
        self._transcriber = transcriber or DEFAULT_TRANSCRIBER

    def converse(
        self, instructions: str = "", *, voice: str = "", language: str = "", eager: bool = True
    ) -> RealtimeConversation:
        """Makes a conversation; see ``SpeakingService.converse``."""
        setting = Setting(voice, language.lower().replace("_", "-").split("-")[0], self._transcriber)
        return RealtimeConversation(self._endpoint, setting, instructions, eager=eager)

    async def aclose(self) -> None:
        """Closes all connections. Idempotent."""
        await self._endpoint.aclose()


class RealtimeConversation:
    """A ``Recogniser`` and a ``SpeakingModel``, which share what they know."""

    def __init__(self, endpoint: Endpoint, setting: Setting, instructions: str, *, eager: bool) -> None:
        """See ``RealtimeService.converse``."""
        self._endpoint = endpoint
        self._setting = setting
        self._instructions = instructions
        self._eager = eager
        self._items = Items()
        self._hearing = Hearing(
            self._endpoint,
            self._items,
            setting.language,
            on_wanted=self._want,
            on_committed=self._committed,
            on_left=self._left,
        )
        self._link: Link | None = None
        self._lost_links: set[Link] = set()  # that are not closed yet
        self._connecting: asyncio.Task[BackendFailed | None] | None = None
        self._tasks = Tasks("realtime")
        self._remembered: list[Message] = []
        self._answer: AnswerStream | None = None
        self._chance_for: Entry | None = None
        self._temperature: float | None = None
        self._closed = False

    # Recogniser ---------------------------------------------------------------------------------------------------

    def listen(self) -> RealtimeListening:
        """Begins a turn; see ``Recogniser.listen``."""
        return self._hearing.listen()

    # Speaking model -----------------------------------------------------------------------------------------------

    async def answer(
        self, messages: Sequence[Message], *, temperature: float | None = None
    ) -> AsyncGenerator[SpokenPart]:
        """Streams an answer; see ``SpeakingModel.answer``.

        Raises:
            BackendFailed: a code of ``engine.conversation.http``.
            Closed: ``service_closed``.
        """
        self._temperature = temperature
        self._set_instructions(messages)
        for last_try in (False, True):
            link = await self._connected()
            begun = False
            answer: AnswerStream | None = None
            try:
                answer = await self._claim(link, messages)
                async with aclosing(answer.parts(self._endpoint.timeouts)) as parts:
                    async for part in parts:
                        begun = True
                        yield part
                return
            except TimeoutError:
                stopped = "stopped in the middle of an answer." if begun else "did not begin to answer in time."
                error = self._endpoint.error("service_timeout", stopped)
                link.give_up(error)
                raise error from None
            except BackendFailed:
                if begun or last_try or not link.lost:
                    raise
            finally:
                if answer is not None and not answer.over.is_set() and not answer.settled:
                    self._drop(answer)

    def remember(self, messages: Sequence[Message], heard_ms: int | None) -> None:
        """Takes what was heard; see ``SpeakingModel.remember``."""
        self._set_instructions(messages)
        self._remembered = list(messages)
        answer = self._answer
        if heard_ms is not None and answer is not None and answer.claimed and not answer.settled and not answer.dropped:
            last = messages[-1] if messages else None
            if heard_ms > 0 and last is not None and last.role == "assistant":
                self._settle(answer, last.text, heard_ms)
            else:
                self._drop(answer)
        if self._link is not None:
            self._carry_out(self._link, self._items.agree(_turns(messages), so_far=True))

    async def aclose(self) -> None:
        """Ends the conversation. Idempotent and time-limited."""
        self._closed = True
        self._hearing.close()
        link, self._link = self._link, None
        await self._tasks.aclose()
        if self._answer is not None:
            self._answer.end()
        for open_link in [*self._lost_links, *([link] if link is not None else [])]:
            await open_link.aclose()

    # Answers ------------------------------------------------------------------------------------------------------

    async def _claim(self, link: Link, messages: Sequence[Message]) -> AnswerStream:
        """The answer that is being made if it is the right one, else another."""
        agreement = self._items.agree(_turns(messages))
        answer = self._answer
        if answer is not None and not answer.claimed and not answer.dropped and not answer.failed:
            if not agreement.created and link.instructions == self._instructions:
                self._carry_out(link, agreement)
                answer.claimed = True
                return answer
        if answer is not None and not answer.settled:
            self._drop(answer)
        self._carry_out(link, agreement)
        if answer is not None and not answer.over.is_set():
            try:
                async with asyncio.timeout(CANCEL_S):
                    await answer.over.wait()
            except TimeoutError:
                link.give_up(self._endpoint.error("service_timeout", "did not end an answer when told to."))
        if link.lost:
            raise self._endpoint.error("service_failed", "broke off the connection.")
        link.instruct(self._instructions)
        answer = self._ask(link)
        answer.claimed = True
        return answer

    def _ask(self, link: Link) -> AnswerStream:
        event = wire.respond(link.dialect, self._temperature)
        self._answer = AnswerStream(self._items.add(Entry("assistant")), event["event_id"])
        link.send(event)
        return self._answer

    def _committed(self, entry: Entry) -> None:
        """A turn has ended: its answer is asked for unless it may be another one's turn to speak."""
        answer = self._answer
        if answer is not None and not answer.claimed:
            self._drop(answer)
        free = answer is None or (answer.over.is_set() and (answer.settled or answer.dropped))
        if self._eager and free and self._link is not None:
            self._link.instruct(self._instructions)
            self._ask(self._link)
            self._chance_for = entry

    def _left(self, entry: Entry) -> None:
        """Nothing more comes of a turn; what nobody asked for by now is not wanted."""
        answer = self._answer
        if entry is self._chance_for and answer is not None and not answer.claimed:
            self._drop(answer)

    def _drop(self, answer: AnswerStream) -> None:
        """Nothing of an answer is wanted. Idempotent."""
        if answer.dropped:
            return
        answer.dropped = True
        self._items.remove(answer.entry)
        if self._link is not None:
            if answer.over.is_set():
                self._leave_behind(answer, self._link)
            else:
                self._link.send(wire.cancel(answer.response_id))

    def _settle(self, answer: AnswerStream, text: str, heard_ms: int) -> None:
        """It is known what was heard of an answer."""
        answer.settled = True
        answer.heard_ms = heard_ms
        answer.entry.text = text.strip()
        if self._link is not None:
            if answer.over.is_set():
                self._leave_behind(answer, self._link)
            else:
                self._link.send(wire.cancel(answer.response_id))

    def _leave_behind(self, answer: AnswerStream, link: Link) -> None:
        """Leaves at the service what was heard of an answer that is over."""
        item_ids = answer.entry.item_ids
        if answer.dropped:
            for item_id in item_ids:
                link.send(wire.delete(item_id))
        elif answer.settled and item_ids and answer.heard_ms < answer.sound_ms - _WHOLE_MS:
            link.send(wire.truncate(item_ids[0], answer.heard_ms))

    def _carry_out(self, link: Link, agreement: Agreement) -> None:
        for entry in agreement.removed:
            for item_id in entry.item_ids:
                link.send(wire.delete(item_id))
        for created in agreement.created:
            entry = created.entry
            link.send(wire.create(link.dialect, entry.role, entry.text or "", entry.item_ids[0], created.after))

    def _set_instructions(self, messages: Sequence[Message]) -> None:
        system = "\n\n".join(message.text for message in messages if message.role == "system")
        self._instructions = system or self._instructions

    # The connection -----------------------------------------------------------------------------------------------

    async def _connected(self) -> Link:
        """The connection, opened if there is none.

        Raises:
            BackendFailed: there is none to be had.
            Closed: ``service_closed``.
        """
        while self._link is None or self._link.lost:
            if self._closed:
                raise Closed("service_closed", "This conversation is closed.")
            self._want()
            assert self._connecting is not None
            error = await asyncio.shield(self._connecting)
            if error is not None:
                raise error
        return self._link

    def _want(self) -> None:
        """Has a connection opened, unless one is."""
        if not self._closed and (self._connecting is None or self._connecting.done()):
            self._connecting = self._tasks.start(self._connect(), "connect")

    async def _connect(self) -> BackendFailed | None:
        """Opens the connection and puts the history into it; gives the error when there is none to be had."""
        link: Link | None = None
        try:
            link = Link(self._endpoint, await self._endpoint.open(), self._take, self._lost)
            await link.set_up(self._instructions, self._setting)
        except VisavisError as error:
            if link is not None:
                await link.aclose()
            failure = error if isinstance(error, BackendFailed) else BackendFailed(error.code, error.message)
            _log.warning("the realtime service at %s failed: %s", self._endpoint.url, failure.code)
            self._hearing.unreachable(failure)
            return failure
        except asyncio.CancelledError:
            if link is not None:
                await link.aclose()
            raise
        self._link = link
        self._carry_out(link, self._items.agree(_turns(self._remembered)))
        self._hearing.connected(link)
        return None

    def _lost(self, link: Link, error: BackendFailed) -> None:
        if link is not self._link:
            return
        _log.warning("the connection to the realtime service at %s ended: %s", self._endpoint.url, error.code)
        self._link = None
        self._lost_links.add(link)
        self._tasks.start(self._discard(link), "close")
        self._items.entries.clear()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.end(error)
        self._hearing.lost(error)

    async def _discard(self, link: Link) -> None:
        await link.aclose()
        self._lost_links.discard(link)

    def _take(self, event: wire.Event) -> None:
        """Takes an event of the service."""
        link, answer = self._link, self._answer
        if link is None:
            return
        self._hearing.take(event)
        kind = event["type"]
        if kind == "error":
            self._refused(link, event)
        if answer is None or answer.over.is_set():
            return
        if kind == "response.created":
            answer.response_id = answer.response_id or wire.text_member(event, "response", "id")
        elif not answer.is_called(wire.text_member(event, "response", "id") or wire.text_member(event, "response_id")):
            return
        elif kind == "response.done":
            self._done(link, answer, event)
        elif kind in ("response.output_item.added", "response.output_audio.delta"):
            item_id = wire.text_member(event, "item", "id") or wire.text_member(event, "item_id")
            if item_id and item_id not in answer.entry.item_ids:
                answer.entry.item_ids.append(item_id)
            if kind == "response.output_audio.delta":
                self._sound(link, answer, event)
        elif kind == "response.output_audio_transcript.delta":
            answer.words(wire.text_member(event, "delta"))

    def _sound(self, link: Link, answer: AnswerStream, event: wire.Event) -> None:
        try:
            answer.sound(wire.sound_of(event))
        except ValueError:
            link.give_up(self._endpoint.garbled("sound that is none"))
            return
        if answer.too_long:
            answer.end()
            link.send(wire.cancel(answer.response_id))

    def _done(self, link: Link, answer: AnswerStream, event: wire.Event) -> None:
        error = None
        match wire.text_member(event, "response", "status"):
            case "failed":
                error = self._endpoint.refused(wire.member(event, "response", "status_details", "error"))
            case "cancelled" if not answer.dropped and not answer.settled:
                error = self._endpoint.error("service_failed", "broke off in the middle of an answer.")
        answer.end(error)
        self._leave_behind(answer, link)

    def _refused(self, link: Link, event: wire.Event) -> None:
        """Takes an error of the service."""
        about = wire.text_member(event, "error", "event_id")
        kind, answer = wire.kind_of_id(about), self._answer
        error = self._endpoint.refused(event.get("error"))
        running = answer is not None and not answer.over.is_set()
        if kind in _OPTIONAL:
            return
        if kind == "commit":
            self._hearing.refused(about, event.get("error"))
        elif kind == "respond" and answer is not None and answer.event_id == about and not answer.response_id:
            answer.end(error)
        elif running or self._hearing.busy or kind:
            # Whatever it is about, something that is waited for will not come.
            link.give_up(error)


def _turns(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message.role != "system"]
