"""Puts the server together: stage, sessions, routes and middleware, in the order in which they start and stop.

Place in the flow: Config -> ``create_app`` -> aiohttp; ``__main__`` runs it, tests run it too.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from engine.config import Config
from server import middleware
from server.api import MAX_JSON_BYTES, SERVICES, Services, routes
from server.encoder import EncoderPool
from server.metrics import ServerMetrics
from server.peer import PeerOptions
from server.sessions import Sessions
from server.stage import Stage
from server.uploads import Uploads

VERSION = "0.1.0"
STATIC_FOLDER = Path(__file__).resolve().parent.parent / "static"


def create_app(config: Config, stage: Stage, static_folder: Path = STATIC_FOLDER) -> web.Application:
    """The application around an open stage.

    Its clean-up ends all sessions, then closes the stage.

    Args:
        config: options.
        stage: open; from here on it belongs to the application.
        static_folder: the page.
    """
    metrics = ServerMetrics(stage.metrics.registry)
    pool = EncoderPool()
    options = PeerOptions(
        ice_servers=tuple(server.to_dict() for server in config.ice_servers),
        video_codec=config.video_codec,
        video_bitrate=config.video_kbps * 1000,
        heartbeat_timeout_s=config.heartbeat_timeout_s,
        idle_timeout_s=config.idle_session_s,
    )
    sessions = Sessions(stage.create_session, pool, options, metrics, config.max_sessions, config.max_session_s)
    allowed = frozenset(config.allowed_origins)
    app = web.Application(
        middlewares=[
            # Outermost, so that a listed page can read errors too.
            middleware.origins(allowed, is_loopback(config.host)),
            middleware.errors(metrics),
            middleware.static_files(static_folder),
        ],
        client_max_size=MAX_JSON_BYTES,
    )
    app[SERVICES] = Services(config, VERSION, stage, sessions, Uploads(stage), metrics, time.monotonic())
    app.add_routes(routes)
    app.on_response_prepare.append(middleware.protective_headers(allowed))

    async def end_sessions(_app: web.Application) -> None:
        # Before aiohttp waits for open requests: sockets of a session end with it.
        await sessions.aclose()

    async def close_shared(_app: web.Application) -> AsyncIterator[None]:
        yield
        await sessions.aclose()
        await pool.aclose()
        await stage.aclose()

    app.on_shutdown.append(end_sessions)
    app.cleanup_ctx.append(close_shared)
    return app


def is_loopback(host: str) -> bool:
    """Whether a bind address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
