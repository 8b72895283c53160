import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.conversation.backchannel import Completeness
from engine.conversation.turn import BLOCK_S
from engine.conversation.turn_options import TurnOptions
from engine.errors import ConfigInvalid
from tests.conversation.talk import Talk, over_avatar

# -- a turn of the user ---------------------------------------------------------------------------------------------


def test_speech_starts_after_200_ms_and_tells_when_it_began() -> None:
    talk = Talk()
    talk.silence(1)
    began_s = talk.now_s
    assert talk.voice(0.16) == []
    assert talk.voice(0.032) == ["speech_started"]
    event = talk.at("speech_started")
    assert event.since_s == pytest.approx(began_s)
    assert event.at_s - event.since_s == pytest.approx(0.192)
    assert event.turn == talk.taker.turn == 1


@pytest.mark.parametrize(
    ("text", "silence_s"),
    [
        ("What is your name?", 0.25),
        ("Tell me a story.", 0.25),
        ("tell me a story", 0.30),
        ("", 0.65),
        ("tell me a", 1.05),
        ("I like apples and", 1.05),
        ("I like apples, um", 1.05),
    ],
)
def test_the_silence_that_ends_a_turn_depends_on_its_words(text: str, silence_s: float) -> None:
    talk = Talk()
    talk.voice(1)
    stopped_s = talk.now_s
    talk.words(text)
    talk.silence(2)
    event = talk.at("end_of_turn")
    assert silence_s <= event.at_s - stopped_s + 1e-6 < silence_s + BLOCK_S + 1e-6
    assert event.since_s == pytest.approx(stopped_s)
    assert talk.kinds == ["speech_started", "speech_paused", "end_of_turn"]


def test_words_that_come_during_the_silence_end_the_turn_at_once() -> None:
    talk = Talk()
    talk.voice(1)
    assert "end_of_turn" not in talk.silence(0.5)
    assert talk.words("what is your name?") == ["end_of_turn"]


def test_words_that_hang_in_the_air_keep_a_turn_open() -> None:
    talk = Talk()
    talk.voice(1)
    talk.words("I would like")
    talk.silence(0.3)
    talk.words("I would like the")
    assert talk.silence(0.6) == []
    assert talk.voice(0.1) == ["speech_resumed"]
    talk.words("I would like the blue one.")
    assert talk.silence(0.5) == ["speech_paused", "end_of_turn"]
    assert talk.kinds.count("speech_started") == 1


def test_a_pause_inside_a_sentence_is_told_and_taken_back() -> None:
    talk = Talk()
    talk.voice(1)
    assert talk.silence(0.3) == ["speech_paused"]
    assert talk.voice(0.064) == ["speech_resumed"]


def test_a_voice_that_comes_back_at_the_last_moment_goes_on_with_the_turn() -> None:
    talk = Talk()
    talk.voice(1)
    talk.words("tell me a story")
    talk.silence(0.26)
    talk.voice(0.064)
    assert talk.kinds == ["speech_started", "speech_paused", "speech_resumed"]


def test_the_words_of_a_turn_do_not_judge_the_next() -> None:
    talk = Talk()
    talk.voice(1)
    talk.words("tell me a")
    talk.silence(1.5)
    talk.voice(1)
    assert "end_of_turn" in talk.silence(0.9)


def test_turns_are_counted() -> None:
    talk = Talk()
    for _ in range(3):
        talk.voice(0.5)
        talk.silence(1.5)
    assert [event.turn for event in talk.events if event.kind == "end_of_turn"] == [1, 2, 3]


def test_a_turn_that_never_ends_is_ended_and_goes_on_as_another() -> None:
    talk = Talk(longest_turn_s=10.0)
    talk.voice(12)
    assert talk.kinds == ["speech_started", "end_of_turn", "speech_started"]


def test_a_microphone_that_falls_silent_in_a_word_ends_the_turn() -> None:
    talk = Talk()
    talk.voice(1)
    for _ in range(30):
        talk.wait(0.04)
    assert talk.kinds == ["speech_started", "speech_paused", "end_of_turn"]


def test_a_gap_without_sound_parts_two_turns() -> None:
    talk = Talk()
    talk.voice(1)
    talk.now_s += 10
    talk.voice(1)
    assert talk.kinds == ["speech_started", "speech_paused", "end_of_turn", "speech_started"]
    assert talk.events[-1].since_s > 110


