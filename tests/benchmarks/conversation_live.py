"""How fast the avatar answers and how fast it yields, as received: turns and interruptions with recorded talkers.

Place in the flow: conversation.py -> here -> (ServerProcess, Visitor) -> analysis -> figures of conversation.json.

Invariants:
    * a turn counts from the last speech at the microphone, by the recording's own samples, to what reached the browser;
    * a turn that is not answered counts with the whole time it was waited for, and is told;
    * stages are the server's own figures; they are never used for the whole.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser

from tests.benchmarks import analysis
from tests.benchmarks.analysis import Unmeasurable, percentiles
from tests.benchmarks.conversation_page import SOUND_LEVEL, Visitor
from tests.benchmarks.conversation_sounds import PRESIDENT, TALKERS, Spoken, Utterance
from tests.benchmarks.measures import buffered_ms
from tests.benchmarks.recording import Region, Sound
from tests.benchmarks.serving import ServerProcess

ANSWER = "Of course. All of that is easy enough."
STORY_WORDS = "a long story"
STORY = (
    "Every evening the old ferryman told anyone who would listen how many years he had been rowing over the wide"
    " river, and how rarely anyone along the way had wanted to know where all the water was going. One morning a"
    " traveller asked him, and he was so surprised that he forgot to row. So they drifted all the way down to the sea,"
    " past the mills and the willows and the last of the houses, and neither of them ever came back to tell the rest."
)
_REST_S = 12.0
"""Watched before the first turn: the resting face, longer than an idle loop."""
_WINDOW_MS = 4000.0
"""An answer that is not heard by then counts as missed, and with this time."""
_BUSY_MS = 5500.0
"""From the end of a question to a mouth at rest again; answers are short."""
_PAUSE_S = (1.6, 2.4)
"""Quiet after an answer; at random, so that turns meet the 40 ms frames and 32 ms blocks in every phase."""
EMPTY: dict[str, Any] = {"p50": None, "p95": None}
_SILENCE_MS = 1500.0
"""Watched after an interruption for sound that should not be there."""


def answer_to(text: str) -> str:
    """What the fake language model says."""
    return STORY if STORY_WORDS in text else ANSWER


def turns(
    server: ServerProcess, browser: Browser, region: Region, folder: Path, spoken: dict[str, Spoken], count: int
) -> dict[str, Any]:
    """Questions one after the other: from the end of each to the first sound and the first moving lips.

    Args:
        server: what answers, by the fake language model.
        browser: where to listen and look.
        region: the mouth.
        folder: of the wav files in ``spoken``.
        spoken: what can be said.
        count: of turns.

    Raises:
        Unmeasurable: half of the questions or more were not answered.
    """
    parts = [
        _session(server, browser, region, folder, spoken, sentences, share)
        for sentences, share in zip(TALKERS, _shares(count), strict=True)
        if share
    ]
    unanswered = [reason for part in parts for reason in part.unanswered]
    if len(unanswered) * 2 >= count:
        raise Unmeasurable(f"{len(unanswered)} of {count} questions were not answered; {unanswered[0]}")
    heard = np.concatenate([part.heard_ms for part in parts])
    lips = np.concatenate([part.lips.delays_ms for part in parts])
    noticed = np.concatenate([part.noticed_ms for part in parts])
    arrived = np.concatenate([part.arrived_ms for part in parts])
    stages: dict[str, list[float]] = {}
    for part in parts:
        for values in _stages(part.events).values():
            for name, value in values.items():
                stages.setdefault(name, []).append(value)
    return {
        "turn_ms": percentiles(np.maximum(heard, lips)) | {"n": count},
        "sound_ms": percentiles(heard),
        "lips_ms": percentiles(lips),
        "stages_ms": {name: percentiles(values) | {"n": len(values)} for name, values in stages.items()},
        "microphone_to_server_ms": percentiles(noticed) if len(noticed) else EMPTY,
        "first_frame_to_sound_ms": percentiles(arrived) if len(arrived) else EMPTY,
        "unanswered": unanswered,
        "lips_missed": sum(part.lips.missed for part in parts),
        "sessions": [
            {
                "turns": len(part.heard_ms),
                "false_alarm_percent": round(100 * part.lips.false_alarms, 2),
                "movement_over_threshold": round(float(np.median(part.lips.moved)), 1),
                "audio_buffer_ms": part.buffered_ms["audio"],
                "video_buffer_ms": part.buffered_ms["video"],
            }
            for part in parts
        ],
        "each_sound_ms": [round(value) for value in heard],
        "each_lips_ms": [round(value) for value in lips],
        "understood": [text for part in parts for text in part.texts],
    }


@dataclass(frozen=True, slots=True)
class _Session:
    """Turns with one talker.

    Attributes:
        heard_ms: (k,) from the end of each question to the first sound of the answer.
        lips: the same for the lips.
        noticed_ms: (k,) from the end of each answered question to the end of speech as the server saw it.
        arrived_ms: (k,) from the server's first frame with the answer to its first sound.
        texts: what was understood of each question.
        unanswered: why questions were not answered.
        events: all that the page was told.
        buffered_ms: what the browser held back of "audio" and "video".
    """

    heard_ms: np.ndarray
    lips: analysis.LipOnsets
    noticed_ms: np.ndarray
    arrived_ms: np.ndarray
    texts: list[str]
    unanswered: list[str]
    events: list[dict[str, Any]]
    buffered_ms: dict[str, float]


def _session(
    server: ServerProcess,
    browser: Browser,
    region: Region,
    folder: Path,
    spoken: dict[str, Spoken],
    sentences: Sequence[Utterance],
    count: int,
) -> _Session:
    times, unanswered, texts = random.Random(7), [], []
    with Visitor(browser, server, folder, spoken) as page:
        page.connect()
        page.observe(region)
        page.arrive()
        page.wait(_REST_S)
        before = page.call("statistics")
        for number in range(count):
            since = page.mark()
            page.say(sentences[number % len(sentences)].name)
            try:
                page.until_turn("answered", since)
                page.until_sound(heard=False)
            except Unmeasurable as error:
                unanswered.append(f"{page.said[-1][0]}: {error}")
            understood = " / ".join(event["text"] for event in page.of("transcript", since) if event["final"])
            texts.append(f"{page.said[-1][0]}: {understood}")
            page.wait(times.uniform(*_PAUSE_S))
        taken, after = page.call("take"), page.call("statistics")
        ended = np.array([end_ms for _, end_ms in page.spoken_ms(page.microphone(taken))])
    lips = analysis.lip_onsets(page.picture(taken, region), ended, _BUSY_MS, _WINDOW_MS)
    buffered = {kind: buffered_ms(before, after, kind) for kind in ("audio", "video")}
    heard = _answers(page.voice(taken), ended)
    noticed, arrived = ways(page.events, ended, heard)
    return _Session(heard, lips, noticed, arrived, texts, unanswered, page.events, buffered)


def _shares(count: int) -> list[int]:
    """How many turns each talker has, by how many sentences there are of them."""
    sentences = [len(talker) for talker in TALKERS]
    shares = [count * size // sum(sentences) for size in sentences]
    return [shares[0] + count - sum(shares), *shares[1:]]


def interruptions(
    server: ServerProcess, browser: Browser, region: Region, folder: Path, spoken: dict[str, Spoken], count: int
) -> dict[str, Any]:
    """Questions into the middle of a long answer: from the first speech, and from the decision, to silence.

    Arguments as ``turns``.

    Raises:
        Unmeasurable: the avatar did not yield.
    """
    times, marks = random.Random(3), len(server.diary())
    from_speech, from_decision, to_duck, to_told = [], [], [], []
    with Visitor(browser, server, folder, spoken) as page:
        page.connect()
        page.observe(region)
        page.arrive()
        page.wait(2.0)
        before = page.call("statistics")
        for number in range(count):
            page.call("clear")
            page.said.clear()
            since = page.mark()
            page.ask(f"Tell me {STORY_WORDS}.")
            page.until_sound()
            page.wait(times.uniform(0.8, 2.2))
            page.say(PRESIDENT[number % len(PRESIDENT)].name)
            told = page.until("interrupted", lambda event: event["type"] == "interrupted", since)
            page.until_turn("answered", since)
            taken, offset_ms = page.call("take"), page.clock_offset_ms()
            [(began_ms, _)] = page.spoken_ms(page.microphone(taken))
            diary = server.diary()[marks:]
            paused = [note["at_ms"] - offset_ms for note in diary if note["kind"] == "pause"]
            ducked = [note["at_ms"] - offset_ms for note in diary if note["kind"] == "duck"]
            paused = [at_ms for at_ms in paused if at_ms > began_ms]
            if not paused:
                raise Unmeasurable("the server did not note the barge-in")
            voice = page.voice(taken)
            # What is said next is the answer to the interruption, and no sound of the one that was cut off.
            begins = [event["at"] for event in page.of("speaking", since) if event["speaking"]]
            until_ms = min([began_ms + _SILENCE_MS, *(at_ms for at_ms in begins if at_ms > told["at"])])
            from_decision.append(analysis.silent_after(voice, paused[0], until_ms, SOUND_LEVEL))
            from_speech.append(analysis.silent_after(voice, began_ms, until_ms, SOUND_LEVEL))
            to_duck += [at_ms - began_ms for at_ms in ducked if at_ms > began_ms][:1]
            to_told.append(told["at"] - began_ms)
            page.until_sound(heard=False)
            page.wait(1.0)
        buffered = buffered_ms(before, page.call("statistics"), "audio")
    return {
        "barge_in_ms": percentiles(from_decision) | {"n": count},
        "speech_to_silence_ms": percentiles(from_speech),
        "speech_to_lower_voice_ms": percentiles(to_duck) if to_duck else None,
        "speech_to_interrupted_ms": percentiles(to_told),
        "audio_buffer_ms": buffered,
        "each_ms": [round(value) for value in from_decision],
        "each_from_speech_ms": [round(value) for value in from_speech],
    }


def _answers(voice: Sound, asked_ms: np.ndarray) -> np.ndarray:
    """(k,) from each moment to the first sound after it; the whole window where none came in it."""
    loud = voice.times_ms[voice.levels >= SOUND_LEVEL]
    return analysis.answers(loud, asked_ms, _WINDOW_MS)


def _stages(events: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Stages of each turn by its id, as they were told last."""
    return {event["turn_id"]: event["stages_ms"] for event in events if event["type"] == "latency"}


def ways(events: list[dict[str, Any]], ended_ms: np.ndarray, heard_ms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ways in and out, which the server cannot see: to its end of speech, and from its first frame.

    A turn is told to be thought about the moment its end is decided, which places the server's stages on the page's
    clock, to within the few milliseconds of the data channel.
    """
    stages = _stages(events)
    noticed, arrived = [], []
    for event in events:
        if event["type"] != "turn" or event["state"] != "thinking":
            continue
        told = stages.get(event["turn_id"], {})
        if "first_frame" not in told or "endpoint" not in told:
            continue
        server_end_ms = event["at"] - told["endpoint"]
        asked = int(np.searchsorted(ended_ms, event["at"])) - 1
        if asked >= 0 and heard_ms[asked] < _WINDOW_MS:
            noticed.append(server_end_ms - ended_ms[asked])
            arrived.append(ended_ms[asked] + heard_ms[asked] - server_end_ms - told["first_frame"])
    return np.array(noticed), np.array(arrived)
