"""What the handlers of all routes work with, hung on the application under ``SERVICES``.

Place in the flow: ``create_app`` fills it -> handlers read it.

Invariants: it is complete before the first request and does not change.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from engine.config import Config
from server.access.turn import IceServers
from server.metrics import ServerMetrics
from server.sessions import Sessions
from server.stage import Stage
from server.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Services:
    """What handlers work with."""

    config: Config
    version: str
    stage: Stage
    sessions: Sessions
    ice: IceServers
    uploads: Uploads
    metrics: ServerMetrics
    started_s: float


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)
