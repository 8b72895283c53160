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
from tests.benchmarks.analysis import percentiles
from tests.benchmarks.browser import MeasuringPage, open_browser
from tests.benchmarks.recording import Region, Sound
from tests.benchmarks.serving import PROBE, ServerProcess

SOUND_LEVEL = 0.02
"""Block level that counts as sound, full scale 1: -34 dBFS; speech is played at about -20."""
QUIET_MS = 400.0
SETTLE_S = 1.0
"""The first second after the first frame is not judged: the browser is still learning the stream's jitter."""

ANSWER_WINDOW_MS = 900.0
"""A burst that the lips have not answered by then counts as missed, and with this time."""
LIPS_BUSY_MS = 850.0
"""300 ms of burst, the way there and the mouth easing shut."""

SAY = (
    "Every evening the old ferryman told anyone who would listen how many years he had been rowing over the wide"
    " river and how rarely anyone along the way had ever really wanted to know where all the water was going"
)
INTERRUPT_QUIET_MS = 800
FIRST_FRAME_TIMEOUT_MS = 15_000

CALIBRATION_SETTLE_S = 4.0
CALIBRATION_SPREAD_MS = 15.0
CALIBRATION_TRIES = 3

_MOUTH_GRID = (28, 24)


class Unmeasurable(Exception):
    """A figure could not be taken; the message says why."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How much is measured."""

    stability_s: float = 60.0
    bursts: int = 30
    interrupts: int = 20
    tone_interrupts: int = 6
    first_frames: int = 12
    skew_s: float = 45.0
    drift_span_s: float = 15.0
    calibration_s: float = 12.0


FULL = Lengths()
QUICK = Lengths(
    stability_s=15.0, bursts=10, interrupts=5, tone_interrupts=2, first_frames=4, skew_s=15.0, drift_span_s=5.0,
    calibration_s=10.0,
)  # fmt: skip


def mouth_region(landmarks: np.ndarray | None, size: tuple[int, int]) -> Region:
    """The part of the picture in which lips and chin move.

    Args:
        landmarks: (N, 5, 2) pixels of an avatar's loop, or None for a face in the middle of the picture.
        size: width and height of the picture.
    """
    columns, rows = _MOUTH_GRID
    if landmarks is None:
        return Region(0.36, 0.56, 0.28, 0.24, columns, rows)
    points = np.median(landmarks, axis=0)
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    unit = float(np.linalg.norm(mouth - eyes))
    left, top = float(mouth[0]) - 0.55 * unit, float(mouth[1]) - 0.3 * unit
    width, height = size
    return Region(left / width, top / height, 1.1 * unit / width, 0.9 * unit / height, columns, rows)


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
        "video_buffer_ms": _mean_ms(video, "jitterBufferDelay", "jitterBufferEmittedCount"),
        "audio_buffer_ms": _mean_ms(audio, "jitterBufferDelay", "jitterBufferEmittedCount"),
        "decode_ms": _mean_ms(video, "totalDecodeTime", "framesDecoded"),
        "audio_concealed_percent": round(100 * audio["concealedSamples"] / max(1, audio["totalSamplesReceived"]), 3),
        "speech_percent": round(100 * spoken, 1),
        "rss_mb": memory["now"],
        "peak_rss_mb": memory["peak"],
        "server_cpu_percent": round(100 * (using.cpu_s - used.cpu_s) / wall_s, 1),
        "machine_busy_percent": round(100 * (using.machine_busy_s - used.machine_busy_s) / wall_s, 1),
        "server_counted": {
            key: round(value - counted.get(key, 0), 1) for key, value in counting.items() if value != counted.get(key, 0)
        },
    }


_VIDEO_COUNTERS = (
    "framesDecoded", "freezeCount", "framesDropped", "keyFramesDecoded", "bytesReceived", "jitterBufferDelay",
    "jitterBufferEmittedCount", "totalDecodeTime",
)  # fmt: skip
_AUDIO_COUNTERS = ("jitterBufferDelay", "jitterBufferEmittedCount", "concealedSamples", "totalSamplesReceived")


def _mean_ms(counters: dict[str, float], total_s: str, count: str) -> float:
    return round(1000 * counters[total_s] / max(1, counters[count]), 1)


def lips(server: ServerProcess, browser: Browser, region: Region, seconds: float) -> dict[str, Any]:
    """Bursts into the microphone: when do the lips in the picture move, and when does the sound come back.

    Args:
        seconds: length of the microphone's file.
    """
    with MeasuringPage(browser, server.url) as page:
        page.connect()
        page.observe(region)
        page.call("speak", {"mirror": True})
        page.wait(seconds + 1.0)
        taken, statistics = page.call("take"), page.call("statistics")
    spoken = analysis.onsets(page.microphone(taken), SOUND_LEVEL, QUIET_MS)
    if len(spoken) < 5:
        raise Unmeasurable(f"only {len(spoken)} bursts came through the browser's microphone")
    try:
        found = analysis.lip_onsets(page.picture(taken, region), spoken, LIPS_BUSY_MS, ANSWER_WINDOW_MS)
    except ValueError as error:
        raise Unmeasurable(str(error)) from error
    if found.missed > len(spoken) / 2:
        raise Unmeasurable(f"the lips answered {len(spoken) - found.missed} of {len(spoken)} bursts")
    returned = _answers(analysis.onsets(page.voice(taken), SOUND_LEVEL, QUIET_MS), spoken)
    return {
        "mic_to_lips_ms": percentiles(found.delays_ms),
        "bursts": len(spoken),
        "missed": found.missed,
        "least_ms": round(float(found.delays_ms.min()), 1),
        "false_alarm_percent": round(100 * found.false_alarms, 2),
        "movement_over_threshold": round(float(np.median(found.moved)), 1),
        "threshold_grey_levels": round(found.threshold, 2),
        "mic_to_sound_ms": percentiles(returned),
        "sounds_missed": int((returned >= ANSWER_WINDOW_MS).sum()),
        "each_ms": [round(float(delay)) for delay in found.delays_ms],
        "video_buffer_ms": _mean_ms(statistics["video"], "jitterBufferDelay", "jitterBufferEmittedCount"),
        "audio_buffer_ms": _mean_ms(statistics["audio"], "jitterBufferDelay", "jitterBufferEmittedCount"),
    }


