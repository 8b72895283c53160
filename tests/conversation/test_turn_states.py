"""Every state of taking turns meets every event."""

from collections.abc import Callable

import pytest

from tests.conversation.talk import Talk, over_avatar


def _onset() -> Talk:
    talk = Talk()
    talk.voice(0.064)
    return talk


def _speaking() -> Talk:
    talk = Talk()
    talk.voice(1)
    return talk


def _paused() -> Talk:
    talk = _speaking()
    talk.silence(0.3)
    return talk


def _avatar_speaking() -> Talk:
    return over_avatar()


def _ducked_onset() -> Talk:
    talk = over_avatar()
    talk.voice(0.128)
    return talk


def _ducked() -> Talk:
    talk = over_avatar()
    talk.voice(0.2)
    return talk


def _paused_over() -> Talk:
    talk = _ducked()
    talk.silence(0.3)
    return talk


def _held() -> Talk:
    talk = over_avatar()
    talk.voice(0.3)
    return talk


def _held_paused() -> Talk:
    talk = _held()
    talk.silence(0.3)
    return talk


def _held_quiet() -> Talk:
    talk = _held()
    talk.silence(0.7)
    return talk


def _doubted() -> Talk:
    talk = _held()
    talk.silence(3)
    return talk


def _greeting() -> Talk:
    talk = Talk()
    talk.avatar(True, uninterruptible=True)
    talk.voice(1)
    return talk


def _waiting() -> Talk:
    talk = _greeting()
    talk.silence(2)
    return talk


def _key_up() -> Talk:
    return over_avatar(mode="push_to_talk")


def _key_down() -> Talk:
    talk = Talk(mode="push_to_talk")
    talk.key(True)
    talk.wait(1)
    return talk


def _key_held() -> Talk:
    talk = _key_up()
    talk.key(True)
    return talk


def _typed() -> Talk:
    return over_avatar(mode="typed")


STATES: dict[str, Callable[[], Talk]] = {
    "quiet": Talk, "onset": _onset, "speaking": _speaking, "paused": _paused, "avatar speaking": _avatar_speaking,
    "ducked onset": _ducked_onset, "ducked": _ducked, "paused over": _paused_over, "held": _held,
    "held paused": _held_paused, "held quiet": _held_quiet, "doubted": _doubted, "greeting": _greeting,
    "waiting": _waiting, "key up": _key_up, "key down": _key_down, "key held": _key_held, "typed": _typed,
}  # fmt: skip

EVENTS: dict[str, Callable[[Talk], list[str]]] = {
    "voice": lambda talk: talk.voice(0.064),
    "silence": lambda talk: talk.silence(0.032),
    "nothing for 3 s": lambda talk: talk.wait(3),
    "words": lambda talk: talk.words("what about tomorrow", final=True),
    "nod": lambda talk: talk.words("mm-hm", final=True),
    "no words": lambda talk: talk.words("", final=True),
    "avatar": lambda talk: talk.avatar(),
    "greeting": lambda talk: talk.avatar(True, True),
    "avatar ends": lambda talk: talk.avatar(False),
    "key down": lambda talk: talk.key(True),
    "key up": lambda talk: talk.key(False),
    "to typed": lambda talk: talk.mode("typed"),
}

EXPECTED: dict[str, dict[str, str]] = {
    "quiet": {
        "voice": "-> onset clear",
    },
    "onset": {
        "nothing for 3 s": "-> quiet clear",
        "to typed": "-> quiet clear",
    },
    "speaking": {
        "nothing for 3 s": "speech_paused end_of_turn -> quiet clear",
        "to typed": "turn_dropped -> quiet clear",
    },
    "paused": {
        "voice": "speech_resumed -> speaking clear",
        "nothing for 3 s": "end_of_turn -> quiet clear",
        "to typed": "turn_dropped -> quiet clear",
    },
    "avatar speaking": {
        "voice": "-> onset clear",
    },
    "ducked onset": {
        "voice": "speech_started -> speaking ducked",
        "nothing for 3 s": "unduck -> quiet clear",
        "greeting": "unduck -> onset clear",
        "avatar ends": "unduck -> onset clear",
        "to typed": "unduck -> quiet clear",
    },
    "ducked": {
        "voice": "barge_in -> speaking held",
        "nothing for 3 s": "speech_paused unduck turn_dropped -> quiet clear",
        "greeting": "unduck -> speaking clear",
        "avatar ends": "unduck -> speaking clear",
        "to typed": "turn_dropped unduck -> quiet clear",
    },
    "paused over": {
        "voice": "speech_resumed -> speaking clear",
        "nothing for 3 s": "turn_dropped -> quiet clear",
        "to typed": "turn_dropped -> quiet clear",
    },
    "held": {
        "nothing for 3 s": "speech_paused false_interruption turn_dropped -> quiet clear",
        "words": "interrupted -> speaking clear",
        "to typed": "turn_dropped false_interruption -> quiet clear",
    },
    "held paused": {
        "voice": "speech_resumed -> speaking held",
        "nothing for 3 s": "false_interruption turn_dropped -> quiet clear",
        "words": "interrupted -> paused clear",
        "nod": "false_interruption turn_dropped -> quiet clear",
        "no words": "false_interruption turn_dropped -> quiet clear",
        "to typed": "turn_dropped false_interruption -> quiet clear",
    },
    "held quiet": {
        "voice": "-> onset held",
        "nothing for 3 s": "false_interruption -> quiet clear",
        "words": "interrupted -> quiet clear",
        "nod": "false_interruption -> quiet clear",
        "no words": "false_interruption -> quiet clear",
        "to typed": "false_interruption -> quiet clear",
    },
    "doubted": {
        "voice": "-> onset clear",
        "words": "barge_in interrupted -> quiet clear",
    },
    "greeting": {
        "nothing for 3 s": "speech_paused -> paused clear",
        "avatar": "duck barge_in interrupted -> speaking clear",
        "to typed": "turn_dropped -> quiet clear",
    },
    "waiting": {
        "voice": "speech_resumed -> speaking clear",
        "nod": "turn_dropped -> quiet clear",
        "avatar": "end_of_turn -> quiet clear",
        "avatar ends": "end_of_turn -> quiet clear",
        "to typed": "turn_dropped -> quiet clear",
    },
    "key up": {
        "key down": "speech_started barge_in -> speaking held",
    },
    "key down": {
        "avatar": "barge_in interrupted -> speaking clear",
        "key up": "-> paused clear",
        "to typed": "turn_dropped -> quiet clear",
    },
    "key held": {
        "nothing for 3 s": "interrupted -> speaking clear",
        "words": "interrupted -> speaking clear",
        "key up": "turn_dropped false_interruption -> quiet clear",
        "to typed": "turn_dropped false_interruption -> quiet clear",
    },
    "typed": {
    },
}  # fmt: skip
"""What each state makes of each event; a pair that is not listed tells nothing and changes nothing."""


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", STATES)
def test_every_state_answers_every_event(state: str, event: str) -> None:
    talk = STATES[state]()
    unchanged = f"-> {talk.taker.user} {talk.taker.floor}"
    told = EVENTS[event](talk)
    assert " ".join([*told, "->", talk.taker.user, talk.taker.floor]) == EXPECTED[state].get(event, unchanged)
