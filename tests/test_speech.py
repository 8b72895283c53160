import asyncio

import numpy as np
import pytest

from engine.audio.window import MelWindow
from engine.errors import Closed
from engine.speech import LIVE_AHEAD_FRAMES, Caption, Catchup, Speech
from engine.types import FRAME_SAMPLES
from tests.fakes import babble, silence, tone

WINDOW = MelWindow(columns=8, offset=-2)


def test_frames_come_out_in_order_and_finish() -> None:
    speech = Speech(1, WINDOW)
    samples = babble(0.5)
    speech.push(samples)
    speech.end()
    assert not speech.started
    frames = [speech.next() for _ in range(speech.frames_ready)]
    assert [index for index, _, _ in frames] == list(range(13))
    assert speech.started and speech.finished and speech.closed
    with pytest.raises(Closed):
        speech.push(samples)


def test_change_is_told_on_push_end_and_abort() -> None:
    calls: list[None] = []
    speech = Speech(1, WINDOW)
    speech.on_change = lambda: calls.append(None)
    speech.push(tone(0.1))
    speech.end()
    speech.end()
    speech.abort()
    assert len(calls) == 3


def test_aborted_speech_gives_nothing_more() -> None:
    speech = Speech(1, WINDOW)
    speech.push(tone(1))
    speech.caption(Caption("gone", 0, 1000))
    speech.abort()
    assert speech.frames_ready == 0 and speech.finished and speech.captions_until(10_000) == []


def test_captions_come_once_when_their_time_has_come() -> None:
    speech = Speech(1, WINDOW)
    first, second = Caption("a", 0, 500), Caption("b", 500, 900)
    speech.caption(first)
    speech.caption(second)
    assert speech.captions_until(40) == [first]
    assert speech.captions_until(500) == []
    assert speech.captions_until(501) == [second]


def test_heard_and_unheard_add_up_and_frames_can_be_taken_back() -> None:
    speech = Speech(1, WINDOW)
    speech.push(tone(0.1))
    speech.heard(0)
    speech.heard(1)
    assert (speech.heard_ms, speech.unheard_ms) == (80, 20)
    speech.heard(2)
    assert (speech.heard_ms, speech.unheard_ms) == (100, 0)
    speech.retract(1)
    assert (speech.heard_ms, speech.unheard_ms) == (80, 20)


def test_skipped_frames_were_not_heard() -> None:
    speech = Speech(1, WINDOW, live=True)
    speech.push(tone(0.8))
    speech.heard(speech.next()[0])
    for _ in range(5):
        speech.skip()
    speech.heard(speech.next()[0])
    assert (speech.heard_ms, speech.unheard_ms) == (80, 720)


def test_live_speech_keeps_only_the_latest_sound() -> None:
    speech = Speech(1, WINDOW, live=True)
    speech.push(babble(3.0))
    assert speech.frames_ready == LIVE_AHEAD_FRAMES
    assert speech.next()[0] > 40


def test_skipped_frame_leaves_no_click() -> None:
    speech = Speech(1, WINDOW, live=True)
    samples = tone(0.6, frequency_hz=130, amplitude=0.9)
    speech.push(samples)
    _, _, before = speech.next()
    for _ in range(3):
        speech.skip()
    _, _, after = speech.next()
    largest_step = np.abs(np.diff(samples.astype(int))).max()
    assert abs(int(after[0]) - int(before[-1])) <= 2 * largest_step
    assert np.abs(np.diff(after.astype(int))).max() <= 600 + 2 * largest_step
    assert np.array_equal(after[400:], samples[4 * FRAME_SAMPLES + 400 : 5 * FRAME_SAMPLES])


async def test_feed_waits_for_room_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.speech._AHEAD_SAMPLES", 10_000)
    speech, samples = Speech(1, WINDOW), babble(1.0)
    feeding = asyncio.create_task(speech.feed(samples))
    heard = []
    while not (feeding.done() and not speech.frames_ready):
        await asyncio.sleep(0)
        assert speech.ahead_ms <= 10_000 / 48
        while speech.frames_ready:
            heard.append(speech.next()[2])
        if feeding.done():
            speech.end()
    assert np.array_equal(np.concatenate(heard)[: len(samples)], samples)


async def test_feed_that_waits_is_told_of_an_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.speech._AHEAD_SAMPLES", 1000)
    speech = Speech(1, WINDOW)
    feeding = asyncio.create_task(speech.feed(silence(1)))
    await asyncio.sleep(0)
    speech.abort()
    with pytest.raises(Closed):
        await feeding


def skips(slack_ms: float, count: int = 40, *, silent: bool = False) -> int:
    catchup = Catchup()
    return sum(catchup.frames_to_skip(slack_ms, silent=silent) for _ in range(count))


def test_catchup_leaves_a_small_delay_alone() -> None:
    assert skips(50) == 0 and skips(50, silent=True) == 0


def test_catchup_takes_silent_frames_first() -> None:
    assert skips(70) == 0 and skips(70, silent=True) > 0


def test_catchup_removes_a_large_delay_at_once_but_not_below_half_a_frame() -> None:
    catchup = Catchup()
    taken = [catchup.frames_to_skip(500, silent=False) for _ in range(Catchup.WINDOW)]
    assert taken[:-1] == [0] * (Catchup.WINDOW - 1) and taken[-1] == 12


def test_catchup_ignores_a_delay_that_comes_and_goes() -> None:
    catchup = Catchup()
    assert sum(catchup.frames_to_skip(200 if turn % 10 else 30, silent=True) for turn in range(100)) == 0
