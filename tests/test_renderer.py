import asyncio
import dataclasses
import threading
import time

import numpy as np
import pytest

from engine.audio.mel import SILENCE
from engine.avatar.body import Pose
from engine.avatar.bundle import Avatar
from engine.avatar.head_move import cross_fade, lean
from engine.batches import Batches
from engine.compose import paste
from engine.errors import BackendFailed, Busy, Closed, ModelAway
from engine.lipsync.base import LipJob, PreparedAvatar
from engine.renderer import PictureJob, Rendered, Renderer, render_now
from engine.schedule import OWNER_LIMIT
from engine.types import REST_MOUTH
from tests.fakes import FakeLipSync, FakePrepared, mouth_height, tiny_avatar, tiny_clip


def job(avatar: Avatar, frame_index: int = 0, level: float = 2.0) -> PictureJob:
    return PictureJob(FakePrepared(avatar), Pose(frame_index), np.full((80, 8), level, np.float32))


async def render(renderer: Renderer, work: PictureJob) -> Rendered:
    return await renderer.submit(work, 0.0).result


@pytest.fixture
async def renderer(lipsync: FakeLipSync):
    renderer = Renderer(lipsync)
    yield renderer
    await renderer.aclose()


async def test_picture_is_the_patch_pasted_on_its_idle_picture(renderer: Renderer, avatar: Avatar) -> None:
    rendered = await render(renderer, job(avatar, 3))
    patch = renderer.lipsync.predict([LipJob(FakePrepared(avatar), 3, np.full((80, 8), 2.0, np.float32))])[0]
    assert np.array_equal(rendered.image, paste(avatar.frames[3], patch))
    assert mouth_height(rendered.image) == 18 and rendered.mouth is not None and rendered.mouth[0] == 0.75
    assert mouth_height((await render(renderer, job(avatar, level=SILENCE))).image) == 0


def test_body_between_two_pictures_speaks_on_both_and_blends_them(lipsync: FakeLipSync) -> None:
    avatar = dataclasses.replace(tiny_avatar(), clips={"nod": tiny_clip(25, shift=6)})
    prepared, mel = FakePrepared(avatar), np.full((80, 8), 2.0, np.float32)
    one, other = 3, len(avatar.frames) + 4
    drawn = [paste(avatar.picture(index), lipsync.predict([LipJob(prepared, index, mel)])[0]) for index in (one, other)]
    rendered = render_now(lipsync, PictureJob(prepared, Pose(one, other, 0.4), mel))
    expected = cross_fade(drawn[0], avatar.landmarks_of(one), drawn[1], avatar.landmarks_of(other), 0.4)
    assert np.array_equal(rendered.image, expected) and rendered.mouth is not None and rendered.mouth[0] == 0.75
    silent = render_now(lipsync, PictureJob(prepared, Pose(one, other, 0.4), None))
    assert not np.array_equal(silent.image, expected) and silent.mouth is REST_MOUTH


def test_head_that_leans_in_speaks_as_it_leans(lipsync: FakeLipSync, avatar: Avatar) -> None:
    upright = render_now(lipsync, job(avatar)).image
    leaning = render_now(lipsync, dataclasses.replace(job(avatar), pose=Pose(0, lean=0.5))).image
    assert np.array_equal(leaning, lean(upright, avatar.landmarks.mean(0), 0.5))


async def test_models_run_on_threads_of_their_own(renderer: Renderer, avatar: Avatar, lipsync: FakeLipSync) -> None:
    await render(renderer, job(avatar))
    assert lipsync.threads == {"visavis-render-0"}


async def test_earliest_deadline_is_rendered_first(renderer: Renderer, avatar: Avatar, lipsync: FakeLipSync) -> None:
    lipsync.gate = threading.Event()
    order: list[int] = []
    first = renderer.submit(job(avatar), 0.0)
    waiting = [(number, renderer.submit(job(avatar), float(number))) for number in (3, 1, 2)]
    for number, rendering in waiting:
        rendering.result.add_done_callback(lambda _, number=number: order.append(number))
    lipsync.gate.set()
    await asyncio.gather(first.result, *(rendering.result for _, rendering in waiting))
    await asyncio.sleep(0)
    assert order == [1, 2, 3]


