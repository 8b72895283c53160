"""When sound need not be sent."""

from __future__ import annotations

from server.silence import HANGOVER_FRAMES, REFRESH_FRAMES, Sending, Silence


def test_sound_is_always_sent():
    silence = Silence()
    assert {silence.take(False) for _ in range(100)} == {Sending.SOUND}


def test_short_pauses_are_sent_as_they_are():
    silence = Silence()
    for _ in range(5):
        silence.take(False)
        assert {silence.take(True) for _ in range(HANGOVER_FRAMES)} == {Sending.SOUND}


def test_long_silence_is_a_packet_now_and_then():
    silence = Silence()
    took = [silence.take(True) for _ in range(HANGOVER_FRAMES + 10 * REFRESH_FRAMES)][HANGOVER_FRAMES:]
    assert took[0] is Sending.NOTHING_NEW, "the decoder is told at once"
    assert took.count(Sending.NOTHING_NEW) == 10 and took.count(Sending.NONE) == len(took) - 10


def test_sound_after_silence_is_sent_from_its_first_frame_on():
    silence = Silence()
    for _ in range(137):
        silence.take(True)
    assert silence.take(False) is Sending.SOUND
    assert silence.take(True) is Sending.SOUND
