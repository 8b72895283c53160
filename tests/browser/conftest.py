"""The real server, once for all browser tests, and a real Chromium; each test gets a page of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.browser.serving import Server, serving

SEATS = 2
LEFT_S = 20.0
"""Who was answered and never connected keeps a place for 15 s."""
PATIENCE_S = 20.0
"""Longer than anything takes on an idle machine by a factor of ten: test machines are shared."""

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A host with nothing but a loopback interface can be tested too.
    "--allow-loopback-in-peer-connection",
    "--use-fake-device-for-media-stream",
    # Pages may use the microphone when their test grants it; everybody else is refused instead of asked.
    "--deny-permission-prompts",
    "--autoplay-policy=document-user-activation-required",
    # Pages of somebody else, who are on this machine all the same.
    "--host-resolver-rules=MAP *.example 127.0.0.1",
]

RECORD_COMMANDS = """
    window.commands = [];
    const send = RTCDataChannel.prototype.send;
    RTCDataChannel.prototype.send = function (data) {
        const command = JSON.parse(data);
        if (command.type !== "ping") window.commands.push(command);
        return send.call(this, data);
    };
    const open = MediaDevices.prototype.getUserMedia;
    MediaDevices.prototype.getUserMedia = async function (...wanted) {
        const stream = await open.apply(this, wanted);
        window.track = stream.getAudioTracks()[0];
        return stream;
    };
"""
"""Commands that went to the server, and the microphone that is open."""

LIVE = "visavis.state === 'live' && visavis.classList.contains('showing')"


@dataclass
class Visit:
    """A page somebody opened.

    Attributes:
        page: Playwright's page.
        complaints: console errors, console warnings and uncaught exceptions so far.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)

    def js(self, expression: str, argument: object = None) -> Any:
        """The value of an expression in the page."""
        return self.page.evaluate(expression, argument)

    def until(self, expression: str, timeout_s: float = PATIENCE_S) -> Any:
        """Waits for an expression to become true.

        Playwright's own ``wait_for_function`` evaluates inside the page, which the page's security policy forbids.
        """
        end_s = time.monotonic() + timeout_s
        while not (value := self.page.evaluate(expression)):
            assert time.monotonic() < end_s, f"never true within {timeout_s} s: {expression}"
            time.sleep(0.03)
        return value

    def alive(self) -> Visit:
        """Waits for the live picture."""
        self.until(LIVE)
        return self

    def soon_shows(self, selector: str, text: str) -> None:
        """From now on ``window.shown`` tells whether an element has had a text, however briefly."""
        self.js(
            """([selector, text]) => {
                const element = document.querySelector(selector);
                new MutationObserver(() => (window.shown ||= element.textContent === text))
                    .observe(element, { childList: true, characterData: true, subtree: true });
            }""",
            [selector, text],
        )

    def choose(self, control: str, value: str) -> None:
        """Sets a control of the settings as a hand does."""
        self.js(
            """([id, value]) => {
                const control = document.getElementById(id);
                control.value = value;
                for (const type of ["input", "change"]) control.dispatchEvent(new Event(type, { bubbles: true }));
            }""",
            [control, value],
        )

    def energy(self) -> float:
        """Sound energy received so far; grows only while something is heard."""
        return float(self.js("visavis.stats().then(s => s.audio_energy ?? 0)"))

    def until_silent(self, timeout_s: float = PATIENCE_S, quiet_s: float = 0.5) -> None:
        """Waits for a while without sound: a machine that stalls stretches the end of what was said."""
        end_s = time.monotonic() + timeout_s
        before = self.energy()
        while True:
            time.sleep(quiet_s)
            now = self.energy()
            if now - before < 1e-5:
                return
            assert time.monotonic() < end_s, f"still heard after {timeout_s} s"
            before = now

    def notice(self) -> str:
        """The notice shown over the portrait, or an empty string."""
        return self.js("document.querySelector('#notice').hidden ? '' : document.querySelector('#notice').innerText")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with ``SEATS`` places."""
    # Avatars that the tests make are nobody's business.
    with serving(tmp_path_factory.mktemp("data"), max_sessions=SEATS) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium with a fake microphone; tests are skipped where there is no Chromium.

    Not for the whole run: while Playwright is open, this thread has a running event loop, and no async test could run.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    finder = subprocess.run(
        ["sh", str(Path(__file__).with_name("find-chromium.sh"))], capture_output=True, text=True, check=False
    )
    if finder.returncode or not shutil.which(finder.stdout.strip()):
        pytest.skip("no Chromium on this machine: install one or set VISAVIS_CHROMIUM")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=finder.stdout.strip(), args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def everybody_leaves(server: Server) -> Iterator[None]:
    """The last to be torn down: what opens pages asks for it, and the next test finds all places free."""
    yield
    wait_for_places(server)


@pytest.fixture
def hosted(browser: Any, server: Server, everybody_leaves: None) -> Iterator[Any]:
    """Opens pages of other sites that embed the portrait; see ``hosting.py``, which needs what stands here."""
    from tests.browser.hosting import hosting

    with hosting(browser, server) as opened:
        yield opened


@pytest.fixture
def visit(browser: Any, server: Server, everybody_leaves: None) -> Iterator[Callable[..., Visit]]:
    """Opens pages: ``visit(path="", microphone=True, script="", config={}, **context options)``.

    ``config`` takes the place of members of the server's ``config.json``, for what this server has not got.
    """
    contexts = []

    def open_page(
        path: str = "",
        *,
        microphone: bool = True,
        script: str = "",
        config: dict[str, Any] | None = None,
        **options: Any,
    ) -> Visit:
        context = browser.new_context(**options)
        contexts.append(context)
        if microphone:
            context.grant_permissions(["microphone"], origin=server.url)
        if script:
            context.add_init_script(script)
        if config:
            context.route("**/config.json", lambda route: route.fulfill(json=route.fetch().json() | config))
        visited = Visit(context.new_page())
        visited.page.on(
            "console", lambda m: visited.complaints.append(m.text) if m.type in ("error", "warning") else None
        )
        visited.page.on("pageerror", lambda error: visited.complaints.append(str(error)))
        visited.page.goto(server.url + path)
        return visited

    yield open_page
    for context in contexts:
        # Leaving by way of another page gives the seat back, as a person's tab does; closing a context does not.
        for page in context.pages:
            page.goto("about:blank")
        context.close()


def wait_for_places(server: Server) -> None:
    """Returns when the server has noticed that everybody has left, so that the next test finds all places free."""
    end_s = time.monotonic() + LEFT_S
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}healthz", timeout=2) as answer:
            if not json.load(answer)["sessions"]:
                return
        time.sleep(0.05)
