"""Offers: what is answered, with what, and what is refused before a connection exists."""

from __future__ import annotations

import aioice.ice
import pytest

from engine.errors import ConfigInvalid, OfferInvalid
from server import signaling
from server.signaling import choose_video_codec, read_offer
from tests.server.serving import Browser


@pytest.fixture
async def sdp() -> str:
    async with Browser() as browser:
        return (await browser.offer())["sdp"]


def edited(sdp: str, **replace: str) -> str:
    for old, new in replace.items():
        assert old in sdp
        sdp = sdp.replace(old, new)
    return sdp


def without(sdp: str, prefix: str) -> str:
    kept = [line for line in sdp.splitlines() if not line.startswith(prefix)]
    assert len(kept) < len(sdp.splitlines())
    return "\r\n".join(kept) + "\r\n"


async def test_an_ordinary_offer_can_be_answered(sdp):
    offer = read_offer(sdp, "offer")
    assert offer.has_audio and offer.video_codecs == ("H264", "VP8")


@pytest.mark.parametrize("prefix", ["a=ice-ufrag", "a=ice-pwd", "a=fingerprint", "a=rtcp-mux", "a=mid"])
async def test_an_offer_without_what_a_connection_needs_is_refused(sdp, prefix):
    with pytest.raises(OfferInvalid) as caught:
        read_offer(without(sdp, prefix), "offer")
    assert caught.value.code == "offer_invalid"


async def test_an_offer_that_wants_no_picture_is_refused(sdp):
    with pytest.raises(OfferInvalid, match="video"):
        read_offer(sdp.replace("a=recvonly", "a=sendonly"), "offer")


async def test_an_offer_of_foreign_codecs_is_refused(sdp):
    with pytest.raises(OfferInvalid, match=r"VP8 or H\.264"):
        read_offer(sdp.replace("VP8/90000", "AV1/90000").replace("H264/90000", "H265/90000"), "offer")
    with pytest.raises(OfferInvalid, match="Opus"):
        read_offer(sdp.replace("opus/48000", "speex/48000"), "offer")


async def test_more_than_one_picture_section_is_refused(sdp):
    video = sdp[sdp.index("m=video") : sdp.index("m=application")]
    with pytest.raises(OfferInvalid, match="one video section"):
        read_offer(sdp + video.replace("a=mid:1", "a=mid:9"), "offer")


async def test_a_long_list_of_candidates_is_refused(sdp):
    line = next(line for line in sdp.splitlines() if line.startswith("a=candidate:"))
    with pytest.raises(OfferInvalid, match="candidates"):
        read_offer(sdp.replace(line, "\r\n".join([line] * 100), 1), "offer")


async def test_names_that_would_have_to_be_resolved_are_left_out(sdp):
    line = next(line for line in sdp.splitlines() if line.startswith("a=candidate:"))
    parts = line.split()
    parts[4] = "7a3e0ff0-8f3b-4c3a-9a55-000000000000.local"
    cleaned = read_offer(sdp.replace(line, " ".join(parts)), "offer").sdp
    assert ".local" not in cleaned
    assert "a=end-of-candidates" not in cleaned, "more may come"
    assert "a=end-of-candidates" in read_offer(sdp, "offer").sdp


@pytest.mark.parametrize(
    ("offered", "wanted", "chosen"),
    [
        (("H264", "VP8"), "auto", "H264"),
        (("H264", "VP8"), "h264", "H264"),
        (("H264", "VP8"), "vp8", "VP8"),
        (("VP8",), "h264", "VP8"),
        (("H264",), "vp8", "H264"),
    ],
)
def test_the_preferred_codec_is_used_where_the_browser_can(offered, wanted, chosen):
    assert choose_video_codec(signaling.Offer("", True, offered), wanted) == chosen


def test_without_servers_none_is_asked():
    assert signaling.rtc_configuration([]).iceServers == []


def test_servers_keep_their_credentials():
    (server,) = signaling.rtc_configuration(
        [{"urls": "turn:192.0.2.1:3478", "username": "u", "credential": "c"}]
    ).iceServers
    assert (server.urls, server.username, server.credential) == ("turn:192.0.2.1:3478", "u", "c")


@pytest.mark.parametrize(
    ("addresses", "listed"),
    [
        ([], ["127.0.0.1"]),
        (["127.0.0.2"], ["127.0.0.1"]),
        (["192.0.2.7"], ["192.0.2.7"]),
        (["127.0.0.2", "fd00::2"], ["fd00::2"]),
    ],
)
def test_a_host_with_nothing_but_loopback_lists_it(monkeypatch, addresses, listed):
    monkeypatch.setattr(signaling, "_aioice_host_addresses", lambda ipv4, ipv6: addresses)
    signaling.allow_loopback_only_hosts()
    assert aioice.ice.get_host_addresses(True, True) == listed


async def test_a_public_address_is_announced_beside_our_own(sdp):
    signaling.announce("203.0.113.7")
    try:
        before = [line for line in sdp.splitlines() if line.startswith("a=candidate:") and "typ host" in line]
        after = signaling._announced(sdp).splitlines()
    finally:
        signaling.announce("")
    ours = [line for line in before if ":" not in line.split(" ")[4]]
    added = [line for line in after if "203.0.113.7" in line]
    assert ours and len(added) == len(ours)
    for own, public in zip(ours, added, strict=True):
        assert own.split(" ")[5:] == public.split(" ")[5:], "the same port"
        assert int(own.split(" ")[3]) > int(public.split(" ")[3])
        assert own.split(" ")[0] != public.split(" ")[0]
    assert signaling._announced(sdp) == sdp, "without one nothing changes"
    with pytest.raises(ConfigInvalid):
        signaling.announce("1.2.3.4.5")
