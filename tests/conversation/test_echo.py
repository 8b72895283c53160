"""The guard against the avatar's own voice, on recordings of people in simulated rooms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.audio.decode import decode_audio
from engine.audio.pcm import Decimator
from engine.conversation.echo import BLOCK_SAMPLES, EchoGuard
from engine.conversation.turn import BLOCK_S, TurnTaker

RATE = 16_000
AVATAR = "speech/en_libri_1088-134315-0000.wav"
PERSON = "speech/en_libri_quilter.wav"


def recording(path: Path, seconds: float) -> np.ndarray:
    """A recording from its first word on, at -20 dB of full scale: (n,) float32 at 16 kHz."""
    decimator, sound = Decimator(), decode_audio(path, 120)
    samples = np.concatenate([decimator.push(sound), decimator.flush()]).astype(np.float32)
    samples = samples[int(np.argmax(np.abs(samples) > 0.03)) :][: round(seconds * RATE)]
    return samples / np.sqrt((samples[np.abs(samples) > 0.02] ** 2).mean()) * 0.1


def in_room(sound: np.ndarray, *, delay_s: float, level_db: float, fade_s: float = 0.3, noise_db: float = -62.0):
    """What a microphone hears of a loudspeaker in a room."""
    rng = np.random.default_rng(3)
    time_s = np.arange(round(fade_s * RATE)) / RATE
    room = rng.normal(0, 1, len(time_s)) * 10 ** (-3 * time_s / fade_s)
    room *= 0.6 / np.sqrt((room**2).sum())
    room[0] = 1.0
    size = len(sound) + len(room)
    echo = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(room, size), size)[: len(sound)] * 10 ** (level_db / 20)
    late = np.concatenate([np.zeros(round(delay_s * RATE)), echo])[: len(sound)]
    return (late + rng.normal(0, 10 ** (noise_db / 20), len(sound))).astype(np.float32)


def listen(played: np.ndarray, heard: np.ndarray, *, jitter_s: float = 0.0) -> tuple[np.ndarray, EchoGuard]:
    """Which blocks of the microphone are explained; frames of 40 ms are played in time, or up to ``jitter_s`` early."""
    guard, rng, out, at = EchoGuard(), np.random.default_rng(1), [], 0
    for start in range(0, len(heard) - BLOCK_SAMPLES + 1, BLOCK_SAMPLES):
        until = start + BLOCK_SAMPLES + round(rng.uniform(0, jitter_s) * RATE)
        while at + 640 <= until:
            guard.played(played[at : at + 640])
            at += 640
        out += guard.heard(heard[start : start + BLOCK_SAMPLES])
    return np.array(out), guard


def barge_ins(heard: np.ndarray, explained: np.ndarray) -> list[float]:
    """When the avatar, speaking all the time, was silenced, seconds."""
    pytest.importorskip("openvino")
    from engine.conversation.vad import SileroVad

    taker, out = TurnTaker(), []
    taker.avatar(True, False, 0.0)
    for index, probability in enumerate(SileroVad().push(heard)):
        now_s = (index + 1) * BLOCK_S
        events = taker.heard(0.0 if explained[index] else probability, now_s)
        out += [now_s for event in events if event.kind == "barge_in"]
        taker.avatar(True, False, now_s)
    return out


@pytest.fixture(scope="module")
def avatar(shared_data: Path) -> np.ndarray:
    """The avatar is silent for a second, and speaks."""
    return np.concatenate([np.zeros(RATE, np.float32), recording(shared_data / AVATAR, 7)])


@pytest.fixture(scope="module")
def person(shared_data: Path) -> np.ndarray:
    return recording(shared_data / PERSON, 2)


def active(sound: np.ndarray, length: int) -> np.ndarray:
    """Which blocks have sound."""
    blocks = sound[: length * BLOCK_SAMPLES].reshape(length, BLOCK_SAMPLES)
    return np.sqrt((blocks**2).mean(axis=1)) > 10 ** (-50 / 20)


@pytest.mark.parametrize(
    ("delay_s", "level_db", "fade_s"), [(0.08, -6, 0.2), (0.2, -12, 0.3), (0.35, -20, 0.6), (0.55, -12, 0.5)]
)
def test_the_avatars_own_voice_never_silences_it(
    avatar: np.ndarray, delay_s: float, level_db: float, fade_s: float
) -> None:
    heard = in_room(avatar, delay_s=delay_s, level_db=level_db, fade_s=fade_s)
    explained, guard = listen(avatar, heard)
    assert len(barge_ins(heard, np.zeros_like(explained))) >= 4, "without the guard it would"
    assert barge_ins(heard, explained) == []
    assert guard.delay_s == pytest.approx(delay_s, abs=0.04)


@pytest.mark.parametrize("louder_db", [10, 5])
def test_a_person_who_speaks_over_it_silences_it_as_soon_as_without_an_echo(
    avatar: np.ndarray, person: np.ndarray, louder_db: float
) -> None:
    heard = in_room(avatar, delay_s=0.2, level_db=-12)
    alone = np.random.default_rng(4).normal(0, 8e-4, len(avatar)).astype(np.float32)
    for sound in (heard, alone):
        sound[4 * RATE : 6 * RATE] += person * 10 ** ((louder_db - 12) / 20)
    explained, _ = listen(avatar, heard)
    [first, *_] = barge_ins(heard, explained)
    [expected, *_] = barge_ins(alone, np.zeros_like(explained))
    assert 4.0 < first <= expected + 0.1


def test_a_person_with_headphones_is_never_taken_for_an_echo(avatar: np.ndarray, person: np.ndarray) -> None:
    heard = np.random.default_rng(4).normal(0, 8e-4, len(avatar)).astype(np.float32)
    for start_s in (2.2, 4.5):
        heard[round(start_s * RATE) :][: len(person)] += person * 0.3
    explained, guard = listen(avatar, heard)
    spoken = active(heard, len(explained))
    assert explained[spoken].mean() < 0.1 and guard.delay_s is None
    first, expected = barge_ins(heard, explained)[0], barge_ins(heard, np.zeros_like(explained))[0]
    assert first <= expected + BLOCK_S


def test_a_person_is_not_taken_for_an_echo_while_nothing_is_played(person: np.ndarray) -> None:
    explained, _ = listen(np.zeros(len(person), np.float32), person)
    assert not explained.any()


def test_who_answers_the_avatars_first_short_words_is_heard(avatar: np.ndarray, person: np.ndarray) -> None:
    played = avatar.copy()
    played[round(1.6 * RATE) :] = 0
    heard = np.random.default_rng(4).normal(0, 8e-4, len(avatar)).astype(np.float32)
    heard[2 * RATE : 4 * RATE] += person * 0.3
    explained, _ = listen(played, heard)
    spoken = active(heard, len(explained))
    assert explained[spoken].mean() < 0.1


def test_a_loudspeaker_turned_up_and_chunks_that_come_in_bursts_are_borne(avatar: np.ndarray) -> None:
    heard = in_room(avatar, delay_s=0.2, level_db=-18)
    heard[4 * RATE :] *= 2
    assert barge_ins(heard, listen(avatar, heard)[0]) == []
    assert barge_ins(heard, listen(avatar, heard, jitter_s=0.15)[0]) == []


def test_after_a_gap_in_the_microphone_the_echo_is_found_again(avatar: np.ndarray) -> None:
    heard, guard, at = in_room(avatar, delay_s=0.2, level_db=-12), EchoGuard(), 0
    explained = []
    for start in range(0, len(avatar) - 640, 640):
        guard.played(avatar[start : start + 640])
        if not 3 * RATE <= start < 4 * RATE:
            at += 640
            explained += guard.heard(heard[start : start + 640])
    assert np.mean(explained[-60:]) > 0.7


def test_the_pieces_sound_comes_in_change_nothing(avatar: np.ndarray) -> None:
    heard, answers = in_room(avatar, delay_s=0.2, level_db=-12), []
    for pieces in (1, 5):
        guard, told = EchoGuard(), []
        for start in range(0, len(avatar) - 640, 640):
            guard.played(avatar[start : start + 640])
            for part in np.array_split(heard[start : start + 640], pieces):
                told += guard.heard(part)
        answers.append(told)
    assert len(answers[0]) == len(answers[1]) == (len(avatar) // 640 - 1) * 640 // BLOCK_SAMPLES
    assert np.mean(np.array(answers[0]) == np.array(answers[1])) > 0.95


def test_sound_that_comes_in_one_piece_is_answered_block_by_block(avatar: np.ndarray) -> None:
    guard = EchoGuard()
    guard.played(avatar)
    assert len(guard.heard(avatar)) == len(avatar) // BLOCK_SAMPLES


def test_rubbish_does_no_lasting_harm(avatar: np.ndarray) -> None:
    guard = EchoGuard()
    bad = np.array([np.nan, np.inf, -np.inf, 1e30] * 160, np.float32)
    guard.played(bad)
    guard.heard(bad)
    heard = in_room(avatar, delay_s=0.2, level_db=-12)
    explained = []
    for start in range(0, len(avatar) - 640, 640):
        guard.played(avatar[start : start + 640])
        explained += guard.heard(heard[start : start + 640])
    assert np.mean(explained[-60:]) > 0.7
