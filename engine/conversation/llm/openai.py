"""Any language model behind ``/v1/chat/completions``: OpenAI, Ollama, llama.cpp, vLLM, LM Studio and their like.

Place in the flow: messages -> one streaming request -> deltas of text.

Invariants:
    * conversations are sent in the form that the strictest chat templates take: a system prompt first if any, then
      user and assistant in turns, the user first;
    * reasoning is dropped, whether it comes in a field of its own or between ``<think>`` tags;
    * a reply without an end is cut after ``MAX_REPLY_CHARS``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from engine.conversation.http import Answer, Service, Timeouts
from engine.conversation.llm.base import Message
from engine.conversation.service_models import model_names
from engine.errors import BackendFailed

MAX_REPLY_CHARS = 8000
"""About eight minutes of speech; nobody listens to more, and some small models never stop."""

_OPEN, _CLOSE = "<think>", "</think>"
_log = logging.getLogger(__name__)


class OpenAiModel:
    """A model of a service."""

    def __init__(self, url: str, model: str = "", key: str = "", timeouts: Timeouts | None = None) -> None:
        """Checks the configuration; nothing is sent yet.

        Args:
            url: base URL, see ``service_url.base_url``.
            model: its name; empty takes the only one that the service has.
            key: secret of the service, if any.
            timeouts: patience.

        Raises:
            ConfigInvalid: ``service_url_invalid``, ``service_key_invalid``.
        """
        self._service = Service("language model", "llm", url, key, timeouts)
        self._model = model

    async def reply(self, messages: Sequence[Message], *, temperature: float | None = None) -> AsyncGenerator[str]:
        """Streams the reply; see ``LanguageModel.reply``.

        Raises:
            BackendFailed: a code of ``engine.conversation.http``, or ``model_not_chosen``.
        """
        self._model = self._model or await self._only_model()
        body: dict[str, Any] = {"model": self._model, "messages": as_chat(messages), "stream": True}
        if temperature is not None:
            body["temperature"] = temperature
        length = 0
        async with self._service.ask("/chat/completions", json=body) as answer:
            async with aclosing(_texts(answer)) as texts:
                async for text in texts:
                    length += len(text)
                    yield text
                    if length >= MAX_REPLY_CHARS:
                        _log.info("a reply was cut after %d characters", length)
                        return
            if not length:
                raise answer.garbled("a reply without text")

    async def aclose(self) -> None:
        """Closes all connections; may be called twice."""
        await self._service.aclose()

    async def _only_model(self) -> str:
        names = await model_names(self._service)
        if len(names) == 1:
            return names[0]
        there = f"It has {', '.join(names[:8])}{' …' if len(names) > 8 else ''}." if names else "It lists none."
        what = f"needs the name of a model. {there}"
        raise self._service.error("model_not_chosen", what, "model", "names one")


def as_chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    """A conversation in the form that all chat templates take.

    Turns without text are left out, neighbours of one role are joined, all system texts become one in front, and a
    greeting that the assistant opened with moves there too.
    """
    system = [message.text for message in messages if message.role == "system" and message.text.strip()]
    turns: list[dict[str, str]] = []
    for message in messages:
        if message.role == "system" or not message.text.strip():
            continue
        if turns and turns[-1]["role"] == message.role:
            turns[-1]["content"] += "\n" + message.text
        else:
            turns.append({"role": message.role, "content": message.text})
    if turns and turns[0]["role"] == "assistant":
        system.append(f"You opened the conversation with: {turns.pop(0)['content']}")
    if not turns:
        turns.append({"role": "user", "content": "Hello."})
    return [{"role": "system", "content": "\n\n".join(system)}, *turns] if system else turns


async def _texts(answer: Answer) -> AsyncGenerator[str]:
    """What is to be said, from a streamed answer, or from a whole one where a service does not stream."""
    spoken = _WithoutReasoning()
    if answer.content_type == "application/json":
        text, _ = _piece(answer, await answer.json(), "message")
        if text := spoken.feed(text) + spoken.end():
            yield text
        return
    begun = finished = False
    async with aclosing(answer.events()) as events:
        try:
            async for data in events:
                begun = True
                try:
                    event = json.loads(data)
                except (ValueError, RecursionError):
                    raise answer.garbled("an event that is no JSON") from None
                text, reason = _piece(answer, event, "delta")
                finished = finished or bool(reason)
                if text := spoken.feed(text):
                    yield text
        except BackendFailed:
            if not finished:
                raise
    if not finished and not answer.done:
        if not begun:
            raise answer.garbled("no events")
        raise answer.error("service_failed", "broke off in the middle of an answer.")
    if text := spoken.end():
        yield text


def _piece(answer: Answer, event: Any, part: str) -> tuple[str, str]:
    """Text and finish reason of a chunk; ``part`` is "delta" or "message". Both are empty where there is none."""
    if not isinstance(event, dict):
        raise answer.garbled("an event of another kind")
    if error := event.get("error") or (event if event.get("object") == "error" else None):  # the latter is vLLM's
        raise _reported(answer, error)
    choices = event.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "", ""  # a chunk of usage figures, or of a content filter
    content = choices[0].get(part)
    content = content if isinstance(content, dict) else {}
    return _as_text(content.get("content") or content.get("refusal")), str(choices[0].get("finish_reason") or "")


def _reported(answer: Answer, error: Any) -> BackendFailed:
    """The typed error for an error object inside an answer whose status was a success."""
    fields = [error.get(name) for name in ("code", "type", "status")] if isinstance(error, dict) else []
    words = " ".join(str(field).lower() for field in fields)
    if any(word in words for word in ("429", "rate_limit", "quota", "overloaded")):
        return answer.error("service_rate_limited", "gets too many requests. Try again in a moment.")
    if any(word in words for word in ("401", "403", "api_key", "authentication", "permission")):
        return answer.error("service_rejected_key", "refuses the key.", "key", "holds a valid key")
    return answer.error("service_failed", "reports an error in its answer. Its own log says why.")


def _as_text(content: Any) -> str:
    """Text of a ``content`` field: a string, a list of parts, or null."""
    if isinstance(content, list):
        return "".join(_as_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


class _WithoutReasoning:
    """Drops what a model thinks aloud before its answer, between ``<think>`` and ``</think>``."""

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"  # -> "thinking" -> "after", or -> "speaking" at once

    def feed(self, text: str) -> str:
        """What of the text so far can be passed on."""
        if self._state == "speaking":
            return text
        self._held += text
        if self._state == "start":
            begun = self._held.lstrip()
            if len(begun) < len(_OPEN) and _OPEN.startswith(begun):
                return ""
            self._state = "thinking" if begun.startswith(_OPEN) else "speaking"
        if self._state == "thinking":
            _, closed, after = self._held.partition(_CLOSE)
            if not closed:
                self._held = self._held[-len(_CLOSE) :]
                return ""
            self._state, self._held = "after", after
        if self._state == "after":
            self._held = self._held.lstrip()
            if not self._held:
                return ""
            self._state = "speaking"
        held, self._held = self._held, ""
        return held

    def end(self) -> str:
        """What was held back and turns out to be no reasoning."""
        return "" if self._state in ("thinking", "after") else self._held
