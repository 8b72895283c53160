"""Small moving pictures of avatars."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import AvatarInvalid
from server.thumbnails import PICTURES, SIZE, make_thumbnail

AVATARS = Path(__file__).resolve().parents[2] / "avatars"


def test_it_is_small_moves_and_ends_as_it_begins():
    webp = make_thumbnail(AVATARS / "maya" / "idle.mp4")
    assert len(webp) < 100_000
    found, animation = cv2.imdecodeanimation(np.frombuffer(webp, np.uint8)[None])
    assert found and animation.loop_count == 0
    frames = [frame[..., :3].astype(int) for frame in animation.frames]
    assert frames[0].shape == (SIZE, SIZE, 3) and len(frames) <= 2 * PICTURES - 2
    steps = [np.abs(a - b).mean() for a, b in zip(frames, frames[1:] + frames[:1], strict=True)]
    assert max(steps[:-1]) > 0.1, "it lives"
    assert steps[-1] <= 2 * max(steps[:-1]), "no jump where it begins anew"


def test_a_video_that_cannot_be_read_is_said_to_be_one(tmp_path):
    (tmp_path / "idle.mp4").write_bytes(b"no video")
    with pytest.raises(AvatarInvalid) as caught:
        make_thumbnail(tmp_path / "idle.mp4")
    assert caught.value.code == "avatar_unreadable"


async def test_it_is_served_to_everybody(server):
    response = await server.client.get("/avatars/ada/thumbnail.webp")
    assert (response.status, response.content_type) == (200, "image/webp")
    assert (await server.client.get("/avatars/nobody/thumbnail.webp")).status == 404
