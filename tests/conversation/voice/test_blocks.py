"""Blocks of a changed sound are joined so that nobody hears where."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from engine.conversation.voice.base import MAX_SHIFT_MS
from engine.conversation.voice.blocks import BlockStream, Framing

RATE = 16_000
FRAMING = Framing(first=0.1, block=0.25, before=0.1, after=0.05)


def stream(change, framing: Framing = FRAMING) -> BlockStream:
    return BlockStream(change, RATE, framing, live=True)


async def pushed(into: BlockStream, samples: np.ndarray, chunk: int) -> np.ndarray:
    parts = [await into.push(samples[start : start + chunk]) for start in range(0, len(samples), chunk)]
    return np.concatenate([*parts, await into.flush()])


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(1).integers(-9000, 9000, round(seconds * RATE)).astype(np.int16)


def sine(seconds: float, hz: float, amplitude: float = 10_000) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.int16)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.05, 0.1, 0.35, 2.3])
@pytest.mark.parametrize("chunk", [160, 7001])
async def test_what_is_not_changed_comes_out_as_it_went_in(seconds: float, chunk: int):
    samples = noise(seconds)
    assert np.array_equal(await pushed(stream(lambda block: block), samples, chunk), samples)


async def test_the_result_does_not_depend_on_how_the_sound_was_cut():
    samples = noise(1.7)
    results = [await pushed(stream(lambda block: np.tanh(3 * block)), samples, chunk) for chunk in (99, 4000, 99_999)]
    assert all(np.array_equal(result, results[0]) for result in results[1:])


async def test_a_stream_can_be_used_again_after_its_end():
    into, samples = stream(lambda block: block), sine(0.5, 200)
    await pushed(into, noise(0.4), 1000)
    assert np.array_equal(await pushed(into, samples, 1000), samples)


async def test_blocks_whose_pulses_lie_elsewhere_are_joined_without_a_jump():
    phases = np.random.default_rng(2)

    def anywhere(block: np.ndarray) -> np.ndarray:
        """A tone that begins each block at a phase of its own, as a vocoder's does."""
        return 0.3 * np.sin(2 * np.pi * (150 * np.arange(block.size) / RATE + phases.random()))

    joined = (await pushed(stream(anywhere), sine(4, 150), 1600)).astype(float)
    steepest = 0.3 * 32_768 * 2 * np.pi * 150 / RATE
    assert np.abs(np.diff(joined)).max() < 1.15 * steepest
    loudness = np.sqrt(np.convolve(joined**2, np.ones(320) / 320, "valid"))
    assert loudness.min() > 0.85 * np.median(loudness)


async def test_moving_blocks_never_adds_up():
    def late(block: np.ndarray) -> np.ndarray:
        return np.roll(block, 40)

    samples = noise(6)
    joined = await pushed(stream(late), samples, 1600)
    for at in range(RATE // 2, len(samples) - RATE, RATE):
        part = joined[at : at + 2000]
        likeness = [np.corrcoef(part, samples[at - by : at - by + 2000])[0, 1] for by in range(-300, 300)]
        assert abs(int(np.argmax(likeness)) - 300) <= 40 + MAX_SHIFT_MS / 1000 * RATE


async def test_no_more_is_held_back_than_promised():
    into, came, went = stream(lambda block: block), 0, 0
    for _ in range(100):
        came += 320
        went += len(await into.push(sine(0.02, 200)))
        assert came - went <= into.delay_s * RATE


async def test_the_first_block_is_short_because_somebody_waits_for_it():
    into, came = stream(lambda block: block), 0
    while not len(await into.push(sine(0.02, 200))):
        came += 320
    assert came < 0.2 * RATE


async def test_the_event_loop_goes_on_while_a_block_is_changed():
    def slow(block: np.ndarray) -> np.ndarray:
        time.sleep(0.3)
        return block

    work = asyncio.create_task(stream(slow).push(noise(0.2)))
    ticks = 0
    while not work.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 5


@pytest.mark.alone
async def test_cancelling_waits_for_no_block():
    def slow(block: np.ndarray) -> np.ndarray:
        time.sleep(0.5)
        return block

    work = asyncio.create_task(stream(slow).push(noise(0.2)))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert time.monotonic() - began < 0.3
