"""A whole conversation by script: three turns, a back-channel, a false interruption and a barge-in, each looked at.

Place in the flow: conversation.py, tests/integration -> here -> (ServerProcess, Visitor) -> checks by name.

Invariants: a check is about what came out: events on the data channel, sound and picture as received, and the messages
the language model was sent; the script goes on after a check that fails, so that one run tells about all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser

from tests.benchmarks import analysis
from tests.benchmarks.browser import open_browser
from tests.benchmarks.conversation_live import STORY, STORY_WORDS
from tests.benchmarks.conversation_page import SERVER, SOUND_LEVEL, Event, Visitor, instant_model, server_options
from tests.benchmarks.conversation_sounds import COUGH, MURMUR, PRESIDENT, Spoken
from tests.benchmarks.face import mouth_region
from tests.benchmarks.measures import buffered_ms
from tests.benchmarks.recording import Picture, Region, Sound
from tests.benchmarks.serving import ServerProcess
from tests.conversation.misbehaving import FakeService

FIRST = "That is a good question, and the answer is rather short."
SECOND = f"Then I will tell you {STORY_WORDS}. {STORY}"
THIRD = "Fine. Let us talk about something else, then."
ANSWERS = (FIRST, SECOND, THIRD)
QUESTIONS = (PRESIDENT[0], PRESIDENT[3], PRESIDENT[2])
_REST_S = 12.0
_SETTLE_S = 1.2
_PATIENCE_MS = 4000.0
_COUGHS = 3
"""It is repeated when it was lost in the room: it is just long enough to be noticed."""
_NOISE_PERCENTILE = 99.5


@dataclass(slots=True)
class Checks:
    """What was looked at.

    Attributes:
        passed: whether each thing was as it should be, by what should be.
        figures: numbers that were seen on the way, by name.
    """

    passed: dict[str, bool] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def check(self, what: str, right: bool) -> None:
        """Notes one thing."""
        self.passed[what] = bool(right)


class Script:
    """The language model's part: answers in order, whatever was understood."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, text: str) -> str:
        """The next answer."""
        self.asked += 1
        return ANSWERS[min(self.asked, len(ANSWERS)) - 1]


def play(folder: Path, spoken: dict[str, Spoken], avatar: str = "") -> Checks:
    """Starts a server, its language model and a browser, and plays the script; raises as ``converse``.

    Args:
        folder: of the wav files in ``spoken``; the server's log goes there, too.
        spoken: what can be said.
        avatar: the face; the server's own choice when empty.
    """
    with (
        instant_model(Script()) as fake,
        ServerProcess(folder / "script.log", SERVER, server_options(fake, avatar)) as server,
        open_browser() as browser,
    ):
        return converse(server, fake, browser, mouth_region(server), folder, spoken)


def converse(
    server: ServerProcess,
    fake: FakeService,
    browser: Browser,
    region: Region,
    folder: Path,
    spoken: dict[str, Spoken],
) -> Checks:
    """Plays the script once.

    Args:
        server: what answers.
        fake: its language model, with a ``Script`` for answers.
        browser: where to listen and look.
        region: the mouth.
        folder: of the wav files in ``spoken``.
        spoken: what can be said.

    Raises:
        Unmeasurable: the script could not go on, because something it waits for did not come.
    """
    checks = Checks()
    with Visitor(browser, server, folder, spoken) as page:
        page.connect()
        page.observe(region)
        page.arrive()
        page.wait(_REST_S)
        before = page.call("statistics")
        _question(page, checks)
        story = _story(page, checks)
        _murmur(page, checks)
        _cough(page, checks, server)
        _barge_in(page, checks, story)
        checks.check("nobody was told of an error", not page.of("error"))
        checks.check("nothing failed in the page", not page.problems)
        _check_history(checks, fake, page)
        # Sound that the browser holds back, as it does after every stall of the machine, is heard after a barge-in.
        checks.figures["audio_buffer_ms"] = buffered_ms(before, page.call("statistics"), "audio")
        taken, offset_ms = page.call("take"), page.clock_offset_ms()
    diary = [(note["kind"], note["at_ms"] - offset_ms) for note in server.diary()]
    seen = _Seen(page, taken, region, diary)
    _check_sound(checks, seen)
    _check_lips(checks, seen)
    return checks


def _question(page: Visitor, checks: Checks) -> None:
    since = page.mark()
    page.say(QUESTIONS[0].name)
    page.until_turn("answered", since)
    page.until_sound(heard=False)
    states = _states(page, since)
    checks.check("a question is thought about, answered and told so", states == ["thinking", "speaking", "answered"])
    words = [event for event in page.of("transcript", since) if event["final"]]
    checks.check("its words are told", len(words) == 1 and len(words[0]["text"].split()) >= 5)
    checks.check("words are told while they are spoken", any(not e["final"] for e in page.of("transcript", since)))
    speaks = [event["speaking"] for event in page.of("user_speaking", since)]
    checks.check("the person is seen to speak once", speaks == [True, False])
    said = " ".join(event["text"] for event in page.of("caption", since))
    checks.check("captions have the whole answer", _plain(said) == _plain(FIRST))
    checks.figures["first_transcript"] = [event["text"] for event in words]
    page.wait(_SETTLE_S)


