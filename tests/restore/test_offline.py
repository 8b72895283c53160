"""Offline, faces are restored as asked: there is no deadline to give way to."""

import numpy as np
import pytest

from engine.offline import render_offline
from engine.types import FRAME_SAMPLES
from tests.fakes import RESTORED_SHADE, FakeLipSync, FakeRestorer, restored_level, tiny_avatar, tone


@pytest.mark.parametrize("level", [2, 3, 5])
def test_every_frame_has_the_level_asked_for_and_one_trace_runs_through(level: int) -> None:
    restorer = FakeRestorer()
    sound = tone(12 * FRAME_SAMPLES / 48_000)
    frames = list(render_offline(tiny_avatar(), FakeLipSync(), sound, restorer=restorer, level=level))
    assert len(frames) == 12 and restorer.avatars == 1
    assert [restored_level(frame.image) for frame in frames] == [level] * 12
    assert restorer.traces == [None, *range(1, 12)]


def test_level_one_restores_the_avatar_and_no_more() -> None:
    restorer, avatar = FakeRestorer(), tiny_avatar()
    frames = list(render_offline(avatar, FakeLipSync(), tone(0.2), restorer=restorer, level=1))
    assert restorer.avatars == 1 and not restorer.levels
    plain = list(render_offline(avatar, FakeLipSync(), tone(0.2)))
    difference = frames[0].image[-1].astype(int) - plain[0].image[-1]
    assert (difference == RESTORED_SHADE).all()


def test_without_a_level_a_restorer_changes_nothing() -> None:
    restorer = FakeRestorer()
    plain = list(render_offline(tiny_avatar(), FakeLipSync(), tone(0.2)))
    same = list(render_offline(tiny_avatar(), FakeLipSync(), tone(0.2), restorer=restorer))
    assert not restorer.avatars and not restorer.levels
    for one, other in zip(plain, same, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
