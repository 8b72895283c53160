"""Writes frames with their sound into an mp4: H.264 and AAC, exactly as long as what was written.

Place in the flow: AvatarFrame -> Recorder -> file.

Invariants:
    * N frames make a video of N x 40 ms and a sound of N x 1920 samples, both starting at 0;
    * it says of itself that it was generated, see ``engine.marking``;
    * the file appears under its name when it is complete; until then, and after a failure, what was there before stays.
"""

from __future__ import annotations

import secrets
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.error

from engine.errors import BackendFailed, Closed, InvalidInput
from engine.marking import STATEMENT
from engine.picture import add_h264, to_yuv
from engine.types import FRAME_SAMPLES, PLAYOUT_RATE, AvatarFrame

AUDIO_KBPS = 128


class Recorder:
    """One recording; blocking, so use it on a thread. A context manager: an exception inside discards the file.

    Args:
        path: the mp4 to write; a file of that name is replaced when the recording is complete.
        size: (width, height) of every picture, both even.
        crf: x264 quality, lower is better; 18 is visually lossless.

    Raises:
        InvalidInput: ``output_invalid`` when nothing can be written there.
    """

    def __init__(self, path: str | Path, size: tuple[int, int], crf: int = 18) -> None:
        self.path = Path(path)
        self.size = size
        self.frames = 0
        if self.path.is_dir():
            raise InvalidInput("output_invalid", f"Cannot write {self.path}: it is a folder.")
        # Beside its goal, because only a rename within one file system is atomic.
        self._part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")
        try:
            self._part.open("xb").close()
        except OSError as error:
            raise InvalidInput("output_invalid", f"Cannot write {self.path}: {error.strerror}.") from error
        self._container: av.container.OutputContainer | None = None
        try:
            self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"})
            self._container.metadata["comment"] = STATEMENT
            self._video = add_h264(self._container, size, crf=crf, preset="veryfast")
            self._audio = self._container.add_stream("aac", rate=PLAYOUT_RATE)
            self._audio.codec_context.layout = "mono"
            self._audio.bit_rate = AUDIO_KBPS * 1000
        except av.error.FFmpegError as error:
            self.discard()
            raise BackendFailed("recording_failed", f"The recording could not be started: {error}.") from error

    def write(self, frame: AvatarFrame) -> None:
        """Appends a frame; its place is the count of frames before it, ``pts`` is not looked at.

        Raises:
            Closed: after ``close`` or ``discard``.
            BackendFailed: ``recording_failed``, for example on a full disk.
        """
        if self._container is None:
            raise Closed("closed", "This recording is complete; make a new one.")
        picture = to_yuv(frame.image, self.frames)
        sound = av.AudioFrame.from_ndarray(frame.audio.reshape(1, -1), format="s16", layout="mono")
        sound.sample_rate = PLAYOUT_RATE
        sound.pts, sound.time_base = self.frames * FRAME_SAMPLES, Fraction(1, PLAYOUT_RATE)
        try:
            self._container.mux(self._video.encode(picture))
            self._container.mux(self._audio.encode(sound))
        except (av.error.FFmpegError, OSError) as error:
            self.discard()
            raise BackendFailed("recording_failed", f"The recording failed: {error}.") from error
        self.frames += 1

    def close(self) -> None:
        """Completes the file and gives it its name. Idempotent.

        Raises:
            InvalidInput: ``recording_empty`` when no frame was written; no file is left.
            BackendFailed: ``recording_failed``.
        """
        if self._container is None:
            return
        if self.frames == 0:
            self.discard()
            raise InvalidInput("recording_empty", "Nothing was recorded: there was no frame.")
        try:
            self._container.mux(self._video.encode(None))
            self._container.mux(self._audio.encode(None))
            self._container.close()
            self._part.replace(self.path)
        except (av.error.FFmpegError, OSError) as error:
            self.discard()
            raise BackendFailed("recording_failed", f"The recording failed: {error}.") from error
        self._container = None

    def discard(self) -> None:
        """Gives up: nothing is left, and what had the name before keeps it. Idempotent."""
        container, self._container = self._container, None
        if container is not None:
            try:
                container.close()
            except (av.error.FFmpegError, OSError):
                pass  # the file is deleted anyway
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
