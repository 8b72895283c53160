"""Reads what an avatar is made of: photos with their orientation, videos as upright pictures at 25 a second.

Place in the flow: file -> ``read_photo`` or ``VideoSource`` -> faces -> avatar.

Invariants:
    * pictures are upright, whatever flags the camera set, and never larger than ``MAX_SIDE_PX``;
    * a video is streamed: one picture is held at a time, and reading it twice gives the same pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace

from engine.errors import PortraitInvalid
from engine.types import FPS

PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAX_PHOTO_BYTES = 100 << 20
MAX_PHOTO_PIXELS = 120_000_000
MAX_VIDEO_BYTES = 2 << 30
MAX_VIDEO_S = 300.0
MAX_VIDEO_PIXELS = 4096 * 2304
MAX_SIDE_PX = 2160
"""Longest side worked on; a face in a larger picture has pixels to spare."""

_HD_HEIGHT_PX = 720
_RIGHT_ANGLES = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


def is_photo(path: Path) -> bool:
    """Whether a file is taken for a photo, by its name."""
    return path.suffix.lower() in PHOTO_ENDINGS


def read_photo(path: Path) -> np.ndarray:
    """A photo, upright.

    Returns:
        (H, W, 3) uint8 BGR, at most ``MAX_SIDE_PX`` on its longer side.

    Raises:
        PortraitInvalid: ``source_missing``, ``source_too_large`` or ``source_unreadable``.
    """
    _check_file(path, MAX_PHOTO_BYTES)
    # The size is read from the header first: a small file may unfold to gigabytes.
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            pixels = stream.width * stream.height
    except (FFmpegError, OSError, IndexError, ValueError) as error:
        raise _unreadable(path, "photo") from error
    if pixels > MAX_PHOTO_PIXELS:
        raise PortraitInvalid(
            "source_too_large", f"{path.name} has {pixels / 1e6:.0f} megapixels; at most {MAX_PHOTO_PIXELS / 1e6:.0f}."
        )
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise _unreadable(path, "photo")
    return _bounded(image)


class VideoSource:
    """A video file that can be read several times.

    Args:
        path: the file.

    Attributes:
        path: as given.
        count: about how many pictures ``frames`` will give, for progress; 0 when the file does not say.

    Raises:
        PortraitInvalid: ``source_missing``, ``source_too_large``, ``source_too_long`` or ``source_unreadable``.
    """

    def __init__(self, path: Path) -> None:
        _check_file(path, MAX_VIDEO_BYTES)
        self.path = path
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                pixels = stream.width * stream.height
                length_s = float(container.duration or 0) / av.time_base
        except (FFmpegError, OSError, IndexError, ValueError) as error:
            raise _unreadable(path, "video") from error
        if pixels > MAX_VIDEO_PIXELS:
            raise PortraitInvalid(
                "source_too_large", f"{path.name} is larger than 4K. Scale it down to at most 4096 × 2304 pixels."
            )
        self._check_length(length_s)
        self.count = int(length_s * FPS)

    def frames(self) -> Iterator[np.ndarray]:
        """The pictures at 25 a second: at each moment the one a player would show.

        Yields:
            (H, W, 3) uint8 BGR.

        Raises:
            PortraitInvalid: ``source_unreadable``, ``source_too_long``.
        """
        start_s: float | None = None
        shown: av.VideoFrame | None = None
        given = 0
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for frame in container.decode(stream):
                    time_s = frame.time
                    if time_s is None:
                        time_s = (start_s or 0.0) + given / FPS
                    if start_s is None:
                        start_s = time_s
                    # A picture that begins within half a period after a moment is nearer to it than the one before.
                    while shown is not None and given / FPS < time_s - start_s - 0.5 / FPS:
                        yield _upright(shown)
                        given += 1
                        self._check_length(given / FPS)
                    shown = frame
                if shown is not None:
                    yield _upright(shown)
        except (FFmpegError, OSError) as error:
            raise _unreadable(self.path, "video") from error
        if shown is None:
            raise _unreadable(self.path, "video")

    def _check_length(self, length_s: float) -> None:
        if length_s > MAX_VIDEO_S + 1:
            raise PortraitInvalid(
                "source_too_long",
                f"{self.path.name} is longer than {MAX_VIDEO_S / 60:.0f} minutes. Cut out a calm part of 10 to 60 s.",
            )


def _upright(frame: av.VideoFrame) -> np.ndarray:
    colours = frame.colorspace
    if colours not in (Colorspace.ITU709, Colorspace.ITU601, Colorspace.BT2020):
        # Files that say nothing mean what cameras of their size use.
        colours = Colorspace.ITU709 if frame.height >= _HD_HEIGHT_PX else Colorspace.ITU601
    full = frame.color_range == ColorRange.JPEG or (frame.format.name or "").startswith("yuvj")
    image = frame.reformat(
        format="bgr24",
        src_colorspace=colours,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    ).to_ndarray()
    turn = _RIGHT_ANGLES.get(round(frame.rotation) % 360)
    return _bounded(image if turn is None else cv2.rotate(image, turn))


def _bounded(image: np.ndarray) -> np.ndarray:
    scale = MAX_SIDE_PX / max(image.shape[:2])
    return image if scale >= 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _check_file(path: Path, limit_bytes: int) -> None:
    if not path.is_file():
        raise PortraitInvalid("source_missing", f"There is no file {path}.")
    if path.stat().st_size > limit_bytes:
        raise PortraitInvalid("source_too_large", f"{path.name} is larger than {limit_bytes >> 20} MB.")


def _unreadable(path: Path, kind: str) -> PortraitInvalid:
    return PortraitInvalid(
        "source_unreadable",
        f"{path.name} cannot be read as a {kind}. Use jpg, png or webp for photos, mp4, mov, webm or mpg for videos.",
    )
