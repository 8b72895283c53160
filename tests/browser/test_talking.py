"""What people do with the page: look, talk, type, drop a file, interrupt."""

from __future__ import annotations

import base64
import io
import time
import wave

import numpy as np
import pytest

from engine.types import PLAYOUT_RATE
from tests.fakes import babble

SENTENCE = "Good morning. I am glad to see you."


def type_and_send(visited, text: str) -> None:
    visited.page.fill("#text", text)
    visited.page.press("#text", "Enter")


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(PLAYOUT_RATE)
        sound.writeframes(samples.tobytes())
    return file.getvalue()


def test_page_comes_alive_under_its_security_policy_without_a_complaint(visit, server):
    visited = visit()
    policy = visited.page.request.get(server.url).headers["content-security-policy"]
    visited.alive()
    assert "default-src 'self'" in policy and "unsafe" not in policy
    assert visited.complaints == []
    assert visited.js("document.querySelector('talking-head .poster').naturalWidth") > 0


def test_portrait_moves_at_rest(visit):
    visited = visit().alive()
    look = """async () => {
            const canvas = new OffscreenCanvas(64, 64).getContext("2d", { willReadFrequently: true });
            const look = () => (canvas.drawImage(visavis.video, 0, 0, 64, 64), canvas.getImageData(0, 0, 64, 64).data);
            const before = look();
            const frames = (await visavis.stats()).frames_decoded;
            await new Promise((resolve) => setTimeout(resolve, 1500));
            const after = look();
            return { pixels: after.filter((value, i) => Math.abs(value - before[i]) > 4).length,
                     frames: (await visavis.stats()).frames_decoded - frames };
        }"""
    for _ in range(8):
        moved = visited.js(look)
        if moved["pixels"] > 20 and moved["frames"] >= 15:  # 37 at full speed
            return
    raise AssertionError(moved)


def test_one_click_starts_microphone_and_sound_and_the_voice_comes_back(visit):
    visited = visit("?mode=mirror").alive()
    assert visited.js("visavis.muted")
    visited.page.click("#talk-button")
    visited.until("document.querySelector('#talk').dataset.state === 'on'")
    assert not visited.js("visavis.muted")
    assert visited.js("visavis.mirroring")
    # The fake microphone beeps once a second; what it says is spoken by the portrait.
    visited.until("visavis.speaking")
    visited.until("visavis.stats().then(s => s.audio_energy > 1e-3)")
    assert visited.js("document.querySelector('#stop').hidden"), "one's own voice needs no Stop"


RECORD_COMMANDS = """() => {
    const send = RTCDataChannel.prototype.send;
    window.commands = [];
    RTCDataChannel.prototype.send = function (data) {
        const command = JSON.parse(data);
        if (command.type !== "ping") window.commands.push(command);
        return send.call(this, data);
    };
}"""


def test_face_listens_while_the_microphone_is_on(visit):
    visited = visit("?mode=mirror").alive()
    visited.js(RECORD_COMMANDS)
    visited.page.click("#talk-button")
    visited.until("window.commands.some(c => c.type === 'listening' && c.on)")
    visited.page.click("#talk-button")
    visited.until("window.commands.at(-1).type === 'listening' && !window.commands.at(-1).on")


def test_movements_of_the_face_are_offered_and_asked_for(visit):
    visited = visit().alive()
    visited.js(
        """async () => {
            const [face] = await visavis.api.avatars();
            window.expected = face.clips.map((clip) => clip.name).filter((name) => name !== "listening");
        }"""
    )
    offered = visited.js("[...document.querySelectorAll('#moves-list button')].map(b => b.dataset.name)")
    assert offered == visited.js("window.expected")
    if not offered:
        assert visited.js("document.querySelector('#moves').hidden")
        return
    visited.page.click("#settings-button")
    # A movement that goes on until it is ended.
    name = "thinking" if "thinking" in offered else offered[0]
    button = f"document.querySelector('#moves-list [data-name={name}]')"
    visited.js(f"{button}.click()")
    visited.until(f"{button}.getAttribute('aria-pressed') === 'true'")
    visited.js(f"{button}.click()")
    visited.until(f"{button}.getAttribute('aria-pressed') === 'false'")