def _answers(heard: np.ndarray, spoken: np.ndarray) -> np.ndarray:
    """Time from each onset to the first one heard after it; the whole window where none was."""
    first = np.searchsorted(heard, spoken)
    later = np.append(heard, np.inf)[first]
    return np.minimum(later - spoken, ANSWER_WINDOW_MS)


def interrupts(server: ServerProcess, browser: Browser, sounds: Path, lengths: Lengths) -> dict[str, Any]:
    """Speech stopped in mid-sound: how long until the last of it was heard."""
    times = random.Random(2)
    with MeasuringPage(browser, server.url, sounds) as page:
        page.connect()
        page.observe(strip.STRIP_REGION)
        page.wait(SETTLE_S)
        said = [_interrupt(page, times, {"text": SAY}) for _ in range(lengths.interrupts)]
        hummed = [_interrupt(page, times, {"sound": "tone.wav"}) for _ in range(lengths.tone_interrupts)]
    return {
        "interrupt_to_silence_ms": percentiles([silence for silence, _ in said]),
        "interrupts": len(said),
        "steady_tone_ms": percentiles([silence for silence, _ in hummed]),
        "say_to_sound_ms": percentiles([sound for _, sound in said]),
        "each_ms": [round(silence) for silence, _ in said],
        "each_tone_ms": [round(silence) for silence, _ in hummed],
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
  setTimeout(() => reject(new Error("no picture came")), %d);
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
""" % FIRST_FRAME_TIMEOUT_MS


def first_frame(server: ServerProcess, browser: Browser, lengths: Lengths) -> dict[str, Any]:
    """The product's own page in fresh contexts: from opening the connection, and from opening the page, to a picture."""
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


def skew(browser_log: Path, arguments: tuple[str, ...], lengths: Lengths) -> dict[str, Any]:
    """Flash and beep through the real tracks, encoders and clock, against flash and beep of the browser's own."""
    with open_browser() as browser:
        straight, _ = _calibrate(browser, False, lengths)
        baseline, tries = _calibrate(browser, True, lengths)
        with ServerProcess(browser_log, PROBE, arguments) as server, MeasuringPage(browser, server.url) as page:
            page.connect()
            page.observe(strip.STRIP_REGION)
            page.wait(SETTLE_S)
            page.call("clear")
            page.wait(lengths.skew_s)
            measured, age_ms = _skew_of(page), _frame_age_ms(page)
    return {
        "av_skew_ms": round(measured.median_ms - baseline.median_ms, 1),
        "content_ms": round(measured.median_ms, 1),
        "baseline_ms": round(baseline.median_ms, 1),
        "baseline_straight_ms": round(straight.median_ms, 1),
        "baseline_spread_ms": _spread(baseline),
        "baseline_tries": tries,
        "spread_ms": _spread(measured),
        "drift_ms": round(measured.drift_ms(lengths.drift_span_s * 1000), 1),
        "beats": len(measured.skew_ms),
        "beats_unpaired": measured.flashes - len(measured.skew_ms),
        "seconds": lengths.skew_s,
        "received_to_visible_ms": age_ms,
    }


def _calibrate(browser: Browser, through_webrtc: bool, lengths: Lengths) -> tuple[analysis.Skew, int]:
    """The zero mark and how many tries it took; a spread-out one means a machine too busy to have settled."""
    for attempt in range(1, CALIBRATION_TRIES + 1):
        with MeasuringPage(browser, "http://localhost") as page:
            page.calibrate(strip.STRIP_REGION, through_webrtc)
            page.wait(CALIBRATION_SETTLE_S)
            page.call("clear")
            page.wait(lengths.calibration_s)
            found = _skew_of(page)
        if not through_webrtc or _spread(found)["middle_half"] <= CALIBRATION_SPREAD_MS:
            break
    return found, attempt


def _skew_of(page: MeasuringPage) -> analysis.Skew:
    taken = page.call("take")
    picture = page.picture(taken, strip.STRIP_REGION)
    numbers = strip.read_numbers(picture.pixels)
    flashes = [at for at, number in zip(picture.display_ms, numbers, strict=True) if number >= 0 and strip.is_beat(number)]
    beeps = analysis.onsets(page.voice(taken), SOUND_LEVEL, QUIET_MS)
    try:
        return analysis.skew(np.array(flashes), beeps)
    except ValueError as error:
        raise Unmeasurable(f"flash and beep: {error}") from error


def _frame_age_ms(page: MeasuringPage) -> dict[str, float]:
    picture = page.picture(page.call("take"), strip.STRIP_REGION)
    return percentiles(picture.display_ms - picture.received_ms)


def _spread(found: analysis.Skew) -> dict[str, float]:
    low, first, third, high = np.percentile(found.skew_ms, [5, 25, 75, 95])
    return {"middle_half": round(float(third - first), 1), "p5": round(float(low), 1), "p95": round(float(high), 1)}
