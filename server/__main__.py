"""``python -m server``: reads the options, opens the stage, serves until it is told to stop.

Invariants:
    * the address is printed when, and only when, the server answers on it and the first visitor need not wait;
    * what a person can mend (options, a port in use, a missing avatar) is one line on stderr and exit code 1;
    * SIGINT and SIGTERM end it in order, within two seconds after the sessions have had the time that ``drain_s`` gives
      them on SIGTERM; a second one ends it at once;
    * with several workers SIGHUP replaces them by new ones, one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import signal
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from engine.config import Config, usable_cores
from engine.config_load import load_config
from engine.errors import VisavisError
from engine.metrics import EngineMetrics
from engine.option_docs import add_arguments
from server.log import start_log

if TYPE_CHECKING:
    from server.gateway.local import LocalFleet

logger = logging.getLogger("server")

T = TypeVar("T")

SHUTDOWN_TIMEOUT_S = 0.6
"""How long requests that are still open may take once the sessions have ended."""


def main(argv: list[str] | None = None) -> int:
    """Runs the server, or one of its commands; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in ("keys", "embeds"):
        # The server itself starts without what commands need.
        from server.access import commands

        return commands.main(words)
    if words and words[0] == "doctor":
        from server.app import VERSION
        from server.doctor import command

        return command.main(words[1:], VERSION)
    parser = argparse.ArgumentParser(prog="python -m server", description="Visavis: a talking head over WebRTC.")
    add_arguments(parser)
    try:
        config = load_config(vars(parser.parse_args(argv)))
        start_log(config, "gateway" if config.cluster or config.workers > 1 else "")
        asyncio.run(_serve(config))
    except VisavisError as error:
        print(f"Visavis cannot start: {error.message}", file=sys.stderr)
        return 1
    except _CannotListen as error:
        print(f"Visavis cannot start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class _CannotListen(Exception):
    """The address cannot be bound; the message says why and what to do."""


async def _serve(config: Config) -> None:
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    _hear_signals(loop, stop)
    # Found out before the model loads, not after.
    await _check_address(config)
    if config.cluster:
        await _serve_cluster(config, stop)
    else:
        alone = config.workers == 1 and config.model_process != "on"
        await (_serve_alone(config, stop) if alone else _serve_workers(config, stop))


async def _serve_alone(config: Config, stop: asyncio.Future[int]) -> None:
    # aiortc takes a quarter of a second to import; options and port are checked without it.
    from engine.conversation.discover import discover
    from server.app import create_app
    from server.capacity import settle_places
    from server.memory import keep_small
    from server.services import SERVICES
    from server.stage import Stage

    stage = await _unless_stopped(Stage.open(config, EngineMetrics()), stop)
    if stage is None:
        return
    runner = _runner(app := create_app(config, stage))
    await runner.setup()
    try:
        await _listen(runner, config)
        if config.llm == "host":
            # One that runs here could answer instead of the script; it is offered, never used unasked.
            found = await discover(own_port=config.port)
            stage.language_models.offer(found)
            for server in found:
                logger.info(server.offer)
        _tell_ready(config, app)
        keep_small()
        services = app[SERVICES]
        settling = asyncio.create_task(
            settle_places(config, services.sessions, services.metrics.capacity_sessions), name="places"
        )
        try:
            if await stop == signal.SIGTERM:
                await services.sessions.drain(config.drain_s)
        finally:
            settling.cancel()
            await asyncio.wait({settling})
        logger.info("stopping")
    finally:
        await runner.cleanup()


async def _serve_workers(config: Config, stop: asyncio.Future[int]) -> None:
    from engine.model_process import ModelProcess, wants_model_process
    from server.capacity import measured_places
    from server.gateway.local import LocalFleet
    from server.gateway.memory import LocalMemory
    from server.gateway.process import share, start
    from server.gateway.serve import create_gateway
    from server.services import SERVICES

    loop = asyncio.get_running_loop()
    # Each worker is told its part, so it has to be known first; it is measured at the first start alone.
    places = await _unless_stopped(measured_places(config, config.workers), stop)
    if places is None:
        return
    config = config.model_copy(update={"max_sessions": places})
    memory = LocalMemory()
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="visavis-"))
        if wants_model_process(config, config.workers):
            models = ModelProcess(config)
            stack.push_async_callback(models.aclose)
            await models.start()
            config = config.model_copy(update={"model_socket": models.address})
        fleet = LocalFleet(
            config.workers,
            lambda name, number: start(
                config, name, Path(folder), share(config, config.workers, usable_cores(), number)
            ),
            memory,
            config.drain_s,
        )
        try:
            if await _unless_stopped(_opened(fleet), stop) is None:
                return
            runner = _runner(app := await create_gateway(config, fleet, memory))
            await runner.setup()
            try:
                await _listen(runner, config)
                loop.add_signal_handler(signal.SIGHUP, fleet.roll)
                _tell_ready(config, app)
                if await stop == signal.SIGTERM:
                    app[SERVICES].sessions.shut_door()
                    await fleet.drain(config.drain_s)
                logger.info("stopping")
            finally:
                await runner.cleanup()
        finally:
            await fleet.aclose()


