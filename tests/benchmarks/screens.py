"""``python -m tests.benchmarks.screens`` (``make screenshots``): every page as people see it, as PNG files to look at.

Place in the flow: server process -> Chromium, light and dark, desktop and phone -> ``.bench/screens/*.png``.

Invariants: pages are the server's own, alive, with nothing replaced; what cannot be shown ends with an error.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.benchmarks.browser import FLAGS, find_chromium
from tests.benchmarks.serving import REPOSITORY, ServerProcess

FOLDER = REPOSITORY / ".bench" / "screens"
SCREENS = {"desktop": (1440, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")
LIVE_MS = 30_000
_LIVE = "talking-head.showing"


def _rest(page: Page) -> None:
    page.wait_for_selector(_LIVE, timeout=LIVE_MS)
    page.wait_for_timeout(800)


def _speaks(page: Page) -> None:
    _rest(page)
    page.fill("#text", "Hello! This is what I look like while I speak.")
    page.keyboard.press("Enter")
    page.wait_for_selector("#captions:not([hidden])", timeout=LIVE_MS)
    page.wait_for_timeout(900)


def _settings(page: Page) -> None:
    _rest(page)
    page.click("#settings-button")
    page.wait_for_timeout(600)


def _settled(page: Page) -> None:
    page.wait_for_timeout(2500)


def _examined(page: Page) -> None:
    page.wait_for_selector("#again:not(:disabled)", timeout=3 * LIVE_MS)
    page.wait_for_timeout(600)


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing to look at.

    Attributes:
        path: of the page.
        prepare: brings the page there.
        whole: the page to its end, not only the screen.
    """

    path: str
    prepare: Callable[[Page], None]
    whole: bool = False


SCENES = {
    "rest": Scene("", _rest),
    "speaking": Scene("?mode=say", _speaks),
    "settings": Scene("", _settings),
    "settings-zh": Scene("?lang=zh", _settings),
    "debug": Scene("?debug", _rest),
    "studio": Scene("studio", _settled, whole=True),
    "doctor": Scene("doctor", _examined, whole=True),
    "embed": Scene("embed", _settled),
}


def main() -> int:
    """Takes the pictures; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.screens", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SCENES, metavar="SCENE", help=f"any of: {', '.join(SCENES)}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: .bench/screens")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="visavis-screens-") as scratch,
        ServerProcess(Path(scratch) / "server.log", arguments=("--data-dir", scratch)) as server,
        sync_playwright() as driver,
    ):
        chromium = driver.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
        for name in args.only or SCENES:
            for screen, (width, height) in SCREENS.items():
                for scheme in SCHEMES:
                    context = chromium.new_context(
                        viewport={"width": width, "height": height}, color_scheme=scheme, permissions=["microphone"]
                    )
                    page = context.new_page()
                    page.goto(f"{server.url}/{SCENES[name].path}")
                    SCENES[name].prepare(page)
                    page.screenshot(path=args.folder / f"{name}-{screen}-{scheme}.png", full_page=SCENES[name].whole)
                    # A page that is left gives its place back; a context that is closed does not.
                    page.goto("about:blank")
                    context.close()
        chromium.close()
    print(f"{len(args.only or SCENES) * len(SCREENS) * len(SCHEMES)} pictures in {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
