"""Answers a browser's offer: checks it, picks codecs, and leaves out what would cost time.

Place in the flow: POST /offer -> ``read_offer`` -> ``answer`` -> session description for the browser.

Choices:
    * candidates whose names end in ``.local`` are left out instead of resolved (each unresolved name costs a second):
      the browser's own checks reach the addresses we list, and its address is learned from them;
    * without configured servers no ICE server is used at all: aiortc's default is a public one, five seconds away on
      a host without a route;
    * a host that has nothing but a loopback interface lists that one, or two programs on it could not meet.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aioice.ice
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceCandidate,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.rtcrtpparameters import RTCRtpCodecCapability
from aiortc.sdp import SessionDescription, candidate_from_sdp

from engine.errors import ConfigInvalid, InvalidInput, OfferInvalid
from server.encoder import VideoCodec

MOST_SECTIONS = {"audio": 1, "video": 2, "application": 1}
"""The first video section gets the avatar; a second one, for a client's shared screen, is declined."""
MAX_CANDIDATES = 64
LATECOMERS_S = 0.06

_MDNS_CANDIDATE = re.compile(r"^a=candidate:\S+ \d+ \S+ \d+ \S+\.local ", re.IGNORECASE)
_RECEIVING = ("recvonly", "sendrecv")
_H264_PROFILES = ("42e01f", "42001f")


