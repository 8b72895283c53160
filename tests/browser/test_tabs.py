"""Two tabs have a portrait of their own each; and what is said is text, whatever it looks like."""

from __future__ import annotations

MARKUP = "<img src=x onerror=document.title='owned'> is what I say."


def test_two_tabs_have_a_session_each_and_do_not_hear_one_another(visit):
    first, second = visit("?mode=say").alive(), visit("?mode=say").alive()
    for tab in (first, second):
        tab.js("visavis.muted = false")
    before = second.energy()
    first.page.fill("#text", "This is said in the first tab only.")
    first.page.keyboard.press("Enter")
    first.until("!document.querySelector('#captions').hidden")
    first.until("visavis.stats().then((s) => (s.audio_energy ?? 0) > 1e-3)")
    first.until_silent()
    assert first.energy() > before
    assert second.js("document.querySelector('#captions').hidden") and second.energy() - before < 1e-3
    assert first.complaints == second.complaints == []


def test_markup_in_what_is_said_is_shown_as_text(visit):
    visited = visit("?mode=say").alive()
    visited.page.fill("#text", MARKUP)
    visited.page.keyboard.press("Enter")
    visited.until("document.querySelector('#captions').textContent.includes('<img')")
    assert visited.js("document.querySelectorAll('#captions img, #transcript img, #spoken img').length") == 0
    assert visited.js("document.title") != "owned" and visited.complaints == []