async def test_withdrawn_and_cancelled_jobs_are_never_begun(
    renderer: Renderer, avatar: Avatar, lipsync: FakeLipSync
) -> None:
    lipsync.gate = threading.Event()
    begun = renderer.submit(job(avatar), 0.0)
    await lipsync.first_begun()
    withdrawn, last = renderer.submit(job(avatar), 1.0), renderer.submit(job(avatar), 3.0)
    cancelled = renderer.submit(job(avatar), 2.0)
    assert not begun.withdraw() and withdrawn.withdraw()
    cancelled.result.cancel()
    lipsync.gate.set()
    await asyncio.gather(begun.result, last.result)
    assert withdrawn.result.cancelled() and lipsync.predicted == 2


async def test_late_picture_is_given_up_for_a_later_one_of_its_session_only(
    renderer: Renderer, avatar: Avatar, lipsync: FakeLipSync
) -> None:
    await render(renderer, job(avatar))
    lipsync.gate = threading.Event()
    begun = renderer.submit(job(avatar), 0.0)
    await lipsync.first_begun()
    await lipsync.first_begun()
    past_s, future_s = time.monotonic() - 1, time.monotonic() + 1000
    mine, mine_later = renderer.submit(job(avatar), past_s, "me"), renderer.submit(job(avatar), future_s, "me")
    other, nobody = renderer.submit(job(avatar), past_s, "you"), renderer.submit(job(avatar), past_s)
    lipsync.gate.set()
    await asyncio.gather(begun.result, mine_later.result, other.result, nobody.result)
    assert mine.result.cancelled()


async def test_full_queue_refuses_until_withdrawn_jobs_make_room(
    renderer: Renderer, avatar: Avatar, lipsync: FakeLipSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.schedule.WAITING_LIMIT", 2)
    lipsync.gate = threading.Event()
    renderer.submit(job(avatar), 0.0)
    await lipsync.first_begun()
    waiting = [renderer.submit(job(avatar), 1.0) for _ in range(2)]
    with pytest.raises(Busy):
        renderer.submit(job(avatar), 1.0)
    waiting[0].withdraw()
    renderer.submit(job(avatar), 1.0)
    lipsync.gate.set()
    await waiting[1].result


async def test_failing_model_fails_its_job_and_not_the_renderer(
    renderer: Renderer, avatar: Avatar, lipsync: FakeLipSync
) -> None:
    lipsync.failing = True
    with pytest.raises(BackendFailed) as caught:
        await render(renderer, job(avatar))
    assert caught.value.code == "render_failed" and isinstance(caught.value.__cause__, RuntimeError)
    lipsync.failing = False
    await render(renderer, job(avatar))


async def test_avatar_is_prepared_once_however_many_ask(
    renderer: Renderer, avatar: Avatar, lipsync: FakeLipSync
) -> None:
    first, second = await asyncio.gather(renderer.prepare(avatar), renderer.prepare(avatar))
    assert first is second and lipsync.prepared == 1
    await renderer.prepare(tiny_avatar())
    assert lipsync.prepared == 2


async def test_failed_preparation_is_told_and_tried_again(avatar: Avatar) -> None:
    class Refusing(FakeLipSync):
        def prepare(self, avatar: Avatar) -> PreparedAvatar:
            self.prepared += 1
            raise ValueError("no face")

    lipsync = Refusing()
    renderer = Renderer(lipsync)
    try:
        for _ in range(2):
            with pytest.raises(BackendFailed, match="tiny"):
                await renderer.prepare(avatar)
        assert lipsync.prepared == 2
    finally:
        await renderer.aclose()


async def test_preparing_does_not_hold_up_pictures(avatar: Avatar) -> None:
    release = threading.Event()

    class Slow(FakeLipSync):
        def prepare(self, avatar: Avatar) -> FakePrepared:
            release.wait(10)
            return super().prepare(avatar)

    renderer = Renderer(Slow())
    try:
        preparing = asyncio.create_task(renderer.prepare(avatar))
        await asyncio.sleep(0)
        await asyncio.wait_for(render(renderer, job(avatar)), 5)
        release.set()
        await preparing
    finally:
        release.set()
        await renderer.aclose()


async def test_threads_render_side_by_side(avatar: Avatar) -> None:
    meeting = threading.Barrier(2, timeout=5)

    class Meeting(FakeLipSync):
        def predict(self, jobs):
            meeting.wait()
            return super().predict(jobs)

    renderer = Renderer(Meeting(), threads=2)
    try:
        await asyncio.gather(render(renderer, job(avatar)), render(renderer, job(avatar)))
    finally:
        await renderer.aclose()


async def test_close_drops_what_waits_finishes_what_began_and_is_idempotent(
    avatar: Avatar, lipsync: FakeLipSync
) -> None:
    lipsync.gate = threading.Event()
    renderer = Renderer(lipsync)
    begun = renderer.submit(job(avatar), 0.0)
    await lipsync.first_begun()
    waiting = renderer.submit(job(avatar), 1.0)
    closing = asyncio.create_task(renderer.aclose())
    await asyncio.sleep(0.01)
    lipsync.gate.set()
    await closing
    await renderer.aclose()
    assert begun.result.done()
    assert waiting.result.cancelled()
    for use in (render(renderer, job(avatar)), renderer.prepare(avatar)):
        with pytest.raises(Closed):
            await use
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("visavis-render") and
                thread in renderer._threads]  # fmt: skip


