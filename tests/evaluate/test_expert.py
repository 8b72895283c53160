import numpy as np
import pytest

from engine.evaluate.expert import MAX_OFFSET, SyncExpert, lip_windows, normal_lips, score, sound_windows
from engine.evaluate.lips import LIP_NUMBERS, lip_shape, track_faces
from engine.evaluate.video import VideoFile


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("late", [-3, 0, 3])
def test_score_finds_the_offset_and_late_lips_are_positive(late):
    sound = unit(np.random.default_rng(0).standard_normal((80, 16)))
    result = score(np.roll(sound, late, axis=0), sound)
    assert result.offset_frames == late
    assert result.confidence > 0.5
    assert len(result.curve) == 2 * MAX_OFFSET + 1


def test_lips_that_follow_nothing_get_no_confidence():
    rng = np.random.default_rng(1)
    sound, lips = (unit(rng.standard_normal((200, 16))) for _ in range(2))
    assert score(lips, sound).confidence < 0.1


def test_windows_of_lips_and_sound_pair_up_frame_by_frame():
    shapes = np.random.default_rng(2).random((40, LIP_NUMBERS)).astype(np.float32)
    mel = np.tile(np.arange(128, dtype=np.float32), (80, 1))
    sound = sound_windows(mel, 40)
    assert len(lip_windows(shapes)) == len(sound) == 26
    # The middle of frame 7 is at 300 ms, which is mel column 24; 12.5 ms is the step.
    assert sound[0, 0, 0].mean() == pytest.approx(24, abs=0.5)
    assert np.diff(sound[:, 0, 0].mean(1)).mean() == pytest.approx(3.2, abs=0.05)


def test_the_shape_of_a_face_and_gaps_in_tracking_do_not_count():
    shapes = np.random.default_rng(3).random((40, LIP_NUMBERS))
    assert np.allclose(normal_lips(shapes), normal_lips(shapes + 0.3), atol=1e-4)
    shapes[5] = np.nan
    assert np.isfinite(normal_lips(shapes)).all()


@pytest.fixture(scope="module")
def talkers(shared_data):
    from engine.avatar.landmarks import FaceMesh

    mesh = FaceMesh.load()
    videos = [VideoFile(path) for path in sorted((shared_data / "faces/grid").glob("*.mpg"))]
    return [(lip_shape(track_faces(video.frames(), mesh)), video.sound()) for video in videos]


def test_real_talkers_fit_their_own_sound_better_than_another_ones(talkers):
    expert = SyncExpert()
    own = [expert.judge(shapes, sound) for shapes, sound in talkers]
    other = [
        expert.judge(shapes, sound) for (shapes, _), (_, sound) in zip(talkers, talkers[1:] + talkers[:1], strict=True)
    ]
    middle = MAX_OFFSET
    assert np.mean([a.curve[middle] < b.curve[middle] for a, b in zip(own, other, strict=True)]) >= 0.8
    assert np.mean([a.confidence for a in own]) > np.mean([b.confidence for b in other])


def test_the_offset_of_real_talkers_moves_with_their_sound(talkers):
    expert = SyncExpert()
    own = np.mean([expert.judge(shapes, sound).curve for shapes, sound in talkers], 0)
    late = np.mean([expert.judge(shapes, sound[3 * 1920 :]).curve for shapes, sound in talkers], 0)
    assert abs(int(np.argmin(own)) - MAX_OFFSET) <= 1
    assert abs(int(np.argmin(late)) - int(np.argmin(own)) - 3) <= 1
