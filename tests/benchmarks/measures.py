"""The measurements of a live session, one function each: drive the page, take what it wrote down, hand it to analysis.

Place in the flow: live.py -> here -> (ServerProcess, MeasuringPage) -> analysis -> dictionaries for live.json.

Invariants: every measurement opens its own session and gives it back; what cannot be measured raises ``Unmeasurable``
with the reason, and is never replaced by a number.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser
from playwright.sync_api import Error as BrowserError

from tests.benchmarks import analysis, strip
from tests.benchmarks.analysis import Unmeasurable, percentiles
from tests.benchmarks.browser import MeasuringPage, open_browser
from tests.benchmarks.face import mouth_region
from tests.benchmarks.recording import Picture, Region, Sound
from tests.benchmarks.serving import TRACE, ServerProcess

SOUND_LEVEL = 0.02
"""Block level that counts as sound, full scale 1: -34 dBFS; speech is played at about -20."""
QUIET_MS = 400.0
SETTLE_S = 1.0
"""The first second after the first frame is not judged: the browser is still learning the stream's jitter."""

ANSWER_WINDOW_MS = 900.0
"""A burst that the lips have not answered by then counts as missed, and with this time."""
LIPS_BUSY_MS = 1150.0
"""300 ms of burst, the way there, the pause in which the mouth may still be speaking, and its easing shut."""

SAY = (
    "Every evening the old ferryman told anyone who would listen how many years he had been rowing over the wide"
    " river and how rarely anyone along the way had ever really wanted to know where all the water was going"
)
INTERRUPT_QUIET_MS = 800


@dataclass(frozen=True, slots=True)
class Lengths:
    """How much is measured."""

    stability_s: float = 60.0
    bursts: int = 30
    interrupts: int = 20
    first_frames: int = 12
    skew_s: float = 45.0
    drift_span_s: float = 15.0
    calibration_s: float = 12.0
    clips: int = 40


FULL = Lengths()
QUICK = Lengths(
    stability_s=15.0, bursts=10, interrupts=8, first_frames=4, skew_s=15.0, drift_span_s=5.0,
    calibration_s=10.0, clips=10,
)  # fmt: skip


def stability(server: ServerProcess, browser: Browser, region: Region, lengths: Lengths) -> dict[str, Any]:
    """Speech through the microphone and back: frames a second, freezes, memory and processor time."""
    with MeasuringPage(browser, server.url) as page:
        size = page.connect()
        page.observe(region)
        page.call("speak", {"mirror": True})
        page.wait(SETTLE_S)
        page.call("clear")
        before, used, counted = page.call("statistics"), server.usage(), server.metrics()
        page.wait(lengths.stability_s)
        after, using, counting = page.call("statistics"), server.usage(), server.metrics()
        taken, memory = page.call("take"), server.memory_mb()
    voice, picture = page.voice(taken), page.picture(taken, region)
    spoken = float((voice.levels >= SOUND_LEVEL).mean()) if len(voice.levels) else 0.0
    if spoken < 0.2:
        raise Unmeasurable(f"the microphone's speech did not come back: sound during {spoken:.0%} of the time only")
    seconds = (after["at"] - before["at"]) / 1000
    video = {key: after["video"].get(key, 0) - before["video"].get(key, 0) for key in _VIDEO_COUNTERS}
    audio = {key: after["audio"].get(key, 0) - before["audio"].get(key, 0) for key in _AUDIO_COUNTERS}
    freezes_seen = analysis.freezes_seen(picture, after["at"])
    gaps = np.diff(picture.display_ms)
    wall_s = using.at_s - used.at_s
    return {
        "decoded_fps": round(video["framesDecoded"] / seconds, 2),
        "freezes": max(int(video["freezeCount"]), freezes_seen),
        "seconds": round(seconds, 1),
        "picture": size,
        "codec": after["codec"],
        "freezes_browser": int(video["freezeCount"]),
        "freezes_page": freezes_seen,
        "longest_gap_ms": round(float(gaps.max()), 1),
        "frames_dropped_by_browser": int(video["framesDropped"]),
        "key_frames": int(video["keyFramesDecoded"]),
        "video_kbps": round(video["bytesReceived"] * 8 / seconds / 1000),
        "video_buffer_ms": buffered_ms(before, after, "video"),
        "audio_buffer_ms": buffered_ms(before, after, "audio"),
        "audio_concealed_percent": round(100 * audio["concealedSamples"] / max(1, audio["totalSamplesReceived"]), 3),
        "speech_percent": round(100 * spoken, 1),
        "rss_mb": memory["now"],
        "peak_rss_mb": memory["peak"],
        "server_cpu_percent": round(100 * (using.cpu_s - used.cpu_s) / wall_s, 1),
        "machine_busy_percent": round(100 * (using.machine_busy_s - used.machine_busy_s) / wall_s, 1),
        "server_counted": {
            key: round(value - counted.get(key, 0), 1)
            for key, value in counting.items()
            if value != counted.get(key, 0)
        },
    }


