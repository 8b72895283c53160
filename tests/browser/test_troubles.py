"""What goes wrong is said in words, with what to do, and everything else goes on."""

from __future__ import annotations

import signal
import time

import pytest


def refuse(name: str) -> str:
    """A script under which every microphone fails with a DOMException of this name."""
    return f"navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{name}'))"


def test_denied_microphone_is_explained_and_typing_still_works(visit):
    visited = visit(microphone=False).alive()
    visited.page.click("#talk-button")
    visited.until("!document.querySelector('#notice').hidden")
    assert "The microphone is blocked" in visited.notice() and "allow the microphone" in visited.notice()
    assert not visited.js("visavis.muted"), "the click was for sound too"
    visited.page.fill("#text", "Hello.")
    visited.page.press("#text", "Enter")
    visited.until("visavis.speaking")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (refuse("NotFoundError"), "No microphone found"),
        (refuse("NotReadableError"), "The microphone is in use"),
        ("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })", "Microphones need a secure page"),
    ],
)
def test_failing_microphone_is_explained(visit, script, words):
    visited = visit(script=script)
    visited.page.click("#talk-button")
    visited.until("!document.querySelector('#notice').hidden")
    assert words in visited.notice()
    assert visited.js("document.querySelector('#talk').dataset.state") == "off"
    visited.page.click("#notice-close")
    assert visited.notice() == ""


ASKING = """
    const open = MediaDevices.prototype.getUserMedia;
    window.asked = [];
    window.opened = [];
    MediaDevices.prototype.getUserMedia = function (wanted) {
        return new Promise((resolve, reject) => window.asked.push({
            allow: async () => {
                const stream = await open.call(this, wanted.video ? { video: true } : { audio: true });
                window.opened.push(...stream.getTracks());
                resolve(stream);
            },
            refuse: (name) => reject(new DOMException("", name)),
        }));
    };
"""
"""A browser that asks the person, and a person who takes their time: ``asked[0].allow()``."""
TALK = "document.querySelector('#talk').dataset.state"


def test_microphone_that_is_allowed_after_it_was_given_up_stays_closed(visit):
    visited = visit(script=ASKING).alive()
    visited.page.click("#talk-button")
    visited.until("asked.length")
    visited.choose("way", "typed")
    visited.js("asked[0].allow()")
    visited.until("opened.length && opened.every((track) => track.readyState === 'ended')")
    assert visited.js(TALK) == "off"


def test_last_of_several_microphones_counts_and_stays_muted(visit):
    visited = visit(script=ASKING).alive()
    visited.page.click("#talk-button")
    visited.until("asked.length")
    visited.js("asked[0].allow()")
    visited.until(f"{TALK} === 'on'")
    visited.page.click("#talk-button")
    visited.page.click("#settings-button")
    visited.until("document.querySelectorAll('#devices option').length > 1")
    first, second = visited.js("[...document.querySelectorAll('#devices option')].slice(0, 2).map((o) => o.value)")
    visited.choose("devices", first)
    visited.choose("devices", second)
    visited.until("asked.length === 3")
    visited.js("asked[2].allow()")
    visited.js("asked[1].allow()")
    visited.until(f"{TALK} === 'muted'")
    visited.until("opened.length === 3 && opened[2].readyState === 'ended'")
    assert visited.js("[opened[1].readyState, opened[1].enabled]") == ["live", False]
    visited.until("document.querySelectorAll('#devices option').length > 1")
    visited.choose("devices", first)
    visited.choose("devices", second)
    visited.until("asked.length === 5")
    visited.js("asked[3].allow()")
    visited.js("asked[4].refuse('NotReadableError')")
    visited.until(f"{TALK} === 'muted'")
    assert "The microphone is in use" in visited.notice()
    assert visited.js("opened.map((track) => track.readyState)") == ["ended", "live", "ended", "ended"]


