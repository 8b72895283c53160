"""A Realtime conversation over a real WebSocket: what reaches the service, what comes back, and every way to fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import numpy as np
import pytest

from engine.conversation.http import Timeouts
from engine.conversation.llm.base import Message
from engine.conversation.realtime.base import SpeakingModel, SpokenText, Timed
from engine.conversation.realtime.conversation import RealtimeConversation, RealtimeService
from engine.conversation.realtime.hearing import RealtimeListening
from engine.conversation.realtime.link import Endpoint
from engine.conversation.tts.base import SpeechPiece
from engine.errors import BackendFailed, Cancelled, ConfigInvalid
from tests.conversation.misbehaving_realtime import RATE, FakeRealtime, Mood

PROMPT = "You are Maya, and you like cats."
PATIENT = Timeouts(connect_s=20.0, first_byte_s=20.0, next_byte_s=20.0)
QUICK = Timeouts(connect_s=0.3, first_byte_s=0.4, next_byte_s=0.3)
"""Where nothing is to come in time; a busy machine may take longer for what does come."""
NEVER_S = 30.0
SPEECH = (0.3 * np.sin(np.arange(16_000) * 0.1)).astype(np.float32)


class Talk:
    """A conversation with the fake, and the history a dialogue would keep."""

    def __init__(self, endpoint: Endpoint, conversation: RealtimeConversation) -> None:
        self.endpoint = endpoint
        self.conversation = conversation
        self.history = [Message("system", PROMPT)]

    def be_patient(self) -> None:
        self.endpoint.timeouts = PATIENT
        self.conversation._hearing.patience_s = 40.0

    async def hear(self, sound: np.ndarray = SPEECH) -> tuple[RealtimeListening, str]:
        listening = self.conversation.listen()
        for start in range(0, len(sound), 320):
            listening.push(sound[start : start + 320])
        return listening, (await listening.finish()).text

    async def answer(self, text: str, parts: int | None = None) -> tuple[str, np.ndarray]:
        """The answer to a text: its words and its sound, or the first parts of it."""
        texts: list[SpokenText] = []
        sound = [np.zeros(0, np.int16)]
        async with aclosing(self.conversation.answer([*self.history, Message("user", text)])) as answer:
            async for part in answer:
                if isinstance(part, SpeechPiece):
                    assert part.sample_rate == RATE
                    sound.append(part.samples)
                elif isinstance(part, Timed):
                    texts = list(part.texts)
                else:
                    texts.append(part)
                parts = None if parts is None else parts - 1
                if parts == 0:
                    break
        return " ".join(text.text for text in texts), np.concatenate(sound)

    def keep(self, text: str, heard: str, heard_ms: int | None) -> None:
        if heard:
            self.history += [Message("user", text), Message("assistant", heard)]
        self.conversation.remember(self.history, heard_ms)

    async def turn(self) -> str:
        listening, text = await self.hear()
        words, sound = await self.answer(text)
        self.keep(text, words, len(sound) * 1000 // RATE)
        listening.cancel()
        return words


@asynccontextmanager
async def talking(fake: FakeRealtime, timeouts: Timeouts = PATIENT, **options: object) -> AsyncIterator[Talk]:
    endpoint = Endpoint(fake.url, key=fake.key, timeouts=timeouts)
    service = RealtimeService(endpoint)
    conversation = service.converse(PROMPT, language="en-US", **options)
    try:
        yield Talk(endpoint, conversation)
    finally:
        await conversation.aclose()
        await service.aclose()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("realtime")]


async def until(condition, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # what the service holds tells nobody when it changes
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("beta", [False, True])
async def test_turns_are_heard_answered_and_stay_one_conversation(beta: bool) -> None:
    fake = FakeRealtime(beta=beta)
    fake.transcripts, fake.answers = ["first question", "second question"], ["One two. Three.", "Four five six."]
    async with fake, talking(fake, voice="marin") as talk:
        assert isinstance(talk.conversation, SpeakingModel)
        assert await talk.turn() == "One two. Three."
        assert await talk.turn() == "Four five six."
        said = [("user", "first question"), ("assistant", "One two. Three."), ("user", "second question")]
        assert fake.asked[1] == said
        session = fake.last.session
        assert session["instructions"] == PROMPT
        if beta:
            assert session["turn_detection"] is None and session["voice"] == "marin"
            assert session["input_audio_transcription"]["language"] == "en"
        else:
            sound = session["audio"]
            assert sound["input"]["turn_detection"] is None and sound["output"]["voice"] == "marin"
            assert sound["input"]["transcription"]["language"] == "en"
        assert not fake.errors and len(fake.connections) == 1


async def test_the_service_gets_the_sound_of_the_turn_at_its_rate() -> None:
    async with FakeRealtime() as fake, talking(fake) as talk:
        await talk.turn()
        heard = np.frombuffer(fake.last.items[0].sound, "<i2").astype(float)
        assert abs(len(heard) - RATE) <= 2
        spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
        assert abs(spectrum.argmax() * RATE / len(heard) - 0.1 * 16_000 / (2 * np.pi)) < 3
        assert abs(np.abs(heard).max() / 32768 - 0.3) < 0.02


async def test_the_answer_is_asked_for_when_the_turn_ends_not_when_its_words_are_known() -> None:
    async with FakeRealtime(Mood(transcript_s=1.0)) as fake, talking(fake) as talk:
        listening = talk.conversation.listen()
        listening.push(SPEECH)
        finishing = asyncio.create_task(listening.finish())
        await until(lambda: fake.asked)
        assert not finishing.done()
        await talk.answer((await finishing).text, parts=1)
        assert len(fake.asked) == 1


async def test_sound_is_streamed_while_the_person_speaks() -> None:
    async with FakeRealtime() as fake, talking(fake) as talk:
        listening = talk.conversation.listen()
        listening.push(SPEECH)
        await until(lambda: fake.connections and len(fake.last.buffer) > 0.9 * 2 * RATE)
        listening.cancel()
        await until(lambda: not fake.last.buffer)
        assert not fake.last.items


async def test_an_interruption_ends_the_answer_and_cuts_it_where_it_was_heard() -> None:
    fake = FakeRealtime(Mood(between_s=0.02))
    fake.answers = [" ".join(["word"] * 50) + ".", "All right."]
    async with fake, talking(fake) as talk:
        listening, text = await talk.hear()
        answer = talk.conversation.answer([*talk.history, Message("user", text)])
        for _ in range(6):
            await anext(answer)
        talk.keep(text, "word word…", 230)
        await answer.aclose()
        listening.cancel()
        await until(lambda: fake.last.count("conversation.item.truncate"))
        assert fake.last.items[-1].heard_ms == 230 and len(fake.last.items[-1].text.split()) < 50
        assert await talk.turn() == "All right."
        assert fake.asked[1][1][0] == "assistant" and not fake.errors


async def test_an_answer_that_was_complete_is_cut_where_it_was_heard_and_not_when_it_was_heard_out() -> None:
    fake = FakeRealtime()
    fake.answers = ["one two three four five.", "six."]
    async with fake, talking(fake) as talk:
        listening, text = await talk.hear()
        await talk.answer(text)
        talk.keep(text, "one two…", 200)
        listening.cancel()
        await talk.turn()
        assert [event["audio_end_ms"] for event in fake.last.events if "audio_end_ms" in event] == [200]
        assert fake.last.count("conversation.item.delete") == 0 and not fake.errors


async def test_an_answer_of_which_nothing_was_heard_leaves_nothing() -> None:
    fake = FakeRealtime(Mood(between_s=0.02))
    fake.transcripts, fake.answers = ["and then", "what happened"], ["Wait a bit, please, I think.", "Nothing."]
    async with fake, talking(fake) as talk:
        listening, text = await talk.hear()
        await talk.answer(text, parts=1)
        listening.cancel()
        _, more = await talk.hear()
        words, _ = await talk.answer(f"{text} {more}")
        assert words == "Nothing."
        assert fake.asked[-1] == [("user", "and then"), ("user", "what happened")]
        await until(lambda: fake.texts() == [*fake.asked[-1], ("assistant", "Nothing.")])


async def test_a_turn_without_words_is_answered_by_nobody() -> None:
    fake = FakeRealtime(Mood(between_s=0.02))
    fake.transcripts = ["", "hello"]
    async with fake, talking(fake) as talk:
        listening, text = await talk.hear()
        listening.cancel()
        assert not text
        await until(lambda: not fake.last.items and not fake.last.response)
        assert await talk.turn()


async def test_silence_is_not_sent() -> None:
    async with FakeRealtime() as fake, talking(fake) as talk:
        _, text = await talk.hear(np.zeros(16_000, np.float32))
        _, short = await talk.hear(SPEECH[:800])
        assert text == short == ""
        await talk.turn()
        assert fake.last.count("input_audio_buffer.commit") == 1
        assert abs(len(fake.last.items[0].sound) - 2 * RATE) < 8


async def test_typed_text_greetings_and_forgotten_turns_reach_the_service_as_the_history_has_them() -> None:
    fake = FakeRealtime()
    fake.answers = ["Sure."]
    async with fake, talking(fake) as talk:
        talk.history.append(Message("assistant", "Hello, I am Maya."))
        talk.conversation.remember(talk.history, None)
        await talk.turn()
        assert fake.asked == [[("assistant", "Hello, I am Maya."), ("user", "what time is it")]]
        words, sound = await talk.answer("typed words")
        assert fake.asked[-1][-2:] == [("assistant", "Sure."), ("user", "typed words")]
        talk.keep("typed words", words, len(sound) * 1000 // RATE)
        del talk.history[1:4]
        await talk.turn()
        kept = ["typed words", "Sure.", "what time is it", "Sure."]
        await until(lambda: [text for _, text in fake.texts()] == kept)
        assert not fake.errors


async def test_other_instructions_reach_the_service_before_the_answer() -> None:
    async with FakeRealtime() as fake, talking(fake) as talk:
        await talk.turn()
        talk.history[0] = Message("system", "You are a pirate.")
        await talk.turn()
        assert fake.last.session["instructions"] == "You are a pirate."
        kinds = [event["type"] for event in fake.last.events]
        assert kinds.index("session.update", 3) < len(kinds) - 1 - kinds[::-1].index("response.create")


async def test_the_words_alone_count_where_the_avatar_was_called_by_its_name() -> None:
    fake = FakeRealtime()
    fake.transcripts = ["Hey Maya, what time is it?"]
    async with fake, talking(fake, eager=False) as talk:
        listening, _ = await talk.hear()
        await asyncio.sleep(0.05)
        assert not fake.asked
        await talk.answer("what time is it?")
        listening.cancel()
        assert fake.last.count("conversation.item.create") == 0 and len(fake.asked) == 1


async def test_a_second_turn_waits_for_the_first_and_none_of_its_sound_is_mixed() -> None:
    async with FakeRealtime() as fake, talking(fake, eager=False) as talk:
        first, second = talk.conversation.listen(), talk.conversation.listen()
        second.push(SPEECH[:8000])
        first.push(SPEECH)
        await first.finish()
        await second.finish()
        assert [len(item.sound) // 2 for item in fake.last.items] == pytest.approx([RATE, RATE // 2], abs=2)


async def test_a_connection_that_died_between_turns_is_opened_again_with_the_history() -> None:
    fake = FakeRealtime()
    fake.answers = ["One.", "Two."]
    async with fake, talking(fake) as talk:
        await talk.turn()
        await fake.hang_up(fake.last)
        await until(lambda: talk.conversation._link is None)
        assert await talk.turn() == "Two."
        assert len(fake.connections) == 2
        assert fake.asked[-1] == [("user", "what time is it"), ("assistant", "One."), ("user", "what time is it")]


async def test_a_connection_that_dies_while_the_person_speaks_or_is_recognised_loses_no_words() -> None:
    async with FakeRealtime(Mood(die_on_commit=True), Mood()) as fake, talking(fake) as talk:
        _, text = await talk.hear()
        assert text == "what time is it"
        assert abs(len(fake.last.items[0].sound) - 2 * RATE) < 8


async def test_an_answer_that_dies_before_its_first_sound_is_made_anew() -> None:
    async with FakeRealtime(Mood(die_after=0), Mood()) as fake, talking(fake) as talk:
        listening, text = await talk.hear()
        words, _ = await talk.answer(text)
        assert words == "It is noon. Really."
        listening.cancel()


@pytest.mark.parametrize(
    ("mood", "code"),
    [
        (Mood(status=401), "service_rejected_key"),
        (Mood(status=429), "service_rate_limited"),
        (Mood(status=404), "service_failed"),
        (Mood(status=503), "service_failed"),
        (Mood(late_rejection=True), "service_rejected_key"),
        (Mood(silent=True), "service_timeout"),
        (Mood(rubbish=True), "service_garbled"),
        (Mood(refuse_session=True), "service_failed"),
        (Mood(connect_s=NEVER_S), "service_timeout"),
        (Mood(answer_error="rate_limit_exceeded"), "service_rate_limited"),
        (Mood(answer_error="server_error"), "service_failed"),
        (Mood(first_s=NEVER_S), "service_timeout"),
        (Mood(stall_after=2), "service_timeout"),
        (Mood(die_after=2, between_s=0.01), "service_failed"),
        (Mood(bad_sound=True), "service_garbled"),
    ],
)
async def test_every_failure_is_typed_and_tells_neither_key_nor_prompt(
    mood: Mood, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    timeouts = QUICK if code == "service_timeout" else PATIENT
    async with FakeRealtime(mood) as fake, talking(fake, timeouts) as talk:
        with pytest.raises(BackendFailed) as caught:
            await talk.answer("what time is it")
        talk.be_patient()
        assert caught.value.code == code
        told = caught.value.message + caplog.text
        assert fake.key not in told and "Maya" not in told and "noon" not in told
        fake.moods = [Mood()]
        for connection in fake.connections:
            connection.mood = Mood()
        assert (await talk.answer("what time is it"))[0] == "It is noon. Really."


@pytest.mark.parametrize(
    ("mood", "code"),
    [
        (Mood(status=401), "service_rejected_key"),
        (Mood(transcript_error="rate_limit_exceeded"), "service_rate_limited"),
        (Mood(transcript_s=NEVER_S), "service_timeout"),
        (Mood(die_on_commit=True), "service_failed"),
    ],
)
async def test_words_that_cannot_be_had_are_a_typed_error_and_the_next_turn_works(mood: Mood, code: str) -> None:
    async with FakeRealtime(mood) as fake, talking(fake) as talk:
        if code == "service_timeout":
            talk.conversation._hearing.patience_s = 0.5
        with pytest.raises(BackendFailed) as caught:
            await talk.hear()
        assert caught.value.code == code
        talk.be_patient()
        fake.moods = [Mood()]
        if fake.connections:
            await fake.hang_up(fake.last)
            await until(lambda: talk.conversation._link is None)
        assert await talk.turn()


async def test_a_service_that_is_down_fails_at_once_and_is_used_when_it_is_back() -> None:
    fake = FakeRealtime()
    async with fake:
        pass
    async with talking(fake) as talk:
        with pytest.raises(BackendFailed) as caught:
            await talk.hear()
        assert caught.value.code == "service_unreachable"
        async with fake:
            assert await talk.turn()


async def test_a_service_that_goes_on_with_an_answer_it_was_told_to_end_is_left() -> None:
    fake = FakeRealtime(Mood(deaf_to_cancel=True, between_s=0.2), Mood())
    fake.answers = [" ".join(["word"] * 200), "Yes."]
    async with fake, talking(fake, eager=False) as talk:
        await talk.answer("one", parts=2)
        words, _ = await talk.answer("two")
        assert words == "Yes." and len(fake.connections) == 2


async def test_cancelling_a_turn_ends_the_wait_for_its_words() -> None:
    async with FakeRealtime(Mood(transcript_s=NEVER_S)) as fake, talking(fake) as talk:
        listening = talk.conversation.listen()
        listening.push(SPEECH)
        finishing = asyncio.create_task(listening.finish())
        await until(lambda: fake.connections and fake.last.items)
        listening.cancel()
        with pytest.raises(Cancelled):
            await finishing
        await until(lambda: not fake.last.items)


async def test_closing_while_it_connects_leaves_nothing_behind() -> None:
    async with FakeRealtime(Mood(silent=True)) as fake, talking(fake) as talk:
        listening = talk.conversation.listen()
        listening.push(SPEECH)
        await until(lambda: fake.connections)


async def test_an_answer_without_sound_is_nothing() -> None:
    async with FakeRealtime(Mood(silent_answers=True)) as fake, talking(fake) as talk:
        _, sound = await talk.answer("hello")
        assert not len(sound)


@pytest.mark.parametrize("url", ["", "ftp://host", "wss://user:word@host/v1", "realtime"])
def test_an_address_that_is_none_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ConfigInvalid):
        Endpoint(url)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("wss://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://api.openai.com", "https://api.openai.com/v1"),
        ("ws://127.0.0.1:8000/v1/realtime", "http://127.0.0.1:8000/v1"),
    ],
)
def test_addresses_are_completed(url: str, base: str) -> None:
    assert Endpoint(url).url == base
