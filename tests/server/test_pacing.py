"""Parcels that wait for their time."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiortc.mediastreams import MediaStreamError

from server.pacing import PacedParcels
from server.rtp import Parcel

pytestmark = pytest.mark.alone

PARCEL = Parcel((b"x",))


async def test_a_parcel_leaves_when_it_is_due_and_not_before():
    parcels = PacedParcels(4)
    parcels.put(PARCEL, 7, time.monotonic() + 0.1)
    started_s = time.monotonic()
    assert await parcels.take() == (PARCEL, 7)
    assert 0.095 < time.monotonic() - started_s < 0.3


async def test_a_reader_that_came_first_is_woken_once_and_at_the_time():
    parcels = PacedParcels(4)
    reader = asyncio.create_task(parcels.take())
    await asyncio.sleep(0)
    started_s = time.monotonic()
    parcels.put(PARCEL, 1, started_s + 0.05)
    parcels.put(PARCEL, 2, started_s + 0.06)
    assert (await reader)[1] == 1
    assert 0.045 < time.monotonic() - started_s < 0.2
    assert (await parcels.take())[1] == 2
    assert parcels.late_s < 0.1


async def test_a_parcel_that_is_late_leaves_at_once_and_says_how_late():
    parcels = PacedParcels(4)
    parcels.put(PARCEL, 0, time.monotonic() - 5)
    started_s = time.monotonic()
    await parcels.take()
    assert time.monotonic() - started_s < 0.05
    assert 5 <= parcels.late_s < 5.1


async def test_a_reader_that_gave_up_takes_nothing_away():
    parcels = PacedParcels(4)
    parcels.put(PARCEL, 3, time.monotonic() + 0.05)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await parcels.take()
    assert (await parcels.take())[1] == 3


@pytest.mark.parametrize("waiting", ["for a parcel", "for its time"])
async def test_closing_wakes_whoever_waits(waiting):
    parcels = PacedParcels(4)
    if waiting == "for its time":
        parcels.put(PARCEL, 0, time.monotonic() + 60)
    reader = asyncio.create_task(parcels.take())
    await asyncio.sleep(0.01)
    parcels.close()
    with pytest.raises(MediaStreamError):
        await reader
