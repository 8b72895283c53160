"""Face restoration: official GFPGAN checkpoints sharpen what a lip-sync model drew, and an avatar's own pictures.

Place in the flow: ``engine.registry`` -> ``GfpganRestorer.load`` -> renderer, avatar preparation.

Invariants:
    * importing this package loads no inference runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.restore.gfpgan import GfpganRestorer

__all__ = ["GfpganRestorer"]


def __getattr__(name: str) -> object:
    if name == "GfpganRestorer":
        from engine.restore.gfpgan import GfpganRestorer

        return GfpganRestorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
