"""Mel columns: equal to librosa's with Wav2Lip's parameters, and the same bits however the sound arrives."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.audio.mel import MEL_BANDS, SILENCE, StreamingMel, mel_spectrogram
from engine.errors import Closed


def _reference(x: np.ndarray) -> np.ndarray:
    """Wav2Lip's own formulae over librosa: audio.py and hparams.py of github.com/Rudrabha/Wav2Lip."""
    import librosa
    from scipy.signal import lfilter

    emphasised = lfilter([1, -0.97], [1], x)
    magnitudes = np.abs(librosa.stft(y=emphasised, n_fft=800, hop_length=200, win_length=800, pad_mode="constant"))
    mel = librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600, dtype=np.float64) @ magnitudes
    level = 20 * np.log10(np.maximum(np.exp(-100 / 20 * np.log(10)), mel)) - 20
    return np.clip(8.0 * ((level + 100) / 100) - 4.0, -4.0, 4.0)


def _speechlike(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(n) / 16000
    voice = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 30))
    return (0.2 * voice * np.abs(np.sin(2 * np.pi * 3 * t)) + 0.01 * rng.standard_normal(n)).astype(np.float32)


@pytest.mark.parametrize(
    "x",
    [
        _speechlike(16000 * 3 + 77),
        np.random.default_rng(1).uniform(-1, 1, 16000).astype(np.float32),
        np.zeros(4000, np.float32),
        (np.random.default_rng(2).standard_normal(8000) * 1e-4).astype(np.float32),
        np.eye(1, 5000, 1234, dtype=np.float32)[0],
        np.sign(np.sin(np.arange(9000) * 0.05)).astype(np.float32),
    ],
    ids=["voice", "loud noise", "silence", "faint noise", "click", "square wave"],
)
def test_columns_equal_librosas_with_wav2lip_parameters(x):
    expected = _reference(x)
    got = mel_spectrogram(x)
    assert got.shape == expected.shape == (MEL_BANDS, 1 + x.size // 200)
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)


def test_real_speech_equals_librosa(shared_data):
    import librosa

    path = min((shared_data / "speech").glob("en_*.wav"))
    x, _ = librosa.load(path, sr=16000, duration=20)
    np.testing.assert_allclose(mel_spectrogram(x), _reference(x), atol=1e-4, rtol=0)


def test_silence_is_the_lowest_value_everywhere():
    assert np.all(mel_spectrogram(np.zeros(1000, np.float32)) == SILENCE)


@given(cuts=st.lists(st.integers(0, 1500), max_size=40), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_columns_have_the_same_bits_whatever_the_chunks(cuts, seed):
    x = _speechlike(9_333, seed)
    stream, pieces, position = StreamingMel(), [], 0
    for size in cuts:
        pieces.append(stream.push(x[position : position + size]))
        position += size
    pieces += [stream.push(x[position:]), stream.flush()]
    assert np.array_equal(np.concatenate(pieces, axis=1), mel_spectrogram(x))


def test_a_column_comes_with_its_last_sample():
    stream = StreamingMel()
    assert stream.push(np.ones(399, np.float32)).shape[1] == 0
    assert stream.push(np.ones(1, np.float32)).shape[1] == 1
    assert stream.push(np.ones(199, np.float32)).shape[1] == 0
    assert stream.push(np.ones(1, np.float32)).shape[1] == 1


def test_pushing_after_the_end_is_refused():
    stream = StreamingMel()
    stream.flush()
    assert stream.flush().shape == (MEL_BANDS, 0)
    with pytest.raises(Closed):
        stream.push(np.zeros(10, np.float32))


def test_the_audio_modules_import_neither_torch_nor_librosa():
    code = (
        "import sys, engine.audio.window, engine.audio.decode;"
        "print(sorted(m for m in ('torch', 'librosa', 'scipy') if m in sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