@dataclass(frozen=True, slots=True)
class Offer:
    """A session description that can be answered.

    Attributes:
        sdp: the description, cleaned.
        has_audio: a sound section is there that uses Opus.
        video_codecs: which of our codecs the browser can decode.
    """

    sdp: str
    has_audio: bool
    video_codecs: tuple[VideoCodec, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """A session description as it travels: ``sdp`` and its ``type``."""

    sdp: str
    type: str


def read_offer(sdp: str, kind: str) -> Offer:
    """Checks what a browser sent.

    Raises:
        OfferInvalid: ``offer_invalid``, with what is wrong with it.
    """
    if kind != "offer":
        raise _invalid(f"its type is {kind[:20]!r} instead of 'offer'")
    sdp = _without_mdns(sdp)
    try:
        description = SessionDescription.parse(sdp)
    except Exception as error:  # aiortc's parser raises whatever the malformed line led to
        raise _invalid("it is not a session description") from error
    media = description.media
    if not media:
        raise _invalid("it has no media section")
    kinds = Counter(section.kind for section in media)
    if any(kinds[kind] > most for kind, most in MOST_SECTIONS.items()) or set(kinds) - set(MOST_SECTIONS):
        raise _invalid("it must have one video section, at most one audio section and one data channel")
    if sum(section.kind == "video" and section.direction in _RECEIVING for section in media) > 1:
        raise _invalid("it must have one video section that receives")
    for section in media:
        if not section.ice or not section.ice.usernameFragment or not section.ice.password:
            raise _invalid("a media section has no ICE credentials")
        if not section.dtls or not section.dtls.fingerprints:
            raise _invalid("a media section has no DTLS fingerprint")
        if section.kind != "application" and not section.rtcp_mux:
            raise _invalid("a media section does not multiplex RTCP")
        if len(section.ice_candidates) > MAX_CANDIDATES:
            raise _invalid(f"it lists more than {MAX_CANDIDATES} candidates")
    mids = [section.rtp.muxId for section in media]
    if not all(mids) or len(set(mids)) != len(mids):
        raise _invalid("every media section needs a mid of its own")
    bundles = [group.items for group in description.group if group.semantic == "BUNDLE"]
    if len(bundles) > 1 or any(set(items) != set(mids) for items in bundles):
        # aiortc could not close a connection whose bundle names sections that do not exist.
        raise _invalid("its bundle does not name its media sections")
    video = next((section for section in media if section.kind == "video"), None)
    if video is None or video.direction not in _RECEIVING:
        raise _invalid("it must be willing to receive one video track")
    codecs = _video_codecs(video.rtp.codecs)
    if not codecs:
        raise _invalid("it must accept VP8 or H.264 (baseline, packetization mode 1)")
    audio = next((section for section in media if section.kind == "audio"), None)
    if audio is not None and not any(codec.mimeType.lower() == "audio/opus" for codec in audio.rtp.codecs):
        raise _invalid("its audio section must accept Opus")
    return Offer(sdp, audio is not None, codecs)


def read_candidate(line: str, mid: str | None, index: int | None) -> RTCIceCandidate | None:
    """A candidate that came after the offer.

    Args:
        line: ``candidate:…`` as a browser has it.
        mid, index: which media section it is for; one is enough.

    Returns:
        None for what is of no use here: ``.local`` names, TCP, and the word that there are no more.

    Raises:
        InvalidInput: ``candidate_invalid``.
    """
    line = line.strip().removeprefix("a=").removeprefix("candidate:")
    if not line:
        return None
    if mid is None and index is None:
        raise InvalidInput("candidate_invalid", "A candidate names its media section.")
    try:
        candidate = candidate_from_sdp(line)
        if candidate.ip.lower().endswith(".local") or candidate.protocol.lower() != "udp":
            return None
        # An address, never a name somebody would have to look up.
        ipaddress.ip_address(candidate.ip)
        if candidate.type not in ("host", "srflx", "relay") or not 0 < candidate.port < 1 << 16:
            raise ValueError("nobody can be reached there")
    except (ValueError, IndexError, AssertionError) as error:
        raise InvalidInput("candidate_invalid", "This is no candidate that can be reached.") from error
    candidate.sdpMid, candidate.sdpMLineIndex = mid, index
    return candidate


class Trickle:
    """Takes ways to reach a browser that it found after its offer."""

    def __init__(self, connection: RTCPeerConnection) -> None:
        """Args: connection: to it."""
        self._connection = connection
        self._taken = 0

    async def add(self, candidates: Sequence[RTCIceCandidate]) -> None:
        """Takes some.

        Raises:
            InvalidInput: ``too_many_candidates``.
        """
        self._taken += len(candidates)
        if self._taken > MAX_CANDIDATES:
            raise InvalidInput("too_many_candidates", f"At most {MAX_CANDIDATES} candidates are of use.")
        for candidate in candidates:
            await self._connection.addIceCandidate(candidate)


def _invalid(reason: str) -> OfferInvalid:
    return OfferInvalid("offer_invalid", f"The offer cannot be answered: {reason}.")


def _without_mdns(sdp: str) -> str:
    lines = sdp.splitlines()
    kept = [line for line in lines if not _MDNS_CANDIDATE.match(line)]
    if len(kept) != len(lines):
        # More candidates exist than the list now shows, so it must not claim to be complete.
        kept = [line for line in kept if line.strip() != "a=end-of-candidates"]
    return "\r\n".join(kept) + "\r\n"


def _video_codecs(offered: Sequence[Any]) -> tuple[VideoCodec, ...]:
    found: set[VideoCodec] = set()
    for codec in offered:
        if codec.mimeType.lower() == "video/vp8":
            found.add("VP8")
        elif codec.mimeType.lower() == "video/h264" and str(codec.parameters.get("packetization-mode", "0")) == "1":
            if str(codec.parameters.get("profile-level-id", "42e01f")).lower()[:4] in {p[:4] for p in _H264_PROFILES}:
                found.add("H264")
    return tuple(sorted(found))


def choose_video_codec(offer: Offer, wanted: str) -> VideoCodec:
    """The codec to send.

    Args:
        offer: what the browser can decode.
        wanted: ``auto`` or ``h264`` prefer H.264, ``vp8`` prefers VP8; the other one is used when it must be.
    """
    order: tuple[VideoCodec, ...] = ("VP8", "H264") if wanted.lower() == "vp8" else ("H264", "VP8")
    return next(codec for codec in order if codec in offer.video_codecs)


def rtc_configuration(ice_servers: Sequence[dict[str, Any]]) -> RTCConfiguration:
    """aiortc's configuration for servers in the browser's own form (``{"urls", "username", "credential"}``)."""
    return RTCConfiguration(
        iceServers=[RTCIceServer(s["urls"], s.get("username"), s.get("credential")) for s in ice_servers]
    )


async def answer(
    connection: RTCPeerConnection,
    offer: Offer,
    video_codec: VideoCodec,
    video: MediaStreamTrack,
    audio: MediaStreamTrack | None,
    *,
    hears: bool = True,
) -> Description:
    """Negotiates: our tracks out, the browser's sound in, its pictures refused.

    Args:
        connection: new; its listeners are already registered.
        offer: what ``read_offer`` returned.
        video_codec: what ``choose_video_codec`` returned; the answer names it first, so it is what aiortc sends.
        video: our picture.
        audio: our sound, or None when the offer has no place for it.
        hears: takes the browser's sound, too.

    Raises:
        OfferInvalid: ``offer_invalid`` when aiortc finds fault with it after all.
    """
    allow_loopback_only_hosts()
    # Tracks and preferences must be set before the remote description: afterwards they are silently ignored.
    transceiver = connection.addTransceiver(video, direction="sendonly")
    transceiver.setCodecPreferences(_preferences(video_codec))
    if audio is not None:
        transceiver = connection.addTransceiver(audio, direction="sendrecv" if hears else "sendonly")
        transceiver.setCodecPreferences(
            [codec for codec in RTCRtpSender.getCapabilities("audio").codecs if codec.mimeType == "audio/opus"]
        )
    try:
        await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        for other in connection.getTransceivers():
            if other.sender.track not in (video, audio):
                other.direction = "inactive"
        await connection.setLocalDescription(await connection.createAnswer())
    except Exception as error:  # aiortc raises its own errors, ValueError, KeyError … for what it cannot use
        raise _invalid("its sections contradict each other") from error
    return Description(_announced(connection.localDescription.sdp), connection.localDescription.type)


def _preferences(first: VideoCodec) -> list[RTCRtpCodecCapability]:
    codecs = RTCRtpSender.getCapabilities("video").codecs
    h264 = [
        codec
        for profile in _H264_PROFILES
        for codec in codecs
        if codec.mimeType == "video/H264" and codec.parameters.get("profile-level-id") == profile
    ]
    vp8 = [codec for codec in codecs if codec.mimeType == "video/VP8"]
    retransmission = [codec for codec in codecs if codec.mimeType == "video/rtx"]
    return (vp8 + h264 if first == "VP8" else h264 + vp8) + retransmission


_public_address = ""


def announce(address: str) -> None:
    """Has answers name this machine's public address too, for the whole process.

    Args:
        address: an IP address; empty for none.

    Raises:
        ConfigInvalid: ``option_invalid``.
    """
    global _public_address
    try:
        _public_address = str(ipaddress.ip_address(address)) if address else ""
    except ValueError as error:
        raise ConfigInvalid("option_invalid", f"node_address is {address!r}, which is no IP address.") from error


def _announced(sdp: str) -> str:
    """A description with a second candidate for each of our own of the same family: one-to-one NAT keeps the ports."""
    if not _public_address:
        return sdp
    lines = []
    for line in sdp.splitlines():
        lines.append(line)
        words = line.split(" ")
        if line.startswith("a=candidate:") and "typ host" in line and (":" in words[4]) == (":" in _public_address):
            # Another foundation, and a little less wanted than the address itself.
            foundation, priority = f"{words[0]}1", str(max(1, int(words[3]) - 1))
            lines.append(" ".join([foundation, *words[1:3], priority, _public_address, *words[5:]]))
    return "\r\n".join(lines) + "\r\n"


_aioice_host_addresses = aioice.ice.get_host_addresses


def _host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    addresses = _aioice_host_addresses(use_ipv4, use_ipv6)
    reachable = [address for address in addresses if not ipaddress.ip_address(address).is_loopback]
    return reachable or (["127.0.0.1"] if use_ipv4 else ["::1"])


def allow_loopback_only_hosts() -> None:
    """Lets two programs meet on a host that has no other interface; for the whole process. Idempotent."""
    # aioice never lists the loopback interface and has no option for it.
    aioice.ice.get_host_addresses = _host_addresses


async def stop_latecomers(connection: RTCPeerConnection) -> None:
    """Stops what a connection that was closed while it connected has started since.

    aiortc goes on connecting in the background while it is closed, and what it starts then (aioice's consent checks, a
    sender's reports) nothing would ever stop. It is done within a few pacing intervals of 20 ms; stopping once more
    ends what came late and does nothing to what was stopped before.
    """
    await asyncio.sleep(LATECOMERS_S)
    for transceiver in connection.getTransceivers():
        await transceiver.sender.stop()
        await transceiver.receiver.stop()
        await transceiver.receiver.transport.transport._connection.close()
