"""The idle loop as a video file: exact pictures in, nearly the same pictures out, colours unchanged.

Place in the flow: avatar folder <-> ``idle.mp4`` <-> (N, H, W, 3) BGR pictures.

Invariants:
    * the file is H.264 yuv420p in BT.709 limited range and says so, whatever its size;
    * a file is opened as mp4 and nothing else, and decoded no further than the pictures it should have.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from engine.errors import AvatarInvalid
from engine.picture import add_h264, to_bgr, to_yuv
from engine.types import FPS


def decode_loop(path: Path, size: tuple[int, int], count: int) -> np.ndarray:
    """All pictures of an idle loop.

    Args:
        path: an mp4 file.
        size: (width, height) it must have.
        count: pictures it must have.

    Returns:
        (count, height, width, 3) uint8 BGR.

    Raises:
        AvatarInvalid: ``avatar_video_unreadable``, ``avatar_size``, ``avatar_fps`` or ``avatar_length``.
    """
    width, height = size
    # Filled in place, since a list of pictures and their stack would double the peak.
    pictures = np.empty((count, height, width, 3), np.uint8)
    for index, picture in enumerate(read_loop(path, size, count)):
        pictures[index] = picture
    return pictures


def read_loop(path: Path, size: tuple[int, int], count: int) -> Iterator[np.ndarray]:
    """The pictures of an idle loop one after the other: exactly ``count`` of them, or an error.

    Args:
        path, size, count: as for ``decode_loop``.

    Yields:
        (height, width, 3) uint8 BGR.

    Raises:
        AvatarInvalid: as ``decode_loop``.
    """
    decoded = 0
    try:
        with av.open(str(path), format="mp4") as container:
            for frame in container.decode(_video_stream(container, path, size)):
                if decoded == count:
                    raise _invalid(path, "avatar_length", f"has more pictures where {count} are described")
                picture = to_bgr(frame)
                decoded += 1
                yield picture
    except (FFmpegError, OSError) as error:
        raise _invalid(path, "avatar_video_unreadable", f"cannot be decoded ({error})") from error
    if decoded != count:
        raise _invalid(path, "avatar_length", f"has {decoded} pictures where {count} are described")


def encode_loop(path: Path, pictures: np.ndarray, crf: int) -> None:
    """Writes an idle loop.

    Args:
        path: mp4 file, replaced.
        pictures: (N, H, W, 3) uint8 BGR, both sides even.
        crf: x264 quality; 14 is visually lossless.
    """
    height, width = pictures.shape[1:3]
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = add_h264(container, (width, height), crf=crf, preset="slow")
        for index, picture in enumerate(pictures):
            container.mux(stream.encode(to_yuv(picture, index)))
        container.mux(stream.encode(None))


def _invalid(path: Path, code: str, reason: str) -> AvatarInvalid:
    return AvatarInvalid(code, f"Avatar {path.resolve().parent.name!r} cannot be used: {path.name} {reason}.")


def _video_stream(container: InputContainer, path: Path, size: tuple[int, int]) -> VideoStream:
    if not container.streams.video:
        raise _invalid(path, "avatar_video_unreadable", "has no video")
    stream = container.streams.video[0]
    if stream.codec_context.name != "h264" or stream.codec_context.pix_fmt != "yuv420p":
        raise _invalid(path, "avatar_video_unreadable", "must be H.264 in yuv420p")
    if (stream.width, stream.height) != size:
        raise _invalid(path, "avatar_size", f"is {stream.width} x {stream.height}, not {size[0]} x {size[1]} as stated")
    if stream.average_rate != FPS:
        raise _invalid(path, "avatar_fps", f"has {stream.average_rate} pictures a second, not {FPS}")
    stream.thread_type = "AUTO"
    return stream
