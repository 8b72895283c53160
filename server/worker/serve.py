"""Runs one media worker in the running event loop: today's server without its front desk, at an address of its own.

Place in the flow: ``python -m server.worker``, or a cluster's actor -> ``serve`` -> ``Worker``; a gateway finds it at
``Worker.address``.

Invariants:
    * it takes no signals and writes nothing but its log: that is the business of whoever runs it;
    * a socket in the file system can be opened by nobody but the user it runs as.
"""

from __future__ import annotations

import asyncio
import logging
import os
from urllib.parse import urlsplit

from aiohttp import web

from engine.config import Config
from engine.conversation.discover import discover
from engine.errors import ConfigInvalid
from engine.metrics import EngineMetrics
from server.app import Setting, create_app
from server.gateway.fleet import SEPARATOR, Memory
from server.services import SERVICES
from server.stage import Stage
from server.worker.internal import CLOSING, DESK, Desk, fullness, internal_routes, known_made, only_for
from server.worker.keeper import Keeper
from server.worker.relay import RelayMemory

logger = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 0.6
"""How long requests that are still open may take once the sessions have ended."""


class Worker:
    """A worker that serves. Made by ``serve``.

    Attributes:
        name: what its ids begin with.
        address: where it listens: ``unix:/path`` or ``http://host:port``.
    """

    def __init__(self, name: str, address: str, app: web.Application, runner: web.AppRunner) -> None:
        """Use ``serve``."""
        self.name = name
        self.address = address
        self._app = app
        self._runner = runner

    @property
    def places(self) -> int:
        """Sessions it can hold."""
        return fullness(self._app).places

    @property
    def taken(self) -> int:
        """Places taken."""
        return fullness(self._app).taken

    @property
    def yielding(self) -> int:
        """How many of them are kept for browsers that were lost, and go to whoever wants them."""
        return fullness(self._app).yielding

    @property
    def load(self) -> float:
        """What it does of what it could do, 0 to 1 and more."""
        return fullness(self._app).load

    @property
    def avatars(self) -> list[str]:
        """Names of the faces its sessions show."""
        return fullness(self._app).avatars

    async def drain(self, limit_s: float) -> None:
        """Lets no one in any more and returns when all have gone, or after a while."""
        desk = self._app[DESK]
        desk.draining = True
        desk.changed.set()
        await self._app[SERVICES].sessions.drain(limit_s)

    async def aclose(self) -> None:
        """Ends all sessions, which may go on elsewhere, and closes the door. Idempotent."""
        await self._runner.cleanup()


async def serve(
    config: Config,
    *,
    name: str,
    secret: str,
    bind: str,
    memory: Memory | None = None,
    cores: float = 0.0,
    encoder_threads: int = 0,
) -> Worker:
    """Loads everything and listens.

    Args:
        config: options; ``max_sessions`` and ``render_threads`` are those of this worker alone.
        name: of this worker and of no other one, ever; see ``server.gateway.fleet``.
        secret: to be shown with every request.
        bind: ``unix:/path`` or ``http://host:port``, where port 0 takes any.
        memory: keeps sessions; None leaves that to the gateway that reads this worker's events.
        cores: cores it is meant to use; 0 means all.
        encoder_threads: threads that encode pictures; 0 means one a core.

    Raises:
        VisavisError: what a person has to mend, as ``Stage.open``.
    """
    stage = await Stage.open(config, EngineMetrics())
    app = create_worker(
        config, stage, name=name, secret=secret, memory=memory, cores=cores, encoder_threads=encoder_threads
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        address = await _listen(runner, bind)
    except BaseException:
        await runner.cleanup()
        raise
    if config.llm == "host":
        stage.language_models.offer(await discover(own_port=config.port))
    return Worker(name, address, app, runner)


def create_worker(
    config: Config,
    stage: Stage,
    *,
    name: str,
    secret: str,
    memory: Memory | None = None,
    cores: float = 0.0,
    encoder_threads: int = 0,
) -> web.Application:
    """The application of a worker around an open stage, which belongs to it from here on; arguments as of ``serve``.

    Raises:
        ConfigInvalid: ``worker_name``.
    """
    if SEPARATOR in name or not name:
        raise ConfigInvalid("worker_name", f"The name of a worker has no {SEPARATOR!r} and is not empty: {name!r}.")
    # Avatars are made, and the studio's folder is swept, by the gateway alone; it counts callers, too.
    config = config.model_copy(update={"studio": "off", "access": "open", "rate_per_address": 1_000_000})
    setting = Setting(id_prefix=f"{name}{SEPARATOR}", encoder_threads=encoder_threads, guard=only_for(secret))
    app = create_app(config, stage, setting=setting)
    app[CLOSING] = asyncio.Event()
    if memory is None:
        memory = relay = RelayMemory()
        app[DESK] = desk = Desk(relay, cores)
        relay.on_word = desk.changed.set
    else:
        app[DESK] = desk = Desk(None, cores)
    desk.made = known_made(stage)
    keeper = Keeper(app[SERVICES].sessions, memory)
    keeping: list[asyncio.Task[None]] = []

    async def keep(_app: web.Application) -> None:
        keeping.append(asyncio.create_task(keeper.run(), name="keeper"))

    async def last_words(_app: web.Application) -> None:
        # The sessions have ended by now, and whoever reads what is to be remembered gets the last of it.
        for task in keeping:
            task.cancel()
            await asyncio.wait([task])
        await keeper.aclose()
        app[CLOSING].set()
        desk.changed.set()

    app.on_startup.append(keep)
    app.on_shutdown.append(last_words)
    app.add_routes(internal_routes)
    return app


async def _listen(runner: web.AppRunner, bind: str) -> str:
    if bind.startswith("unix:"):
        path = bind.removeprefix("unix:")
        # The folder is private; the socket is too, from its first moment on.
        before = os.umask(0o177)
        try:
            await web.UnixSite(runner, path).start()
        finally:
            os.umask(before)
        return bind
    where = urlsplit(bind)
    try:
        await web.TCPSite(runner, where.hostname, where.port or 0).start()
    except OSError as error:
        raise ConfigInvalid(
            "worker_address", f"A worker cannot listen on {where.hostname}:{where.port}: {error.strerror or error}."
        ) from error
    host = f"[{where.hostname}]" if ":" in (where.hostname or "") else where.hostname
    return f"http://{host}:{runner.addresses[0][1]}"