def _story(page: Visitor, checks: Checks) -> int:
    since = page.mark()
    page.say(QUESTIONS[1].name)
    page.until_turn("speaking", since)
    page.until_sound()
    page.wait(1.5)
    checks.check("a second question is answered", _states(page, since) == ["thinking", "speaking"])
    return since


def _murmur(page: Visitor, checks: Checks) -> None:
    since = page.mark()
    page.say(MURMUR.name)
    page.wait(3.0)
    checks.check("a back-channel ends no turn", not _states(page, since) and not page.of("interrupted", since))
    checks.check("the avatar speaks on through a back-channel", not _stopped(page.of("speaking", since)))
    checks.figures["murmur_heard_as"] = [event["text"] for event in page.of("transcript", since)]


def _cough(page: Visitor, checks: Checks, server: ServerProcess) -> None:
    since = page.mark()
    for _ in range(_COUGHS):
        page.until_sound()
        page.say(COUGH.name)
        page.wait(4.5)
        if any(note["kind"] == "pause" for note in server.diary()):
            break
    checks.check("a false interruption ends no turn", not _states(page, since) and not page.of("interrupted", since))
    checks.figures["cough_heard_as"] = [event["text"] for event in page.of("transcript", since)]


def _barge_in(page: Visitor, checks: Checks, story: int) -> None:
    since = page.mark()
    page.until_sound()
    page.say(QUESTIONS[2].name)
    cut = page.until("interrupted", lambda event: event["type"] == "interrupted", since)
    page.until_turn("answered", since)
    page.until_sound(heard=False)
    page.wait(_SETTLE_S)
    checks.check(
        "a barge-in ends the answer, and is answered",
        _states(page, since) == ["interrupted", "thinking", "speaking", "answered"],
    )
    played = cut["played_text"]
    begins = _plain(SECOND).startswith(_plain(played))
    checks.check("what was played is told: a beginning, not all", begins and 0 < len(played) < len(SECOND))
    checks.check("one answer was interrupted in all", len(page.of("interrupted", story)) == 1)
    captions = [event["text"] for event in page.of("caption", story)]
    checks.check("nothing is said twice", len(captions) == len(set(captions)))
    checks.figures["played_words"] = len(played.split())


def _states(page: Visitor, since: int) -> list[str]:
    return [event["state"] for event in page.of("turn", since)]


def _stopped(events: list[Event]) -> bool:
    return any(not event["speaking"] for event in events)


class _Seen:
    """What was received during the script.

    Attributes:
        voice: the avatar's sound.
        picture: its mouth.
        asked: when the speech of each utterance began and ended, by name.
        diary: what the server decided, (kind, time), oldest first.
        turns: events of turns.
    """

    def __init__(self, page: Visitor, taken: dict[str, Any], region: Region, diary: list[tuple[str, float]]) -> None:
        self.voice: Sound = page.voice(taken)
        self.picture: Picture = page.picture(taken, region)
        self.asked = dict(zip([name for name, _ in page.said], page.spoken_ms(page.microphone(taken)), strict=True))
        self.diary = diary
        self.events = page.events

    def decided(self, kind: str, utterance: str) -> float | None:
        """When the server first did something after the beginning of an utterance."""
        return next((at_ms for name, at_ms in self.diary if name == kind and at_ms > self.asked[utterance][0]), None)

    def first_sound_ms(self, since_ms: float) -> float:
        """When the avatar was first heard after a moment; infinite when it was not."""
        loud = self.voice.times_ms[(self.voice.levels >= SOUND_LEVEL) & (self.voice.times_ms >= since_ms)]
        return float(loud[0]) if len(loud) else float("inf")

    def longest_silence_ms(self, since_ms: float, until_ms: float) -> float:
        """The longest stretch without sound between two moments."""
        inside = (self.voice.times_ms >= since_ms) & (self.voice.times_ms < until_ms)
        loud = self.voice.times_ms[inside & (self.voice.levels >= SOUND_LEVEL)]
        return float(np.diff(np.concatenate([[since_ms], loud, [until_ms]])).max())


