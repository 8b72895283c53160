"""Which of persona, options and the choice of a session wins, and how a session is answered."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from engine.config import Config
from engine.conversation.discover import Found
from engine.conversation.history import History
from engine.conversation.llm.base import Message
from engine.errors import BackendFailed, ConfigInvalid, NotFound
from engine.persona import Persona, Style
from engine.voice_choice import VoiceChoice
from server import voices as voices_module
from server.character import character_of
from server.language_models import LanguageModels
from server.manner import Manner
from server.voices import VOICES_KEPT, Voices

MAYA = Persona(
    name="Maya",
    language="en-US",
    system_prompt="You are Maya.",
    greeting="Hi, I am Maya.",
    temperature=0.7,
    style="pirate",
    rate_wpm=150,
    voices={"espeak": "en-us+f3", "openai": "nova", "kokoro": "af_heart"},
    styles={"pirate": Style("Pirate", "Talk like a pirate.", 1.2), "concise": Style("Curt", "One word.")},
)


def test_a_persona_decides_what_the_options_leave_open():
    maya = character_of(MAYA, "Portrait", Config())
    assert (maya.name, maya.language, maya.system_prompt, maya.greeting) == (
        "Maya", "en-US", "You are Maya.", "Hi, I am Maya.",
    )  # fmt: skip
    assert maya.voice == VoiceChoice("en-us+f3", 150)
    assert maya.style == "pirate"
    assert character_of(MAYA, "", Config(voice="openai")).voice.name == "nova"
    assert character_of(MAYA, "", Config(voice="piper")).voice.name == ""


def test_options_that_were_set_win_over_the_persona_also_where_they_say_what_they_would_anyway():
    config = Config(
        voice_name="de+m1", voice_rate=165, greeting="", system_prompt="You are a clerk.", language="en"
    )
    clerk = character_of(MAYA, "Portrait", config)
    assert (clerk.voice, clerk.greeting, clerk.system_prompt) == (VoiceChoice("de+m1", 165), "", "You are a clerk.")
    assert clerk.style == "natural", "its style went with its own description"
    assert clerk.language == "en"


def test_in_another_language_nothing_of_the_persona_is_read_with_a_foreign_voice():
    german = character_of(MAYA, "Portrait", Config(language="de-AT"))
    assert (german.language, german.greeting, german.voice.name) == ("de-AT", "", "de+f3")
    assert character_of(MAYA, "", Config(language="de", voice="kokoro")).voice.name == ""
    assert character_of(MAYA, "", Config(language="de", voice="openai")).voice.name == "nova"
    assert character_of(MAYA, "", Config(language="en")).greeting == "Hi, I am Maya."


def test_without_a_persona_everything_is_as_the_options_say():
    config = Config()
    plain = character_of(Persona(), "Portrait", config)
    assert (plain.name, plain.language, plain.system_prompt) == ("Portrait", "en", config.system_prompt)
    assert (plain.voice, plain.greeting, plain.style) == (VoiceChoice("", 165), "", "natural")
    named = character_of(Persona(name="Ada"), "Portrait", config)
    assert named.system_prompt == f"Your name is Ada. {config.system_prompt}"


def test_a_style_adds_to_the_prompt_and_has_a_temperature_of_its_own_or_the_personas():
    maya = character_of(MAYA, "", Config())
    assert maya.instructions("natural") == "You are Maya."
    assert maya.instructions("pirate") == "You are Maya.\n\nTalk like a pirate."
    assert (maya.temperature_in("pirate"), maya.temperature_in("natural")) == (1.2, 0.7)
    assert maya.instructions("concise").endswith("One word."), "its own takes the place of the built-in one"
    assert {"name": "concise", "title": "Curt"} in maya.listed_styles()
    assert [style["name"] for style in maya.listed_styles()][:2] == ["natural", "friendly"]


@pytest.fixture
async def models():
    models = LanguageModels(Config())
    yield models
    await models.aclose()


class Recording:
    """A language model that notes what it is asked."""

    def __init__(self) -> None:
        self.asked = []

    async def reply(self, messages, *, temperature=None):
        self.asked.append((messages, temperature))
        yield "Aye."

    async def aclose(self) -> None:
        self.asked.append("closed")


async def _answer(manner: Manner, history: History) -> str:
    async with aclosing(manner.reply(history.messages("Hello."))) as deltas:
        return "".join([delta async for delta in deltas])


async def test_what_is_chosen_holds_from_the_next_answer_on(models, monkeypatch):
    made = {}

    def create(name, **options):
        return made.setdefault((name, options.get("url", ""), options.get("model", "")), Recording())

    monkeypatch.setattr("server.language_models.create_language_model", create)
    models.offer([Found("Ollama", "http://127.0.0.1:11434/v1", ("llama3.2", "nomic-embed-text"))])
    history = History()
    manner = Manner(character_of(MAYA, "", Config()), history, models)
    manner.set_language_model("ollama/llama3.2")
    assert await _answer(manner, history) == "Aye."
    manner.set_style("natural")
    await _answer(manner, history)
    found = made[("openai", "http://127.0.0.1:11434/v1", "llama3.2")]
    said = Message("user", "Hello.")
    assert found.asked == [
        ([Message("system", "You are Maya.\n\nTalk like a pirate."), said], 1.2),
        ([Message("system", "You are Maya."), said], 0.7),
    ]
    await models.aclose()
    assert found.asked[-1] == "closed"


async def test_what_is_found_is_offered_by_name_and_not_used_by_itself(models):
    models.offer([Found("LM Studio", "http://127.0.0.1:1234/v1", ("qwen", "text-embedding-bge"))])
    listed = models.listed()
    assert listed == [
        {"id": "host", "title": "Built-in script"}, {"id": "lm-studio/qwen", "title": "qwen (LM Studio)"},
    ]  # fmt: skip
    assert "127.0.0.1" not in str(listed)
    assert models.known(None) == "host"


async def test_a_choice_that_there_is_not_leaves_things_as_they_are(models):
    history = History()
    manner = Manner(character_of(MAYA, "", Config()), history, models)
    with pytest.raises(NotFound, match="pirate"):
        manner.set_style("knight")
    with pytest.raises(NotFound) as caught:
        manner.set_language_model("gpt")
    assert caught.value.code == "language_model_unknown"
    assert (manner.style, manner.language_model) == ("pirate", "host")
    assert history.system_prompt.endswith("Talk like a pirate.")


class Mute:
    """A voice that is only there."""

    def __init__(self, name: str) -> None:
        self.name, self.closed = name, False

    async def aclose(self) -> None:
        self.closed = True


async def _directly(work):
    return work()


@pytest.fixture
def made(monkeypatch) -> list[Mute]:
    made: list[Mute] = []

    def create(provider, *, name, **options):
        if name == "nobody":
            raise ConfigInvalid("voice_unknown", "There is no voice 'nobody'.")
        made.append(Mute(name))
        return made[-1]

    monkeypatch.setattr(voices_module, "create_voice", create)
    return made


async def test_voices_are_shared_and_the_longest_unused_goes_first(made):
    voices = Voices(Config(), _directly)
    choices = [VoiceChoice(f"v{index}", 165) for index in range(VOICES_KEPT + 2)]
    first = await voices.get(choices[0], ())
    assert await voices.get(choices[0], ()) is first and len(made) == 1
    for choice in choices[1:]:
        await voices.get(choice, {choices[0]})
    assert [voice.name for voice in made if voice.closed] == ["v1", "v2"]
    await voices.aclose()
    assert all(voice.closed for voice in made)


async def test_a_persona_with_a_voice_that_is_not_there_speaks_with_the_usual_one(made, caplog):
    voices = Voices(Config(), _directly)
    assert (await voices.get(VoiceChoice("nobody", 165), ())).name == ""
    assert "'nobody'" in caplog.text
    with pytest.raises(ConfigInvalid):
        await Voices(Config(voice_name="nobody"), _directly).get(VoiceChoice("nobody", 165), ())


async def test_a_voice_that_cannot_be_loaded_at_all_is_told(monkeypatch):
    def broken(provider, **options):
        raise BackendFailed("voice_unavailable", "It is not installed.")

    monkeypatch.setattr(voices_module, "create_voice", broken)
    with pytest.raises(BackendFailed):
        await Voices(Config(), _directly).get(VoiceChoice("af_heart", 165), ())


async def test_the_script_answers_in_the_name_of_the_avatar_and_is_made_once(models):
    maya, uta = (character_of(persona, "", Config()) for persona in (MAYA, Persona(name="Uta", language="de")))
    script = models.get("host", maya)
    assert models.get("host", maya) is script and models.get("host", uta) is not script
    said = "".join([piece async for piece in script.reply([Message("user", "Who are you?")])])
    assert "I am Maya" in said
