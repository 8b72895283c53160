"""The log: one line a message, as text or as JSON, with the name of the worker it comes from.

Place in the flow: ``python -m server`` and each worker of it -> standard error, which they share.
"""

from __future__ import annotations

import json
import logging
import time

from aiohttp.http_exceptions import HttpProcessingError

from engine.config import Config


class _JsonLines(logging.Formatter):
    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
        }
        if self._worker:
            line["worker"] = self._worker
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _without_nonsense(record: logging.LogRecord) -> bool:
    """False for requests that are no HTTP: aiohttp answers them with 400, and anybody can send as many as they like."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def start_log(config: Config, worker: str = "") -> None:
    """Sends messages to standard error.

    Args:
        config: options.
        worker: name of the process, where there are several.
    """
    handler = logging.StreamHandler()
    name = f"[{worker}] " if worker else ""
    text = logging.Formatter(f"%(asctime)s {name}%(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonLines(worker) if config.log_format == "json" else text)
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])
    logging.getLogger("aiohttp.server").addFilter(_without_nonsense)
    for chatty in ("aioice", "aiortc", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
