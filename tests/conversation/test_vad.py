import threading
from pathlib import Path

import numpy as np
import pytest

from engine.audio.decode import decode_audio
from engine.audio.pcm import Decimator
from engine.conversation import turn, vad
from engine.conversation.vad import BLOCK_SAMPLES, SileroVad
from engine.errors import BackendFailed

pytest.importorskip("openvino")


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    try:
        vad._model_file()
    except BackendFailed as missing:
        pytest.skip(missing.message)


def analysis_sound(path: Path) -> np.ndarray:
    decimator = Decimator()
    sound = decode_audio(path, 120)
    return np.concatenate([decimator.push(sound), decimator.flush()]).astype(np.float32)


@pytest.fixture(scope="module")
def speech(shared_data: Path) -> np.ndarray:
    return analysis_sound(shared_data / "speech/en_libri_quilter.wav")


def hum(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 50 * np.arange(int(16_000 * seconds)) / 16_000)).astype(np.float32)


def test_speech_is_heard_and_the_silence_around_it_is_not(speech: np.ndarray) -> None:
    ear = SileroVad()
    before = ear.push(np.zeros(16_000, np.float32))
    during = ear.push(speech)
    after = ear.push(np.zeros(32_000, np.float32))[20:]
    assert max(before) < 0.1
    assert np.mean(np.array(during) > 0.5) > 0.7
    assert max(after) < 0.1


def test_noise_and_hum_are_no_speech() -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, 48_000).astype(np.float32)
    assert max(SileroVad().push(noise)) < 0.35
    assert max(SileroVad().push(hum(3))) < 0.35


def test_every_full_block_gets_one_probability(speech: np.ndarray) -> None:
    ear = SileroVad()
    assert ear.push(speech[: BLOCK_SAMPLES - 1]) == []
    assert len(ear.push(speech[:1])) == 1
    assert len(ear.push(speech[: 5 * BLOCK_SAMPLES + 3])) == 5
    assert ear.push(speech[:0]) == []


def test_cutting_the_sound_changes_nothing(speech: np.ndarray) -> None:
    sound = speech[:32_000]
    whole = SileroVad().push(sound)
    ear, pieces, start = SileroVad(), [], 0
    for length in np.random.default_rng(2).integers(1, 1500, 200):
        pieces += ear.push(sound[start : start + length])
        start += length
    assert pieces == pytest.approx(whole, abs=1e-6)


def test_instances_do_not_hear_each_other(speech: np.ndarray) -> None:
    alone = SileroVad().push(speech[:32_000])
    mine, other, mixed = SileroVad(), SileroVad(), []
    for start in range(0, 32_000, 800):
        mixed += mine.push(speech[start : start + 800])
        other.push(speech[-start - 800 :][:800])
    assert mixed == pytest.approx(alone, abs=1e-6)


def test_instances_on_many_threads_hear_the_same(speech: np.ndarray) -> None:
    alone = SileroVad().push(speech[:32_000])
    results: list[list[float]] = []
    threads = [
        threading.Thread(target=lambda: results.append(SileroVad().push(speech[:32_000]))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == pytest.approx(alone, abs=1e-6) for result in results)


def test_reset_forgets(speech: np.ndarray) -> None:
    ear = SileroVad()
    first = ear.push(speech[:20_000])
    assert ear.push(speech[:20_000]) != pytest.approx(first, abs=1e-3)
    ear.reset()
    assert ear.push(speech[:20_000]) == pytest.approx(first, abs=1e-6)


def test_what_is_no_number_or_far_too_loud_does_no_lasting_harm(speech: np.ndarray) -> None:
    ear = SileroVad()
    bad = np.array([np.nan, np.inf, -np.inf, 1e30] * 512, np.float32)
    assert all(0 <= p <= 1 for p in ear.push(bad))
    ear.push(np.zeros(16_000, np.float32))
    assert np.mean(np.array(ear.push(speech)) > 0.5) > 0.7


def test_the_network_is_compiled_once() -> None:
    SileroVad().load()
    compiled = vad._compiled
    SileroVad().load()
    assert vad._compiled is compiled


def test_probabilities_are_those_of_the_published_network(speech: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    script = vad._model_file().with_name("silero_vad.jit")
    published = torch.jit.load(str(script))
    published.reset_states()
    blocks = torch.from_numpy(speech[: len(speech) // BLOCK_SAMPLES * BLOCK_SAMPLES]).view(-1, 1, BLOCK_SAMPLES)
    with torch.no_grad():
        expected = [published(block, 16_000).item() for block in blocks]
    assert SileroVad().push(speech) == pytest.approx(expected, abs=1e-4)


def test_a_missing_wheel_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad, "_compiled", None)
    monkeypatch.setattr(vad, "_MODEL_FILE", "silero_vad/data/no_such_file.onnx")
    with pytest.raises(BackendFailed, match=r"--no-deps -r engine/conversation/requirements\.txt") as refused:
        SileroVad().load()
    assert refused.value.code == "vad_missing"


def test_a_damaged_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    monkeypatch.setattr(vad, "_compiled", None)
    monkeypatch.setattr(vad, "_model_file", lambda: broken)
    with pytest.raises(BackendFailed, match="install it again") as refused:
        SileroVad().push(np.zeros(BLOCK_SAMPLES, np.float32))
    assert refused.value.code == "vad_unreadable"


def test_turns_count_blocks_of_the_length_the_network_hears() -> None:
    assert turn.BLOCK_S == vad.BLOCK_S