_VIDEO_COUNTERS = ("framesDecoded", "freezeCount", "framesDropped", "keyFramesDecoded", "bytesReceived")
_AUDIO_COUNTERS = ("concealedSamples", "totalSamplesReceived")


def buffered_ms(before: dict[str, Any], after: dict[str, Any], kind: str) -> float:
    """How long the browser's jitter buffer held "audio" or "video" between two statistics, on average."""
    total_s, count = (
        after[kind].get(key, 0) - before[kind].get(key, 0) for key in ("jitterBufferDelay", "jitterBufferEmittedCount")
    )
    return round(1000 * total_s / max(1, count), 1)


@dataclass(frozen=True, slots=True)
class _Bursts:
    """One run of bursts through the microphone: what went in, what came back, and how the lips answered."""

    spoken_ms: np.ndarray
    returned_ms: np.ndarray
    picture: Picture
    lips: analysis.LipOnsets
    buffered_ms: dict[str, float]
    clock_offset_ms: float


def _run_bursts(server: ServerProcess, browser: Browser, region: Region, seconds: float) -> _Bursts:
    with MeasuringPage(browser, server.url) as page:
        page.connect()
        page.observe(region)
        page.call("speak", {"mirror": True})
        before = page.call("statistics")
        page.wait(seconds + 1.0)
        taken, after, offset_ms = page.call("take"), page.call("statistics"), page.clock_offset_ms()
    spoken = analysis.onsets(page.microphone(taken), SOUND_LEVEL, QUIET_MS)
    if len(spoken) < 5:
        raise Unmeasurable(f"only {len(spoken)} bursts came through the browser's microphone")
    picture = page.picture(taken, region)
    found = analysis.lip_onsets(picture, spoken, LIPS_BUSY_MS, ANSWER_WINDOW_MS)
    returned = analysis.onsets(page.voice(taken), SOUND_LEVEL, QUIET_MS)
    buffered = {kind: buffered_ms(before, after, kind) for kind in ("video", "audio")}
    return _Bursts(spoken, returned, picture, found, buffered, offset_ms)


def lips(server: ServerProcess, browser: Browser, region: Region, seconds: float) -> dict[str, Any]:
    """Bursts into the microphone: when do the lips in the picture move, and when does the sound come back.

    Args:
        seconds: length of the microphone's file.
    """
    run = _run_bursts(server, browser, region, seconds)
    found = run.lips
    returned = analysis.answers(run.returned_ms, run.spoken_ms, ANSWER_WINDOW_MS)
    return {
        "mic_to_lips_ms": percentiles(found.delays_ms),
        "bursts": len(run.spoken_ms),
        "missed": found.missed,
        "least_ms": round(float(found.delays_ms.min()), 1),
        "false_alarm_percent": round(100 * found.false_alarms, 2),
        "movement_over_threshold": round(float(np.median(found.moved)), 1),
        "threshold_grey_levels": round(found.threshold, 2),
        "mic_to_sound_ms": percentiles(returned),
        "sounds_missed": int((returned >= ANSWER_WINDOW_MS).sum()),
        "each_ms": [round(float(delay)) for delay in found.delays_ms],
        "video_buffer_ms": run.buffered_ms["video"],
        "audio_buffer_ms": run.buffered_ms["audio"],
    }


def stages(log: Path, arguments: tuple[str, ...], microphone: Path, seconds: float) -> dict[str, Any]:
    """Where the time from the microphone to the lips goes: the same bursts, with the server's diary between them.

    Medians of each part; they need not add up to the median of the whole.
    """
    with ServerProcess(log, TRACE, arguments) as server, open_browser(microphone) as browser:
        run = _run_bursts(server, browser, mouth_region(server), seconds)
        diary = server.diary()
    spoken = run.spoken_ms + run.clock_offset_ms

    def begins(kind: str) -> np.ndarray:
        notes = [note for note in diary if note["kind"] == kind]
        sound = Sound(np.array([note["at_ms"] for note in notes]), np.array([note["level"] for note in notes]))
        starts = analysis.onsets(sound, SOUND_LEVEL, QUIET_MS)
        if not len(starts):
            raise Unmeasurable(f"the server's diary has no sound that it {kind}")
        return starts[np.minimum(np.searchsorted(starts, spoken), len(starts) - 1)]

    heard, left = begins("heard"), begins("left")
    answered = run.lips.frames >= 0
    first = run.lips.frames[answered]
    received = run.picture.received_ms[first] + run.clock_offset_ms
    sounded = spoken + analysis.answers(run.returned_ms, run.spoken_ms, ANSWER_WINDOW_MS)
    early = [note["due_ms"] - note["at_ms"] for note in diary if note["kind"] == "left"]
    return {
        "microphone_to_session_ms": percentiles(heard - spoken),
        "session_to_frame_ms": percentiles(left - heard),
        "frame_to_picture_received_ms": percentiles(received - left[answered]),
        "received_to_visible_ms": percentiles(run.picture.display_ms[first] - run.picture.received_ms[first]),
        "frame_to_sound_ms": percentiles(sounded - left),
        "whole_ms": percentiles(run.lips.delays_ms),
        "frame_before_due_ms": percentiles(early),
        "bursts": len(spoken),
        "video_buffer_ms": run.buffered_ms["video"],
        "audio_buffer_ms": run.buffered_ms["audio"],
    }


