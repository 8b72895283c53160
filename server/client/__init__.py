"""An avatar in a program of yours.

    async with TalkingHead("http://localhost:8080") as head:
        await head.say("Hello.")

Place in the flow: the other end of ``Peer``; it knows the server by its HTTP interface and its data channel alone.
"""

from server.client.head import TalkingHead
from server.client.media import Picture, Sound

__all__ = ["Picture", "Sound", "TalkingHead"]
