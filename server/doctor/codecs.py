"""Looks at whether pictures and sound can be encoded for browsers, with the encoders that sessions use.

Place in the flow: ``examine`` -> findings of the group ``machine``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import av
import numpy as np

from engine.types import CHUNK_SAMPLES
from server.doctor.installation import REQUIRED
from server.doctor.report import Finding
from server.encoder import OpusEncoder, VideoCodec, create_video_encoder

_GROUP = "machine"
_SIDE = 128
_LIBRARIES: dict[VideoCodec, str] = {"H264": "libx264", "VP8": "libvpx"}


def codecs() -> Iterator[Finding]:
    """Encodes a picture or a piece of sound with each codec and decodes it again."""
    works = {codec: _works(partial(_picture, codec)) for codec in _LIBRARIES}
    for codec, library in _LIBRARIES.items():
        if not works[codec]:
            told = f"{codec} cannot be encoded: PyAV here has no working {library}."
            change = f"python -m pip install -r {REQUIRED}"
            yield Finding(f"codec_{codec.lower()}", _GROUP, "warning", told, change)
    sound = _works(_sound)
    if not any(works.values()) or not sound:
        what = "no picture" if sound else "no sound"
        change = "Install PyAV from its wheel, which has all codecs: python -m pip install --force-reinstall av"
        yield Finding("codecs", _GROUP, "problem", f"Browsers would get {what}.", change)
    elif all(works.values()):
        yield Finding("codecs", _GROUP, "ok", "H.264, VP8 and Opus are encoded here.")


def _works(attempt: Callable[[], bool]) -> bool:
    try:
        return attempt()
    except (av.FFmpegError, ValueError, LookupError):
        return False


def _picture(codec: VideoCodec) -> bool:
    image = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    image[:, _SIDE // 2 :] = 200
    packet = create_video_encoder(codec, _SIDE, _SIDE, 300_000).encode(image, 0, True)
    decoder: Any = av.CodecContext.create("h264" if codec == "H264" else "vp8", "r")
    # A decoder may keep a picture until it knows that no other comes before it.
    shown = [frame for data in (packet, None) for frame in decoder.decode(data)]
    if not shown:
        return False
    back = shown[0].to_ndarray(format="bgr24").astype(int)
    return bool(np.abs(back - image).mean() < 12)


def _sound() -> bool:
    tone = (8000 * np.sin(np.arange(CHUNK_SAMPLES) * 0.05)).astype(np.int16)
    packet = OpusEncoder().encode(tone, 0)
    decoder: Any = av.CodecContext.create("libopus", "r")
    return sum(frame.samples for frame in decoder.decode(packet)) > 0
