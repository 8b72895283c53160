"""Chromium with a file for a microphone, and the measuring page inside it.

Place in the flow: live.py -> Browser -> MeasuringPage -> page/bench.js.

Invariants: the measuring page is answered here, at an address of the measured server, and never by that server; times
on the page are ``performance.now()``; one browser has one microphone file, which starts anew at each opening.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, sync_playwright

from tests.benchmarks.recording import Picture, Region, Sound, read_picture, read_sound

HERE = Path(__file__).parent
FIND_CHROMIUM = HERE.parent / "browser" / "find-chromium.sh"
PREFIX = "/__bench/"
"""Addresses below this one are answered by the bench; the product has none like it."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    # A host that has only the loopback interface would find no route at all.
    "--allow-loopback-in-peer-connection",
)
_TYPES = {".html": "text/html", ".js": "text/javascript", ".wav": "audio/wav"}


class BrowserMissing(Exception):
    """There is no Chromium to measure with."""


def find_chromium() -> str:
    """Path of a Chromium.

    Raises:
        BrowserMissing: none was found.
    """
    found = subprocess.run(["sh", str(FIND_CHROMIUM)], capture_output=True, text=True)
    if found.returncode or not found.stdout.strip():
        raise BrowserMissing("No Chromium was found. `make bench-live` installs one where that is possible.")
    return found.stdout.strip()


@contextmanager
def open_browser(microphone: Path | None = None) -> Iterator[Browser]:
    """A Chromium whose microphone plays a wav file once; the browser's own beeping device without one.

    Raises:
        BrowserMissing: there is none.
    """
    flags = list(FLAGS)
    if microphone is not None:
        flags.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=flags)
        try:
            yield browser
        finally:
            browser.close()


class MeasuringPage:
    """One context with the measuring page open; see ``page/bench.js`` for what its methods do."""

    def __init__(self, browser: Browser, server_url: str, sounds: Path | None = None) -> None:
        """
        Args:
            browser: where to open it.
            server_url: the server that is measured.
            sounds: folder of wav files the page may fetch by name.
        """
        self._context = browser.new_context(permissions=["microphone"])
        self._sounds = sounds
        self.page: Page = self._context.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.route(f"{server_url}{PREFIX}**", self._answer)
        self.page.goto(f"{server_url}{PREFIX}bench.html")
        self.page.wait_for_function("window.bench")

    def _answer(self, route: Route) -> None:
        name = Path(route.request.url.split("?")[0]).name
        path = (self._sounds if name.endswith(".wav") and self._sounds else HERE / "page") / name
        if path.is_file():
            route.fulfill(body=path.read_bytes(), content_type=_TYPES.get(path.suffix, "application/octet-stream"))
        else:
            route.fulfill(status=404)

    def __enter__(self) -> MeasuringPage:
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            self.call("close")
            self.wait(0.2)
        finally:
            self._context.close()

    def call(self, method: str, argument: Any = None) -> Any:
        """Awaits one method of ``window.bench``."""
        return self.page.evaluate(f"argument => window.bench.{method}(argument)", argument)

    def wait(self, seconds: float) -> None:
        """Lets the page run."""
        self.page.wait_for_timeout(seconds * 1000)

    def connect(self) -> dict[str, int]:
        """Connects the product's element; returns the picture's width and height."""
        return self.call("connect")

    def clock_offset_ms(self, tries: int = 20) -> float:
        """What to add to the page's times for this machine's monotonic clock; right to about a millisecond."""
        best = (float("inf"), 0.0)
        for _ in range(tries):
            before_ms = time.monotonic() * 1000
            page_ms = self.call("now")
            after_ms = time.monotonic() * 1000
            best = min(best, (after_ms - before_ms, (before_ms + after_ms) / 2 - page_ms))
        return best[1]

    def observe(self, region: Region) -> None:
        """Begins to listen and to look at one region."""
        self.call("observe", asdict(region))

    def calibrate(self, region: Region, through_webrtc: bool) -> None:
        """Begins to do so at flashes and beeps of the browser's own, which need no server."""
        self.call("calibrate", {"throughWebrtc": through_webrtc, **asdict(region)})

    def voice(self, taken: dict[str, Any]) -> Sound:
        """What was heard, out of ``call("take")``."""
        return read_sound(taken["voice"])

    def microphone(self, taken: dict[str, Any]) -> Sound:
        """What went into the microphone, likewise."""
        return read_sound(taken["microphone"])

    def picture(self, taken: dict[str, Any], region: Region) -> Picture:
        """What was seen, likewise."""
        return read_picture(taken["eye"], region)