async def _serve_cluster(config: Config, stop: asyncio.Future[int]) -> None:
    from server.access.gate import ACCESS
    from server.cluster.gateway import open_cluster
    from server.gateway.serve import create_gateway

    cluster = await _unless_stopped(open_cluster(config), stop)
    if cluster is None:
        return
    # Ray has put handlers of its own in their place, which print where the program was.
    _hear_signals(asyncio.get_running_loop(), stop)
    try:
        runner = _runner(app := await create_gateway(config, cluster.fleet, cluster.memory))
        cluster.share(app[ACCESS])
        await runner.setup()
        try:
            await _listen(runner, config)
            _tell_ready(config, app)
            # The sessions are the workers' and do not notice that one gateway less is there.
            await stop
            logger.info("stopping")
        finally:
            await runner.cleanup()
    finally:
        await cluster.aclose()


async def _opened(fleet: LocalFleet) -> LocalFleet:
    await fleet.open()
    return fleet


async def _unless_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Future[int]) -> T | None:
    """What work gives; None when the server is stopped meanwhile."""
    working = asyncio.create_task(work, name="open")
    either: set[asyncio.Future[Any]] = {working, stop}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        working.cancel()
        await asyncio.wait({working})
        return None
    return working.result()


def _runner(app: web.Application) -> web.AppRunner:
    return web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        # A client may stop reading, but not for ever.
        keepalive_timeout=30,
    )


def _tell_ready(config: Config, app: web.Application) -> None:
    from server.access.gate import ACCESS

    print(f"Visavis is ready: {address(config.host, config.port)}", flush=True)
    if app[ACCESS].is_unreachable:
        logger.warning(
            "Nobody may come in yet: make an API key with python -m server keys create NAME, or let everybody"
            " in with --access open."
        )


def _hear_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Future[int]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, loop, stop, number)


def _stop(loop: asyncio.AbstractEventLoop, stop: asyncio.Future[int], number: int) -> None:
    if not stop.done():
        stop.set_result(number)
    # The next one has its usual effect.
    loop.remove_signal_handler(number)


async def _check_address(config: Config) -> None:
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, config.host, config.port)
    except OSError as error:
        raise _cannot_listen(config, error) from error
    server.close()
    await server.wait_closed()


async def _listen(runner: web.AppRunner, config: Config) -> None:
    try:
        await web.TCPSite(runner, config.host, config.port).start()
    except OSError as error:
        raise _cannot_listen(config, error) from error


def _cannot_listen(config: Config, error: OSError) -> _CannotListen:
    if error.errno == errno.EADDRINUSE:
        return _CannotListen(
            f"port {config.port} is in use. Stop what uses it, or choose another one: --port or VISAVIS_PORT."
        )
    if error.errno == errno.EACCES:
        return _CannotListen(f"port {config.port} needs special rights; choose one above 1023.")
    return _CannotListen(f"cannot listen on {config.host}:{config.port}: {error.strerror or error}.")


def address(host: str, port: int) -> str:
    """What to type into a browser on this machine."""
    name = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::", "::1", "localhost") else host
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}"


if __name__ == "__main__":
    sys.exit(main())