def interrupts(server: ServerProcess, browser: Browser, sounds: Path, lengths: Lengths) -> dict[str, Any]:
    """Speech stopped in mid-sound: how long until the last of it was heard.

    Every second time it is a steady hum instead: it has no pause that could be taken for the answer.
    """
    times = random.Random(2)
    with MeasuringPage(browser, server.url, sounds) as page:
        page.connect()
        page.observe(strip.STRIP_REGION)
        page.wait(SETTLE_S)
        said, hummed = [], []
        for _ in range(lengths.interrupts // 2):
            said.append(_interrupt(page, times, {"text": SAY}))
            hummed.append(_interrupt(page, times, {"sound": "tone.wav"}))
    return {
        "interrupt_to_silence_ms": percentiles([silence for silence, _ in said + hummed]),
        "interrupts": len(said) + len(hummed),
        "speech_to_silence_ms": percentiles([silence for silence, _ in said]),
        "hum_to_silence_ms": percentiles([silence for silence, _ in hummed]),
        "say_to_sound_ms": percentiles([sound for _, sound in said]),
        "each_ms": [round(silence) for silence, _ in said + hummed],
    }


def _interrupt(page: MeasuringPage, times: random.Random, what: dict[str, str]) -> tuple[float, float]:
    """One interrupt: milliseconds to silence, and from the request to the first sound."""
    page.call("clear")
    done = page.call(
        "interruptAfter",
        {
            **what,
            "speakMs": times.uniform(500, 1700),
            "level": SOUND_LEVEL,
            "quietMs": INTERRUPT_QUIET_MS,
            "timeoutMs": 6000,
        },
    )
    if "failed" in done:
        raise Unmeasurable(f"interrupt: {done['failed']}")
    voice: Sound = page.voice(page.call("take"))
    silence = analysis.silent_after(voice, done["stopped"], done["watched"], SOUND_LEVEL)
    return silence, done["heard"] - done["started"]


# Runs before the product's page does: the moment it opens a connection, and the moment its picture is first visible.
_WATCH_FIRST_FRAME = """
const Native = window.RTCPeerConnection;
const first = { connect: null };
first.shown = new Promise((resolve, reject) => {
  setTimeout(() => reject(new Error("no picture came")), 15_000);
  const play = HTMLMediaElement.prototype.play;
  HTMLMediaElement.prototype.play = function () {
    this.requestVideoFrameCallback?.((now, frame) => resolve(frame.expectedDisplayTime));
    return play.call(this);
  };
});
first.shown.catch(() => {});
window.RTCPeerConnection = class extends Native {
  constructor(...options) { super(...options); first.connect ??= performance.now(); }
};
window.firstFrame = async () => ({ shown: await first.shown, connect: first.connect });
"""


def first_frame(server: ServerProcess, browser: Browser, lengths: Lengths) -> dict[str, Any]:
    """The product's own page in fresh contexts: from opening the connection, and the page itself, to a picture."""
    connected, opened = [], []
    for _ in range(lengths.first_frames):
        context = browser.new_context()
        try:
            page = context.new_page()
            page.add_init_script(_WATCH_FIRST_FRAME)
            page.goto(server.url)
            times = page.evaluate("() => window.firstFrame()")
            connected.append(times["shown"] - times["connect"])
            opened.append(times["shown"])
            # Leaving the page is what gives the seat back.
            page.goto("about:blank")
        except BrowserError as error:
            raise Unmeasurable(f"the page showed no picture: {error.message.splitlines()[0]}") from error
        finally:
            context.close()
    return {
        "first_frame_ms": percentiles(connected),
        "page_open_to_first_frame_ms": percentiles(opened),
        "contexts": len(connected),
        "each_ms": [round(ms) for ms in connected],
    }
