"""``python -m server``: reads the options, opens the stage, serves until it is told to stop.

Invariants:
    * the address is printed when, and only when, the server answers on it and the first visitor need not wait;
    * what a person can mend (options, a port in use, a missing avatar) is one line on stderr and exit code 1;
    * SIGINT and SIGTERM end it in order, within two seconds; a second one ends it at once.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import logging
import signal
import sys
import time

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from engine.config import Config
from engine.config_load import load_config
from engine.errors import VisavisError
from engine.metrics import EngineMetrics
from engine.option_docs import add_arguments

logger = logging.getLogger("server")

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
        _start_log(config)
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
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, loop, stop, number)
    # Found out before the model loads, not after.
    await _check_address(config)
    # aiortc takes a quarter of a second to import; options and port are checked without it.
    from engine.conversation.discover import discover
    from server.access.gate import ACCESS
    from server.app import create_app
    from server.stage import Stage

    opening = asyncio.create_task(Stage.open(config, EngineMetrics()), name="stage-open")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            opening.cancel()
            await asyncio.wait({opening})
            return
        runner = web.AppRunner(
            app := create_app(config, stage := opening.result()),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            # A client may stop reading, but not for ever.
            keepalive_timeout=30,
        )
        await runner.setup()
        try:
            await _listen(runner, config)
            if config.llm == "host":
                # One that runs here could answer instead of the script; it is offered, never used unasked.
                found = await discover(own_port=config.port)
                stage.language_models.offer(found)
                for server in found:
                    logger.info(server.offer)
            print(f"Visavis is ready: {address(config.host, config.port)}", flush=True)
            if app[ACCESS].is_unreachable:
                logger.warning(
                    "Nobody may come in yet: make an API key with python -m server keys create NAME, or let everybody"
                    " in with --access open."
                )
            await stopping
            logger.info("stopping")
        finally:
            await runner.cleanup()
    finally:
        stopping.cancel()


def _stop(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, number: int) -> None:
    stop.set()
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


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _without_nonsense(record: logging.LogRecord) -> bool:
    """False for requests that are no HTTP: aiohttp answers them with 400, and anybody can send as many as they like."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _start_log(config: Config) -> None:
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonLines() if config.log_format == "json" else text)
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])
    logging.getLogger("aiohttp.server").addFilter(_without_nonsense)
    for chatty in ("aioice", "aiortc", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


if __name__ == "__main__":
    sys.exit(main())
