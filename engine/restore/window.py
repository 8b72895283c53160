"""Which part of each resolution of the restorer's decoder is needed for a rectangle of its output.

Place in the flow: region to paste -> ``plan`` -> decoder, which cuts its features to the plan.

A StyleGAN decoder sees locally: 3 x 3 convolutions reach one pixel further each, bilinear doubling one pixel at half
the resolution. So a rectangle of the output needs a rectangle of every lower resolution, a few pixels wider. Only the
encoder and the style code need the whole face.

Invariants:
    * a decoder cut to a plan computes exactly what the whole decoder computes inside the rectangle asked for;
    * at the border of the picture a cut ends at the border, so that zero padding and clamping mean the same there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HALO = 4
"""Convolutions in a row at one resolution: one that ends the up block, two that make the SFT condition, one styled."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels, ends exclusive.

    Attributes:
        top, bottom, left, right: pixels; at least one row and one column.
    """

    top: int
    bottom: int
    left: int
    right: int

    @staticmethod
    def whole(size: int) -> Window:
        """All of a square picture of ``size`` pixels."""
        return Window(0, size, 0, size)

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, as an index of an (H, W, ...) array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grown(self, pixels: int, size: int) -> Window:
        """Wider by ``pixels`` on each side, but within a square of ``size``."""
        return Window(
            max(self.top - pixels, 0), min(self.bottom + pixels, size),
            max(self.left - pixels, 0), min(self.right + pixels, size),
        )  # fmt: skip

    def halved(self) -> Window:
        """The pixels of half the resolution from which bilinear doubling makes these; may reach one pixel outside."""
        return Window((self.top - 1) // 2, self.bottom // 2 + 1, (self.left - 1) // 2, self.right // 2 + 1)

    def inside(self, other: Window) -> Window:
        """The same pixels, counted from the top left of ``other``."""
        return Window(
            self.top - other.top, self.bottom - other.top, self.left - other.left, self.right - other.left
        )  # fmt: skip


def plan(sizes: Sequence[int], window: Window) -> tuple[Window, ...]:
    """The window to compute at each resolution.

    Args:
        sizes: resolutions of the decoder, pixels, each twice the one before.
        window: what is needed of the last one.

    Returns:
        One window for each of ``sizes``; what they compute is right where the next one, or the output, looks.

    Raises:
        ValueError: the window is empty or reaches over the border.
    """
    last = sizes[-1]
    if not (0 <= window.top < window.bottom <= last and 0 <= window.left < window.right <= last):
        raise ValueError(f"{window} does not lie within {last} x {last} pixels")
    windows = []
    for size in reversed(sizes):
        cut = window.grown(HALO, size)
        windows.append(cut)
        window = cut.halved().grown(0, size // 2)
    return tuple(reversed(windows))
