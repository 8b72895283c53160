"""The restorer around its network: levels, seams, colours, flicker, batches."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.restore.base import Restored, RestoreJob
from engine.restore.gfpgan import GfpganRestorer
from engine.restore.region import FACE, LOWER_FACE, MOUTH, mask_of
from tests.restore.fakes import BOX, LANDMARKS, FakeEnhancer, drawn_face


def job(level: int, image: np.ndarray | None = None, trace: object | None = None) -> RestoreJob:
    return RestoreJob(drawn_face() if image is None else image, LANDMARKS, BOX, level, trace)


def run(restorer: GfpganRestorer, level: int, images: list[np.ndarray], *, traced: bool = True) -> np.ndarray:
    trace, out = None, []
    for image in images:
        restored = restorer.restore([job(level, image, trace if traced else None)])[0]
        trace = restored.trace
        out.append(restored.image)
    return np.stack(out).astype(np.float32)


def sharpness(image: np.ndarray) -> float:
    mouth = image[270:345, 205:295].astype(np.float32)
    return float(np.abs(mouth - cv2.GaussianBlur(mouth, (0, 0), 2)).mean())


@pytest.mark.parametrize("level", [0, 1])
def test_levels_below_two_leave_pictures_alone(level: int) -> None:
    enhancer = FakeEnhancer(sharpness=2)
    given = job(level)
    restored = GfpganRestorer(enhancer).restore([given])[0]
    assert restored.image is given.image and restored.trace is None and not enhancer.calls


@pytest.mark.parametrize(("level", "region"), [(2, MOUTH), (3, MOUTH), (4, LOWER_FACE), (5, FACE)])
def test_the_network_computes_only_what_is_pasted(level: int, region) -> None:
    enhancer = FakeEnhancer(sharpness=2)
    given = job(level)
    before = given.image.copy()
    restored = GfpganRestorer(enhancer).restore([given])[0]
    assert [window for _, window in enhancer.calls] == [region.window(512)]
    assert sharpness(restored.image) > 1.3 * sharpness(given.image)
    np.testing.assert_array_equal(given.image, before)


def test_higher_levels_reach_further() -> None:
    restorer = GfpganRestorer(FakeEnhancer(sharpness=2))
    reached = [
        np.count_nonzero((restorer.restore([job(level)])[0].image != drawn_face()).any(-1)) for level in (3, 4, 5)
    ]
    assert reached[0] < reached[1] < reached[2]


@pytest.mark.parametrize("level", [2, 3])
def test_mouth_levels_change_nothing_outside_the_patch(level: int) -> None:
    tight = (285, 320, 225, 275)
    given = RestoreJob(drawn_face(), LANDMARKS, tight, level)
    changed = (GfpganRestorer(FakeEnhancer(sharpness=3)).restore([given])[0].image != given.image).any(-1)
    rows, columns = np.nonzero(changed)
    assert len(rows)
    assert rows.min() >= 285 and rows.max() < 320 and columns.min() >= 225 and columns.max() < 275


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_a_network_that_changes_nothing_changes_no_pixel(level: int) -> None:
    restored = GfpganRestorer(FakeEnhancer()).restore([job(level)])[0]
    np.testing.assert_array_equal(restored.image, drawn_face())


def test_nothing_is_out_of_reach_when_the_face_leaves_the_picture() -> None:
    image = np.ascontiguousarray(drawn_face()[:320, 230:])
    given = RestoreJob(image, LANDMARKS - [230, 0], (230, 380, -50, 90), 3)
    restored = GfpganRestorer(FakeEnhancer(sharpness=2)).restore([given])[0]
    assert restored.image.shape == image.shape and (restored.image != image).any()


@pytest.mark.parametrize("level", [3, 4, 5])
def test_a_colour_cast_of_the_network_is_undone(level: int) -> None:
    cast = FakeEnhancer(cast=(0.88, 1.0, 1.1))
    restored = GfpganRestorer(cast).restore([job(level)])[0].image.astype(np.float32)
    # The cast itself is 15 grey levels of blue and 20 of red.
    skin = np.abs(restored - drawn_face())[325:350, 215:285]
    assert skin.mean() < 1.5


@pytest.mark.parametrize("opening", [0.0, 0.5, 1.0])
def test_no_seam_at_any_mouth(opening: float) -> None:
    image = drawn_face(opening)
    restorer = GfpganRestorer(FakeEnhancer(sharpness=1.5, cast=(0.9, 1.0, 1.08)))
    change = restorer.restore([job(3, image)])[0].image.astype(np.float32) - image
    # A seam would be a line along which shades, details aside, jump.
    shades = cv2.GaussianBlur(change, (0, 0), 4)
    skin = np.hypot((np.arange(512) - 250)[None] / 46, (np.arange(512) - 304)[:, None] / (18 + 20 * opening)) > 1.3
    step = np.maximum(np.abs(np.diff(shades, axis=0))[:, :-1], np.abs(np.diff(shades, axis=1))[:-1]).max(-1)
    assert step[skin[:-1, :-1]].max() < 0.6


def test_colours_may_not_be_swapped() -> None:
    swapped = FakeEnhancer()
    swapped._one = lambda face: face[..., ::-1].astype(np.uint8)
    change = GfpganRestorer(swapped).restore([job(3)])[0].image.astype(np.float32) - drawn_face()
    # Whatever colour matching does about skin, dark red lips come out bluish.
    assert np.abs(change[290:300, 240:260]).mean() > 3


def test_restoring_flickers_less_than_half_as_much_with_its_trace() -> None:
    images = [drawn_face()] * 50

    def flicker(*, traced: bool) -> float:
        restored = run(GfpganRestorer(FakeEnhancer(noise=6)), 3, images, traced=traced)[5:, 270:345, 205:295]
        return float(np.abs(np.diff(restored, axis=0)).mean())

    assert flicker(traced=True) < 0.45 * flicker(traced=False)


def test_a_moving_mouth_is_not_smeared() -> None:
    images = [drawn_face(0.5 + 0.5 * np.sin(index)) for index in range(10)]
    with_trace = run(GfpganRestorer(FakeEnhancer(sharpness=1.5)), 3, images)
    alone = run(GfpganRestorer(FakeEnhancer(sharpness=1.5)), 3, images, traced=False)
    for one, other, image in zip(with_trace, alone, images, strict=True):
        mouth = np.s_[270:345, 205:295]
        assert np.abs(one - other)[mouth].mean() < 0.35 * np.abs(other - image)[mouth].mean()


def test_level_two_runs_the_network_every_second_picture_and_stays_sharp_between() -> None:
    enhancer = FakeEnhancer(sharpness=1.5)
    images = [drawn_face(0.5 + 0.01 * index) for index in range(8)]
    restored = run(GfpganRestorer(enhancer), 2, images)
    assert len(enhancer.calls) == 4
    for index in range(1, 8, 2):
        assert sharpness(restored[index]) > 1.2 * sharpness(images[index])
        assert sharpness(restored[index]) > 0.9 * sharpness(restored[index - 1])


def test_level_two_does_not_paste_a_detail_that_is_no_longer_there() -> None:
    restorer = GfpganRestorer(FakeEnhancer(sharpness=1.5))
    first = restorer.restore([job(2, drawn_face(1.0))])[0]
    image = drawn_face(0.0)
    second = restorer.restore([job(2, image, first.trace)])[0].image.astype(np.float32)
    alone = restorer.restore([job(2, drawn_face(1.0))])[0].image.astype(np.float32) - drawn_face(1.0)
    mouth = np.s_[270:345, 205:295]
    assert np.abs(second - image)[mouth].mean() < 0.5 * np.abs(alone)[mouth].mean()


def test_a_trace_of_another_region_is_of_no_use() -> None:
    restorer = GfpganRestorer(FakeEnhancer(sharpness=1.5))
    mouth = restorer.restore([job(3)])[0]
    whole = restorer.restore([job(5, trace=mouth.trace)])[0]
    np.testing.assert_array_equal(whole.image, restorer.restore([job(5)])[0].image)


def test_jobs_of_a_region_share_a_batch_and_come_back_in_order() -> None:
    enhancer = FakeEnhancer(sharpness=1.5)
    restorer = GfpganRestorer(enhancer)
    images = [drawn_face(opening) for opening in (0.0, 0.3, 0.6, 1.0)]
    jobs = [job(level, image) for level, image in zip((3, 5, 0, 2), images, strict=True)]
    together = restorer.restore(jobs)
    assert sorted(len(faces) for faces, _ in enhancer.calls) == [1, 2]
    for one, result in zip(jobs, together, strict=True):
        assert isinstance(result, Restored)
        np.testing.assert_array_equal(result.image, restorer.restore([one])[0].image)


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="level 6"):
        GfpganRestorer(FakeEnhancer()).restore([job(6)])


def test_a_cpu_warms_up_for_mouths_only() -> None:
    cpu, gpu = FakeEnhancer(), FakeEnhancer(batch=8)
    GfpganRestorer(cpu).warmup([1])
    GfpganRestorer(gpu).warmup([1, 4])
    assert cpu.warmed == [([1], [MOUTH.window(512)])]
    assert gpu.warmed == [([1, 4], [region.window(512) for region in (MOUTH, LOWER_FACE, FACE)])]


@pytest.mark.parametrize("region", [MOUTH, LOWER_FACE, FACE])
def test_regions_fade_to_nothing_inside_their_window(region) -> None:
    mask = mask_of(region, 512)
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    assert border.max() < 5e-3 and mask.max() == 1 and (mask == 1).mean() > 0.15
    assert max(np.abs(np.diff(mask, axis=0)).max(), np.abs(np.diff(mask, axis=1)).max()) < 0.06
