"""The page of a broadcast: two people see and hear the same face, and neither is asked for anything."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from tests.browser.serving import Server


def call(server: Server, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{server.url}{path}", data=data, method=method, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read() or b"{}")


def test_people_watch_a_broadcast_and_are_told_when_it_is_over(visit, server):
    broadcast = call(server, "POST", "broadcasts", {})
    page = broadcast["page"].lstrip("/")
    first, second = visit(page, microphone=False), visit(page, microphone=False)
    for seen in (first, second):
        seen.alive()
        assert seen.js("document.querySelector('#name').textContent") == broadcast["title"]
        assert seen.js("visavis.session") is None
        assert seen.js("[...document.querySelectorAll('button')].filter((b) => b.offsetParent).map((b) => b.id)") == [
            "sound",
            "fullscreen",
        ]
        if seen.js("visavis.muted"):
            # A browser lets a page sound after a click, or, with the microphone, at once; this page has no microphone.
            seen.page.click("#sound")
        assert not seen.js("visavis.muted")
    call(server, "POST", f"sessions/{broadcast['session_id']}/say", {"text": "Good evening to everybody."})
    for seen in (first, second):
        seen.until("visavis.stats().then((s) => (s.audio_energy ?? 0) > 0.001)")
    assert call(server, "GET", f"broadcasts/{broadcast['id']}")["viewers"] == 2
    call(server, "DELETE", f"broadcasts/{broadcast['id']}")
    for seen in (first, second):
        seen.until("document.querySelector('#veil').dataset.code === 'broadcast_not_found'")
        assert seen.js("document.querySelector('#veil-title').textContent") == "This broadcast is over"