def test_full_server_is_explained_and_can_be_tried_again_at_once(visit):
    first, second = visit().alive(), visit().alive()
    third = visit()
    third.until("visavis.state === 'waiting'")
    words = third.js("document.querySelector('#veil').innerText")
    assert "Every seat is taken" in words and "Try now" in words
    first.page.goto("about:blank")
    # It tries again by itself every three seconds, and may have come in already.
    third.js("document.querySelector('#veil').hidden || document.querySelector('#veil-action').click()")
    third.alive()
    assert third.js("document.querySelector('#veil').hidden")
    assert second.js("visavis.state") == "live"


def test_file_that_is_no_sound_is_explained_and_the_session_goes_on(visit):
    visited = visit().alive()
    visited.page.set_input_files("#file", {"name": "letter.txt", "mimeType": "text/plain", "buffer": b"Dear friend"})
    visited.until("!document.querySelector('#notice').hidden")
    assert "not a sound file" in visited.notice()
    visited.page.click("#notice-close")
    visited.page.set_input_files("#file", {"name": "broken.mp3", "mimeType": "audio/mpeg", "buffer": b"no sound" * 99})
    visited.until("!document.querySelector('#notice').hidden")
    assert "not a sound file" in visited.notice()
    assert visited.js("document.querySelector('#upload').hidden")
    assert visited.js("visavis.state") == "live"


def test_text_over_the_limit_is_counted_and_cannot_be_sent(visit):
    visited = visit().alive()
    limit = visited.js("visavis.config.text_max_chars")
    visited.page.fill("#text", "a" * (limit - 3))
    assert visited.js("document.querySelector('#count').textContent") == "3"
    assert not visited.js("document.querySelector('#send').disabled")
    visited.page.fill("#text", "a" * (limit + 2))
    assert visited.js("document.querySelector('#count').textContent") == "-2"
    assert visited.js("document.querySelector('#send').disabled")
    visited.page.press("#text", "Enter")
    assert len(visited.js("document.querySelector('#text').value")) == limit + 2
    visited.page.fill("#text", "   ")
    assert visited.js("document.querySelector('#send').disabled")


def test_session_that_was_ended_is_explained_and_can_be_started_again(visit, server):
    visited = visit().alive()
    session_id = visited.js("visavis.session")
    visited.page.request.delete(f"{server.url}sessions/{session_id}")
    visited.until("visavis.state === 'stopped'")
    assert "The session has ended" in visited.js("document.querySelector('#veil').innerText")
    assert visited.page.inner_text("#veil-action") == "Start again"
    visited.page.click("#veil-action")
    visited.alive()
    assert visited.js("visavis.session") != session_id


def test_unknown_face_is_explained(visit):
    visited = visit("?avatar=nobody-of-this-name")
    visited.until("visavis.state === 'stopped'")
    assert "This face does not exist" in visited.js("document.querySelector('#veil').innerText")


def test_lost_server_is_noticed_and_found_again(visit, server):
    visited = visit().alive()
    server.process.send_signal(signal.SIGSTOP)
    started_s = time.monotonic()
    try:
        visited.until("visavis.state === 'reconnecting'")
        assert time.monotonic() - started_s < 12
        assert "Reconnecting" in visited.js("document.querySelector('#veil').innerText")
        assert not visited.js("document.querySelector('talking-head .still').hidden"), "the last picture stays"
    finally:
        server.process.send_signal(signal.SIGCONT)
    visited.alive()
    assert visited.js("document.querySelector('#veil').hidden")


def test_missing_route_for_media_is_explained(visit):
    # A browser that may only use relays, where there is none, has no way to the server, like one whose UDP is blocked.
    visited = visit(
        script="""
            const Original = RTCPeerConnection;
            window.RTCPeerConnection = class extends Original {
                constructor(config) {
                    super({ ...config, iceTransportPolicy: "relay" });
                }
            };"""
    )
    visited.until("document.querySelector('#veil').dataset.code === 'no_route'", timeout_s=40)
    words = visited.js("document.querySelector('#veil').innerText")
    assert "No route for sound and picture" in words and "allow UDP" in words
