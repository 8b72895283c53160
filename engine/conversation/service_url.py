"""The address of a service as people write it, checked and completed.

Place in the flow: option ``llm_url``, ``voice_url`` or ``asr_url`` -> ``base_url`` -> Service.

Invariant: a base URL holds no secret, so it may be shown in logs.
"""

from __future__ import annotations

import re

from yarl import URL

from engine.errors import ConfigInvalid

_ENDPOINT = re.compile(r"/(chat/completions|completions|models|audio/(speech|transcriptions))$")
_VERSION = re.compile(r"v\d+\w*")


def base_url(url: str, option: str, versioned: bool = True) -> str:
    """Checks and completes the base URL of a service.

    ``http://host``, ``http://host/``, ``http://host/v1`` and ``http://host/v1/chat/completions`` all become
    ``http://host/v1``; a path that names another version (``/api/paas/v4``, ``/v1beta/openai``) is kept.

    Args:
        url: what the user configured.
        option: its name, for the message.
        versioned: whether it is an OpenAI-compatible base, which ends in a version; otherwise only slashes are cut.

    Raises:
        ConfigInvalid: ``service_url_invalid``. The message does not repeat the URL, which may hold a password.
    """
    try:
        parsed = URL(url.strip())
        usable = parsed.scheme in ("http", "https") and bool(parsed.host) and parsed.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise ConfigInvalid(
            "service_url_invalid",
            f"{option} is no address of a service. It begins with http:// or https:// and names a host, for example "
            "http://127.0.0.1:11434/v1.",
        )
    if parsed.user is not None or parsed.password is not None or parsed.query_string or parsed.fragment:
        raise ConfigInvalid(
            "service_url_invalid",
            f"{option} may hold neither a user name, a password, a ? nor a #. A key belongs into the key's own option.",
        )
    path = parsed.path.rstrip("/")
    if versioned:
        path = _ENDPOINT.sub("", path)
        if not any(_VERSION.fullmatch(part) for part in path.split("/")):
            path += "/v1"
    return str(parsed.with_path(path)).rstrip("/")
