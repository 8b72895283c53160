"""Talking with the portrait: the talk key, the settings, the transcript, and when an answer is heard."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser.conftest import RECORD_COMMANDS

FOUND = {
    "language_models": [{"id": "host", "title": "Built-in script"}, {"id": "found", "title": "Llama 3.2"}],
    "language_model": "host",
}


def talk_state(visited) -> str:
    return visited.js("document.querySelector('#talk').dataset.state")


def ask(visited, text: str) -> None:
    visited.page.fill("#text", text)
    visited.page.press("#text", "Enter")


def open_to_hold(visit, **options):
    """A page whose microphone is open and waits to be held."""
    visited = visit("?mode=hold", script=RECORD_COMMANDS, **options).alive()
    visited.page.click("#talk-button")
    visited.until("document.querySelector('#talk').dataset.state === 'ready'")
    return visited


def keys_told(visited) -> list:
    return visited.js("window.commands.filter(c => c.type === 'push_to_talk').map(c => c.down)")


# The talk key ---------------------------------------------------------------------------------------------------------


def test_microphone_to_hold_is_open_only_while_the_button_is_down(visit):
    visited = open_to_hold(visit)
    assert not visited.js("window.track.enabled")
    assert visited.js("document.querySelector('#talk-button').getAttribute('aria-pressed')") == "false"
    visited.page.hover("#talk-button")
    visited.page.mouse.down()
    visited.until("document.querySelector('#talk').dataset.state === 'held'")
    assert visited.js("window.track.enabled")
    assert visited.js("document.querySelector('#talk-label').textContent") == "Listening"
    assert visited.js("document.querySelector('#talk-button').getAttribute('aria-pressed')") == "true"
    assert keys_told(visited)[-1] is True
    visited.page.mouse.up()
    visited.until("document.querySelector('#talk').dataset.state === 'ready' && !window.track.enabled")
    assert keys_told(visited)[-1] is False


@pytest.mark.parametrize(("focus", "key"), [("", "Space"), ("talk-button", "Space"), ("talk-button", "Enter")])
def test_keys_hold_it_too(visit, focus, key):
    visited = open_to_hold(visit)
    visited.js("(id) => id ? document.getElementById(id).focus() : document.activeElement.blur()", focus)
    visited.page.keyboard.down(key)
    visited.until("document.querySelector('#talk').dataset.state === 'held'")
    visited.page.keyboard.down(key)  # what a held key does by itself
    assert talk_state(visited) == "held"
    visited.page.keyboard.up(key)
    visited.until("document.querySelector('#talk').dataset.state === 'ready'")


def test_key_that_comes_up_in_another_window_is_up(visit):
    visited = open_to_hold(visit)
    visited.js("document.activeElement.blur()")
    visited.page.keyboard.down("Space")
    visited.until("document.querySelector('#talk').dataset.state === 'held'")
    visited.js("dispatchEvent(new Event('blur'))")
    visited.until("document.querySelector('#talk').dataset.state === 'ready'")
    assert keys_told(visited)[-1] is False


def test_who_cannot_hold_clicks_to_begin_and_clicks_to_end(visit):
    visited = open_to_hold(visit)
    visited.js("document.querySelector('#talk-button').click()")  # as assistive technology does: no pointer, no key
    visited.until("document.querySelector('#talk').dataset.state === 'held'")
    visited.js("document.querySelector('#talk-button').click()")
    visited.until("document.querySelector('#talk').dataset.state === 'ready'")


def test_slip_of_the_key_is_explained(visit):
    visited = open_to_hold(visit)
    # Within the page, so that a busy machine does not turn the slip into a hold.
    visited.js(
        "['keydown', 'keyup'].forEach("
        "(type) => document.body.dispatchEvent(new KeyboardEvent(type, { key: ' ', bubbles: true })))"
    )
    visited.until("document.querySelector('#hint').textContent.startsWith('Keep holding')")


def test_talk_key_survives_a_lost_connection(visit):
    visited = open_to_hold(visit)
    visited.js("window.commands.length = 0")
    visited.js("visavis.connect()")
    visited.alive()
    visited.until("window.commands.some(c => c.type === 'push_to_talk' && c.down === false)")


def test_ways_of_talking_change_while_the_microphone_is_open(visit):
    visited = open_to_hold(visit)
    visited.choose("way", "always")
    assert talk_state(visited) == "on"
    assert visited.js("window.track.enabled")
    assert keys_told(visited)[-1] is None
    visited.choose("way", "typed")
    assert visited.js("document.querySelector('#talk').hidden"), "there is nothing to talk into"
    assert visited.js("window.track.readyState") == "ended"
    assert visited.js("document.querySelector('#devices-label').hidden")


# Settings of a conversation -------------------------------------------------------------------------------------------


def test_styles_of_a_face_are_offered_and_sent(visit):
    visited = visit(script=RECORD_COMMANDS).alive()
    names = visited.js("visavis.api.avatars().then(([face]) => face.styles.map(s => s.name))")
    assert visited.js("[...document.querySelectorAll('#style option')].map(o => o.value)") == names
    visited.choose("style", names[-1])
    assert visited.js("window.commands.at(-1)") == {"type": "style", "name": names[-1]}
    assert visited.notice() == ""


def test_model_that_was_found_is_offered_quietly_and_used_when_chosen(visit):
    visited = visit(script=RECORD_COMMANDS, config=FOUND).alive()
    assert "Llama 3.2" in visited.js("document.querySelector('#offer').innerText")
    assert visited.js("document.querySelector('#model').value") == "host"
    visited.page.click("#offer-yes")
    assert visited.js("window.commands.at(-1)") == {"type": "language_model", "id": "found"}
    assert visited.js("document.querySelector('#model').value") == "found"
    assert visited.js("document.querySelector('#offer').hidden")
    assert not visited.js("document.querySelector('#hint').hidden")


def test_offer_of_a_model_can_be_turned_down(visit):
    visited = visit(script=RECORD_COMMANDS, config=FOUND).alive()
    visited.page.click("#offer-no")
    assert visited.js("document.querySelector('#offer').hidden")
    assert not visited.js("window.commands.some(c => c.type === 'language_model')")


def test_found_model_beside_a_configured_one_is_a_choice_but_no_offer(visit):
    models = [{"id": "openai", "title": "Mine"}, FOUND["language_models"][1]]
    visited = visit(config={"language_models": models, "language_model": "openai"}).alive()
    assert not visited.js("document.querySelector('#model-label').hidden")
    assert visited.js("document.querySelector('#offer').hidden && document.querySelector('#connect').hidden")


def test_without_any_model_the_settings_show_how_to_connect_one(visit):
    visited = visit(config=FOUND | {"language_models": FOUND["language_models"][:1]}).alive()
    assert visited.js("document.querySelector('#offer').hidden && document.querySelector('#model-label').hidden")
    visited.page.click("#settings-button")
    assert "VISAVIS_LLM=openai" in visited.js("document.querySelector('#connect').innerText")


def test_wake_word_is_told_and_missing_it_is_explained(visit):
    visited = visit(config={"wake_word": "hey maya"}).alive()
    visited.page.click("#talk-button")
    visited.until("document.querySelector('#hint').textContent.startsWith('Begin with “hey maya”')")
    # In one go: the turn of the greeting may begin at any moment and says something else.
    missed = visited.js(
        "(visavis.dispatchEvent(new CustomEvent('turn', { detail: { turn_id: 1, state: 'not_addressed' } })),"
        " document.querySelector('#hint').textContent)"
    )
    assert "That was not taken for" in missed


# What was said --------------------------------------------------------------------------------------------------------


def test_interrupted_answer_ends_where_it_was_cut_in_captions_and_transcript(visit):
    visited = visit().alive()
    visited.js(
        "visavis.addEventListener('interrupted', ({ detail }) => (window.cut = detail.played_text ?? window.cut))"
    )
    ask(visited, "Hello! Who are you?")
    # Within the page: the sentence goes on, and what was cut is shown for less than a second.
    shown = visited.js(
        """() => new Promise((resolve) => {
            const captions = document.querySelector("#captions");
            const watcher = new MutationObserver(() => {
                if (!visavis.speaking || captions.querySelectorAll(".said").length < 3) return;
                watcher.disconnect();
                document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
                resolve(captions.textContent);
            });
            watcher.observe(captions, { attributes: true, childList: true, subtree: true });
        })"""
    )
    assert shown.endswith(" —"), "what was not said is not shown"
    visited.until("window.cut && document.querySelector('#captions').hidden")
    visited.page.click("#settings-button")
    lines = visited.js("[...document.querySelectorAll('#transcript li span')].map((span) => span.textContent)")
    assert lines[0] == "Hello! Who are you?"
    assert lines[1] == re.sub(r"[,;:]$", "", visited.js("window.cut").rstrip()) + " —"


def test_transcript_is_copied_saved_and_cleared(visit, server):
    visited = visit().alive()
    visited.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    name = visited.js("document.querySelector('#name').textContent")
    ask(visited, "Hello! Who are you?")
    visited.until("!document.querySelector('#captions').hidden")
    visited.page.click("#settings-button")
    visited.soon_shows("#transcript-copy", "Copied")
    visited.page.click("#transcript-copy")
    visited.until("window.shown")
    copied = visited.js("navigator.clipboard.readText()")
    assert re.match(rf"\[\d\d:\d\d:\d\d\] You: Hello! Who are you\?\n\[\d\d:\d\d:\d\d\] {name}: \w", copied)
    with visited.page.expect_download() as saving:
        visited.page.click("#transcript-save")
    file = saving.value
    assert re.fullmatch(rf"{name.lower()}-\d{{4}}-\d\d-\d\d-\d{{6}}\.txt", file.suggested_filename)
    assert Path(file.path()).read_text(encoding="utf-8").startswith(copied.splitlines()[0])
    # In one go: what is said next is written down again.
    assert visited.js(
        "(document.querySelector('#transcript-clear').click(), document.querySelector('#transcript').hidden)"
    )
    assert visited.complaints == []


def test_transcript_joins_sentences_and_cuts_at_what_was_played(visit):
    visited = visit().alive()
    lines = visited.js(
        """async () => {
            const { Transcript } = await import("./transcript.js");
            const all = new Transcript();
            all.you("Count.");
            const times = [["Four", 1200], ["five", 1500], ["six", 1800]];
            const words = times.map(([text, start_ms]) => ({ text, start_ms }));
            all.avatar("Maya", { utterance_id: 1, text: "One, two, three.", start_ms: 0 });
            all.avatar("Maya", { utterance_id: 1, text: "Four, five, six.", start_ms: 1200, words });
            all.cut({ utterance_id: 1, played_ms: 1700 });
            all.avatar("Maya", { utterance_id: 2, text: "好的。" });
            all.avatar("Maya", { utterance_id: 2, text: "再见。" });
            all.seal();
            all.avatar("Maya", { utterance_id: 2, text: "Another session." });
            all.avatar("Maya", { utterance_id: 3, text: "Nothing of this was heard." });
            all.cut({ utterance_id: 3, played_text: "" });
            return all.lines.map(({ text, cut }) => [text, cut]);
        }"""
    )
    assert lines == [
        ["Count.", False],
        ["One, two, three. Four, five", True],
        ["好的。再见。", False],
        ["Another session.", False],
    ]


# When it is heard -----------------------------------------------------------------------------------------------------


def test_first_sound_of_an_answer_is_measured_here_and_ends_the_waterfall(visit):
    visited = visit("?debug", script=RECORD_COMMANDS).alive()
    visited.js("visavis.addEventListener('latency', (e) => (window.stages = e.detail.stages_ms))")
    visited.page.click("#sound")
    # The clocks agree to within half of the quickest exchange; a slow one alone would put the sound before its picture.
    visited.until("visavis.stats().then((s) => s.latency_ms !== null && s.latency_ms < 60)")
    ask(visited, "Hello! Who are you?")
    visited.until("window.stages?.first_heard !== undefined")
    stages = visited.js("window.stages")
    # The line to this machine's own server is short; a page that stalls for a moment is not a failure.
    assert 0 <= stages["first_heard"] - stages["first_frame"] < 5000, stages
    heard = visited.js("window.commands.filter(c => c.type === 'heard')")
    assert len(heard) == 1 and isinstance(heard[0]["turn_id"], int)
    last = visited.js(
        """() => {
            const row = document.querySelector("#debug-steps li:last-child");
            return { text: row.innerText, from: row.querySelector("i").style.getPropertyValue("--from") };
        }"""
    )
    assert "You hear it" in last["text"] and f"{stages['first_heard']} ms" in last["text"]
    assert float(last["from"]) == pytest.approx(stages["first_frame"] / stages["first_heard"], abs=0.01)


def test_nothing_is_measured_while_the_sound_is_off(visit):
    visited = visit(script=RECORD_COMMANDS).alive()
    visited.js("visavis.ask('Hello! Who are you?')")
    visited.until("visavis.speaking")
    visited.until("!document.querySelector('#captions').hidden")
    assert visited.js("visavis.muted")
    assert not visited.js("window.commands.some(c => c.type === 'heard')")


def test_clock_believes_the_quickest_exchange(visit):
    visited = visit().alive()
    times = visited.js(
        """async () => {
            const { ServerClock } = await import("./clock.js");
            const clock = new ServerClock();
            const before = clock.at(0);
            clock.pong(1000, 1010, 501005);
            clock.pong(2000, 2400, 502010);
            clock.pong(3000, NaN, 1);
            return [before, clock.at(4000)];
        }"""
    )
    assert times == [None, 504000]
