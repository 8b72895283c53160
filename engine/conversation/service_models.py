"""Which models an OpenAI-compatible service has.

Place in the flow: Service -> ``/models`` -> names, for a language model without a configured one and for discovery.

Invariant: names come from strangers, so they are cut to printable text of a sane length before anybody shows them.
"""

from __future__ import annotations

import re

from engine.conversation.http import Service

MAX_MODELS = 100
_NO_CHAT = re.compile(r"embed|rerank|whisper|tts|dall-e|moderation|transcribe|\bbge\b|clip", re.IGNORECASE)


async def model_names(service: Service) -> list[str]:
    """Names of the models that can chat, as far as their names tell, in the service's order.

    Raises:
        BackendFailed: any code of ``engine.conversation.http``.
    """
    async with service.ask("/models") as answer:
        listing = await answer.json()
        models = listing.get("data") if isinstance(listing, dict) else None
        if models is None and isinstance(listing, dict) and listing.get("object") == "list":
            models = []  # Ollama without a model writes null
        if not isinstance(models, list):
            raise answer.garbled("no list of models")
    names = [model.get("id") for model in models[:MAX_MODELS] if isinstance(model, dict)]
    usable = [name for name in names if isinstance(name, str) and name.isprintable() and 0 < len(name) <= 200]
    return [name for name in usable if not _NO_CHAT.search(name)]