# -- noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length_blocks", [1, 2, 3, 4, 5])
def test_bursts_of_noise_start_nothing(length_blocks: int) -> None:
    talk = Talk()
    for _ in range(20):
        talk.voice(length_blocks * BLOCK_S)
        talk.silence(0.15)
    assert talk.kinds == []


def test_clicks_do_not_keep_a_turn_open() -> None:
    talk = Talk()
    talk.voice(1)
    talk.words("tell me a story")
    stopped_s = talk.now_s
    for _ in range(8):
        talk.silence(0.128)
        talk.voice(BLOCK_S)
    assert talk.at("end_of_turn").at_s - stopped_s < 0.6


def test_probabilities_between_the_thresholds_keep_what_was() -> None:
    talk = Talk()
    assert talk.hear(0.45, 2) == []
    talk.voice(0.3)
    talk.hear(0.4, 2)
    assert talk.kinds == ["speech_started"]
    assert "end_of_turn" in talk.hear(0.3, 2)


def test_flapping_around_the_upper_threshold_is_one_piece_of_speech() -> None:
    talk = Talk()
    for _ in range(50):
        talk.hear(0.55)
        talk.hear(0.45)
    assert talk.kinds == ["speech_started"]


def test_flapping_across_both_thresholds_makes_one_turn() -> None:
    talk = Talk()
    for _ in range(50):
        talk.hear(0.9)
        talk.hear(0.1)
    talk.silence(2)
    assert talk.kinds == ["speech_started", "speech_paused", "end_of_turn"]


def test_what_is_no_number_is_silence() -> None:
    talk = Talk()
    assert talk.hear(math.nan, 1) == []
    talk.voice(1)
    assert "end_of_turn" in talk.hear(math.nan, 2)


def test_time_that_runs_backwards_stands_still() -> None:
    talk = Talk()
    talk.voice(1)
    talk.now_s -= 50
    assert talk.silence(2) == []
    assert talk.mode("typed") == ["turn_dropped"]
    assert all(a.at_s <= b.at_s for a, b in zip(talk.events, talk.events[1:], strict=False))


# -- interrupting the avatar ----------------------------------------------------------------------------------------


def test_voice_over_the_avatar_ducks_at_100_ms_and_silences_at_250() -> None:
    talk = over_avatar()
    began_s = talk.now_s
    talk.voice(0.3)
    assert talk.kinds == ["duck", "speech_started", "barge_in"]
    assert [talk.at(kind).at_s - began_s for kind in talk.kinds] == pytest.approx([0.096, 0.192, 0.256])


def test_words_confirm_an_interruption() -> None:
    talk = over_avatar()
    talk.voice(0.4)
    talk.words("wait a moment")
    assert talk.voice(0.128) == [] and talk.voice(0.128) == ["interrupted"]
    talk.words("wait a moment.")
    assert talk.silence(0.6) == ["speech_paused", "end_of_turn"]


def test_words_that_change_all_the_time_interrupt_only_when_they_are_final() -> None:
    talk = over_avatar()
    talk.voice(0.3)
    for guess in ("drug", "but love", "whoa no", "not love net", "whoa", "stop"):
        assert talk.words(guess) == [] and "interrupted" not in talk.voice(0.096)
    assert talk.words("stop", final=True) == ["interrupted"]


def test_words_of_unspaced_writing_stand_like_others() -> None:
    talk = over_avatar(language="zh")
    talk.voice(0.3)
    assert talk.words("请等") == [] and talk.voice(0.2) == []
    assert talk.words("请等一下") == [] and "interrupted" in talk.voice(0.256)


def test_a_second_of_voice_interrupts_without_words() -> None:
    talk = over_avatar()
    talk.voice(0.9)
    assert "interrupted" not in talk.kinds
    talk.voice(0.2)
    assert talk.kinds == ["duck", "speech_started", "barge_in", "interrupted"]


def test_a_recogniser_that_speaks_only_at_the_end_still_decides() -> None:
    talk = over_avatar()
    talk.voice(0.6)
    assert talk.silence(0.6) == ["speech_paused", "end_of_turn"]
    assert talk.taker.floor == "held"
    assert talk.words("stop", final=True) == ["interrupted"]


@pytest.mark.parametrize("text", ["", "mm-hm", "Yeah.", "okay, right"])
def test_a_final_transcript_without_real_words_lets_the_avatar_go_on(text: str) -> None:
    talk = over_avatar()
    talk.voice(0.5)
    talk.silence(0.6)
    assert talk.words(text, final=True) == ["false_interruption"]
    talk.silence(3)
    assert talk.kinds.count("end_of_turn") == 1


