"""Where one session stands in the idle loop that all share: when it goes over, stays, and leaves.

Place in the flow: frames of one viewer -> LoopFollower -> parcels of the loop, or None: encode it yourself.

Invariants:
    * a loop is entered at a picture that a decoder can start at, after ``SETTLED_FRAMES`` that it could have shown;
    * it is followed picture by picture; whatever breaks the order, or asks for a key frame, leaves it.
"""

from __future__ import annotations

from engine.avatar.bundle import Avatar
from engine.types import AvatarFrame
from server.encoder import VideoCodec
from server.idle_loops import IdleLoop, IdleLoops
from server.metrics import ServerMetrics
from server.packing import Dress, Packed
from server.rtp import Parcel

SETTLED_FRAMES = 10
"""Pictures of the avatar as it is in a row before a session goes over: a pause between sentences is not worth two key
frames."""


class LoopFollower:
    """One viewer's place in a loop.

    Args:
        loops: all there are.
        codec: what the peers agreed on.
        bitrate: bits per second at most.
        metrics: where to count.
    """

    def __init__(self, loops: IdleLoops, codec: VideoCodec, bitrate: int, metrics: ServerMetrics) -> None:
        self._loops = loops
        self._codec = codec
        self._bitrate = bitrate
        self._metrics = metrics
        # Whoever was shown nothing yet need not settle.
        self._settled = SETTLED_FRAMES
        self._loop: IdleLoop | None = None
        self._avatar: Avatar | None = None
        self._dress: Dress | None = None
        self._next = 0

    @property
    def follows(self) -> bool:
        """Whether the picture before came out of a loop."""
        return self._loop is not None

    def parcel(self, frame: AvatarFrame, dress: Dress | None, key_wanted: bool) -> Parcel | None:
        """The picture of a frame; None when it must be encoded.

        Args:
            frame: the next one.
            dress: what is shown of it.
            key_wanted: a decoder must be able to start at it.
        """
        if frame.still is None or not (dress is None or isinstance(dress, Packed)):
            self._settled = 0
            self.leave()
            return None
        avatar, index = frame.still
        self._settled += 1
        loop = self._loop
        followed = loop is not None and index == self._next and avatar is self._avatar and dress == self._dress
        if loop is None or not followed or key_wanted:
            loop = self._loops.find(avatar, index, self._codec, self._bitrate, dress)
            start = loop.at(index) if loop is not None and self._settled > SETTLED_FRAMES else None
            if loop is None or start is None or not start.key_frame:
                self.leave()
                return None
            if self._loop is None:
                self._metrics.looped_viewers.inc()
            self._loop, self._avatar, self._dress = loop, avatar, dress
        self._next = loop.after(index)
        parcel = loop.at(index)
        if parcel is not None and parcel.key_frame:
            # Counted by the piece: it is done a thousand times a second otherwise.
            self._metrics.pictures_looped.inc(loop.piece_frames(index))
        return parcel

    def leave(self) -> None:
        """Follows no loop any more; idempotent."""
        if self._loop is not None:
            self._metrics.looped_viewers.dec()
            self._loop = self._avatar = self._dress = None