def test_muted_microphone_is_silence(visit):
    visited = visit("?mode=mirror").alive()
    visited.page.click("#talk-button")
    visited.until("visavis.speaking")
    visited.page.click("#talk-button")
    assert visited.js("document.querySelector('#talk').dataset.state") == "muted"
    visited.until("!visavis.speaking")
    visited.until_silent(quiet_s=1.2)  # the fake microphone beeps once a second


def test_typed_sentence_is_spoken_with_sound_and_captions(visit):
    visited = visit("?mode=say").alive()
    before = visited.energy()
    # Within the page: the first sentence stands there for a second.
    visited.js(
        """() => {
            window.captions = [];
            const element = document.querySelector("#captions");
            visavis.addEventListener("caption", () => window.captions.push(
                [element.hidden, element.textContent, document.querySelector("#spoken").textContent]));
            new MutationObserver(() => (window.lit ||= !!element.querySelector(".said")))
                .observe(element, { attributes: true, childList: true, subtree: true });
        }"""
    )
    type_and_send(visited, SENTENCE)
    visited.until("window.captions.length")
    assert visited.js("window.captions[0]") == [False, "Good morning.", "Good morning."]
    assert not visited.js("visavis.muted"), "who types wants to hear it"
    assert visited.js("document.querySelector('#text').value") == ""
    visited.until("window.lit")
    visited.until("window.captions[1]?.[1].startsWith('I am glad')")
    visited.until("!visavis.speaking")
    visited.until("document.querySelector('#captions').hidden")
    assert visited.energy() > before + 1e-3


def test_captions_can_be_switched_off(visit):
    visited = visit("?mode=say").alive()
    visited.page.click("#captions-button")
    type_and_send(visited, SENTENCE)
    visited.until("visavis.speaking && document.querySelector('#spoken').textContent")
    assert visited.js("document.querySelector('#captions').hidden")
    assert visited.js("document.querySelector('#captions-button').getAttribute('aria-pressed')") == "false"


def test_typed_question_is_answered_in_a_conversation(visit):
    visited = visit().alive()
    visited.js("visavis.addEventListener('turn', (e) => (window.turn = e.detail.state))")
    visited.soon_shows("#heard", "Hello! Who are you?")
    type_and_send(visited, "Hello! Who are you?")
    visited.until("visavis.speaking && visavis.source === 'reply'")
    visited.until("window.shown")
    visited.until("!document.querySelector('#captions').hidden")
    visited.page.keyboard.press("Escape")
    visited.until("window.turn === 'interrupted' && !visavis.speaking")


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_interrupt_ends_speech_at_once(visit, way):
    visited = visit("?mode=say").alive()
    type_and_send(visited, " ".join([SENTENCE] * 8))
    visited.until("visavis.speaking && !document.querySelector('#stop').hidden")
    started_s = time.monotonic()
    if way == "button":
        visited.page.click("#stop")
    else:
        visited.page.keyboard.press("Escape")
    visited.until("!visavis.speaking")
    assert time.monotonic() - started_s < 6
    visited.until("document.querySelector('#captions').hidden && document.querySelector('#stop').hidden")
    visited.until_silent()
    assert not visited.js("visavis.speaking"), "eight sentences last far longer than this test"


def test_dropped_file_is_spoken(visit):
    visited = visit().alive()
    before = visited.energy()
    visited.js(
        """(content) => {
            const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], "hello.wav", { type: "audio/wav" }));
            const drag = (type) => dispatchEvent(new DragEvent(type, { dataTransfer, cancelable: true }));
            drag("dragenter");
            drag("dragover");
            window.overlay = !document.querySelector("#drop").hidden;
            drag("drop");
        }""",
        base64.b64encode(wav(babble(5.0))).decode(),
    )
    assert visited.js("window.overlay")
    assert visited.js("document.querySelector('#drop').hidden")
    visited.until("visavis.speaking")
    assert visited.js("document.querySelector('#captions').textContent") == "hello.wav"
    visited.until("!visavis.speaking")
    assert visited.energy() > before + 1e-3
    assert visited.js("document.querySelector('#upload').hidden")


def test_leaving_the_page_gives_the_seat_back(visit, server):
    visited = visit().alive()
    session_id = visited.js("visavis.session")
    visited.page.goto("about:blank")
    end_s = time.monotonic() + 10
    while visited.page.request.post(f"{server.url}sessions/{session_id}/interrupt").ok:
        assert time.monotonic() < end_s, "the session outlives its page"
        time.sleep(0.05)
