"""Puts the server together: stage, sessions, routes and middleware, in the order in which they start and stop.

Place in the flow: Config -> ``create_app`` -> aiohttp; ``__main__`` runs it, tests run it too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from engine.config import Config
from server import middleware
from server.access.address import is_loopback
from server.access.gate import ACCESS, Access, gate
from server.access.turn import IceServers
from server.api import routes
from server.bodies import MAX_BODY_BYTES
from server.broadcast import Broadcasts
from server.broadcast_routes import BROADCASTS, broadcast_routes
from server.capacity import rough_places
from server.compat.livetalking import livetalking_routes
from server.compat.pipecat import pipecat_routes
from server.compat.recording import RECORDINGS, Recordings
from server.conversion_routes import conversion_routes
from server.conversions import CONVERSIONS, Conversions
from server.doctor_routes import DOCTOR, Doctor, doctor_routes
from server.embed import EMBED, Embed, embed_routes
from server.encoder import VideoCodec
from server.encoder_pool import EncoderPool
from server.loop_files import FOLDER as LOOPS
from server.mattes import MATTES, Mattes, matte_routes
from server.metrics import ServerMetrics
from server.outputs.outputs import OUTPUTS, Outputs
from server.outputs.routes import output_routes
from server.peer_options import PeerOptions
from server.services import SERVICES, Services
from server.sessions import Sessions
from server.signaling import announce
from server.stage import Stage
from server.studio.process import WorkerProcess
from server.studio.routes import STUDIO, Studio, studio_routes
from server.uploads import Uploads
from server.whep import whep_routes

VERSION = "0.1.0"
STATIC_FOLDER = Path(__file__).resolve().parent.parent / "static"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is different in an application that is one process of several.

    Attributes:
        sessions: makes what a gateway has in place of sessions of its own.
        id_prefix: what the ids of a worker begin with.
        encoder_threads: threads that encode pictures; 0 for as many as there are cores.
        guard: a worker's only door, in place of everything that decides who may come in.
        inner: what a request passes last before its handler.
    """

    sessions: Callable[[ServerMetrics], Sessions] | None = None
    id_prefix: str = ""
    encoder_threads: int = 0
    guard: Middleware | None = None
    inner: tuple[Middleware, ...] = ()


ALONE = Setting()


def create_app(
    config: Config, stage: Stage, static_folder: Path = STATIC_FOLDER, setting: Setting = ALONE
) -> web.Application:
    """The application around an open stage.

    Its clean-up ends all sessions, then closes the stage.

    Args:
        config: options.
        stage: open; from here on it belongs to the application.
        static_folder: the page.
        setting: for one process of several.
    """
    announce(config.node_address)
    metrics = ServerMetrics(stage.metrics.registry)
    pool = EncoderPool(setting.encoder_threads, metrics, config.h264_encoder)
    # Called on a thread, for an avatar that may have been deleted meanwhile.
    pool.loops.folder_of = lambda avatar: (
        stage.kept_in(avatar.name) / LOOPS if avatar.name in stage.cards else None
    )
    ice = IceServers(config)
    mattes = Mattes(config, stage)
    options = PeerOptions(
        ice_servers=ice.fresh,
        video_codec=config.video_codec,
        video_bitrate=config.video_kbps * 1000,
        heartbeat_timeout_s=config.heartbeat_timeout_s,
        idle_timeout_s=config.idle_session_s,
        matte=mattes.get,
    )
    if setting.sessions is not None:
        sessions = setting.sessions(metrics)
    else:
        sessions = Sessions(
            stage.create_session, pool, options, metrics, rough_places(config), config.max_session_s, setting.id_prefix
        )
    access = Access(config, ice, sessions)
    allowed = frozenset(config.allowed_origins)
    if setting.guard is None:
        middlewares = [
            # Outermost, so that a listed page can read errors too.
            middleware.origins(allowed, is_loopback(config.host)),
            middleware.errors(metrics),
            gate(access),
            middleware.static_files(static_folder),
            *setting.inner,
        ]
    else:
        middlewares = [middleware.errors(metrics), setting.guard, *setting.inner]
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    uploads = Uploads(stage)
    app[ACCESS] = access
    app[SERVICES] = Services(config, VERSION, stage, sessions, ice, uploads, metrics, time.monotonic())
    app[CONVERSIONS] = conversions = Conversions(uploads, stage.stages, sessions.new_id)
    on = config.studio == "on" or (config.studio == "loopback" and is_loopback(config.host))
    app[STUDIO] = studio = Studio(stage, WorkerProcess(config), sessions.shows, enabled=on)
    app.add_routes(routes)
    app[MATTES] = mattes
    app.add_routes(conversion_routes)
    app.add_routes(matte_routes)
    app.add_routes(pipecat_routes)
    app[BROADCASTS] = broadcasts = Broadcasts(sessions, options, metrics, config.broadcast_viewers)
    # Before the routes of WHEP: an avatar may be called "watch", too.
    app.add_routes(broadcast_routes)
    app.add_routes(whep_routes)
    app[OUTPUTS] = outputs = Outputs(config.publish, pool, options.video_bitrate, ice.fresh, metrics.registry)
    app.add_routes(output_routes)
    if config.livetalking == "on" or (config.livetalking == "loopback" and is_loopback(config.host)):
        app[RECORDINGS] = recordings = Recordings()
        app.add_routes(livetalking_routes)
        app.on_cleanup.append(lambda _app: recordings.aclose())
    app[EMBED] = Embed(static_folder)
    app.add_routes(embed_routes)
    app[DOCTOR] = doctor = Doctor(config, static_folder)
    app.add_routes(doctor_routes)
    app.add_routes(studio_routes)
    if setting.guard is None:
        app.on_response_prepare.append(middleware.protective_headers(allowed))

    async def end_sessions(_app: web.Application) -> None:
        # Before aiohttp waits for open requests: sockets of a session, and those who watch a job, end with it.
        await asyncio.gather(sessions.aclose(), studio.aclose(), conversions.aclose(), doctor.aclose())

    async def close_shared(_app: web.Application) -> AsyncIterator[None]:
        await studio.open()
        if setting.sessions is None and stage.default_avatar is not None:
            codec: VideoCodec = "VP8" if config.video_codec == "vp8" else "H264"
            pool.loops.prepare(stage.default_avatar, codec, options.video_bitrate)
        yield
        await asyncio.gather(sessions.aclose(), studio.aclose(), conversions.aclose())
        await broadcasts.aclose()
        await outputs.aclose()
        await mattes.aclose()
        await pool.aclose()
        await stage.aclose()

    app.on_shutdown.append(end_sessions)
    app.cleanup_ctx.append(close_shared)
    return app