def _check_sound(checks: Checks, seen: _Seen) -> None:
    for number in (0, 1):
        _, ended_ms = seen.asked[QUESTIONS[number].name]
        waited_ms = seen.first_sound_ms(ended_ms) - ended_ms
        checks.figures[f"turn_{number + 1}_sound_ms"] = round(waited_ms)
        checks.check(f"answer {number + 1} is heard", waited_ms <= _PATIENCE_MS)

    began_ms, _ = seen.asked[MURMUR.name]
    gap_ms = seen.longest_silence_ms(began_ms, began_ms + 2500)
    checks.figures["longest_gap_after_murmur_ms"] = round(gap_ms)
    checks.check("a back-channel does not silence the avatar", gap_ms <= 700)

    began_ms, _ = seen.asked[COUGH.name]
    paused_ms = seen.decided("pause", COUGH.name)
    if paused_ms is not None and paused_ms < began_ms + 2000:
        resumed_ms = seen.decided("resume", COUGH.name) or float("inf")
        silent_ms = analysis.silent_after(seen.voice, paused_ms, min(resumed_ms, paused_ms + 2000), SOUND_LEVEL)
        back_ms = seen.first_sound_ms(paused_ms + silent_ms + 50) - paused_ms
        checks.figures |= {"cough_to_silence_ms": round(silent_ms), "cough_to_sound_again_ms": round(back_ms)}
        checks.check("a false interruption silences the avatar within 250 ms", silent_ms <= 250)
        checks.check("after a false interruption it goes on within 2.4 s", back_ms <= 2400)
    else:
        checks.check("a cough over the avatar makes it wait", False)

    began_ms, _ = seen.asked[QUESTIONS[2].name]
    paused_ms = seen.decided("pause", QUESTIONS[2].name)
    speaking = [event["at"] for event in seen.events if event["type"] == "turn" and event["state"] == "speaking"]
    answer_ms = next(at_ms for at_ms in speaking if at_ms > began_ms)
    if paused_ms is None:
        checks.check("a barge-in is noticed", False)
        return
    silent_ms = analysis.silent_after(seen.voice, paused_ms, answer_ms, SOUND_LEVEL)
    checks.figures |= {
        "barge_in_to_silence_ms": round(silent_ms),
        "speech_to_silence_ms": round(paused_ms + silent_ms - began_ms),
    }
    checks.check("a barge-in is followed by silence within 250 ms", silent_ms <= 250)
    checks.check("the interruption is answered aloud", seen.first_sound_ms(answer_ms) < answer_ms + 1500)


def _check_lips(checks: Checks, seen: _Seen) -> None:
    """Lips move while the avatar is heard, and are at rest while it is not."""
    begins = seen.picture.display_ms[0]
    first_ms = seen.asked[QUESTIONS[0].name][0]
    rest = (begins, first_ms)
    _, ended_ms = seen.asked[QUESTIONS[0].name]
    heard_ms = seen.first_sound_ms(ended_ms)
    talking = (heard_ms + 200, heard_ms + 2000)
    noise, speech = _movement(seen.picture, rest, rest), _movement(seen.picture, talking, rest)
    checks.figures["lips_at_rest"] = round(float(np.median(noise)), 2)
    checks.figures["lips_talking"] = round(float(np.median(speech)), 2)
    limit = float(np.percentile(noise, _NOISE_PERCENTILE))
    checks.check("lips move while the avatar is heard", float(np.median(speech)) > limit)
    paused_ms = seen.decided("pause", QUESTIONS[2].name)
    if paused_ms is not None:
        # 400 ms later the mouth has eased shut; the answer to the interruption has not begun.
        after = _movement(seen.picture, (paused_ms + 500, paused_ms + 1500), rest)
        checks.figures["lips_after_barge_in"] = round(float(np.median(after)), 2)
        checks.check("lips are at rest after a barge-in", float(np.median(after)) < float(np.median(speech)) / 2)


def _movement(picture: Picture, span: tuple[float, float], rest: tuple[float, float]) -> np.ndarray:
    """(k,) how far each mouth in a span is from the nearest resting one, 0.4 s around it left out, grey levels."""
    grids = picture.pixels.reshape(len(picture), -1).astype(np.float32)
    at = picture.display_ms
    inside, resting = (at >= span[0]) & (at < span[1]), (at >= rest[0]) & (at < rest[1])
    distances = np.sqrt(((grids[inside][:, None] - grids[resting][None]) ** 2).mean(2))
    distances[np.abs(at[inside][:, None] - at[resting][None]) < 400] = np.inf
    return distances.min(1)


def _check_history(checks: Checks, fake: FakeService, page: Visitor) -> None:
    asked = [request.json["messages"] for request in fake.requests if request.endpoint == "chat"]
    checks.check("the language model was asked three times", len(asked) == 3)
    if len(asked) == 3:
        told = [message["content"] for message in asked[2] if message["role"] == "assistant"]
        played = page.of("interrupted")[-1]["played_text"]
        checks.check("its history has of the interrupted answer what was heard", told[-1].startswith(played[:200]))
        checks.check("and no more", len(told[-1]) < len(played) + 100 and len(told[-1]) < len(SECOND))


def _plain(text: str) -> str:
    return " ".join("".join(c for c in text.lower() if c.isalnum() or c.isspace()).split())