def test_a_false_interruption_is_called_within_2_s_without_any_answer() -> None:
    talk = over_avatar()
    talk.voice(0.4)
    talk.silence(4)
    assert talk.at("false_interruption").at_s - talk.at("barge_in").at_s <= 2.0 + BLOCK_S
    assert talk.taker.floor == "clear"


def test_words_that_come_too_late_still_interrupt() -> None:
    talk = over_avatar()
    talk.voice(0.4)
    talk.silence(3)
    assert talk.kinds[-1] == "false_interruption"
    assert talk.words("please stop", final=True, turn=1) == ["barge_in", "interrupted"]


@pytest.mark.parametrize("noise_s", [0.16, 0.2])
@pytest.mark.parametrize("after_s", [0.0, 0.1, 1.0])
def test_words_that_come_too_late_still_interrupt_after_or_in_a_noise(noise_s: float, after_s: float) -> None:
    talk = over_avatar()
    talk.voice(0.4)
    talk.silence(3)
    talk.voice(noise_s)
    talk.silence(after_s)
    assert talk.words("please stop", final=True, turn=1) == ["barge_in", "interrupted"]


def test_only_the_words_of_a_turn_that_made_the_avatar_wait_come_too_late() -> None:
    talk = over_avatar()
    talk.voice(0.4)
    talk.silence(3)
    talk.voice(0.2)
    talk.silence(1)
    assert talk.taker.turn == 2 and talk.kinds[-1] == "turn_dropped"
    assert talk.words("please stop", final=True, turn=2) == []
    assert talk.words("mm-hm", final=True, turn=1) == []
    talk.avatar(speaking=False)
    assert talk.words("please stop", final=True, turn=1) == []


def test_the_words_of_the_turn_before_confirm_what_the_next_continues() -> None:
    talk = over_avatar()
    talk.voice(0.4)
    talk.silence(0.6)
    talk.voice(0.2)
    assert talk.taker.turn == 2
    assert talk.words("no, not that", final=True, turn=1) == ["interrupted"]


def test_a_known_back_channel_only_ducks() -> None:
    talk = over_avatar()
    talk.voice(0.2)
    talk.words("mm-hm")
    talk.voice(0.4)
    talk.silence(2)
    assert talk.kinds == ["duck", "speech_started", "speech_paused", "unduck", "turn_dropped"]


def test_a_back_channel_known_after_250_ms_gives_the_floor_back_in_350() -> None:
    talk = over_avatar()
    talk.voice(0.3)
    talk.words("yeah")
    stopped_s = talk.now_s
    talk.silence(2)
    assert talk.kinds == ["duck", "speech_started", "barge_in", "speech_paused", "false_interruption", "turn_dropped"]
    assert talk.at("false_interruption").at_s - stopped_s < 0.4


def test_a_long_row_of_nods_does_not_interrupt() -> None:
    talk = over_avatar()
    talk.voice(0.3)
    talk.words("yeah yeah")
    talk.voice(1.2)
    assert "interrupted" not in talk.kinds


def test_words_come_too_late_although_a_sound_has_just_begun() -> None:
    talk = over_avatar()
    talk.voice(0.4)
    talk.silence(1.76)
    talk.voice(0.128)
    assert talk.taker.user == "onset"
    assert talk.kinds[-1] == "false_interruption"
    assert talk.words("please stop", final=True) == ["barge_in", "interrupted"]


def test_a_back_channel_that_goes_on_as_a_sentence_interrupts() -> None:
    talk = over_avatar()
    talk.voice(0.2)
    talk.words("yeah")
    assert "barge_in" not in talk.voice(0.3)
    assert talk.words("yeah but what about") == ["barge_in"]
    assert talk.voice(0.224) == ["interrupted"]


def test_the_avatars_own_words_do_not_interrupt_however_long() -> None:
    talk = over_avatar()
    talk.voice(0.4)
    assert talk.taker.transcript("as I said before", False, talk.now_s, own=True) == []
    assert "interrupted" not in talk.voice(1.4)
    assert "false_interruption" in talk.silence(1.0)


def test_a_short_sound_over_the_avatar_is_no_turn() -> None:
    talk = over_avatar()
    talk.voice(0.2)
    talk.silence(2)
    assert talk.kinds == ["duck", "speech_started", "speech_paused", "unduck", "turn_dropped"]


