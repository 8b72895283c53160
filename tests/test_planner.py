from pathlib import Path

import numpy as np
import pytest

from engine.audio.decode import decode_audio
from engine.audio.mel import SILENCE as SILENT_MEL
from engine.audio.mel import mel_spectrogram
from engine.audio.pcm import Decimator
from engine.audio.window import MelWindow
from engine.avatar.body import Body
from engine.avatar.bundle import Avatar
from engine.planner import QUIET_FRAMES, QUIET_MEL, SILENCE, FramePlan, FramePlanner

LOUD = np.full((80, 8), 1.0, np.float32)
QUIET = np.full((80, 8), SILENT_MEL, np.float32)
SOUND = np.ones(1920, np.int16)


@pytest.fixture
def planner(avatar: Avatar) -> FramePlanner:
    return FramePlanner(Body(avatar))


def speak(planner: FramePlanner, mels: list[np.ndarray], **options: bool) -> list[FramePlan]:
    return [planner.speak(mel, SOUND, 1, **options) for mel in mels]


def test_mouth_eases_in_over_three_frames_and_out_over_five(planner: FramePlanner) -> None:
    up = [plan.strength for plan in speak(planner, [LOUD] * 5)]
    down = [planner.rest().strength for _ in range(6)]
    assert 0 < up[0] < up[1] < up[2] == up[3] == up[4] == 1
    assert 1 > down[0] > down[1] > down[2] > down[3] > down[4] == down[5] == 0
    assert max(np.abs(np.diff([0, *up, *down]))) < 0.5


def test_rest_follows_the_last_sound_silently(planner: FramePlanner) -> None:
    speak(planner, [QUIET, LOUD])
    plan = planner.rest()
    assert plan.mel is LOUD and plan.audio is SILENCE and not plan.speaking and plan.utterance_id == 0


def test_digital_silence_never_opens_the_mouth(planner: FramePlanner) -> None:
    plans = speak(planner, [QUIET] * 20)
    assert all(plan.mel is None and plan.strength == 0 and plan.speaking for plan in plans)


def test_short_pauses_belong_to_the_model_and_long_ones_cost_nothing(planner: FramePlanner) -> None:
    plans = speak(planner, [LOUD] * 5 + [QUIET] * 30)[5:]
    assert all(plan.strength == 1 for plan in plans[:QUIET_FRAMES])
    assert all(plan.mel is None for plan in plans[QUIET_FRAMES + 5 :])
    assert speak(planner, [LOUD])[0].strength > 0


def test_gated_speech_counts_as_speaking_only_while_the_mouth_is_up(planner: FramePlanner) -> None:
    plans = speak(planner, [QUIET] * 3 + [LOUD] * 3 + [QUIET] * 20, gated=True)
    assert [plan.speaking for plan in plans[:6]] == [False] * 3 + [True] * 3
    assert not plans[-1].speaking


def test_body_moves_on_whatever_the_mouth_does(planner: FramePlanner, avatar: Avatar) -> None:
    plans = [planner.rest(), *speak(planner, [LOUD] * 3), planner.rest(), *speak(planner, [QUIET] * 20)]
    assert [plan.sequence for plan in plans] == list(range(25))
    assert [plan.pose.index for plan in plans] == [n % len(avatar.frames) for n in range(25)]


def test_rewound_plans_are_planned_again_as_if_they_had_not_been(planner: FramePlanner) -> None:
    kept, taken, _ = speak(planner, [LOUD] * 3)
    planner.rewind(taken)
    again = planner.rest()
    assert again.sequence == taken.sequence and again.pose == taken.pose
    assert 0 < again.strength < kept.strength
    assert speak(planner, [LOUD])[0].sequence == taken.sequence + 1


def test_silenced_plan_keeps_its_picture_and_loses_its_sound(planner: FramePlanner) -> None:
    plan = speak(planner, [LOUD])[0]
    quiet = plan.silenced()
    assert quiet.mel is plan.mel and quiet.strength == plan.strength and quiet.pose == plan.pose
    assert quiet.audio is SILENCE and not quiet.speaking and quiet.utterance_id == 0


def test_still_room_is_quiet() -> None:
    rng = np.random.default_rng(3)
    room = mel_spectrogram(rng.normal(0, 10 ** (-63 / 20), 160_000).astype(np.float32))
    assert room.max() <= QUIET_MEL


@pytest.mark.parametrize("name", ["en_libri_1088-134315-0000.wav", "en_jfk_inaugural.flac", "en_arctic_a0024.wav"])
def test_soft_speech_is_not_quiet(shared_data: Path, name: str) -> None:
    sound = decode_audio(shared_data / "speech" / name, 60.0)[: 48_000 * 15]
    sound = Decimator().push(sound)
    sound *= 10 ** (-40 / 20) / np.sqrt(np.mean(sound**2))
    mel = mel_spectrogram(sound)
    frames = sound[: len(sound) // 640 * 640].reshape(-1, 640)
    spoken = np.flatnonzero(np.sqrt(np.mean(frames**2, axis=1)) > 0.1 * np.sqrt(np.mean(sound**2)))
    window = MelWindow(columns=32, offset=-24)
    loud = [window.cut(mel, index).max() > QUIET_MEL for index in spoken]
    assert np.mean(loud) >= 0.98
