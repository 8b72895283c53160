"""The doctor's page in a real browser: what it finds here, in frames of other sites, and what it lets people copy."""

from __future__ import annotations

from typing import Any

import pytest

DONE = "!document.getElementById('again').disabled"
DONE_S = 150.0
"""The server measures its speed meanwhile, and test machines are shared."""

HERE = {
    "version": "0.1.0", "verdict": "warning", "counts": {"ok": 1, "note": 0, "warning": 1, "problem": 0},
    "findings": [
        {"check": "python", "group": "installation", "verdict": "ok", "said": "Python.", "change": "", "figures": {}},
        {"check": "speed", "group": "machine", "verdict": "warning", "said": "<b>Slow</b>.", "change": "Wait.",
         "figures": {}},
    ],
}  # fmt: skip


def verdicts(page: Any) -> dict[str, str]:
    rows = page.evaluate("[...document.querySelectorAll('[data-check]')].map((row) => ({ ...row.dataset }))")
    return {row["check"]: row["verdict"] for row in rows}


@pytest.fixture
def examined(visit, server):
    """The page, with a report of the test's own in place of the server's, when everything was looked at."""

    def open_page(**options: Any):
        visited = visit("healthz", **options)
        visited.page.route("**/doctor.json", lambda route: route.fulfill(json=HERE))
        visited.page.goto(server.url + "doctor")
        visited.until(DONE, DONE_S)
        return visited

    return open_page


def test_browser_way_and_server_are_looked_at(visit):
    visited = visit("doctor")
    visited.until(DONE, DONE_S)
    found = verdicts(visited.page)
    for check in ("secure_context", "webrtc", "codecs", "clock", "microphone", "connection"):
        assert found[check] == "ok", check
    # It came; the server measures its own speed meanwhile, and later than 2.5 s is a warning.
    assert found["first_picture"] in ("ok", "warning")
    assert found["python"] == found["avatars"] == found["udp"] == found["port"] == "ok"
    assert "problem" not in found.values()
    assert not visited.complaints


def test_findings_are_text_whatever_they_hold(examined):
    page = examined().page
    assert page.locator("[data-check=speed] .said").inner_text() == "<b>Slow</b>."
    assert page.locator("#verdict-title").inner_text() == "It works, and could work better"


def test_the_microphone_is_tried_and_let_go(examined):
    visited = examined()
    visited.page.click("#mic")
    visited.page.wait_for_selector("#meter", state="visible")
    visited.page.wait_for_selector("#meter", state="hidden", timeout=20_000)
    # Chromium's own device beeps: something is heard, loud or not.
    assert visited.page.locator("[data-check=microphone]").get_attribute("data-verdict") in ("ok", "warning")
    assert "works" in visited.page.locator("[data-check=microphone]").inner_text()


def test_a_microphone_that_is_denied_is_a_problem_that_says_how_to_allow_it(examined):
    visited = examined(microphone=False)
    visited.page.click("#mic")
    visited.until("document.querySelector('[data-check=microphone]')?.dataset.verdict === 'problem'")
    assert "allow the microphone" in visited.page.locator("[data-check=microphone] .change").inner_text()


def test_the_sound_is_asked_for_after_it_was_played(examined):
    visited = examined()
    visited.page.click("#speaker")
    visited.page.click("#heard-no")
    assert verdicts(visited.page)["speaker"] == "problem"
    visited.page.click("#speaker")
    visited.page.click("#heard-yes")
    assert verdicts(visited.page)["speaker"] == "ok"


def test_the_report_that_is_copied_holds_everything_and_no_address(examined, server):
    visited = examined(script="navigator.clipboard.writeText = async (text) => { window.copied = text; };")
    visited.soon_shows("#copy-label", "Copied")
    visited.page.click("#copy")
    visited.until("window.shown")
    text = visited.js("copied")
    assert "This browser\n" in text and "warning  <b>Slow</b>.\n           -> Wait." in text
    assert server.url not in text and "127.0.0.1" not in text


def test_a_key_is_asked_for_where_the_server_wants_one(examined, visit):
    visited = visit("healthz")
    wanted = {"error": {"code": "key_required", "message": "A key, please."}}

    def answer(route: Any) -> None:
        shown = route.request.headers.get("authorization") == "Bearer vk_right"
        route.fulfill(json=HERE if shown else wanted, status=200 if shown else 401)

    visited.page.route("**/doctor.json", answer)
    # A server that wants a key here wants one for tokens too, which this one does not.
    visited.page.route("**/tokens", lambda route: route.fulfill(json={"token": "", "ice_servers": []}))
    visited.page.goto(visited.page.url.replace("healthz", "doctor"))
    visited.until(DONE, DONE_S)
    assert visited.page.locator("#verdict-title").inner_text() == "This side is well"
    visited.page.fill("#key", "vk_right")
    visited.page.click("#key-form button")
    visited.page.wait_for_selector("[data-check=speed]", timeout=30_000)


@pytest.mark.parametrize(("allow", "verdict"), [("microphone; autoplay; fullscreen", "ok"), ("autoplay", "problem")])
def test_in_a_frame_it_says_what_the_page_around_has_left_out(hosted, allow, verdict):
    body = f'<iframe src="SERVER/doctor" allow="{allow}" width="480" height="600"></iframe>'
    frame = hosted.open(body, script=False).frame("/doctor")
    frame.wait_for_selector("#again:not([disabled])", timeout=1000 * DONE_S)
    found = verdicts(frame)
    assert found["policy"] == verdict and found["origin"] == "ok"
    assert "python" not in found
