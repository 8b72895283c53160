"""A fan alone: one encoder for all, key frames when they are needed and no more often, takers that fail."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from engine.clock import FrameClock
from server import fan as module
from server.encoder_pool import EncoderPool
from server.fan import JOIN_GAP_S, LONGEST_PATIENCE_S, LOSS_GAP_S, QUIET_S, Fan, Feed
from server.rtp import Parcel
from tests.server.fakes import make_frame
from tests.server.serving import eventually


class Taker:
    """Remembers what came, and when."""

    def __init__(self) -> None:
        self.parcels: list[tuple[float, Parcel, int]] = []

    def __call__(self, parcel: Parcel, timestamp: int, late_s: float) -> None:
        self.parcels.append((time.monotonic(), parcel, timestamp))

    @property
    def key_frames_s(self) -> list[float]:
        return [at_s for at_s, parcel, _ in self.parcels if parcel.key_frame]


@pytest.fixture
async def fan():
    pool = EncoderPool(video_threads=1)
    clock = FrameClock()
    fan = Fan(clock, pool, 400_000)

    async def show() -> None:
        pts = clock.frame_at(clock.now_s())
        while True:
            await asyncio.sleep(max(0.0, clock.due_s(pts) - clock.now_s() - 0.02))
            fan.offer(make_frame(pts))
            pts += 1

    task = asyncio.create_task(show())
    yield fan
    task.cancel()
    await asyncio.wait([task])
    await fan.aclose()
    await pool.aclose()


async def test_everybody_gets_the_very_same_parcels_from_a_key_frame_on(fan):
    first, second = Taker(), Taker()
    fan.subscribe("VP8", first)
    await eventually(lambda: len(first.parcels) > 5)
    fan.subscribe("VP8", second)
    await eventually(lambda: len(second.parcels) > 5)
    assert fan.codecs == ["VP8"]
    assert first.parcels[0][1].key_frame and second.parcels[0][1].key_frame
    ids = [id(parcel) for _, parcel, _ in first.parcels]
    assert [id(parcel) for _, parcel, _ in second.parcels] == ids[-len(second.parcels) :]
    await fan.aclose()


@pytest.mark.alone
async def test_picture_and_sound_have_the_same_clock(fan):
    pictures, sounds = Taker(), Taker()
    fan.subscribe("VP8", pictures)
    fan.subscribe("opus", sounds)
    await eventually(lambda: len(pictures.parcels) > 5 and len(sounds.parcels) > 10)
    frame = pictures.parcels[0][2] // 3600
    assert sounds.parcels[0][2] // 1920 == pytest.approx(frame, abs=2)
    await fan.aclose()


async def test_however_many_join_key_frames_stay_apart(fan):
    takers = [Taker() for _ in range(12)]
    for taker in takers:
        fan.subscribe("VP8", taker)
        await asyncio.sleep(0.1)
    await eventually(lambda: all(taker.parcels for taker in takers))
    gaps = [after - before for before, after in zip(takers[0].key_frames_s, takers[0].key_frames_s[1:], strict=False)]
    assert len(gaps) >= 1
    assert min(gaps) > JOIN_GAP_S - 0.1
    await fan.aclose()


@pytest.mark.alone
async def test_one_who_asks_without_end_is_heard_ever_more_seldom(fan):
    good, bad = Taker(), Taker()
    fan.subscribe("VP8", good)
    feed = fan.subscribe("VP8", bad)
    await eventually(lambda: bad.parcels)
    before, started_s = len(good.key_frames_s), time.monotonic()
    while time.monotonic() - started_s < 4:
        feed.request_key_frame()
        await asyncio.sleep(0.02)
    # At once (a second after the first one), then after one second, after two …
    assert 2 <= len(good.key_frames_s) - before <= 3
    assert LOSS_GAP_S == 1.0
    await fan.aclose()


class Asked:
    """A source that remembers when it was asked for key frames, by a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.heard_s: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def want_key_frame(self, gap_s: float) -> None:
        self.heard_s.append(self.now_s)

    def leave(self, feed: Feed) -> None:
        pass


@pytest.fixture
def asked(monkeypatch):
    source = Asked()
    monkeypatch.setattr(module, "time", source)
    return source


def ask(source: Asked, feed: Feed, seconds: float, every_s: float = 0.05) -> list[float]:
    """Asks again and again; returns after how long each that was heard came."""
    begun_s, before = source.now_s, len(source.heard_s)
    for index in range(round(seconds / every_s)):
        source.now_s = begun_s + index * every_s
        feed.request_key_frame()
    return [at_s - begun_s for at_s in source.heard_s[before:]]


async def test_one_who_asks_for_minutes_is_never_heard_as_if_for_the_first_time(asked):
    feed = Feed(asked, Taker(), None, waits=False)
    heard_s = ask(asked, feed, 300)
    gaps = [after - before for before, after in itertools.pairwise(heard_s)]
    assert gaps[:5] == pytest.approx([1, 2, 4, 8, 16], abs=0.11)
    assert gaps[4:] == pytest.approx([LONGEST_PATIENCE_S] * len(gaps[4:]), abs=0.11)


async def test_one_who_was_quiet_for_a_while_is_heard_at_once_again(asked):
    feed = Feed(asked, Taker(), None, waits=False)
    ask(asked, feed, 60)
    asked.now_s += QUIET_S + 1
    assert ask(asked, feed, 4) == pytest.approx([0, 1, 3], abs=0.11)


async def test_one_who_asks_now_and_then_is_heard_each_time(asked):
    feed = Feed(asked, Taker(), None, waits=False)
    assert len(ask(asked, feed, 300, every_s=20)) == 15


@pytest.mark.alone
async def test_a_taker_that_needs_steady_key_frames_gets_them(fan, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    taker = Taker()
    fan.subscribe("VP8", taker, key_frame_s=0.5)
    await eventually(lambda: len(taker.key_frames_s) >= 4)
    gaps = [after - before for before, after in zip(taker.key_frames_s, taker.key_frames_s[1:], strict=False)]
    assert max(gaps) < 2.0, "nobody else would ask for any"
    await fan.aclose()


async def test_a_taker_that_fails_is_let_go_and_the_others_stay(fan, caplog):
    def breaks(parcel: Parcel, timestamp: int, late_s: float) -> None:
        raise ConnectionError

    stays = Taker()
    fan.subscribe("VP8", stays)
    feed = fan.subscribe("VP8", breaks)
    await eventually(feed.ended.done)
    seen = len(stays.parcels)
    await eventually(lambda: len(stays.parcels) > seen + 3)
    assert not caplog.records
    await fan.aclose()


async def test_when_the_last_has_gone_nothing_is_encoded_and_the_next_begins_anew(fan):
    first = fan.subscribe("VP8", Taker())
    assert fan.is_wanted
    first.close()
    first.close()
    assert not fan.is_wanted
    again = Taker()
    fan.subscribe("VP8", again)
    await eventually(lambda: again.parcels)
    assert again.parcels[0][1].key_frame
    await fan.aclose()


async def test_the_end_of_the_fan_is_the_end_of_its_feeds(fan):
    feed = fan.subscribe("VP8", Taker())
    await fan.aclose()
    assert feed.ended.done() and not fan.is_wanted
