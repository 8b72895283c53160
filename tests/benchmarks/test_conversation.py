"""What the conversation's figures are computed with, held to recordings whose answer is known."""

from pathlib import Path

import numpy as np

from engine.types import PLAYOUT_RATE
from tests.benchmarks.conversation_live import ANSWER, STORY, STORY_WORDS, answer_to, ways
from tests.benchmarks.conversation_page import place
from tests.benchmarks.conversation_sounds import LEVEL, TALKERS, Spoken, cut, write_all
from tests.benchmarks.recording import BLOCK_MS, Sound


def _syllables(seconds: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    count = round(seconds * PLAYOUT_RATE)
    loudness = np.repeat(random.uniform(0, 1, count // 4800 + 1), 4800)[:count]
    return (random.normal(0, 5000, count) * loudness).clip(-32767, 32767).astype(np.int16)


def _recorded(samples: np.ndarray, from_ms: float) -> Sound:
    blocks = (samples.astype(np.float32) / 32768).reshape(-1, round(BLOCK_MS * PLAYOUT_RATE / 1000))
    return Sound(from_ms + BLOCK_MS * np.arange(len(blocks)), np.sqrt((blocks**2).mean(1)))


def test_an_utterance_is_found_where_it_was_said() -> None:
    said = Spoken(_syllables(2.0, 1), speech_start_ms=100.0, speech_end_ms=1850.0)
    silence = np.zeros(PLAYOUT_RATE, np.int16)
    microphone = _recorded(np.concatenate([silence, said.samples, silence]), from_ms=5000.0)
    for guess_ms in (5900.0, 6000.0, 6080.0):
        began_ms, ended_ms = place(microphone, said, guess_ms)
        assert abs(began_ms - 6100) <= BLOCK_MS
        assert abs(ended_ms - 7850) <= BLOCK_MS


def test_the_ways_in_and_out_are_what_the_server_cannot_see() -> None:
    stages = {"endpoint": 500, "first_frame": 640}
    events = [
        {"type": "turn", "turn_id": 1, "state": "thinking", "at": 1550.0},
        {"type": "latency", "turn_id": 1, "stages_ms": stages},
        {"type": "turn", "turn_id": 2, "state": "thinking", "at": 9000.0},
    ]
    noticed, arrived = ways(events, np.array([1000.0, 8400.0]), np.array([800.0, 900.0]))
    assert noticed.tolist() == [50.0], "of the second turn no stages are known"
    assert arrived.tolist() == [110.0]


def test_the_fake_model_tells_a_story_only_when_asked() -> None:
    assert answer_to(f"Tell me {STORY_WORDS}.") == STORY
    assert answer_to("the time has come") == ANSWER


def test_sentences_are_cut_out_at_one_loudness_with_their_ends_known(shared_data: Path, tmp_path: Path) -> None:
    spoken = write_all(tmp_path)
    assert {f"{name}.wav" for name in spoken} == {path.name for path in tmp_path.iterdir()}
    for utterance in (sentence for talker in TALKERS for sentence in talker):
        sound = cut(utterance)
        first, last = (round(ms * PLAYOUT_RATE / 1000) for ms in (sound.speech_start_ms, sound.speech_end_ms))
        speech = sound.samples[first:last].astype(np.float64) / 32767
        assert abs(float(np.sqrt((speech**2).mean())) - LEVEL) < 0.02
        tail = sound.samples[last + 480 :].astype(np.float64) / 32767
        assert np.sqrt((tail**2).mean()) < 0.2 * LEVEL, f"{utterance.name} goes on after its end"