def test_a_cough_ducks_and_is_forgotten() -> None:
    talk = over_avatar()
    talk.voice(0.128)
    talk.silence(0.2)
    assert talk.kinds == ["duck", "unduck"]


def test_words_in_short_bits_interrupt_in_the_end() -> None:
    talk = over_avatar()
    for _ in range(3):
        talk.voice(0.2)
        talk.silence(0.25)
    assert "barge_in" not in talk.kinds
    talk.words("no no no")
    talk.silence(1)
    assert talk.kinds[-3:] == ["barge_in", "interrupted", "end_of_turn"]


def test_a_back_channel_is_an_answer_once_the_avatar_has_ended() -> None:
    talk = over_avatar()
    talk.voice(0.2)
    talk.avatar(False)
    talk.words("yeah")
    talk.silence(2)
    assert talk.kinds == ["duck", "speech_started", "unduck", "speech_paused", "end_of_turn"]


def test_the_avatar_beginning_to_speak_over_the_user_counts_voice_from_then() -> None:
    talk = Talk()
    talk.voice(1)
    assert talk.avatar() == []
    assert talk.voice(0.3) == ["duck", "barge_in"]


def test_each_utterance_of_the_avatar_counts_voice_over_itself() -> None:
    talk = over_avatar()
    talk.voice(0.2)
    talk.avatar(False)
    talk.voice(0.5)
    talk.avatar(True)
    assert talk.voice(0.064) == []
    assert talk.voice(0.2) == ["duck", "barge_in"]


def test_a_second_of_voice_interrupts_although_the_pause_is_told() -> None:
    talk = over_avatar()
    talk.voice(0.3)
    talk.avatar(False)
    assert talk.voice(0.8) == ["interrupted"]


def test_voice_after_the_end_of_a_turn_adds_to_the_same_interruption() -> None:
    talk = over_avatar()
    talk.voice(0.6)
    assert "end_of_turn" in talk.silence(0.6)
    assert talk.voice(0.5) == ["speech_started", "interrupted"]


@pytest.mark.parametrize("reports_the_pause", [True, False])
def test_the_pause_itself_may_be_told_or_not(reports_the_pause: bool) -> None:
    talk = over_avatar()
    talk.voice(0.3)
    if reports_the_pause:
        talk.avatar(False)
    talk.silence(3)
    if reports_the_pause:
        talk.avatar(True)
    talk.silence(1)
    assert talk.kinds == [
        "duck", "speech_started", "barge_in", "speech_paused", "end_of_turn", "false_interruption"
    ]  # fmt: skip
    talk.voice(1.1)
    assert talk.kinds[-4:] == ["duck", "speech_started", "barge_in", "interrupted"]


# -- what must not be interrupted -----------------------------------------------------------------------------------


def test_an_uninterruptible_greeting_is_not_interrupted_and_the_words_wait() -> None:
    talk = Talk()
    talk.avatar(True, uninterruptible=True)
    talk.voice(1.5)
    talk.words("hello, who are you?")
    talk.silence(3)
    assert talk.kinds == ["speech_started", "speech_paused"]
    assert talk.avatar(False) == ["end_of_turn"]


def test_waiting_words_end_their_turn_although_the_next_utterance_follows_at_once() -> None:
    talk = Talk()
    talk.avatar(True, uninterruptible=True)
    talk.voice(1)
    talk.silence(2)
    assert talk.avatar(True, uninterruptible=False) == ["end_of_turn"]


def test_a_nod_over_the_greeting_is_dropped() -> None:
    talk = Talk()
    talk.avatar(True, uninterruptible=True)
    talk.voice(0.4)
    talk.words("yeah")
    assert talk.silence(1) == ["speech_paused", "turn_dropped"]


def test_an_answer_that_began_before_the_greeting_is_no_nod() -> None:
    talk = Talk()
    talk.voice(0.3)
    talk.avatar(True, uninterruptible=True)
    talk.words("yeah")
    assert talk.silence(1) == ["speech_paused"]
    assert talk.avatar(False) == ["end_of_turn"]


def test_an_utterance_that_becomes_uninterruptible_is_no_longer_ducked() -> None:
    talk = over_avatar()
    talk.voice(0.15)
    assert talk.avatar(True, uninterruptible=True) == ["unduck"]


# -- push-to-talk and typing ----------------------------------------------------------------------------------------


