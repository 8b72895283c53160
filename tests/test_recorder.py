"""Recordings: exact length, picture and sound together, and never half a file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engine.audio.decode import decode_audio
from engine.errors import BackendFailed, Closed, InvalidInput
from engine.recorder import Recorder
from engine.types import FRAME_SAMPLES, AvatarFrame
from tests.fakes import tone

SIZE = (128, 96)


def _frame(index: int, *, flash: bool = False) -> AvatarFrame:
    image = np.full((SIZE[1], SIZE[0], 3), 255 if flash else 20, np.uint8)
    return AvatarFrame(image, tone(0.04) if flash else np.zeros(FRAME_SAMPLES, np.int16), index)


def _record(path: Path, frames) -> Path:
    with Recorder(path, SIZE) as recorder:
        for frame in frames:
            recorder.write(frame)
    return path


def _pictures(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


@pytest.mark.parametrize("count", [1, 2, 25, 63])
def test_both_tracks_are_exactly_as_long_as_the_frames(tmp_path, count):
    path = _record(tmp_path / "out.mp4", (_frame(i) for i in range(count)))
    with av.open(str(path)) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert video.frames == count and video.average_rate == 25
        assert video.duration * video.time_base == Fraction(count, 25)
        assert audio.duration * audio.time_base == Fraction(count, 25)
        assert video.start_time == 0 and audio.start_time == 0
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
    assert len(_pictures(path)) == count


def test_picture_and_sound_stay_together(tmp_path):
    path = _record(tmp_path / "out.mp4", (_frame(i, flash=i % 25 == 10) for i in range(100)))
    bright = [i for i, picture in enumerate(_pictures(path)) if picture.to_ndarray(format="gray").mean() > 128]
    sound = np.abs(decode_audio(path, 60).astype(int)) > 3000
    loud = [i for i in range(100) if sound[i * FRAME_SAMPLES : (i + 1) * FRAME_SAMPLES].mean() > 0.5]
    assert bright == loud == [10, 35, 60, 85]
    assert abs(int(np.flatnonzero(sound)[0]) - 10 * FRAME_SAMPLES) < 100


def test_colours_come_back_as_they_went_in(tmp_path):
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    image[:] = (40, 90, 200)
    frame = AvatarFrame(image, np.zeros(FRAME_SAMPLES, np.int16), 0)
    picture = _pictures(_record(tmp_path / "out.mp4", [frame] * 3))[1]
    assert picture.colorspace == 1
    back = picture.reformat(format="bgr24", src_colorspace="ITU709", dst_colorspace="ITU709").to_ndarray()
    assert np.abs(back.astype(int) - image).max() <= 6


def test_an_existing_file_is_replaced_only_by_a_complete_one(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(ZeroDivisionError), Recorder(path, SIZE) as recorder:
        recorder.write(_frame(0))
        raise ZeroDivisionError
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]
    _record(path, [_frame(0)])
    assert len(_pictures(path)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_recording_without_frames_leaves_nothing(tmp_path):
    with pytest.raises(InvalidInput, match="no frame"), Recorder(tmp_path / "out.mp4", SIZE):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="No such file or directory"):
        Recorder(tmp_path / "nowhere" / "out.mp4", SIZE)
    with pytest.raises(InvalidInput, match="it is a folder"):
        Recorder(tmp_path, SIZE)
    assert list(tmp_path.iterdir()) == []


def test_pictures_h264_cannot_hold_are_an_error_not_a_file(tmp_path):
    with pytest.raises(BackendFailed), Recorder(tmp_path / "out.mp4", (127, 95)) as recorder:
        recorder.write(AvatarFrame(np.zeros((95, 127, 3), np.uint8), np.zeros(FRAME_SAMPLES, np.int16), 0))
    assert list(tmp_path.iterdir()) == []


def test_writing_after_the_end_is_refused(tmp_path):
    recorder = Recorder(tmp_path / "out.mp4", SIZE)
    recorder.write(_frame(0))
    recorder.close()
    recorder.close()
    with pytest.raises(Closed):
        recorder.write(_frame(1))
    assert (tmp_path / "out.mp4").is_file()
