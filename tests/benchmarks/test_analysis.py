"""The figures of a live session are what they should be for recordings whose answer is known."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from tests.benchmarks import analysis, recording, sounds, strip
from tests.benchmarks.face import region_of
from tests.benchmarks.recording import BLOCK_MS, Picture, Sound

FRAME_MS = 40.0
LOUD = 0.2


def sound_of(seconds: float, *loud_ms: tuple[float, float], jitter_ms: float = 0.0) -> Sound:
    """A recording that is loud between the given times."""
    times = np.arange(0, seconds * 1000, BLOCK_MS) + jitter_ms
    levels = np.full(len(times), 1e-4, np.float32)
    for first, end in loud_ms:
        levels[(times >= first) & (times < end)] = LOUD
    return Sound(times, levels)


def talking_face(seconds: float, moving_ms: list[tuple[float, float]], seed: int = 0) -> Picture:
    """A face that sways in an eight-second loop under coding noise, its mouth open between the given times."""
    random = np.random.default_rng(seed)
    at = np.arange(0, seconds * 1000, FRAME_MS)
    y, x = np.mgrid[0:24, 0:28]
    phase = 2 * np.pi * at / 8000
    grids = 120 + 60 * np.sin((x[None] + 2.5 * np.sin(phase)[:, None, None]) / 4) * np.cos(y[None] / 5)
    grids = grids + random.normal(0, 1.5, grids.shape)
    for first, end in moving_ms:
        during = (at >= first) & (at < end)
        grids[during, 10:16, 8:20] -= 30
    pixels = np.clip(grids, 0, 255).astype(np.uint8)
    count = np.arange(1.0, len(at) + 1)
    return Picture(at, at - 30, at * 90, count, pixels)


def test_onsets_are_the_first_loud_blocks_after_silence() -> None:
    sound = sound_of(4, (1000, 1300), (1340, 1400), (2500, 2800))
    np.testing.assert_allclose(analysis.onsets(sound, 0.02, 400), [1000, 2500])


def test_sound_at_the_very_beginning_is_no_onset() -> None:
    assert list(analysis.onsets(sound_of(2, (0, 300), (1000, 1300)), 0.02, 400)) == [1000]


def test_silence_begins_after_the_last_sound_not_in_a_pause_before_it() -> None:
    sound = sound_of(3, (0, 1040), (1160, 1230))
    assert analysis.silent_after(sound, 1000, 1800, 0.02) == pytest.approx(230)
    assert analysis.silent_after(sound, 1500, 2300, 0.02) == 0


def test_sound_that_never_stops_counts_with_the_whole_watched_time() -> None:
    assert analysis.silent_after(sound_of(3, (0, 3000)), 1000, 1800, 0.02) == pytest.approx(800)


def test_an_answer_that_does_not_come_counts_with_the_whole_window() -> None:
    np.testing.assert_allclose(analysis.answers(np.array([1200.0]), np.array([1000.0, 2000.0]), 900), [200, 900])


def test_lips_are_found_at_the_first_frame_that_moves_on_a_swaying_face() -> None:
    spoken = np.arange(15_000, 40_000, 1637.0)
    picture = talking_face(42, [(ms + 260, ms + 700) for ms in spoken])
    found = analysis.lip_onsets(picture, spoken, 1150, 900)
    assert found.missed == 0
    assert (found.delays_ms >= 260).all() and (found.delays_ms < 260 + FRAME_MS).all()
    assert found.false_alarms < 0.01


def test_a_face_that_only_sways_answers_nothing() -> None:
    spoken = np.arange(15_000, 40_000, 1637.0)
    found = analysis.lip_onsets(talking_face(42, []), spoken, 1150, 900)
    assert found.missed > 0.8 * len(spoken)
    assert analysis.percentiles(found.delays_ms)["p95"] == 900


def test_lips_cannot_be_judged_without_having_seen_them_rest() -> None:
    with pytest.raises(analysis.Unmeasurable, match="resting"):
        analysis.lip_onsets(talking_face(3, []), np.array([100.0, 900.0, 1700.0, 2500.0]), 1150, 900)


def test_a_gap_in_the_picture_is_a_freeze_and_so_is_an_early_end() -> None:
    whole = talking_face(10, [])
    assert analysis.freezes_seen(whole, 10_000) == 0
    assert analysis.freezes_seen(whole, 12_000) == 1
    kept = np.delete(np.arange(len(whole)), slice(50, 56))
    holed = Picture(*(getattr(whole, name)[kept] for name in Picture.__slots__))
    renumbered = Picture(holed.display_ms, holed.received_ms, holed.rtp, np.arange(len(kept)), holed.pixels)
    assert analysis.freezes_seen(renumbered, 10_000) == 1
    assert analysis.freezes_seen(holed, 10_000) == 0, "the page missed these frames; the stream had them"


def beats_ms(seconds: float) -> np.ndarray:
    return np.array([n * FRAME_MS for n in range(int(seconds * 25)) if strip.is_beat(n)])


@pytest.mark.parametrize("late_ms", [0, 35, -90, 480, 1000, -2000])
def test_skew_is_found_even_when_it_is_whole_seconds(late_ms: float) -> None:
    flashes = beats_ms(30)
    found = analysis.skew(flashes, flashes + late_ms)
    assert found.median_ms == pytest.approx(late_ms)


def test_skew_survives_lost_beats_and_tells_drift() -> None:
    flashes = beats_ms(45)
    beeps = np.delete(flashes + 20 + flashes / 45_000 * 60, [3, 11])
    found = analysis.skew(np.delete(flashes, 7), beeps)
    assert found.drift_ms(15_000) == pytest.approx(40, abs=8)
    assert len(found.skew_ms) >= len(flashes) - 3


def test_sound_without_beats_is_not_measured() -> None:
    with pytest.raises(analysis.Unmeasurable):
        analysis.skew(beats_ms(20), np.array([]))


@pytest.mark.parametrize("number", [0, 1, 127, 4711, 2**strip.BITS - 1])
def test_a_stamped_frame_is_read_back(number: int) -> None:
    marked = strip.stamp(np.full((512, 512, 3), 90, np.uint8), number)
    region = strip.STRIP_REGION
    rows = marked[int(region.y * 512) : int((region.y + region.height) * 512), :, 0]
    grid = rows.mean(0).reshape(region.columns, -1).mean(1)
    noisy = np.clip(grid + np.random.default_rng(0).normal(0, 12, grid.shape), 0, 255).astype(np.uint8)
    assert strip.read_numbers(noisy[None, None]) == [number]


def test_a_grey_strip_is_no_number() -> None:
    assert strip.read_numbers(np.full((1, 1, strip.CELLS * 4), 128, np.uint8)) == [-1]


def test_recordings_arrive_as_they_were_sent() -> None:
    def packed(values: np.ndarray) -> str:
        return base64.b64encode(values.tobytes()).decode()

    sound = recording.read_sound(
        {"times": packed(np.array([4.0, 2.0])), "levels": packed(np.array([0.5, 0.25], np.float32))}
    )
    np.testing.assert_array_equal(sound.times_ms, [2, 4])
    np.testing.assert_array_equal(sound.levels, [0.25, 0.5])


def test_bursts_are_where_the_onsets_are_heard() -> None:
    random = np.random.default_rng(3)
    clip = (8000 * random.normal(size=48_000 * 3)).clip(-30_000, 30_000).astype(np.int16)
    samples = sounds.bursts(sounds.Sources([clip], real=False), 6).astype(np.float32) / 32768
    block = int(48 * BLOCK_MS)
    levels = np.sqrt((samples[: len(samples) // block * block].reshape(-1, block) ** 2).mean(1))
    found = analysis.onsets(Sound(np.arange(len(levels)) * BLOCK_MS, levels), 0.02, 400)
    assert len(found) == 6
    assert found[0] == pytest.approx(sounds.LEAD_S * 1000, abs=4)


def test_the_mouth_region_holds_both_corners_of_the_mouth() -> None:
    points = np.array([[[200, 200], [300, 200], [250, 250], [220, 300], [280, 300]]], np.float32)
    region = region_of(points, (512, 512))
    for x, y in points[0, 3:]:
        assert region.x < x / 512 < region.x + region.width
        assert region.y < y / 512 < region.y + region.height