def test_push_to_talk_is_a_turn_from_press_to_release() -> None:
    talk = Talk(mode="push_to_talk")
    assert talk.voice(2) == []
    assert talk.key(True) == ["speech_started"]
    talk.silence(3)
    assert talk.key(False) == []
    released_s = talk.now_s
    talk.silence(0.5)
    assert talk.kinds == ["speech_started", "end_of_turn"]
    assert talk.at("end_of_turn").since_s == released_s
    assert talk.at("end_of_turn").at_s - released_s == pytest.approx(0.2, abs=BLOCK_S)


def test_a_key_pressed_again_at_once_goes_on_with_the_turn() -> None:
    talk = Talk(mode="push_to_talk")
    talk.key(True)
    talk.wait(1)
    talk.key(False)
    talk.wait(0.1)
    assert talk.key(True) == ["speech_resumed"]
    assert talk.wait(1) == []


def test_a_pressed_key_silences_the_avatar_at_once_and_interrupts_it_when_held() -> None:
    talk = over_avatar(mode="push_to_talk")
    assert talk.key(True) == ["speech_started", "barge_in"]
    assert talk.wait(0.3) == ["interrupted"]
    assert talk.key(False) == []
    assert talk.wait(0.2) == ["end_of_turn"]


def test_a_slip_of_the_finger_lets_the_avatar_go_on() -> None:
    talk = over_avatar(mode="push_to_talk")
    talk.key(True)
    talk.now_s += 0.1
    assert talk.key(False) == ["turn_dropped", "false_interruption"]
    assert talk.words("too late", final=True) == []


def test_a_release_right_after_the_limit_still_interrupts() -> None:
    talk = over_avatar(mode="push_to_talk")
    talk.key(True)
    talk.now_s += 0.3
    assert talk.key(False) == ["interrupted"]
    assert talk.wait(0.2) == ["end_of_turn"]


def test_a_key_over_the_greeting_waits_for_its_end() -> None:
    talk = Talk(mode="push_to_talk")
    talk.avatar(True, uninterruptible=True)
    assert talk.key(True) == ["speech_started"]
    talk.wait(1)
    assert talk.key(False) == []
    assert talk.wait(1) == []
    assert talk.key(True) == ["speech_resumed"]
    talk.wait(1)
    assert talk.key(False) == []
    assert talk.wait(1) == []
    assert talk.avatar(False) == ["end_of_turn"]


def test_a_key_that_got_stuck_does_not_interrupt_the_answer() -> None:
    talk = Talk(mode="push_to_talk", longest_turn_s=10.0)
    talk.key(True)
    assert talk.wait(11) == ["end_of_turn"]
    talk.avatar()
    assert talk.wait(5) == []
    assert talk.key(False) == []


def test_pressing_twice_is_pressing_once() -> None:
    talk = Talk(mode="push_to_talk")
    talk.key(True)
    assert talk.key(True) == []
    talk.wait(1)
    talk.key(False)
    assert talk.key(False) == []


def test_the_key_means_nothing_while_always_listening() -> None:
    talk = Talk()
    assert talk.key(True) == talk.key(False) == []


def test_typed_mode_hears_nothing() -> None:
    talk = over_avatar(mode="typed")
    talk.voice(3)
    talk.key(True)
    talk.words("hello")
    talk.silence(3)
    assert talk.kinds == []


def test_changing_the_mode_drops_the_turn_and_frees_the_avatar() -> None:
    talk = over_avatar()
    talk.voice(0.3)
    assert talk.mode("typed") == ["turn_dropped", "false_interruption"]
    assert talk.mode("typed") == []
    assert talk.mode("push_to_talk") == []
    talk.key(True)
    assert talk.kinds[-2:] == ["speech_started", "barge_in"]


def test_words_from_before_the_mode_changed_do_not_interrupt() -> None:
    talk = over_avatar()
    talk.voice(0.4)
    talk.silence(3)
    talk.mode("typed")
    assert talk.words("please stop", final=True) == []


# -- properties -----------------------------------------------------------------------------------------------------

_TEXTS = st.sampled_from(["", "mm-hm", "yeah okay", "stop", "tell me about the", "What is that?", "。", "no, wait."])
_STEPS = st.one_of(
    st.tuples(st.just("hear"), st.floats(0, 1), st.integers(1, 40)),
    st.tuples(st.just("hear"), st.sampled_from([0.0, 0.34, 0.36, 0.49, 0.51, 1.0, math.nan]), st.integers(1, 40)),
    st.tuples(st.just("wait"), st.floats(0, 5)),
    st.tuples(st.just("words"), _TEXTS, st.booleans(), st.one_of(st.none(), st.integers(0, 4))),
    st.tuples(st.just("avatar"), st.booleans(), st.booleans()),
    st.tuples(st.just("key"), st.booleans()),
    st.tuples(st.just("mode"), st.sampled_from(["always", "always", "push_to_talk", "typed"])),
)


