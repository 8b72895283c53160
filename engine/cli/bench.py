"""``python -m engine bench``: what each stage costs for one frame, in CPU time and against a baseline of the same run.

The baseline is one BGR -> I420 conversion of the avatar's picture by OpenCV: memory-bound, in every pipeline, and
present in the same run, so that the ratios can be compared between machines that are busy to different degrees.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction

import av
import cv2
import numpy as np

from engine import registry
from engine.audio.window import RollingWindows
from engine.avatar.bundle import Avatar, avatar_folder, load_avatar
from engine.cli.render import first_avatar, spoken
from engine.compose import paste
from engine.config import Config, load_config
from engine.config import add_arguments as add_options
from engine.lipsync.base import LipJob, LipSync
from engine.types import FPS, PLAYOUT_RATE

WARMUP_FRAMES = 10
TEXT = "Many people show you where their mouth moves, even before they have found the words for what they feel."
STAGES = ("window", "predict", "paste", "convert", "encode")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``bench``."""
    parser.add_argument("--frames", type=int, default=150, metavar="N", help="frames to measure (default: 150)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_options(parser, ["avatar", "avatars_dir", "lipsync", "precision", "voice", "voice_name", "voice_rate"])


def run(args: argparse.Namespace) -> int:
    """Measures and prints.

    Raises:
        NotFound: no such avatar or model.
        AvatarInvalid: the avatar's folder is broken.
        ConfigInvalid: an option is wrong.
    """
    config = load_config(vars(args))
    avatar = load_avatar(avatar_folder(config.avatars_dir, config.avatar or first_avatar(config)))
    lipsync = registry.create_lipsync(config.lipsync, threads=1, precision=config.precision)
    frames = max(1, args.frames)
    costs_ms = measure(avatar, lipsync, config, frames)
    total_ms, baseline_ms = sum(costs_ms.values()), costs_ms["convert"]
    if args.json:
        print(json.dumps({f"{stage}_cpu_ms": round(cost_ms, 4) for stage, cost_ms in costs_ms.items()}))
        return 0
    width, height = avatar.size
    print(f"{avatar.name} {width}x{height}, {config.lipsync} {config.precision}, {frames} frames, one thread")
    print(f"{'stage':<10}{'CPU ms/frame':>14}{'share':>8}{'x convert':>11}")
    for stage, cost_ms in costs_ms.items():
        print(f"{stage:<10}{cost_ms:>14.3f}{cost_ms / total_ms:>8.0%}{cost_ms / baseline_ms:>11.1f}")
    print(f"{'total':<10}{total_ms:>14.3f}{1:>8.0%}{total_ms / baseline_ms:>11.1f}")
    print(f"one core speaks {1000 / FPS / total_ms:.1f} x real time")
    return 0


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


def speech(config: Config, seconds: float) -> np.ndarray:
    """The configured voice reading a text over and over: (n,) int16 at 48 kHz.

    Noise would not do: a model that is any good keeps the mouth shut, and the picture network is spared.
    """
    sound = asyncio.run(spoken(TEXT, config))
    return np.resize(sound, round(seconds * PLAYOUT_RATE))


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
