import pytest

from engine.conversation.backchannel import completeness, is_backchannel


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Mm-hm.", "en"), ("mhm", "en"), ("mm", "en"), ("Uh-huh!", "en"), ("yeah", "en"), ("Yeah, okay.", "en"),
        ("ok", "en-GB"), ("right right", "en"), ("I see…", "en"), ("Oh, really?", "en"), ("hm", "ja"),
        ("Ja, genau!", "de"),
        ("ach so", "de-AT"), ("c’est ça", "fr"), ("Bien sûr.", "fr"), ("Sí, claro", "es"), ("嗯，对对对。", "zh"),
        ("好的", "zh-CN"), ("aha", "xx"),
    ],
)  # fmt: skip
def test_back_channels_are_known(text: str, language: str) -> None:
    assert is_backchannel(text, language)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("", "en"), ("  ", "en"), ("...", "en"), ("no", "en"), ("stop", "en"), ("wait", "en"), ("what", "en"),
        ("okay stop", "en"), ("yeah but", "en"), ("nein", "de"), ("warte", "de"), ("non", "fr"), ("no", "es"),
        ("不是", "zh"), ("好的停", "zh"), ("yeah", "ja"), ("mm " * 40, "en"),
    ],
)  # fmt: skip
def test_words_that_want_the_floor_are_no_back_channels(text: str, language: str) -> None:
    assert not is_backchannel(text, language)


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "zh", "xx"])
@pytest.mark.parametrize("text", [hum * (59 // len(hum)) + "x" for hum in ("m", "mhm", "hmm ", "嗯", "ya ")])
@pytest.mark.timeout(5)
def test_no_text_takes_long_to_judge(text: str, language: str) -> None:
    assert not is_backchannel(text, language)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("", "en", "unknown"), ("…", "en", "unknown"), ("What is your name?", "en", "complete"),
        ("what is your name", "en", "likely"), ("I want to", "en", "incomplete"), ("I want to.", "en", "incomplete"),
        ("It's a.", "en", "incomplete"), ("Well...", "en", "incomplete"), ("Apples, pears,", "en", "incomplete"),
        ("Good morning, Dr.", "en", "incomplete"), ("Are you and?", "en", "complete"),
        ("He said “go.”", "en", "complete"),
        ("I like the band", "en", "likely"), ("Stop!", "en", "complete"), ("Ich möchte ein", "de", "incomplete"),
        ("Wie heißt du", "de", "likely"), ("Das ist gut.", "de", "complete"), ("parle-moi de l'", "fr", "incomplete"),
        ("Qu’est-ce que", "fr", "incomplete"), ("Comment tu t'appelles ?", "fr", "complete"),
        ("Quiero una", "es", "incomplete"), ("¿Cómo te llamas?", "es", "complete"), ("我想", "zh", "incomplete"),
        ("因为", "zh", "incomplete"), ("你叫什么名字", "zh", "likely"), ("你叫什么名字？", "zh", "complete"),
        ("はい。", "ja", "complete"), ("はい", "ja", "unknown"), ("ну,", "ru", "incomplete"),
    ],
)  # fmt: skip
def test_how_finished_words_sound(text: str, language: str, expected: str) -> None:
    assert completeness(text, language).value == expected
