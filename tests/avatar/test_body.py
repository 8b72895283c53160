import dataclasses
import itertools

import cv2
import numpy as np
import pytest

from engine.avatar.body import ATTENTIVE_FRAMES, LEAN_FRAMES, Body, BodyState, Pose, Wishes
from engine.avatar.bundle import Avatar
from engine.avatar.tracks import FADE_FRAMES, IDLE, MAX_DELAY_FRAMES, Tracks
from tests.fakes import TINY_FRAMES, tiny_avatar, tiny_clip

NOD, THINKING = 30, 26
"""Pictures of the clips."""


def acting_avatar(**clips: bool) -> Avatar:
    """An avatar that can nod and think, and whatever else is named; values tell whether it loops."""
    made = {"nod": tiny_clip(NOD), "thinking": tiny_clip(THINKING, loop=True)}
    made |= {name: tiny_clip(28, loop=loop) for name, loop in clips.items()}
    return dataclasses.replace(tiny_avatar(), clips=made)


class Mover:
    """A body and its state."""

    def __init__(self, avatar: Avatar, start: int = 0) -> None:
        self.avatar, self.body = avatar, Body(avatar, start)
        self.state, self.wishes = self.body.initial, Wishes()

    def run(self, frames: int, speaking: bool = False) -> list[Pose]:
        poses = []
        for _ in range(frames):
            pose, self.state = self.body.step(self.state, self.wishes, speaking)
            poses.append(pose)
        return poses

    def act(self, name: str) -> None:
        self.wishes = self.wishes.act(name)

    def listen(self, on: bool) -> None:
        self.wishes = dataclasses.replace(self.wishes, listening=on)

    def track(self, index: int) -> str:
        """To which track a picture belongs."""
        starts = self.avatar.starts
        return next((name for name in reversed(starts) if index >= starts[name]), IDLE)

    def tracks(self, poses: list[Pose]) -> list[str]:
        return [self.track(pose.index) for pose in poses]


@pytest.fixture
def mover() -> Mover:
    return Mover(acting_avatar())


def names(poses: list[Pose]) -> list[str]:
    return [name for name, _ in itertools.groupby(pose.action.track for pose in poses)]


def test_idle_loop_goes_round_from_where_it_is_told_to() -> None:
    poses = Mover(tiny_avatar(), start=5).run(2 * TINY_FRAMES)
    assert [pose.index for pose in poses] == [(5 + n) % TINY_FRAMES for n in range(2 * TINY_FRAMES)]
    assert all(pose.plain for pose in poses)


def test_action_is_eased_in_played_once_and_eased_back(mover: Mover) -> None:
    mover.run(3)
    mover.act("nod")
    poses = mover.run(MAX_DELAY_FRAMES + NOD + 5)
    fading = [pose for pose in poses if pose.other is not None]
    assert len(fading) == 2 * FADE_FRAMES
    assert [mover.track(pose.other) for pose in fading] == ["nod"] * FADE_FRAMES + [IDLE] * FADE_FRAMES
    for fade in (fading[:FADE_FRAMES], fading[FADE_FRAMES:]):
        weights = [0, *(pose.weight for pose in fade), 1]
        assert all(0 < b - a < 0.15 for a, b in itertools.pairwise(weights))
    start = mover.avatar.starts["nod"]
    shown = [pose.other if mover.track(pose.index) == IDLE else pose.index for pose in poses]
    shown = [index for index in shown if index is not None and index >= start]
    assert shown == list(range(start, start + NOD))
    assert names(poses) in (["", "nod", ""], ["nod", ""])
    assert mover.tracks(poses)[-1] == IDLE


