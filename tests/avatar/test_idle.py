from engine.avatar.bundle import Avatar
from engine.avatar.idle import IdleLoop


def test_loop_goes_round_one_picture_a_frame(avatar: Avatar) -> None:
    count = len(avatar.frames)
    loop = IdleLoop(avatar)
    assert [loop.index(n) for n in range(2 * count + 1)] == [*range(count), *range(count), 0]


def test_loop_may_start_anywhere(avatar: Avatar) -> None:
    loop = IdleLoop(avatar, start=5)
    assert loop.index(0) == 5
    assert loop.index(len(avatar.frames) - 5) == 0
