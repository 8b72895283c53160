"""Brings what a thread made to the event loop that asked for it.

Place in the flow: render threads -> ``deliver`` -> event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


def deliver(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Calls back on a loop; does nothing when it has closed, because then nobody is left to care."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        _log.debug("something was finished after its event loop had closed")
