"""Looks for a language model that runs on this machine already, to offer it.

Place in the flow: start of the server -> ``discover`` -> a line in the log and on the page.

Invariants:
    * only the loopback address is asked, only ``GET /v1/models``, and never with a key;
    * it takes at most ``TIMEOUT_S`` and never fails; what is found is offered, never used.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from engine.conversation.http import Service, Timeouts
from engine.conversation.service_models import model_names
from engine.errors import BackendFailed

TIMEOUT_S = 0.3
PORTS: Mapping[int, str] = {11434: "Ollama", 8080: "llama.cpp", 8000: "vLLM", 1234: "LM Studio"}
"""Usual ports of servers with an OpenAI-compatible API, and what most likely listens there."""


@dataclass(frozen=True, slots=True)
class Found:
    """A server on this machine.

    Attributes:
        name: what it most likely is, by its port.
        url: base URL for the option ``llm_url``.
        models: names for the option ``llm_model``; empty when none is loaded.
    """

    name: str
    url: str
    models: tuple[str, ...]

    @property
    def offer(self) -> str:
        """One sentence that says how to use it."""
        if not self.models:
            return f"A server like {self.name} runs at {self.url}, without a language model yet."
        model = shlex.quote(self.models[0])
        return (
            f"A server like {self.name} runs at {self.url}. To converse through it, start with VISAVIS_LLM=openai "
            f"VISAVIS_LLM_URL={self.url} VISAVIS_LLM_MODEL={model}"
        )


async def discover(own_port: int | None = None, ports: Mapping[int, str] = PORTS) -> list[Found]:
    """Asks all usual ports at the same time.

    Args:
        own_port: where this server itself listens, which is left out.
        ports: port -> name of what to look for.

    Returns:
        What answered as a language model server does, in the order of ``ports``.
    """
    probes = [_probe(name, port) for port, name in ports.items() if port != own_port]
    return [found for found in await asyncio.gather(*probes) if found is not None]


async def _probe(name: str, port: int) -> Found | None:
    limits = Timeouts(TIMEOUT_S, TIMEOUT_S, TIMEOUT_S)
    service = Service(
        "local server", "llm", f"http://127.0.0.1:{port}", timeouts=limits, attempts=1, failure_level=logging.DEBUG
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return Found(name, service.url, tuple(await model_names(service)))
    except (BackendFailed, TimeoutError):
        return None
    finally:
        await service.aclose()
