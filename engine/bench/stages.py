"""What each stage of a frame costs, in CPU time and against a baseline of the same run.

Place in the flow: ``python -m engine bench --stages``.

The baseline is one BGR -> I420 conversion of the avatar's picture by OpenCV: memory-bound, in every pipeline, and
present in the same run, so that the ratios can be compared between machines that are busy to different degrees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction

import av
import cv2
import numpy as np

from engine.audio.window import RollingWindows
from engine.avatar.bundle import Avatar
from engine.bench.gather import speech
from engine.compose import paste
from engine.config import Config
from engine.lipsync.base import LipJob, LipSync
from engine.types import FPS

WARMUP_FRAMES = 10
STAGES = ("window", "predict", "paste", "convert", "encode")


def measure(avatar: Avatar, lipsync: LipSync, config: Config, frames: int) -> dict[str, float]:
    """CPU milliseconds a frame of each of ``STAGES`` while speaking; all threads of the process count.

    ``window`` is everything from 48 kHz sound to the mel window: decimation, mel, cutting.
    """
    spent_s = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started_s = time.process_time()
        yield
        spent_s[name] += time.process_time() - started_s

    sound = speech(config, (WARMUP_FRAMES + frames) / FPS)
    prepared = lipsync.prepare(avatar)
    windows = RollingWindows(lipsync.window)
    windows.push(sound)
    windows.end()
    encode = _encoder(avatar.size)
    for index in range(WARMUP_FRAMES + frames):
        if index == WARMUP_FRAMES:
            spent_s = dict.fromkeys(STAGES, 0.0)
        picture = index % len(avatar.frames)
        with stage("window"):
            _, mel, _ = windows.next()
        with stage("predict"):
            patch = lipsync.predict([LipJob(prepared, picture, mel)])[0]
        with stage("paste"):
            image = paste(avatar.frames[picture], patch)
        with stage("convert"):
            planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
        with stage("encode"):
            encode(planes, index)
    return {name: 1000 * cost_s / frames for name, cost_s in spent_s.items()}


def _encoder(size: tuple[int, int]) -> Callable[[np.ndarray, int], None]:
    """x264 as for live video: superfast, zero latency, one thread."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.time_base, context.framerate = Fraction(1, FPS), Fraction(FPS)
    context.options = {"preset": "superfast", "tune": "zerolatency", "threads": "1"}
    context.bit_rate = 1_500_000

    def encode(planes: np.ndarray, pts: int) -> None:
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = pts, Fraction(1, FPS)
        context.encode(frame)

    return encode


def table(costs_ms: dict[str, float]) -> str:
    """The costs as text, with their shares and their ratio to the conversion."""
    total_ms, baseline_ms = sum(costs_ms.values()), costs_ms["convert"]
    lines = [f"{'stage':<10}{'CPU ms/frame':>14}{'share':>8}{'x convert':>11}"]
    for stage, cost_ms in (*costs_ms.items(), ("total", total_ms)):
        lines.append(f"{stage:<10}{cost_ms:>14.3f}{cost_ms / total_ms:>8.0%}{cost_ms / baseline_ms:>11.1f}")
    return "\n".join([*lines, f"one core speaks {1000 / FPS / total_ms:.1f} x real time"])
