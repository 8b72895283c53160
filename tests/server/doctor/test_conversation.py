"""Voice, recogniser and language model are really used, and what fails is explained without a secret."""

from __future__ import annotations

import numpy as np
import pytest

from engine.config import Config
from server.doctor import conversation, face
from tests.conversation.misbehaving import FakeService, Mood

KEY = "sk-nobody-may-read-this"
SOUND = np.zeros(16_000, np.float32)


@pytest.fixture
def options(tmp_path, avatars_dir):
    return {"avatars_dir": avatars_dir, "data_dir": tmp_path}


def voice_key(fake, **more):
    return {"voice": "openai", "voice_url": fake.url, "voice_key": KEY, **more}


def llm(fake, **more):
    return Config(llm="openai", llm_url=fake.url, llm_key=KEY, llm_model="tiny-chat", **more)


async def test_what_comes_with_the_project_speaks_hears_and_answers(options):
    config = Config(**options)
    found = {item.check: item async for item in conversation.examine(config, face.cast(config))}
    assert found["voice"].verdict == "ok" and found["language_model"].verdict == "note"
    assert "hello" in found["recogniser"].said.lower()


async def test_services_that_answer_are_fine(options):
    async with FakeService() as fake:
        config = Config(**options, **voice_key(fake))
        character = conversation.character_of(
            face.cast(config).library.cards["tiny"].persona, "Tiny", config
        )
        said, sound = await conversation.voice(config, character)
        assert said.verdict == "ok" and sound.size > 0
        assert (await conversation.language_model(llm(fake))).verdict == "ok"
        ear = Config(asr="openai", asr_url=fake.url, asr_key=KEY)
        loud = np.sin(np.arange(16_000) * 0.1).astype(np.float32)
        assert (await conversation.recogniser(ear, loud)).verdict == "ok"


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_a_language_model_that_refuses_is_a_problem_without_its_key_or_address(status):
    async with FakeService() as fake:
        fake.moods["chat"] = [Mood(status=status)]
        found = await conversation.language_model(llm(fake))
        told = found.said + found.change
        assert found.verdict == "problem"
        assert KEY not in told and fake.url not in told
        assert "llm_key" in told or status != 401


async def test_a_model_that_is_not_there_is_told_beside_those_that_are():
    async with FakeService() as fake:
        fake.moods["chat"] = [Mood(status=404)]
        found = await conversation.language_model(llm(fake).model_copy(update={"llm_model": "gone"}))
        assert "--llm-model" in found.change


@pytest.mark.parametrize("check", ["llm", "asr"])
async def test_a_service_where_nobody_listens_is_a_problem(check):
    nowhere = {f"{check}": "openai", f"{check}_url": "http://127.0.0.1:9/v1"}
    config = Config(**nowhere)
    loud = np.ones(16_000, np.float32)
    found = await (conversation.language_model(config.model_copy(update={"llm_model": "x"})) if check == "llm"
                   else conversation.recogniser(config, loud))  # fmt: skip
    assert found.verdict == "problem" and f"{check}_url" in found.change


async def test_a_realtime_service_where_nobody_listens_is_a_problem():
    found = await conversation.language_model(Config(llm="realtime", llm_url="http://127.0.0.1:9/v1", llm_key=KEY))
    assert found.verdict == "problem" and KEY not in found.said + found.change


async def test_recognition_that_is_switched_off_is_a_note():
    assert (await conversation.recogniser(Config(asr="none"), SOUND)).verdict == "note"


async def test_a_voice_that_is_not_there_is_a_problem(options):
    config = Config(**options, voice="piper", voice_model="/nowhere/voice.onnx")
    card = face.cast(config).library.cards["tiny"]
    found, sound = await conversation.voice(config, conversation.character_of(card.persona, card.title, config))
    assert found.verdict == "problem" and not sound.size