def test_pictures_follow_each_other_whatever_is_wished(mover: Mover) -> None:
    rng = np.random.default_rng(4)
    poses: list[Pose] = []
    for _ in range(60):
        mover.act(str(rng.choice(["nod", "thinking", "", "nod"])))
        mover.listen(bool(rng.integers(2)))
        poses += mover.run(int(rng.integers(1, 40)), speaking=bool(rng.integers(2)))
    lengths = {IDLE: TINY_FRAMES, "nod": NOD, "thinking": THINKING}
    starts = {IDLE: 0, **mover.avatar.starts}

    def follows(one: int, other: int) -> bool:
        track = mover.track(one)
        after = starts[track] + (one + 1 - starts[track]) % lengths[track]
        return track == mover.track(other) and other == after

    for before, after in itertools.pairwise(poses):
        if before.other is not None and before.weight > 0.95:
            assert follows(before.other, after.index) and after.weight < 0.05
        else:
            assert follows(before.index, after.index)
            if before.other is not None:
                assert after.other is not None and follows(before.other, after.other)
        assert abs(after.lean - before.lean) < 0.1


def test_loop_lasts_until_it_is_stopped(mover: Mover) -> None:
    mover.act("thinking")
    poses = mover.run(4 * THINKING)
    assert set(mover.tracks(poses[FADE_FRAMES + 1 :])) == {"thinking"} and names(poses) == ["thinking"]
    mover.act("")
    poses = mover.run(FADE_FRAMES + 2)
    assert mover.tracks(poses)[-1] == IDLE and names(poses) == [""]


def test_loop_ends_when_speech_begins_and_an_action_that_plays_once_does_not(mover: Mover) -> None:
    mover.act("thinking")
    mover.run(20)
    assert mover.tracks(mover.run(FADE_FRAMES + 1, speaking=True))[-1] == IDLE
    mover.run(20)
    mover.act("nod")
    mover.run(1)
    assert "nod" in mover.tracks(mover.run(NOD, speaking=True))


def test_loop_asked_for_during_speech_is_shown(mover: Mover) -> None:
    mover.run(5, speaking=True)
    mover.act("thinking")
    assert mover.tracks(mover.run(60, speaking=True))[-1] == "thinking"


def test_same_action_can_be_asked_for_twice(mover: Mover) -> None:
    mover.act("nod")
    poses = mover.run(MAX_DELAY_FRAMES + 4)
    mover.act("nod")
    poses += mover.run(100)
    serials = [pose.action.serial for pose in poses if pose.action.track == "nod"]
    assert set(serials) == {1, 2} and serials == sorted(serials)


def test_action_in_the_middle_of_another_waits_for_the_end_of_a_fade_and_no_longer(mover: Mover) -> None:
    mover.act("thinking")
    mover.run(4)
    mover.act("nod")
    poses = mover.run(FADE_FRAMES - 4 + MAX_DELAY_FRAMES + 1)
    assert mover.track(poses[-1].other or 0) == "nod"


def test_speech_has_no_part_in_what_an_unknown_action_does(mover: Mover) -> None:
    mover.act("somersault")
    assert all(pose.plain and not pose.action.track for pose in mover.run(20))


def test_listening_without_a_clip_leans_in_and_back(mover: Mover) -> None:
    mover.listen(True)
    leans = [pose.lean for pose in mover.run(LEAN_FRAMES + 5)]
    assert 0 < leans[0] < 0.02 and leans[LEAN_FRAMES:] == [1.0] * 5 and sorted(leans) == leans
    mover.listen(False)
    leans = [pose.lean for pose in mover.run(LEAN_FRAMES + 5)]
    assert leans[-1] == 0 and sorted(leans, reverse=True) == leans


def test_listening_clip_takes_the_place_of_leaning() -> None:
    mover = Mover(acting_avatar(listening=True))
    mover.listen(True)
    poses = mover.run(FADE_FRAMES + 40)
    assert set(mover.tracks(poses[FADE_FRAMES:])) == {"listening"}
    assert not any(pose.lean for pose in poses) and all(pose.listening for pose in poses)
    mover.listen(False)
    assert mover.tracks(mover.run(FADE_FRAMES + 1))[-1] == IDLE


def test_avatar_that_speaks_does_not_listen_until_it_was_silent_for_a_moment(mover: Mover) -> None:
    mover.listen(True)
    mover.run(5)
    assert not any(pose.listening for pose in mover.run(30, speaking=True))
    pause = [pose.listening for pose in mover.run(ATTENTIVE_FRAMES + 3)]
    assert pause == [False] * (ATTENTIVE_FRAMES - 1) + [True] * 4


