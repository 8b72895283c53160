"""How viewers connect, and for how long they may be silent: one set of options for all who show something.

Place in the flow: options -> ``create_app`` -> sessions, peers, audiences, viewers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.avatar.bundle import Avatar
from engine.avatar.matte_file import Matte
from engine.errors import BackendFailed


async def no_matte(avatar: Avatar) -> Matte:
    """For servers that show everybody as filmed. Raises BackendFailed ``matte_failed``."""
    raise BackendFailed("matte_failed", f"This server shows {avatar.title} as filmed.")


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How peers connect and how long they may be silent.

    Attributes:
        ice_servers: STUN and TURN servers in the browser's own form, with credentials for one peer; none by default.
        video_codec: ``auto``, ``h264`` or ``vp8``.
        video_bitrate: bits per second.
        connect_timeout_s: from the answer to a connection.
        heartbeat_timeout_s: silence after which a browser has vanished.
        return_timeout_s: how long a session waits for a browser that was lost.
        idle_timeout_s: time without speech after which nobody needs the session any more.
        matte: makes or fetches the matte of an avatar.
    """

    ice_servers: Callable[[], Sequence[dict[str, Any]]] = tuple
    video_codec: str = "auto"
    video_bitrate: int = 1_500_000
    connect_timeout_s: float = 15.0
    heartbeat_timeout_s: float = 4.0
    return_timeout_s: float = 30.0
    idle_timeout_s: float = 300.0
    matte: Callable[[Avatar], Awaitable[Matte]] = no_matte
