"""An avatar small enough to encode its loop in a moment, and what its frames decode to."""

from __future__ import annotations

import asyncio

import av
import cv2
import numpy as np
from aiortc.codecs.h264 import h264_depayload
from aiortc.codecs.vpx import vp8_depayload

from engine.avatar.body import Pose
from engine.avatar.bundle import Avatar
from engine.avatar.footage import Clip
from engine.planner import SILENCE
from engine.types import AvatarFrame
from server.encoder_pool import EncoderPool
from server.idle_loops import IdleLoop
from server.rtp import Parcel

SIZE = 128
FACE = np.array([[40, 40], [80, 40], [60, 60], [48, 80], [72, 80]], np.float32)
BOX = np.array([20, 100, 20, 100], np.float32)


def picture(index: int, of: int) -> np.ndarray:
    """Something smooth that goes round once in ``of`` pictures."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    angle = 2 * np.pi * index / of
    spot = np.exp(-((x - 64 - 30 * np.cos(angle)) ** 2 + (y - 64 - 30 * np.sin(angle)) ** 2) / 200)
    return np.stack([60 + x / 2 + 40 * spot, 90 + y / 4 + 60 * spot, 150 - x / 4 + 50 * spot], -1).astype(np.uint8)


def avatar(count: int = 60, clip: int = 30, loop: bool = True) -> Avatar:
    """An avatar with one clip."""

    def stretch(pictures: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        frames = np.stack([picture(index, pictures) for index in range(pictures)])
        return frames, np.repeat(FACE[None], pictures, 0), np.repeat(BOX[None], pictures, 0)

    clips = {"nod": Clip(*stretch(clip), loop)}
    return Avatar("dot", "Dot", (SIZE, SIZE), "CC0-1.0", "a test", True, "", *stretch(count), clips=clips)


def still(of: Avatar, index: int, pts: int) -> AvatarFrame:
    """A frame that is one of an avatar's pictures."""
    return AvatarFrame(of.picture(index), SILENCE, pts, pose=Pose(index), still=(of, index))


async def loop_of(pool: EncoderPool, of: Avatar, *what) -> IdleLoop:
    """The loop, once it is made."""
    for _ in range(1000):
        if (loop := pool.loops.find(of, *what)) is not None:
            return loop
        await asyncio.sleep(0.01)
    raise TimeoutError


class Decoder:
    """A browser's decoder."""

    def __init__(self, codec: str) -> None:
        self._context = av.CodecContext.create({"H264": "h264", "VP8": "vp8"}[codec], "r")
        self._depayload = h264_depayload if codec == "H264" else vp8_depayload

    def data(self, parcel: Parcel) -> bytes:
        """What the encoder had returned."""
        return b"".join(self._depayload(payload) for payload in parcel.payloads)

    def luma(self, parcel: Parcel) -> np.ndarray:
        """Decoded brightness of the parcel's picture; H.264 must have no delay."""
        (frame,) = self._context.decode(av.Packet(self.data(parcel)))
        return frame.to_ndarray(format="yuv420p")[: frame.height].astype(float)


def psnr(luma: np.ndarray, image: np.ndarray) -> float:
    """How close decoded brightness is to a picture, dB."""
    wanted = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)[: image.shape[0]]
    return float(10 * np.log10(255**2 / max(1e-6, np.mean((luma - wanted) ** 2))))