def _play(talk: Talk, steps: list[tuple]) -> None:
    for name, *arguments in steps:
        if name == "hear":
            for _ in range(arguments[1]):
                talk.block(arguments[0])
        elif name == "wait":
            # Time goes on in small steps, as it does in a session.
            for _ in range(math.ceil(arguments[0] / 0.04)):
                talk.wait(0.04)
        else:
            getattr(talk, name)(*arguments)


_MODES = st.sampled_from(["always", "always", "push_to_talk"])


@settings(max_examples=300, deadline=None)
@given(mode=_MODES, steps=st.lists(_STEPS, max_size=40))
def test_whatever_happens_events_come_in_pairs(mode: str, steps: list[tuple]) -> None:
    talk = Talk(mode=mode, longest_turn_s=8.0)
    _play(talk, steps)
    talk.avatar(False)
    talk.mode("typed")
    talk.silence(3)
    open_turn = ducked = False
    held_s: float | None = None
    number = 0
    for event in talk.events:
        match event.kind:
            case "speech_started":
                assert not open_turn
                open_turn, number = True, number + 1
            case "end_of_turn" | "turn_dropped":
                assert open_turn
                open_turn = False
            case "speech_paused" | "speech_resumed":
                assert open_turn
            case "duck":
                assert not ducked and held_s is None
                ducked = True
            case "unduck":
                assert ducked
                ducked = False
            case "barge_in":
                assert held_s is None
                ducked, held_s = False, event.at_s
            case "interrupted" | "false_interruption":
                assert held_s is not None
                assert event.at_s - held_s <= 2.0 + 0.04
                held_s = None
        assert event.turn == number or event.kind in ("duck", "unduck")
        assert event.since_s <= event.at_s + 1e-9
    assert not open_turn and not ducked and held_s is None
    assert (talk.taker.user, talk.taker.floor) == ("quiet", "clear")
    assert all(a.at_s <= b.at_s for a, b in zip(talk.events, talk.events[1:], strict=False))


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(_STEPS.filter(lambda step: step[0] in ("hear", "wait", "words")), max_size=30))
def test_without_an_avatar_nothing_is_interrupted(steps: list[tuple]) -> None:
    talk = Talk()
    _play(talk, steps)
    assert not set(talk.kinds) - {"speech_started", "speech_paused", "speech_resumed", "end_of_turn"}


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(_STEPS.filter(lambda step: step[0] in ("hear", "wait", "words")), max_size=30))
def test_what_is_uninterruptible_is_never_touched(steps: list[tuple]) -> None:
    talk = Talk()
    talk.avatar(True, uninterruptible=True)
    _play(talk, steps)
    assert not set(talk.kinds) & {"duck", "unduck", "barge_in", "interrupted", "false_interruption"}


@settings(max_examples=100, deadline=None)
@given(probabilities=st.lists(st.floats(0, 0.499), max_size=200))
def test_without_voice_nothing_ever_happens(probabilities: list[float]) -> None:
    talk = over_avatar()
    for probability in probabilities:
        assert talk.block(probability) == []


@settings(max_examples=100, deadline=None)
@given(seconds=st.floats(0.3, 5), text=_TEXTS)
def test_every_piece_of_speech_is_answered_within_the_longest_silence(seconds: float, text: str) -> None:
    talk = Talk()
    talk.voice(seconds)
    talk.words(text)
    stopped_s = talk.now_s
    talk.silence(1.3)
    assert talk.at("end_of_turn").at_s - stopped_s <= 1.2 + BLOCK_S + 1e-6


# -- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"voice_off": 0.6},
        {"duck_s": 0.3},
        {"barge_in_s": 0.1},
        {"confirm_s": 0.2},
        {"gap_s": 0.5},
        {"silences_s": {Completeness.COMPLETE: 0.3}},
    ],
)
def test_limits_that_contradict_each_other_are_refused(options: dict) -> None:
    with pytest.raises(ConfigInvalid, match="contradict") as refused:
        TurnOptions(**options)
    assert refused.value.code == "turn_options"