def test_steps_taken_back_come_again(mover: Mover) -> None:
    mover.run(4)
    state = mover.state
    mover.act("nod")
    first = mover.run(70)
    mover.state = state
    assert mover.run(70) == first and isinstance(state, BodyState)


def test_at_rest_the_short_way_gives_what_the_long_way_gives(mover: Mover) -> None:
    rng = np.random.default_rng(4)
    for avatar in (acting_avatar(nod=False, sway=True), acting_avatar(listening=True)):
        short, long = Body(avatar), Body(avatar)
        long.settled = lambda state, wishes: False
        state, wishes, taken = short.initial, Wishes(), 0
        for _ in range(600):
            chance = rng.random()
            if chance < 0.02:
                wishes = wishes.act(str(rng.choice(["nod", "sway", "", "unknown"])))
            elif chance < 0.04:
                wishes = dataclasses.replace(wishes, listening=not wishes.listening)
            speaking = rng.random() < 0.01
            taken += not speaking and short.settled(state, wishes)
            assert short.step(state, wishes, speaking) == long.step(state, wishes, speaking)
            _, state = short.step(state, wishes, speaking)
        assert taken > 50


def test_body_is_restless_only_while_it_changes_what_it_does(mover: Mover) -> None:
    assert not mover.body.restless(mover.state, mover.wishes)
    mover.act("nod")
    assert mover.body.restless(mover.state, mover.wishes)
    mover.run(MAX_DELAY_FRAMES + FADE_FRAMES + 1)
    assert not mover.body.restless(mover.state, mover.wishes)


# Where tracks meet ------------------------------------------------------------------------------------------------


def blinking_avatar(idle_blinks: range, clip_blinks: range, *, loop: bool) -> Avatar:
    """Sixty pictures of rest and a clip, both with the eyes shut in some."""

    def eyes(count: int, shut: range) -> np.ndarray:
        pictures = np.repeat(tiny_avatar(frames=1).frames, count, axis=0)
        for index, picture in enumerate(pictures):
            for x, y in ((36, 40), (60, 40)):
                cv2.circle(picture, (x, y), 5, (90, 90, 90) if index in shut else (255, 255, 255), -1)
        return pictures

    still = tiny_clip(60)
    clip = dataclasses.replace(tiny_clip(60, loop=loop), frames=eyes(60, clip_blinks))
    return dataclasses.replace(
        tiny_avatar(), frames=eyes(60, idle_blinks), landmarks=still.landmarks, boxes=still.boxes, clips={"act": clip}
    )


def test_action_waits_for_the_end_of_a_blink() -> None:
    tracks = Tracks(blinking_avatar(range(10, 16), range(0), loop=False))
    assert tracks.enter(IDLE, 30, "act") == (0, 0)
    delay, entry = tracks.enter(IDLE, 12, "act")
    assert delay == 4 and entry == 0


def test_loop_is_entered_where_it_does_not_blink() -> None:
    tracks = Tracks(blinking_avatar(range(0), range(0, 50), loop=True))
    delay, entry = tracks.enter(IDLE, 0, "act")
    assert delay == 0 and entry == 50


def test_loop_is_entered_where_the_head_stands_alike() -> None:
    clip = tiny_clip(60, loop=True)
    drift = np.linspace(0, 12, 60, dtype=np.float32)[:, None, None] * np.array([1, 0], np.float32)
    avatar = dataclasses.replace(
        tiny_avatar(), clips={"act": dataclasses.replace(clip, landmarks=clip.landmarks + drift)}
    )
    away = dataclasses.replace(avatar, landmarks=avatar.landmarks + np.array([6, 0], np.float32))
    assert Tracks(avatar).enter(IDLE, 0, "act")[1] == 0
    assert abs(Tracks(away).enter(IDLE, 0, "act")[1] - 25) <= 2
