"""Styles, language models and transcripts over HTTP, and what the page is told of them."""

from __future__ import annotations

import json

import pytest

from engine.conversation.discover import Found
from engine.conversation.history import Line
from tests.server.serving import Browser

SAID = [
    Line("user", "Who are you?", 1_700_000_000.25),
    Line("assistant", "I am Ada.\nAnd…", 1_700_000_002.0, True),
]


async def test_the_page_is_told_what_can_be_chosen(server):
    server.stage.language_models.offer([Found("Ollama", "http://127.0.0.1:11434/v1", ("llama3.2",))])
    config = await (await server.client.get("/config.json")).json()
    assert config["style"] == "natural"
    assert {"name": "teacher", "title": "Teacher"} in config["styles"]
    assert config["language_model"] == "host"
    assert config["language_models"] == [
        {"id": "host", "title": "Built-in script"}, {"id": "ollama/llama3.2", "title": "llama3.2 (Ollama)"},
    ]  # fmt: skip
    assert config["voice_conversions"] == ["singer"] and config["wake_word"] == ""
    card = (await (await server.client.get("/avatars")).json())["avatars"][0]
    assert card["style"] == "natural" and {"name": "coach", "title": "Coach"} in card["styles"]
    assert "persona" not in card, "what an avatar is told about itself is not everybody's business"


async def test_an_offer_chooses_style_and_language_model(server):
    server.stage.language_models.offer([Found("Ollama", "http://127.0.0.1:11434/v1", ("llama3.2",))])
    async with Browser() as browser:
        await server.offer(browser, style="teacher", language_model="ollama/llama3.2")
        manner = server.stage.manners[-1]
        assert (manner.style, manner.language_model) == ("teacher", "ollama/llama3.2")
        await server.end()


@pytest.mark.parametrize(
    ("member", "code"), [({"style": "pirate"}, "style_unknown"), ({"language_model": "x"}, "language_model_unknown")]
)
async def test_an_offer_with_a_choice_that_there_is_not_takes_no_place(server, member, code):
    async with Browser() as browser:
        response = await server.client.post("/offer", json={**await browser.offer(), **member})
    assert response.status == 404
    assert (await response.json())["error"]["code"] == code
    assert server.services.sessions.taken == 0 and not server.stage.sessions


async def test_a_transcript_is_a_json_object_a_line(server):
    session = await server.open_session()
    server.session.lines = SAID
    response = await server.client.get(f"/sessions/{session}/transcript")
    assert response.content_type == "application/x-ndjson"
    assert [json.loads(line) for line in (await response.text()).splitlines()] == [
        {"role": "user", "text": "Who are you?", "at": "2023-11-14T22:13:20.250+00:00", "interrupted": False},
        {"role": "assistant", "text": "I am Ada.\nAnd…", "at": "2023-11-14T22:13:22.000+00:00", "interrupted": True},
    ]
    await server.end()


async def test_a_transcript_as_text_is_a_line_a_contribution_and_names_the_avatar(server):
    session = await server.open_session()
    server.session.lines = SAID
    response = await server.client.get(f"/sessions/{session}/transcript?format=text")
    assert response.content_type == "text/plain"
    assert await response.text() == "22:13:20 You: Who are you?\n22:13:22 Ada: I am Ada. And…\n"
    await server.end()


async def test_a_transcript_in_another_format_or_of_nobody_is_refused(server):
    session = await server.open_session()
    assert (await server.client.get(f"/sessions/{session}/transcript?format=docx")).status == 422
    assert (await server.client.get("/sessions/nobody/transcript")).status == 404
    await server.end()
