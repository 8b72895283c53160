"""Small moving pictures of avatars at rest, for lists to choose from.

Place in the flow: ``Stage.thumbnail`` makes each once, on a thread for files; ``GET /avatars/{name}/thumbnail.webp``
serves it.

Invariants: small enough that a page may show all avatars at once (some 20 KB each); it ends as it begins, so that it
loops unseen; a whole idle loop is never in memory for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np

from engine.errors import AvatarInvalid

SIZE = 128
"""Width and height, pixels."""
FACE = 0.76
"""Of the shorter side of a picture; the rest is shoulders and wall."""
STEP = 3
"""Every so many pictures of the idle loop one is taken."""
PICTURES = 20
"""As many are taken; all but the first and last are shown on the way back, too."""
PICTURE_MS = 120
QUALITY = 55


def make_thumbnail(idle_loop: Path) -> bytes:
    """An animated WebP of the beginning of an idle loop, forth and back.

    Args:
        idle_loop: an avatar's video.

    Raises:
        AvatarInvalid: ``avatar_unreadable``.
    """
    try:
        with av.open(idle_loop, options={"protocol_whitelist": "file"}) as video:
            taken = [_small(picture) for picture in islice(_every(video, STEP), PICTURES)]
    except (av.FFmpegError, OSError) as error:
        raise AvatarInvalid("avatar_unreadable", f"The idle loop {idle_loop.parent.name} cannot be read.") from error
    if not taken:
        raise AvatarInvalid("avatar_unreadable", f"The idle loop {idle_loop.parent.name} is empty.")
    animation = cv2.Animation()
    animation.frames = taken + taken[-2:0:-1]
    animation.durations = [PICTURE_MS] * len(animation.frames)
    animation.loop_count = 0
    _, webp = cv2.imencodeanimation(".webp", animation, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return webp.tobytes()


def _every(video: av.container.InputContainer, step: int) -> Iterator[np.ndarray]:
    for index, frame in enumerate(video.decode(video=0)):
        if index % step == 0:
            yield frame.to_ndarray(format="bgr24")


def _small(picture: np.ndarray) -> np.ndarray:
    """The square of a picture where the face is, (SIZE, SIZE, 3) uint8: in the middle, nearer to the upper edge."""
    height, width = picture.shape[:2]
    side = round(min(height, width) * FACE)
    left, top = (width - side) // 2, (height - side) // 3
    return cv2.resize(picture[top : top + side, left : left + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
