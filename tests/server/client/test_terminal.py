"""``python -m server.client`` against the real server."""

from __future__ import annotations

import asyncio
import io
import json

import av
import numpy as np
import pytest

from engine.types import Event
from server.client import __main__ as terminal
from server.client.devices import Loudspeaker
from tests.server.serving import Server, eventually


async def talk(server: Server, *arguments: str, typed: str = "", monkeypatch) -> asyncio.Task[int]:
    """Runs the client on a thread of its own, as a process would."""
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    url = str(server.client.make_url("/"))
    return asyncio.create_task(asyncio.to_thread(terminal.main, ["--url", url, "--silent", *arguments]))


async def test_it_says_a_text_records_it_and_ends(server, monkeypatch, tmp_path, capsys):
    path = tmp_path / "hello.mp4"
    running = await talk(server, "--say", "Hello.", "--save", str(path), monkeypatch=monkeypatch)
    await eventually(lambda: server.stage.sessions and server.session.said == ["Hello."], timeout_s=10)
    await asyncio.sleep(1.5)
    server.session.publish(Event("caption", {"utterance_id": 1, "text": "Hello.", "words": []}))
    server.session.publish(Event("speaking", {"speaking": False, "utterance_id": 1, "label": "text"}))
    assert await running == 0
    assert "avatar: Hello." in capsys.readouterr().out
    with av.open(str(path)) as file:
        assert sum(1 for _ in file.decode(video=0)) > 5
    await eventually(lambda: server.services.sessions.taken == 0)


async def test_typed_lines_are_asked_said_and_silence_it(server, monkeypatch):
    typed = "Who are you?\n\n/say Good morning.\n/interrupt\n/quit\nnever read\n"
    assert await (await talk(server, typed=typed, monkeypatch=monkeypatch)) == 0
    assert server.session.asked_texts == ["Who are you?"] and server.session.said == ["Good morning."]
    assert server.session.interrupts == 1


async def test_a_line_that_is_refused_ends_nothing(server, monkeypatch, capsys):
    typed = "/say\nWho are you?\n/quit\n"
    assert await (await talk(server, typed=typed, monkeypatch=monkeypatch)) == 0
    assert server.session.asked_texts == ["Who are you?"]
    error = capsys.readouterr().err
    assert error.startswith("  ! ") and error.count("\n") == 1


async def test_events_are_printed_as_json(server, monkeypatch, capsys):
    running = await talk(server, "--json", "--ask", "Who are you?", monkeypatch=monkeypatch)
    await eventually(lambda: server.stage.sessions and server.session.asked_texts, timeout_s=10)
    await asyncio.sleep(0.2)
    server.session.publish(Event("turn", {"turn_id": 1, "state": "answered"}))
    assert await running == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"type": "turn", "turn_id": 1, "state": "answered"} in lines


async def test_it_ends_after_the_seconds_it_was_given(server, monkeypatch):
    assert await (await talk(server, "--seconds", "0.5", monkeypatch=monkeypatch)) == 0


@pytest.mark.parametrize("arguments", [("--avatar", "nobody"), ("--save", "/nowhere/at/all.mp4", "--seconds", "1.5")])
async def test_what_a_person_can_mend_is_one_line(server, monkeypatch, capsys, arguments):
    assert await (await talk(server, *arguments, monkeypatch=monkeypatch)) == 1
    error = capsys.readouterr().err
    assert error.endswith(".\n") and error.count("\n") == 1


def test_the_loudspeaker_waits_for_a_little_sound_and_is_never_far_behind():
    speaker = Loudspeaker()
    speaker.put(np.full(960, 7, np.int16))
    assert not speaker.take(960).any(), "one packet is not enough to begin with"
    for _ in range(3):
        speaker.put(np.full(960, 7, np.int16))
    assert speaker.take(960).all()
    for number in range(100):
        speaker.put(np.full(960, number, np.int16))
    assert speaker.take(960)[0] == 80, "what is older than 0.4 s is dropped"
    assert len(speaker.take(48_000)) == 48_000 and not speaker.take(960).any()
