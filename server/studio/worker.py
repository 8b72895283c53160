"""``python -m server.studio.worker``: makes one avatar of one upload, in a process that may be ended at any moment.

Place in the flow: the job's task as a line of JSON on standard input -> folder of the avatar with its preview, below
the folder of the job; progress and the outcome as lines of JSON on standard output. The server moves the folder.

Invariants:
    * the limits hold before a decoder is imported or the upload is opened;
    * nothing is written outside the folder of the job, and the network is not used;
    * standard output has nothing but our lines, whatever libraries print; it ends with exactly one outcome;
    * when the server is gone (standard input ends) the process is too.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from engine.errors import BackendFailed, DiskFull, InvalidInput, PortraitInvalid, VisavisError
from server.studio.limits import Limits, be_humble

PREVIEW_FILE = "preview.mp4"
MADE_FOLDER = "made"

_MADE_SHARE = 0.85
"""Of all the work; the rest is the preview."""
_LEAST_STEP = 0.004
_IDLE_BEFORE_S, _IDLE_AFTER_S = 0.8, 1.2
_MAX_FPS = 130
_MAX_PIXELS = 4096 * 2304

Progress = Callable[[str, float], None]


def main() -> int:
    """Works off the task on standard input; 0 when the avatar was made."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    task = json.loads(sys.stdin.buffer.readline())
    Limits(**task["limits"]).apply()
    be_humble(task["niceness"])
    threading.Thread(target=_end_with_the_server, name="stdin", daemon=True).start()
    tell = _Teller(lines)
    try:
        _make(Path(task["folder"]), task, tell.progress)
    except Exception as error:
        # Whatever a strange file does to a decoder is the file's fault until the log says otherwise.
        known = _as_ours(error)
        if known is None:
            traceback.print_exc()
            known = PortraitInvalid("create_failed", "No avatar could be made of this file. Try another photo or clip.")
        tell.outcome({"error": known.to_dict()})
        return 2
    tell.outcome({"made": True})
    return 0


class _Teller:
    """Writes the lines the server reads."""

    def __init__(self, lines: IO[str]) -> None:
        self._lines = lines
        self._last = ("", -1.0)

    def progress(self, stage: str, share: float) -> None:
        """Tells a stage and the share done of everything, in [0, 1], when either has changed enough to be seen."""
        if stage == self._last[0] and share - self._last[1] < _LEAST_STEP:
            return
        self._last = (stage, share)
        self.outcome({"stage": stage, "progress": round(share, 3)})

    def outcome(self, line: dict[str, Any]) -> None:
        """Tells anything."""
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()


def _end_with_the_server() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def _as_ours(error: Exception) -> VisavisError | None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("disk_full", "There is no room on the server's disk. Delete something and try again.")
    if isinstance(error.__cause__, OSError) and isinstance(error, VisavisError):
        return _as_ours(error.__cause__) or error
    if isinstance(error, VisavisError):
        return error
    # OpenCV and FFmpeg have errors of their own for it.
    if isinstance(error, MemoryError) or "memory" in str(error).lower() or "allocate" in str(error).lower():
        return PortraitInvalid("source_too_large", "The file needs more memory than it may use here. Scale it down.")
    return None


def _make(folder: Path, task: dict[str, Any], progress: Progress) -> None:
    # Only now: whatever these libraries reserve counts.
    import cv2

    from engine.avatar.prepare import CreateOptions, create_avatar, install_avatar

    cv2.setNumThreads(1)
    source = folder / task["source"]
    if not task["photo"]:
        check_clip(source, task["max_clip_s"])
    options = CreateOptions(
        task["name"], task["title"], task["consent"], task["synthetic"], size=task["size"], seconds=task["seconds"]
    )
    avatar = create_avatar(source, options, lambda stage, share: progress(stage, _MADE_SHARE * share))
    # The card would name the file, whose name means nothing.
    kind = "photo" if task["photo"] else "clip"
    avatar = dataclasses.replace(avatar, source=f"Made of a {kind} in the avatar studio.")
    progress("saving", _MADE_SHARE)
    made = install_avatar(folder / MADE_FOLDER, avatar)
    try:
        _preview(made / PREVIEW_FILE, avatar, task, progress)
    except (BackendFailed, InvalidInput) as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOSPC:
            raise
        # An avatar without a preview is still an avatar.
        print(f"no preview: {error.message}", file=sys.stderr)
    # Once it is renamed into place it must be whole even after a power cut.
    for file in made.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())


def check_clip(path: Path, max_s: float) -> None:
    """Refuses a clip that is too large or too long, by its headers and the times of its packets, without decoding it.

    Args:
        path: ISO media or Matroska, by its ending.
        max_s: longest clip, seconds.

    Raises:
        PortraitInvalid: ``source_too_large``, ``source_too_long``, ``source_unreadable``.
    """
    import av

    form = "mov" if path.suffix == ".mp4" else "matroska"
    too_long = PortraitInvalid(
        "source_too_long", f"The clip is longer than {max_s:.0f} s. Cut out a calm part of some 10 to 20 s."
    )
    try:
        with av.open(str(path), format=form, options={"protocol_whitelist": "file"}) as container:
            video = container.streams.video[0]
            if video.width * video.height > _MAX_PIXELS:
                raise PortraitInvalid("source_too_large", "The clip is larger than 4K. Scale it down.")
            if video.width * video.height == 0:
                raise PortraitInvalid("source_unreadable", "The clip does not say how large its pictures are.")
            first_s: float | None = None
            for count, packet in enumerate(container.demux(video)):
                if count > max_s * _MAX_FPS:
                    raise too_long
                if packet.pts is None or packet.time_base is None:
                    continue
                at_s = float(packet.pts * packet.time_base)
                # A recording may begin at any time; its first packet is as good a start as any.
                first_s = at_s if first_s is None else first_s
                if at_s - first_s > max_s:
                    raise too_long
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise PortraitInvalid(
            "source_unreadable", "The clip cannot be read. Record it again, or convert it to mp4."
        ) from error


def _preview(path: Path, avatar: Any, task: dict[str, Any], progress: Progress) -> None:
    """Writes a video in which the avatar rests, says a sentence and rests again."""
    import asyncio

    import numpy as np

    from engine.audio.pcm import to_playout
    from engine.offline import render_offline
    from engine.recorder import Recorder
    from engine.registry import create_lipsync, create_voice
    from engine.types import FRAME_SAMPLES, PLAYOUT_RATE

    async def speak() -> np.ndarray:
        voice = create_voice("espeak", name=task["voice_name"], rate_wpm=task["voice_rate"])
        try:
            pieces = [piece async for piece in voice.speak(task["sentence"])]
        finally:
            await voice.aclose()
        if not pieces:
            raise InvalidInput("audio_empty", "The voice made no sound of the sentence.")
        return to_playout(np.concatenate([piece.samples for piece in pieces]), pieces[0].sample_rate)

    before, after = (np.zeros(round(seconds * PLAYOUT_RATE), np.int16) for seconds in (_IDLE_BEFORE_S, _IDLE_AFTER_S))
    samples = np.concatenate([before, asyncio.run(speak()), after])
    lipsync = create_lipsync("builtin")
    count = -(-len(samples) // FRAME_SAMPLES)
    with Recorder(path, avatar.size, crf=20) as recorder:
        for number, frame in enumerate(render_offline(avatar, lipsync, samples)):
            recorder.write(frame)
            progress("speaking", _MADE_SHARE + (1 - _MADE_SHARE) * (number + 1) / count)


if __name__ == "__main__":
    sys.exit(main())
