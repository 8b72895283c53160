"""Other backgrounds as a person sees them: by the pixels of the screen, in a real Chromium with WebGL."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.browser.conftest import CHROMIUM_FLAGS, PATIENCE_S, Visit

PACKED = "visavis.classList.contains('packed')"
MATTE_S = 60.0
"""Reading a matte takes a third of a second of a core that other tests want too."""
SQUARE = "visavis.video.videoWidth === visavis.video.videoHeight"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium that draws WebGL on the processor: other tests do without a graphics card altogether."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    finder = subprocess.run(
        ["sh", str(Path(__file__).with_name("find-chromium.sh"))], capture_output=True, text=True, check=False
    )
    if finder.returncode or not shutil.which(finder.stdout.strip()):
        pytest.skip("no Chromium on this machine: install one or set VISAVIS_CHROMIUM")
    flags = [flag for flag in CHROMIUM_FLAGS if flag != "--disable-gpu"]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=finder.stdout.strip(),
            args=[*flags, "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        yield chromium
        chromium.close()


def screen(opened: Visit) -> np.ndarray:
    """(H, W, 3) BGR of the portrait as it is on the screen."""
    png = opened.page.locator("#stage").screenshot()
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)


def place(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    """Mean colour around a place, in shares of the picture."""
    height, width = picture.shape[:2]
    return picture[int(y * height) - 3 : int(y * height) + 4, int(x * width) - 3 : int(x * width) + 4].mean((0, 1))


def until_wall_is(opened: Visit, colour: Sequence[float], within: float = 12) -> np.ndarray:
    """Waits until the wall has a colour (BGR): a picture takes a while from the page's decision to the screen.

    Returns: the screen then.
    """
    end_s = time.monotonic() + PATIENCE_S
    while np.abs(place(shown := screen(opened), *WALL) - colour).max() >= within:
        assert time.monotonic() < end_s, f"the wall is {place(shown, *WALL)}, not {colour}"
        time.sleep(0.1)
    return shown


WALL = (0.5, 0.03)
"""Above the head."""
CHEEK = (0.45, 0.55)


def test_a_colour_takes_the_place_of_the_wall_and_the_person_stays(visit) -> None:
    opened = visit("?avatar=maya").alive()
    filmed = screen(opened)
    opened.choose("background", "colour")
    opened.choose("background-colour", "#ff00ff")
    opened.until(PACKED, MATTE_S)
    opened.until("visavis.video.videoHeight === 2 * visavis.video.videoWidth")
    shown = until_wall_is(opened, (255, 0, 255))
    assert np.abs(place(shown, *CHEEK) - place(filmed, *CHEEK)).max() < 30
    assert opened.js("document.querySelector('#stage').getBoundingClientRect().width") == pytest.approx(
        opened.js("document.querySelector('#stage').getBoundingClientRect().height"), abs=2
    )
    opened.choose("background", "filmed")
    opened.until(f"{SQUARE} && !{PACKED}")
    until_wall_is(opened, place(filmed, *WALL), 20)
    assert opened.complaints == []


def test_without_a_background_the_page_shows_through(visit) -> None:
    opened = visit("?avatar=maya").alive()
    opened.choose("background", "transparent")
    opened.until(PACKED, MATTE_S)
    opened.js("document.querySelector('.ambient').hidden = true, document.body.style.background = 'rgb(0, 200, 0)'")
    opened.until("!document.querySelector('.poster').src.includes('poster.jpg')")
    shown = until_wall_is(opened, (0, 200, 0))
    assert np.abs(place(shown, *CHEEK) - (0, 200, 0)).max() > 60
    assert opened.complaints == []


def test_a_picture_covers_the_wall_and_a_choice_is_remembered_for_the_next_visit(visit) -> None:
    opened = visit("?avatar=maya").alive()
    opened.js(
        """async () => {
            const canvas = new OffscreenCanvas(300, 100);
            const pen = canvas.getContext("2d");
            [["red", 0], ["blue", 100], ["lime", 200]].forEach(([colour, x]) => {
                pen.fillStyle = colour;
                pen.fillRect(x, 0, 100, 100);
            });
            visavis.setBackground({ mode: "image", image: canvas.transferToImageBitmap() });
        }"""
    )
    opened.until(PACKED, MATTE_S)
    # Wider than the portrait: only the middle third is seen.
    until_wall_is(opened, (255, 0, 0))
    opened.choose("background", "blur")
    opened.until("visavis.background === 'blur'")
    opened.page.reload()
    opened.until("document.querySelector('#background').value === 'blur'")
    opened.alive()
    opened.until(PACKED, MATTE_S)
    assert opened.complaints == []


def test_without_webgl_it_is_as_filmed_and_nothing_is_offered(visit) -> None:
    opened = visit(
        "?avatar=maya",
        script="""
            const get = HTMLCanvasElement.prototype.getContext;
            HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
                return kind === "webgl" ? null : get.call(this, kind, ...more);
            };
        """,
    ).alive()
    assert opened.js("document.querySelector('#background-box').hidden")
    assert opened.js("visavis.setBackground({ mode: 'blur' })") is False
    assert opened.js("visavis.background") == "filmed"
    assert opened.js(SQUARE)


def test_on_a_page_of_another_site_the_person_stands_before_that_page(hosted) -> None:
    page = hosted.open(
        "<style>body { background: rgb(0, 200, 0) }</style>"
        '<talking-head id="head" avatar="maya" mic="off" captions="off" background="transparent"></talking-head>'
    )
    page.until_told("ready")
    frame = page.frame()

    def wall() -> np.ndarray:
        png = page.page.locator("#head").screenshot()
        return place(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int), *WALL)

    def is_green() -> bool:
        return bool(np.abs(wall() - (0, 200, 0)).max() < 12)

    page.until_true(lambda: frame.evaluate("document.querySelector('.poster').naturalWidth"), "the still")
    page.until_true(is_green, "the still before the page, before anything is connected")
    page.js("void head.start()")
    page.until_live()
    seen = "document.querySelector('talking-head').matches('.packed.showing')"
    end_s = time.monotonic() + MATTE_S
    while not frame.evaluate(seen):
        assert time.monotonic() < end_s, "no packed picture came"
        page.page.wait_for_timeout(50)
    page.until_true(is_green, "the person before the page")
