import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.audio.mel import mel_spectrogram  # noqa: E402
from engine.studio.audio_augment import _compressed, _equalise, _line, _room, augment, silence_like  # noqa: E402
from engine.studio.audio_batches import COLUMNS, speech_item, target_times_s  # noqa: E402
from engine.studio.audio_codec import CODECS, coded  # noqa: E402
from engine.studio.audio_judge import track_of  # noqa: E402
from engine.studio.audio_mean import mean_of  # noqa: E402
from engine.studio.audio_net import CONTEXT_COLUMNS, WINDOW, AudioNet  # noqa: E402
from engine.studio.audio_quiet import QUIET_SOUNDS  # noqa: E402
from engine.studio.phones import Gesture  # noqa: E402
from engine.studio.speech_data import SpeechClip  # noqa: E402
from engine.types import MOUTH_SHAPES  # noqa: E402


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return AudioNet().eval()


def test_a_window_and_a_whole_spectrogram_give_the_same_mouth(network):
    mel = torch.randn(1, 1, 80, 60)
    with torch.no_grad():
        track = network.track(mel)
        assert track.shape == (1, 60 - CONTEXT_COLUMNS + 1, len(MOUTH_SHAPES))
        for start in (0, 7, 28):
            assert torch.allclose(track[:, start], network(mel[..., start : start + CONTEXT_COLUMNS]), atol=1e-5)


def test_tracks_are_cut_as_the_product_cuts_windows(network):
    samples = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    mel = mel_spectrogram(samples)
    track = track_of(network, samples)
    assert len(track) == 25
    for index in (0, 3, 11, 24):
        with torch.no_grad():
            alone = network(torch.from_numpy(WINDOW.cut(mel, index))[None, None])[0].numpy()
        assert np.allclose(alone, track[index], atol=1e-5)


def test_targets_are_at_the_middles_of_video_frames():
    times_s = target_times_s(COLUMNS)
    for index in (10, 33, 60):
        position = WINDOW.start(index)  # the output whose window starts there
        assert times_s[position] == pytest.approx((index + 0.5) * 0.04, abs=0.006)


def test_augmented_sound_has_its_speed_and_stays_in_range():
    rng = np.random.default_rng(3)
    samples = rng.standard_normal(8_000).astype(np.float32) * 0.1
    for _ in range(20):
        sound, speed = augment(samples, rng)
        assert abs(len(sound) - len(samples) / speed) < 3
        assert np.isfinite(sound).all() and np.abs(sound).max() <= 1


@pytest.mark.parametrize("change", [_equalise, _room, _line, _compressed])
def test_rooms_filters_and_lines_do_not_shift_the_sound(change):
    rng = np.random.default_rng(4)
    burst = np.zeros(16_000, np.float32)
    burst[8_000:8_400] = rng.standard_normal(400)
    for _ in range(8):
        power = np.cumsum(change(burst, rng) ** 2)
        start = np.searchsorted(power, 0.02 * power[-1])
        assert abs(start - 8_000) < 80


def test_sounds_without_speech_are_in_range():
    rng = np.random.default_rng(4)
    for _ in range(30):
        sound = silence_like(8_000, rng)
        assert sound.shape == (8_000,) and np.isfinite(sound).all() and np.abs(sound).max() <= 1


@pytest.mark.parametrize("maker", QUIET_SOUNDS)
def test_everyday_sounds_are_heard_and_differ_by_chance_alone(maker):
    first, again, other = (maker(16_000, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (16_000,) and np.isfinite(first).all() and np.abs(first).max() > 0.01
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_codecs_change_a_sound_without_moving_it(codec):
    rng = np.random.default_rng(6)
    said = np.convolve(rng.standard_normal(24_000), np.ones(8) / 8, "same") * np.hanning(24_000) * 0.5
    heard = coded(said, codec, codec.bit_rates[1])
    assert heard.shape == said.shape
    assert np.corrcoef(said, heard)[0, 1] > 0.8
    assert not np.allclose(said, heard, atol=1e-3)


def test_an_item_has_its_closure_where_the_sound_has_it():
    rng = np.random.default_rng(5)
    samples = (rng.standard_normal(40_000) * 3000).astype(np.int16)
    samples[16_000:17_600] = 0  # 100 ms of closed lips at 1 s
    gestures = [Gesture("aa", 0, 1.0), Gesture("PP", 1.0, 1.1), Gesture("aa", 1.1, 2.5)]
    press = MOUTH_SHAPES.index("mouthPress")
    profiles = []
    for _ in range(16):
        mel, mouth, viseme = speech_item(SpeechClip(samples, gestures, "", ""), rng)
        assert mel.shape == (1, 80, COLUMNS) and mel.dtype == np.float32
        assert mouth.shape == (COLUMNS - CONTEXT_COLUMNS + 1, len(MOUTH_SHAPES))
        assert viseme.shape == (len(mouth),)
        closed = np.nonzero(mouth[:, press] > 0.9)[0]
        if len(closed) and 20 < closed.mean() < len(mouth) - 20:
            middle = round(closed.mean()) + CONTEXT_COLUMNS - 1 - 5  # the network hears five columns past its target
            profiles.append(mel[0, :, middle - 15 : middle + 16].mean(0))
    assert len(profiles) > 4
    assert abs(np.argmin(np.mean(profiles, 0)) - 15) <= 3


def test_the_mean_of_networks_is_weighted_and_refuses_other_builds():
    first, second, small = AudioNet(), AudioNet(), AudioNet(channels=8)
    mean = mean_of([(first.state_dict(), 3.0), (second.state_dict(), 1.0)])
    name = "mouth.0.weight"
    expected = 0.75 * first.state_dict()[name] + 0.25 * second.state_dict()[name]
    assert torch.allclose(mean[name], expected, atol=1e-6)
    AudioNet().load_state_dict(mean)
    with pytest.raises(ValueError, match="same build"):
        mean_of([(first.state_dict(), 1.0), (small.state_dict(), 1.0)])
