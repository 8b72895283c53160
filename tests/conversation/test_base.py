import pytest

from engine.conversation.tts.base import is_speakable


@pytest.mark.parametrize("text", ["a", "7", "¿", "€", "🎉", "한", "ـ", " \n. "])
def test_whatever_some_voice_may_read_is_speakable(text: str) -> None:
    assert is_speakable(text)


@pytest.mark.parametrize("text", ["", " \t\n\u00a0", "\u200b", "\u200d\ufe0f", "\x00\x07", "\u202e\ufeff", "\ue000"])
def test_blanks_and_control_characters_are_not(text: str) -> None:
    assert not is_speakable(text)
