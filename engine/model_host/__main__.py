"""``python -m engine.model_host``: loads the models, listens, and says so in one line of JSON.

Place in the flow: ``ModelProcess`` (or a person) -> this process <- workers with ``--model-socket``.

It raises its own limit of open files: workers have a connection for each thread, and memory with it.

The line is ``{"ready": true}``, or ``{"code", "message"}`` of what is wrong. With ``--with-parent`` it ends when its
standard input does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import resource
import signal
import sys
from pathlib import Path

from engine.config import Config
from engine.errors import VisavisError
from engine.model_host.host import Host
from engine.registry import create_lipsync, create_restorer

DESCRIPTORS = 16_384
"""Enough for every connection that is let in, and its memory; a thousand, as is usual, for 75 workers."""


def main(argv: list[str] | None = None) -> int:
    """Serves until it is told to stop; returns the exit code."""
    usual = Config()
    parser = argparse.ArgumentParser(prog="python -m engine.model_host", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--socket", type=Path, required=True, help="path of the socket; its folder must be private")
    parser.add_argument("--lipsync", default=usual.lipsync)
    parser.add_argument("--restorer", default=usual.restorer)
    parser.add_argument("--precision", default=usual.precision)
    parser.add_argument("--threads", type=int, default=usual.render_threads, help="pictures at a time on a CPU")
    parser.add_argument("--weights-dir", type=Path, default=usual.weights_dir)
    parser.add_argument("--cache-dir", type=Path, default=usual.cache_dir)
    parser.add_argument("--made-dir", type=Path, default=usual.data_dir / "avatars")
    parser.add_argument("--log-level", default=usual.log_level)
    parser.add_argument("--with-parent", action="store_true", help="end when standard input does")
    args = parser.parse_args(argv)
    logging.basicConfig(
        level=args.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    _allow_descriptors()
    try:
        lipsync = create_lipsync(args.lipsync, precision=args.precision, weights_dir=args.weights_dir)
        restorer = create_restorer(args.restorer, precision=args.precision, weights_dir=args.weights_dir)
        host = Host(lipsync, restorer, args.threads, args.cache_dir, args.made_dir.resolve())
        host.listen(args.socket)
    except VisavisError as error:
        print(json.dumps(error.to_dict()), flush=True)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: host.stop())
    print(json.dumps({"ready": True}), flush=True)
    host.serve(sys.stdin.fileno() if args.with_parent else None)
    return 0


def _allow_descriptors() -> None:
    """Raises the limit of open files as far as is useful and allowed; never lowers it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # Some systems allow less than they say.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