@pytest.mark.alone
async def test_close_does_not_wait_for_ever(
    avatar: Avatar, lipsync: FakeLipSync, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("engine.renderer.pool.CLOSE_TIMEOUT_S", 0.05)
    lipsync.gate = threading.Event()
    renderer = Renderer(lipsync)
    rendering = renderer.submit(job(avatar), 0.0)
    await lipsync.first_begun()
    started_s = time.monotonic()
    await renderer.aclose()
    assert time.monotonic() - started_s < 2 and "did not end" in caplog.text
    lipsync.gate.set()
    await rendering.result


async def test_renderer_counts_what_it_does(renderer: Renderer, avatar: Avatar) -> None:
    await render(renderer, job(avatar))
    value = renderer.metrics.registry.get_sample_value
    assert value("visavis_render_ms_count") == 1 and value("visavis_render_wait_ms_count") == 1


class BatchingLipSync(FakeLipSync):
    """A model that gains from up to eight pictures at a time."""

    batch_limit = 8

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.sizes: list[int] = []
        self.warm: list[int] = []

    def predict(self, jobs):
        self.sizes.append(len(jobs))
        return super().predict(jobs)

    def warmup(self, batch_sizes) -> None:
        self.warm = list(batch_sizes)


async def test_model_that_gains_from_batches_gets_the_waiting_pictures_of_all_sessions(avatar: Avatar) -> None:
    lipsync = BatchingLipSync(gate=threading.Event())
    renderer = Renderer(lipsync)
    await renderer.warmup()
    far_s = time.monotonic() + 100
    first = renderer.submit(job(avatar), far_s)
    await lipsync.first_begun()
    waiting = [renderer.submit(job(avatar, number), far_s + number, str(number)) for number in range(11)]
    lipsync.gate.set()
    rendered = await asyncio.gather(first.result, *(rendering.result for rendering in waiting))
    await renderer.aclose()
    assert lipsync.sizes == [1, 8, 3] and lipsync.warm == [1, 2, 4, 8]
    for number, picture in enumerate(rendered[1:]):
        assert np.array_equal(picture.image, render_now(lipsync, job(avatar, number)).image)


async def test_failing_picture_costs_none_of_those_in_its_batch(avatar: Avatar) -> None:
    class Picky(BatchingLipSync):
        def predict(self, jobs):
            if any(job.frame_index == 2 for job in jobs):
                raise RuntimeError("not this one")
            return super().predict(jobs)

    lipsync = Picky(gate=threading.Event())
    renderer = Renderer(lipsync)
    first = renderer.submit(job(avatar), time.monotonic() + 100)
    await lipsync.first_begun()
    waiting = [renderer.submit(job(avatar, number), time.monotonic() + 100).result for number in range(4)]
    lipsync.gate.set()
    await first.result
    results = await asyncio.gather(*waiting, return_exceptions=True)
    await renderer.aclose()
    assert [isinstance(result, BackendFailed) for result in results] == [False, False, True, False]


async def test_pictures_without_a_mouth_to_draw_never_meet_the_model(
    renderer: Renderer, avatar: Avatar, lipsync: FakeLipSync
) -> None:
    still = [PictureJob(FakePrepared(avatar), Pose(number, lean=0.3), None) for number in range(4)]
    await asyncio.gather(*(render(renderer, work) for work in still))
    assert lipsync.predicted == 0


async def test_one_session_cannot_fill_the_queue(renderer: Renderer, avatar: Avatar, lipsync: FakeLipSync) -> None:
    lipsync.gate = threading.Event()
    begun = renderer.submit(job(avatar), 0.0)
    await lipsync.first_begun()
    mine = [renderer.submit(job(avatar), 1e9 + number, "me") for number in range(OWNER_LIMIT)]
    with pytest.raises(Busy):
        renderer.submit(job(avatar), 1e9, "me")
    other = renderer.submit(job(avatar), 1e9, "you")
    lipsync.gate.set()
    await asyncio.gather(begun.result, other.result, *(rendering.result for rendering in mine))


async def test_pictures_given_up_are_counted_by_priority(
    renderer: Renderer, avatar: Avatar, lipsync: FakeLipSync
) -> None:
    lipsync.gate = threading.Event()
    begun = renderer.submit(job(avatar), 0.0)
    await lipsync.first_begun()
    renderer.submit(job(avatar), time.monotonic() - 1, "me", priority=2)
    later = renderer.submit(job(avatar), time.monotonic() + 100, "me", priority=2)
    lipsync.gate.set()
    await asyncio.gather(begun.result, later.result)
    assert renderer.metrics.registry.get_sample_value("visavis_given_up_total", {"priority": "2"}) == 1


async def test_model_that_is_away_fails_every_picture_at_once_and_is_told_once(
    avatar: Avatar, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(BatchingLipSync):
        away = True

        def predict(self, jobs):
            if self.away:
                raise ModelAway("model_away", "The process is away.")
            return super().predict(jobs)

    lipsync = Away()
    renderer = Renderer(lipsync)
    try:
        results = await asyncio.gather(
            *(renderer.submit(job(avatar), time.monotonic() + 100).result for _ in range(8)), return_exceptions=True
        )
        assert [result.code for result in results] == ["model_away"] * 8
        assert caplog.text.count("rendering a picture failed") == 1
        lipsync.away = False
        await render(renderer, job(avatar))
    finally:
        await renderer.aclose()


def test_batches_get_smaller_when_their_first_picture_would_be_late() -> None:
    batches = Batches(16)
    assert batches.count(0.0, 0.04) == 16, "what nobody measured is tried"
    for count, seconds in ((16, 0.030), (7, 0.018), (4, 0.010)):
        batches.drew(count, seconds)
    assert [batches.count(0.0, due_s) for due_s in (0.040, 0.031, 0.015, 0.005)] == [16, 8, 4, 1]
    assert Batches().count(0.0, 10.0) == 1
