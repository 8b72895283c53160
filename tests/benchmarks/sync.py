"""Skew of sound and picture: flash and beep through the server, against flash and beep of the browser's own.

Place in the flow: probe_server.py -> WebRTC -> page -> analysis.skew, and calibration.js -> the same page -> the same.

Invariants: the same ear and the same eye take both, so that what they add themselves falls out of the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser

from tests.benchmarks import analysis, strip
from tests.benchmarks.analysis import percentiles
from tests.benchmarks.browser import MeasuringPage, open_browser
from tests.benchmarks.measures import QUIET_MS, SETTLE_S, SOUND_LEVEL, Lengths, buffered_ms
from tests.benchmarks.serving import PROBE, ServerProcess

CALIBRATION_URL = "http://localhost"
CALIBRATION_SETTLE_S = 4.0
CALIBRATION_SPREAD_MS = 15.0
"""The middle half of the calibration's beats lies this close together, or it is taken again."""
CALIBRATION_BUFFER_MS = 60.0
"""More sound than this held back means that the browser is still recovering from a stall: it is taken again."""
CALIBRATION_TRIES = 3


def skew(log: Path, arguments: tuple[str, ...], lengths: Lengths) -> dict[str, Any]:
    """Flash and beep through the real tracks, encoders and clock, against flash and beep of the browser's own."""
    with open_browser() as browser:
        straight = _calibrate_once(browser, False, lengths).found
        calibration, tries = _calibrate(browser, lengths)
        baseline = calibration.found
        with ServerProcess(log, PROBE, arguments) as server, MeasuringPage(browser, server.url) as page:
            page.connect()
            page.observe(strip.STRIP_REGION)
            page.wait(SETTLE_S)
            page.call("clear")
            before = page.call("statistics")
            page.wait(lengths.skew_s)
            measured, age_ms, after = _skew_of(page), _received_to_visible(page), page.call("statistics")
    return {
        "av_skew_ms": round(measured.median_ms - baseline.median_ms, 1),
        "content_ms": round(measured.median_ms, 1),
        "baseline_ms": round(baseline.median_ms, 1),
        "baseline_straight_ms": round(straight.median_ms, 1),
        "baseline_spread_ms": _spread(baseline),
        "baseline_tries": tries,
        "baseline_settled": calibration.settled,
        "baseline_audio_buffer_ms": calibration.audio_buffer_ms,
        "audio_buffer_ms": buffered_ms(before, after, "audio"),
        "video_buffer_ms": buffered_ms(before, after, "video"),
        "spread_ms": _spread(measured),
        "drift_ms": round(measured.drift_ms(lengths.drift_span_s * 1000), 1),
        "beats": len(measured.skew_ms),
        "beats_unpaired": measured.flashes - len(measured.skew_ms),
        "seconds": lengths.skew_s,
        "received_to_visible_ms": age_ms,
    }


@dataclass(frozen=True, slots=True)
class _Calibration:
    """The zero mark.

    Attributes:
        found: what flash and beep of the browser's own measured.
        audio_buffer_ms: how much sound the browser held back meanwhile; 0 without WebRTC.
    """

    found: analysis.Skew
    audio_buffer_ms: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether the machine was quiet enough for the browser to have come to rest."""
        return (
            _spread(self.found)["middle_half"] <= CALIBRATION_SPREAD_MS
            and self.audio_buffer_ms <= CALIBRATION_BUFFER_MS
        )


def _calibrate(browser: Browser, lengths: Lengths) -> tuple[_Calibration, int]:
    """The zero mark through WebRTC and how many tries it took; the least disturbed one when none settled."""
    taken: list[_Calibration] = []
    while not (taken and taken[-1].settled) and len(taken) < CALIBRATION_TRIES:
        taken.append(_calibrate_once(browser, True, lengths))
    return min(taken, key=lambda one: (not one.settled, one.audio_buffer_ms)), len(taken)


def _calibrate_once(browser: Browser, through_webrtc: bool, lengths: Lengths) -> _Calibration:
    with MeasuringPage(browser, CALIBRATION_URL) as page:
        page.calibrate(strip.STRIP_REGION, through_webrtc)
        page.wait(CALIBRATION_SETTLE_S)
        page.call("clear")
        before = page.call("statistics") if through_webrtc else None
        page.wait(lengths.calibration_s)
        found = _skew_of(page)
        if before is None:
            return _Calibration(found)
        return _Calibration(found, buffered_ms(before, page.call("statistics"), "audio"))


def _skew_of(page: MeasuringPage) -> analysis.Skew:
    taken = page.call("take")
    picture = page.picture(taken, strip.STRIP_REGION)
    numbers = strip.read_numbers(picture.pixels)
    beats = [number >= 0 and strip.is_beat(int(number)) for number in numbers]
    beeps = analysis.onsets(page.voice(taken), SOUND_LEVEL, QUIET_MS)
    return analysis.skew(picture.display_ms[beats], beeps)


def _received_to_visible(page: MeasuringPage) -> dict[str, float]:
    picture = page.picture(page.call("take"), strip.STRIP_REGION)
    return percentiles(picture.display_ms - picture.received_ms)


def _spread(found: analysis.Skew) -> dict[str, float]:
    low, first, third, high = np.percentile(found.skew_ms, [5, 25, 75, 95])
    return {"middle_half": round(float(third - first), 1), "p5": round(float(low), 1), "p95": round(float(high), 1)}
