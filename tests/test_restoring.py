"""The renderer with a restorer: what is restored, what is left, and what a restorer's failures cost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from engine.avatar.body import Pose
from engine.avatar.bundle import Avatar
from engine.avatar.head_move import lean
from engine.errors import BackendFailed
from engine.quality import Quality, QualityState
from engine.renderer import PictureJob, Rendered, Renderer, render_now
from engine.renderer.draw import draw
from engine.renderer.restoring import REACH_FRAMES, SessionRestoring
from tests.fakes import FakeLipSync, FakePrepared, FakeRestorer, restored_level, tiny_avatar, tiny_clip

SOON_S = 0.5


def job(avatar: Avatar, sequence: int = 0, pose: Pose = Pose(0), mel: float | None = 2.0) -> PictureJob:  # noqa: B008
    window = None if mel is None else np.full((80, 8), mel, np.float32)
    return PictureJob(FakePrepared(avatar), pose, window, sequence=sequence)


@pytest.fixture
def restorer() -> FakeRestorer:
    return FakeRestorer()


@pytest.fixture
async def renderer(lipsync: FakeLipSync, restorer: FakeRestorer) -> AsyncIterator[Renderer]:
    renderer = Renderer(lipsync, restorer=restorer)
    yield renderer
    await renderer.aclose()


def open_session(renderer: Renderer, avatar: Avatar, asked: Quality, told: list | None = None) -> SessionRestoring:
    assert renderer.restoring is not None
    return renderer.restoring.open(avatar, asked, [].append if told is None else told.append)


async def render(
    renderer: Renderer, work: PictureJob, session: SessionRestoring | None, in_s: float = SOON_S
) -> Rendered:
    return await renderer.submit(work, time.monotonic() + in_s, session=session).result


async def test_picture_is_restored_at_its_sessions_level(renderer: Renderer, avatar: Avatar) -> None:
    for asked in (3, 5):
        rendered = await render(renderer, job(avatar), open_session(renderer, avatar, asked))
        assert restored_level(rendered.image) == asked
    for asked in (0, 1):
        rendered = await render(renderer, job(avatar), open_session(renderer, avatar, asked))
        assert np.array_equal(rendered.image, render_now(renderer.lipsync, job(avatar)).image)


async def test_picture_without_a_session_or_a_mouth_is_left_alone(
    renderer: Renderer, restorer: FakeRestorer, avatar: Avatar
) -> None:
    await render(renderer, job(avatar), None)
    await render(renderer, job(avatar, pose=Pose(0, lean=0.5), mel=None), open_session(renderer, avatar, 5))
    assert restorer.levels == []


async def test_head_leans_after_it_was_restored(renderer: Renderer, avatar: Avatar) -> None:
    leaning = job(avatar, pose=Pose(0, lean=1.0))
    rendered = await render(renderer, leaning, open_session(renderer, avatar, 3))
    upright = await render(renderer, job(avatar), open_session(renderer, avatar, 3))
    assert np.array_equal(rendered.image, lean(upright.image, avatar.landmarks.mean(0), 1.0))


def test_body_between_two_pictures_is_restored_once_where_it_stands(lipsync: FakeLipSync) -> None:
    avatar = tiny_avatar()
    object.__setattr__(avatar, "clips", {"nod": tiny_clip(25, shift=6)})
    other = len(avatar.frames) + 4
    drawn = draw(lipsync, job(avatar, pose=Pose(3, other, 0.25)))
    expected = 0.75 * avatar.landmarks_of(3) + 0.25 * avatar.landmarks_of(other)
    assert np.allclose(drawn.landmarks, expected) and drawn.box is not None


def test_picture_between_two_looks_is_their_blend(lipsync: FakeLipSync, avatar: Avatar) -> None:
    other = FakeRestorer().restore_avatar(avatar)
    work = job(avatar)
    blend = render_now(lipsync, PictureJob(work.prepared, work.pose, work.mel, 1.0, FakePrepared(other), 0.5)).image
    one, two = render_now(lipsync, work).image, render_now(lipsync, job(other)).image
    assert np.abs(blend - (one.astype(float) + two) / 2).max() <= 1


async def test_each_picture_builds_on_the_one_before(
    renderer: Renderer, restorer: FakeRestorer, avatar: Avatar
) -> None:
    mine, other = open_session(renderer, avatar, 3), open_session(renderer, avatar, 3)
    for sequence in (0, 1, 3):
        await render(renderer, job(avatar, sequence), mine)
    await render(renderer, job(avatar, 9), other)
    assert restorer.traces == [None, 1, 2, None], "a picture that was left out leaves no mark; sessions have their own"


async def test_gap_and_frames_that_are_made_anew_begin_afresh(
    renderer: Renderer, restorer: FakeRestorer, avatar: Avatar
) -> None:
    session = open_session(renderer, avatar, 3)
    for sequence in (0, REACH_FRAMES + 1, REACH_FRAMES + 2, 4, 5):
        await render(renderer, job(avatar, sequence), session)
    assert restorer.traces == [None, None, 1, None, 1]


async def test_picture_that_is_still_being_restored_is_there_as_a_draft(
    renderer: Renderer, restorer: FakeRestorer, avatar: Avatar
) -> None:
    restorer.compute_s = 0.2
    rendering = renderer.submit(job(avatar), time.monotonic() + SOON_S, session=open_session(renderer, avatar, 3))
    async with asyncio.timeout(5):
        while rendering.draft is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert not rendering.result.done()
    assert np.array_equal(rendering.draft.image, render_now(renderer.lipsync, job(avatar)).image)
    assert restored_level((await rendering.result).image) == 3


async def test_picture_without_time_goes_unrestored(
    renderer: Renderer, restorer: FakeRestorer, avatar: Avatar
) -> None:
    session = open_session(renderer, avatar, 3)
    restorer.compute_s = 0.03
    await render(renderer, job(avatar), session)
    assert restored_level((await render(renderer, job(avatar, 1), session, in_s=0.02)).image) == 0


async def test_failing_restorer_costs_restoring_and_nothing_else(
    renderer: Renderer, restorer: FakeRestorer, avatar: Avatar
) -> None:
    told: list[QualityState] = []
    session = open_session(renderer, avatar, 3, told)
    restorer.failing = True
    rendered = await render(renderer, job(avatar), session)
    assert np.array_equal(rendered.image, render_now(renderer.lipsync, job(avatar)).image)
    await asyncio.sleep(0)
    assert told == [QualityState(3, 0, "failed")]
    assert renderer.metrics.registry.get_sample_value("visavis_failures_total", {"stage": "restore"}) == 1
    with pytest.raises(BackendFailed, match="tiny"):
        await renderer.restoring.look(session)


async def test_avatar_is_restored_once_for_all_and_beside_the_pictures(
    renderer: Renderer, restorer: FakeRestorer, avatar: Avatar, lipsync: FakeLipSync
) -> None:
    restorer.avatar_gate = threading.Event()
    sessions = [open_session(renderer, avatar, 1) for _ in range(2)]
    looks = [asyncio.create_task(renderer.restoring.look(session)) for session in sessions]
    await render(renderer, job(avatar), sessions[0])
    await renderer.prepare(tiny_avatar())
    assert not any(look.done() for look in looks)
    restorer.avatar_gate.set()
    first, second = await asyncio.gather(*looks)
    assert first is second and restorer.avatars == 1 and not np.array_equal(first.avatar.frames, avatar.frames)
    assert [session.state.level for session in sessions] == [1, 1]


async def test_cost_is_measured_with_the_first_avatar_so_that_auto_knows(
    renderer: Renderer, restorer: FakeRestorer, avatar: Avatar
) -> None:
    await renderer.prepare(avatar)
    await renderer.prepare(tiny_avatar())
    assert len(restorer.levels) == 2
    assert open_session(renderer, avatar, "auto").seat.wanted == 3


async def test_restorer_that_takes_longer_than_a_frame_is_not_used_live_even_when_asked_for(
    renderer: Renderer, restorer: FakeRestorer, avatar: Avatar
) -> None:
    restorer.compute_s = 0.1
    await renderer.prepare(avatar)
    assert open_session(renderer, avatar, "auto").seat.wanted == 1
    session = open_session(renderer, avatar, 5)
    rendered = await render(renderer, job(avatar), session)
    assert restored_level(rendered.image) == 0 and session.state == QualityState(5, 0, "load")


async def test_closing_gives_up_an_avatar_that_is_being_restored(lipsync: FakeLipSync, avatar: Avatar) -> None:
    restorer = FakeRestorer(avatar_gate=threading.Event())
    renderer = Renderer(lipsync, restorer=restorer)
    look = asyncio.create_task(renderer.restoring.look(open_session(renderer, avatar, 1)))
    async with asyncio.timeout(5):
        while not restorer.avatars:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await renderer.aclose()
    with pytest.raises(Exception, match="closed"):
        await look


async def test_pictures_of_several_sessions_are_restored_together_and_those_of_one_in_turn(avatar: Avatar) -> None:
    class Batching(FakeRestorer):
        batch_limit = 4
        sizes: list[int] = []  # noqa: RUF012

        def restore(self, jobs):
            self.sizes.append(len(jobs))
            return super().restore(jobs)

    class BatchingLipSync(FakeLipSync):
        batch_limit = 16

    restorer, lipsync = Batching(), BatchingLipSync()
    renderer = Renderer(lipsync, restorer=restorer)
    try:
        sessions = [open_session(renderer, avatar, 3) for _ in range(6)]
        lipsync.gate = threading.Event()
        first = renderer.submit(job(avatar), time.monotonic() + 50)
        await lipsync.first_begun()
        due_s = time.monotonic() + 100
        waiting = [renderer.submit(job(avatar), due_s, session=session) for session in sessions]
        waiting += [renderer.submit(job(avatar, 1), due_s + 0.04, session=sessions[-1])]
        lipsync.gate.set()
        await asyncio.gather(first.result, *(rendering.result for rendering in waiting))
        assert restorer.sizes == [4, 2, 1]
        assert restorer.traces == [None] * 6 + [1]
        assert {restored_level(rendering.result.result().image) for rendering in waiting} == {3}
    finally:
        await renderer.aclose()


async def test_failing_picture_costs_none_of_those_restored_with_it(avatar: Avatar) -> None:
    class Picky(FakeRestorer):
        batch_limit = 4

        def restore(self, jobs):
            if any(job.level == 4 for job in jobs):
                raise RuntimeError("not this one")
            return super().restore(jobs)

    class BatchingLipSync(FakeLipSync):
        batch_limit = 16

    lipsync = BatchingLipSync()
    renderer = Renderer(lipsync, restorer=Picky())
    try:
        sessions = [open_session(renderer, avatar, asked) for asked in (3, 4, 5)]
        lipsync.gate = threading.Event()
        first = renderer.submit(job(avatar), time.monotonic() + 50)
        await lipsync.first_begun()
        waiting = [renderer.submit(job(avatar), time.monotonic() + 100, session=session) for session in sessions]
        lipsync.gate.set()
        await asyncio.gather(first.result, *(rendering.result for rendering in waiting))
        assert [restored_level(rendering.result.result().image) for rendering in waiting] == [3, 0, 5]
    finally:
        await renderer.aclose()
