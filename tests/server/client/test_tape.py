"""What a recording makes of sound that was not sent."""

from __future__ import annotations

import av
import numpy as np

from engine.types import CHUNK_SAMPLES
from server.client.media import Picture, Sound
from server.client.tape import Tape


def test_silence_that_was_not_sent_is_in_the_recording(tmp_path):
    tape = Tape(str(tmp_path / "seen.mp4"))
    tone = (np.sin(np.arange(CHUNK_SAMPLES) / 7) * 8000).astype(np.int16)
    # Sound in the first second, one packet in the second, nothing in the third.
    heard = {*range(50), 80}
    for chunk in range(150):
        at_s = chunk * 0.02
        if chunk % 2 == 0:
            image = np.full((64, 64, 3), 255 if chunk >= 120 else 40, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            tape.picture(Picture(frame, 500 + at_s, 1000 + at_s))
        if chunk in heard:
            tape.sound(Sound(tone if chunk < 50 else np.zeros_like(tone), 70 + at_s, 1000 + at_s))
    tape.close()
    with av.open(str(tmp_path / "seen.mp4")) as file:
        grey = [frame.to_ndarray(format="gray").mean() for frame in file.decode(video=0)]
    assert 73 <= len(grey) <= 75, "three seconds"
    assert 13 <= sum(level > 150 for level in grey) <= 16, "and their last pictures at their place"
