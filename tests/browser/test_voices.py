"""The avatar's voice, changed; and sound files heard in it."""

from __future__ import annotations

import io
import time
import wave

import numpy as np

from engine.types import PLAYOUT_RATE
from tests.browser.conftest import RECORD_COMMANDS
from tests.fakes import babble


def sound_file(seconds: float) -> dict:
    """A file of something like speech, for the file dialogue."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(PLAYOUT_RATE)
        sound.writeframes(np.asarray(babble(seconds)).tobytes())
    return {"name": "hello.wav", "mimeType": "audio/wav", "buffer": file.getvalue()}


def test_voice_is_changed_and_put_back(visit):
    visited = visit(script=RECORD_COMMANDS, config={"voice_conversions": ["singer"]}).alive()
    assert visited.js("document.querySelector('#voice-reset').hidden")
    visited.choose("pitch", "-3")
    assert visited.js("document.querySelector('#pitch-state').textContent") == "3 semitones lower"
    assert visited.js("document.querySelector('#pitch').getAttribute('aria-valuetext')") == "3 semitones lower"
    visited.until("window.commands.some(c => c.type === 'voice')")
    told = visited.js("window.commands.filter(c => c.type === 'voice')")
    assert told == [{"type": "voice", "pitch": -3, "formant": 0, "conversion": ""}]
    visited.js("document.querySelector('#voice-reset').click()")
    visited.until("window.commands.at(-1).type === 'voice' && window.commands.at(-1).pitch === 0")
    assert visited.js("document.querySelector('#pitch-state').textContent") == "As it is"


def test_server_that_changes_no_voices_shows_no_sliders(visit):
    visited = visit(config={"voice_conversions": None}).alive()
    assert visited.js("document.querySelector('#voice').hidden")


def test_file_is_heard_as_recorded_without_a_question_while_the_voice_is_its_own(visit):
    visited = visit().alive()
    visited.page.set_input_files("#file", sound_file(5.0))
    visited.until("visavis.speaking")
    assert visited.js("document.querySelector('#upload-choice').hidden")


def test_file_is_offered_in_the_changed_voice_and_spoken_in_it(visit):
    visited = visit().alive()
    visited.choose("pitch", "4")
    before = visited.energy()
    visited.page.set_input_files("#file", sound_file(5.0))
    visited.until("!document.querySelector('#upload-choice').hidden")
    assert visited.js("document.activeElement.id") == "upload-changed", "the question is where the keyboard is"
    requests = []
    visited.page.on("request", lambda request: requests.append((request.method, request.url.split("/", 3)[3])))
    visited.page.keyboard.press("Enter")
    visited.until("visavis.speaking", timeout_s=40)
    visited.until("document.querySelector('#captions').textContent === 'hello.wav'")
    visited.until("!visavis.speaking")
    assert visited.energy() > before + 1e-3
    assert visited.js("document.querySelector('#upload').hidden")
    # A page that waits long for a pong asks whether its session lives.
    paths = [f"{method} {path.split('?')[0].split('/')[0]}" for method, path in requests if method != "GET"]
    assert paths[0] == "POST conversions" and "POST sessions" in paths
    assert paths[-1] == "DELETE conversions", "the server may forget it"
    assert visited.complaints == []


def test_file_can_be_heard_as_recorded_all_the_same(visit):
    visited = visit().alive()
    visited.choose("formant", "-4")
    visited.page.set_input_files("#file", sound_file(5.0))
    visited.page.click("#upload-plain")
    visited.until("visavis.speaking")


def test_conversion_is_cancelled_and_forgotten(visit):
    visited = visit().alive()
    visited.choose("pitch", "4")
    visited.page.set_input_files("#file", sound_file(60.0))
    visited.page.click("#upload-changed")
    visited.until("document.querySelector('#upload-name').textContent.startsWith('Changing the voice')")
    with visited.page.expect_request(lambda request: request.method == "DELETE") as forgetting:
        visited.page.click("#upload-cancel")
    visited.until("document.querySelector('#upload').hidden")
    assert visited.notice() == ""
    end_s = time.monotonic() + 20
    while visited.page.request.get(forgetting.value.url).status != 404:
        assert time.monotonic() < end_s, "the server goes on with what nobody wants"
        time.sleep(0.05)


def test_file_that_cannot_be_changed_is_explained(visit):
    visited = visit().alive()
    visited.choose("pitch", "4")
    visited.page.set_input_files("#file", {"name": "broken.mp3", "mimeType": "audio/mpeg", "buffer": b"no sound" * 99})
    visited.page.click("#upload-changed")
    visited.until("!document.querySelector('#notice').hidden")
    assert "not a sound file" in visited.notice()
    assert visited.js("document.querySelector('#upload').hidden")
