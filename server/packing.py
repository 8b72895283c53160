"""What of a frame one browser gets: the picture as it was filmed, or colour and matte above each other in one picture.

Place in the flow: AvatarFrame -> (``Packing``) -> video track -> encoder -> browser, which puts the person before
another background.

Video that browsers receive has no transparency, so the matte travels as the lower half of a picture twice as high.
Both halves pass through one encoder and arrive together; neither can be late or lost alone.

Invariants:
    * as filmed costs nothing;
    * the colour of a packed picture is the colour as filmed, whatever the matte says;
    * until a matte is there pictures are as filmed, and the browser can tell by their shape.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from engine.aio import Tasks
from engine.avatar.matte_file import Matte
from engine.errors import VisavisError
from engine.types import AvatarFrame

logger = logging.getLogger(__name__)

Background = Literal["filmed", "packed"]
Dress = Callable[[AvatarFrame], np.ndarray]
"""What is shown of a frame: (H, W, 3) uint8 BGR. Called on an encoder's thread."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The dress of whoever gets colour above matte; the same for all who get the same matte."""

    matte: Matte

    def __call__(self, frame: AvatarFrame) -> np.ndarray:
        """What is shown of a frame, see ``pack``."""
        return pack(frame, self.matte)


class Packing:
    """The pictures of one browser."""

    def __init__(
        self,
        load: Callable[[], Awaitable[Matte]],
        wear: Callable[[Dress | None], None],
        tell: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        """
        Args:
            load: makes or fetches the matte.
            wear: told how frames are dressed from now on; None is as filmed.
            tell: sends an event to the browser.
        """
        self._load = load
        self._wear = wear
        self._tell = tell
        self._tasks = Tasks("packing")
        self._preparing: asyncio.Task[None] | None = None
        self.background: Background = "filmed"
        """What was asked for last."""
        self.dress: Dress | None = None
        """How frames are dressed now."""

    def choose(self, background: Background) -> None:
        """Packs from the moment the matte is there, or as filmed at once; the event ``background`` says when."""
        self.background = background
        if background == "packed":
            if self.dress is None and (self._preparing is None or self._preparing.done()):
                self._preparing = self._tasks.start(self._prepare(), "matte")
            elif self.dress is not None:
                self._tell("background", {"background": "packed"})
            return
        if self._preparing is not None:
            self._preparing.cancel()
            self._preparing = None
        self._change(None)

    async def aclose(self) -> None:
        """Stops waiting for a matte; idempotent."""
        await self._tasks.aclose()

    async def _prepare(self) -> None:
        try:
            matte = await self._load()
        except VisavisError as error:
            self.background = "filmed"
            self._tell("error", error.to_dict())
        else:
            self._change(Packed(matte))

    def _change(self, dress: Dress | None) -> None:
        self.dress = dress
        self._wear(dress)
        self._tell("background", {"background": self.background})


def pack(frame: AvatarFrame, matte: Matte) -> np.ndarray:
    """Colour above matte.

    Args:
        frame: where nobody tells which picture it shows, all of it counts as person.
        matte: of the avatar.

    Returns:
        (2 H, W, 3) uint8 BGR; an odd last row of the picture is left out, because two rows share their colours in the
        video and the last one of the person must not share them with the matte.
    """
    height, width = frame.image.shape[0] & ~1, frame.image.shape[1]
    packed = np.empty((2 * height, width, 3), np.uint8)
    packed[:height] = frame.image[:height]
    if frame.pose is None:
        packed[height:] = 255
    else:
        cv2.cvtColor(matte.at(frame.pose)[:height], cv2.COLOR_GRAY2BGR, dst=packed[height:])
    return packed
