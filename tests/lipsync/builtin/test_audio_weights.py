import numpy as np
import pytest

from engine.audio.pcm import to_playout
from engine.evaluate.hearing import Hearing
from engine.evaluate.measures import SHUT_OPENING, closure_rate_of, opening, shut_rate
from engine.evaluate.phone_measures import spans
from engine.studio.audio_augment import finished
from engine.studio.audio_quiet import QUIET_SOUNDS, calls
from engine.studio.speech_data import make_clip
from engine.types import ANALYSIS_RATE

SOUNDS_EACH = 12
SECONDS = 2


@pytest.fixture(scope="module")
def track():
    hearing = Hearing()
    return lambda samples: hearing.track(to_playout(samples.astype(np.float32), ANALYSIS_RATE))


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(31)
    return [make_clip(rng, held_out=True) for _ in range(4)]


@pytest.mark.parametrize("maker", QUIET_SOUNDS)
def test_everyday_sounds_keep_the_mouth_shut(track, maker):
    rng = np.random.default_rng(20)
    sounds = [finished(maker(SECONDS * ANALYSIS_RATE, rng), rng) for _ in range(SOUNDS_EACH)]
    assert np.mean([shut_rate(track(sound)) for sound in sounds]) > (0.85 if maker is calls else 0.95)


def test_soft_speech_moves_the_mouth_as_loud_speech_does(track, clips):
    loud, soft = (np.concatenate([opening(track(clip.samples / 32768 * gain)) for clip in clips]) for gain in (1, 0.03))
    assert np.corrcoef(loud, soft)[0, 1] > 0.85
    assert soft.std() > 0.8 * loud.std()


@pytest.mark.parametrize("snr_db", [40, 10])
def test_lips_shut_for_p_b_and_m_and_open_between_them(track, clips, snr_db):
    rng = np.random.default_rng(21)
    rates, shut = [], []
    for clip in clips:
        samples = clip.samples / 32768
        noise = rng.standard_normal(len(samples)) * samples.std() * 10 ** (-snr_db / 20)
        shut.append(opening(track(samples + noise)) < SHUT_OPENING)
        rates.append(closure_rate_of(shut[-1], spans(clip.gestures, "PP")))
    assert np.nanmean(rates) > (0.85 if snr_db > 20 else 0.75)
    assert np.concatenate(shut).mean() < 0.75
