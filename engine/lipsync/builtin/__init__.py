"""The project's own lip-sync model: sound -> ten mouth weights -> a warp of the avatar's own face.

Place in the flow: ``engine.registry`` -> ``BuiltinLipSync.load`` -> renderer.

Invariants:
    * importing this package loads no inference runtime, so that the studio can share the crop rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.lipsync.builtin.model import BuiltinLipSync

__all__ = ["BuiltinLipSync"]


def __getattr__(name: str) -> object:
    if name == "BuiltinLipSync":
        from engine.lipsync.builtin.model import BuiltinLipSync

        return BuiltinLipSync
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
