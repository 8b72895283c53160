"""The scripted host: offline, honest, and the same every time."""

import asyncio
import contextlib
import re

import pytest

from engine.conversation.llm.base import Message
from engine.conversation.llm.host import ScriptedHost
from engine.conversation.llm.host_lines import LANGUAGES, NEEDED


async def say(*turns: str, language: str = "") -> str:
    """The last reply of a conversation."""
    host, messages, reply = ScriptedHost(language), [Message("system", "You are Maya.")], ""
    for turn in turns:
        messages.append(Message("user", turn))
        reply = "".join([piece async for piece in host.reply(messages)])
        messages.append(Message("assistant", reply))
    await host.aclose()
    return reply


async def topic(text: str) -> str:
    """Which topic of which language a text is taken for, by the reply it gets."""
    reply = await say(text)
    for code, language in LANGUAGES.items():
        for name, lines in language.lines.items():
            line = lines[0].replace("{how}", language.lines["how"][0]).replace("{name}", "Visavis")
            if reply == line.replace("{heard}", text.strip(" ?!.¿")):
                return f"{code} {name}"
    return reply


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello!", "en hello"),
        ("good morning", "en hello"),
        ("What are you?", "en self"),
        ("hi who are you", "en self"),
        ("are you a real person", "en self"),
        ("Who made you?", "en makers"),
        ("what licence do you have", "en makers"),
        ("What can you do?", "en abilities"),
        ("can you help me", "en abilities"),
        ("How do I add a language model?", "en model"),
        ("can i connect you to ollama", "en model"),
        ("how can I change your face", "en face"),
        ("I want another avatar", "en face"),
        ("How do I change the voice?", "en voice"),
        ("can you speak french", "en voice"),
        ("How are you today?", "en feeling"),
        ("tell me a joke", "en joke"),
        ("thank you very much", "en thanks"),
        ("Good-bye.", "en bye"),
        ("stop", "en stop"),
        ("stop it please", "en stop"),
        ("say that again", "en again"),
        ("what is the capital of France", "en unknown"),
        ("the shop is closed on the way to the station", "en unknown"),
        ("Hallo", "de hello"),
        ("Wer bist du?", "de self"),
        ("Wie spät ist es?", "de unknown"),
        ("Wie ändere ich deine Stimme?", "de voice"),
        ("Bonjour !", "fr hello"),
        ("Qui es-tu ?", "fr self"),
        ("Quelle heure est-il", "fr unknown"),
        ("Comment changer ta voix ?", "fr voice"),
        ("Hola", "es hello"),
        ("¿Quién eres?", "es self"),
        ("¿Qué hora es", "es unknown"),
        ("你好", "zh hello"),
        ("你是谁？", "zh self"),
        ("现在几点", "zh unknown"),
        ("怎么添加语言模型？", "zh model"),
    ],
)
async def test_understands_what_it_can(text: str, expected: str) -> None:
    assert await topic(text) == expected


async def test_greets_when_nobody_has_spoken() -> None:
    host = ScriptedHost("de-AT")
    pieces = [piece async for piece in host.reply([Message("system", "x")])]
    assert "".join(pieces) == LANGUAGES["de"].lines["greeting"][0].replace("{name}", "Visavis")
    assert len(pieces) > 5


@pytest.mark.parametrize("text", ["", "   ", "...", "?!"])
async def test_asks_again_when_nothing_was_heard(text: str) -> None:
    assert await say(text) == LANGUAGES["en"].lines["empty"][0]
    assert await say(text, text) == LANGUAGES["en"].lines["empty"][1]


async def test_repeats_what_it_understood_and_says_what_is_missing() -> None:
    reply = await say("My cat is called {how} Ferdinand.")
    assert "“My cat is called {how} Ferdinand”" in reply
    assert "no language model is configured" in reply
    assert "Ollama" in reply


@pytest.mark.parametrize("code", LANGUAGES)
async def test_every_variant_of_the_unknown_names_the_missing_model(code: str) -> None:
    telling = {"en": "language model", "de": "prachmodell", "fr": "modèle de langage", "es": "modelo de lenguaje",
               "zh": "语言模型"}  # fmt: skip
    assert all(telling[code] in line and "{heard}" in line for line in LANGUAGES[code].lines["unknown"])
    assert all("Ollama" in line and "OpenAI" in line for line in LANGUAGES[code].lines["how"])
    assert set(NEEDED) | set(LANGUAGES[code].patterns) <= set(LANGUAGES[code].lines)


@pytest.mark.parametrize("code", LANGUAGES)
async def test_everything_it_says_can_be_said(code: str) -> None:
    for lines in LANGUAGES[code].lines.values():
        for line in lines:
            assert not re.search(r"_|\+|[A-Z]{5}|\b[a-z]{2}-[a-z]{2}\b|://", line), line
            assert len(line.replace("{how}", LANGUAGES[code].lines["how"][0])) < 320


async def test_a_long_speech_is_not_repeated_whole() -> None:
    assert len(await say("the quick brown fox " * 200)) < 700


async def test_the_same_question_gets_the_next_variant_and_the_same_conversation_the_same_reply() -> None:
    first, second = await say("what are you"), await say("what are you", "who are you")
    assert first != second
    assert second == await say("what are you", "who are you")
    assert first == await say("what are you", "who are you", "thanks", "what are you")


async def test_says_its_last_reply_again_when_asked() -> None:
    assert await say("who made you", "say that again please") == await say("who made you")


async def test_a_cancelled_reply_stops() -> None:
    host, pieces = ScriptedHost(), []

    async def talk() -> None:
        async with contextlib.aclosing(host.reply([Message("user", "what can you do")])) as reply:
            async for piece in reply:
                pieces.append(piece)

    task = asyncio.create_task(talk())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(pieces) < 5


async def test_the_host_calls_itself_what_its_avatar_is_called() -> None:
    for language, question in (("en", "Who are you?"), ("de", "Wer bist du?"), ("zh", "你是谁？")):
        for name in ("Amara", ""):
            pieces = ScriptedHost(language, name).reply([Message("user", question)])
            said = "".join([piece async for piece in pieces])
            assert (name or "Visavis") in said and "{" not in said
