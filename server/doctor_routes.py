"""The doctor over HTTP: the page that looks at the browser, and what is found on the server.

Place in the flow: ``GET /doctor`` -> page, ``GET /doctor.json`` -> ``python -m server doctor`` in a process of its own
-> report.

Invariants:
    * the checks run beside the sessions, at a lower priority, one at a time: whoever asks meanwhile gets its result;
    * what is found on the server is told to this machine and to holders of an API key, even where access is open, and
      to no page of another site;
    * options go to the process through its standard input, so that no key stands in a list of processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from engine.config import Config
from engine.errors import AccessDenied, BackendFailed
from server.access.framing import framing
from server.access.gate import ACCESS
from server.middleware import FRAMERS
from server.services import SERVICES

logger = logging.getLogger(__name__)

LIMIT_S = 150.0
END_S = 2.0
KEPT_S = 5.0
"""How long a report is given out again: a page that is loaded twice does not measure twice."""

_REPOSITORY = Path(__file__).resolve().parents[1]
_COMMAND = (sys.executable, "-m", "server", "doctor", "--json", "--running")
_ACCESS_MARK = "<!-- access -->"
"""Where the page takes up what is only known when it is asked for."""
_MAX_REPORT_BYTES = 1 << 20

doctor_routes = web.RouteTableDef()


class Doctor:
    """Examines this server."""

    def __init__(self, config: Config, folder: Path, command: Sequence[str] = _COMMAND) -> None:
        """
        Args:
            config: options to look at.
            folder: of the static files.
            command: what to run; it reads the options and prints a report.
        """
        self.page = folder / "doctor.html"
        self._config = config
        self._command = list(command)
        self._one = asyncio.Lock()
        self._report: dict[str, Any] = {}
        self._made_s = -KEPT_S
        self._process: asyncio.subprocess.Process | None = None

    async def report(self) -> dict[str, Any]:
        """What is found now; takes some seconds.

        Raises:
            BackendFailed: ``doctor_failed``.
        """
        async with self._one:
            if time.monotonic() - self._made_s >= KEPT_S:
                self._report = await self._examine()
                self._made_s = time.monotonic()
            return self._report

    async def aclose(self) -> None:
        """Ends a run that is still going on; idempotent."""
        self._kill()

    async def _examine(self) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VISAVIS_")}
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command, cwd=_REPOSITORY, env=environment, stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=_MAX_REPORT_BYTES,
                start_new_session=True,
            )  # fmt: skip
            told = self._config.model_dump_json(exclude_unset=True).encode()
            async with asyncio.timeout(LIMIT_S):
                printed, _ = await process.communicate(told)
            report: dict[str, Any] = json.loads(printed)
            return report
        except (OSError, TimeoutError, ValueError) as error:
            logger.warning("the doctor's process gave no report: %s", type(error).__name__)
            raise BackendFailed(
                "doctor_failed", "The checks of the server did not end; run python -m server doctor there."
            ) from error
        finally:
            await self._end()

    async def _end(self) -> None:
        process = self._process
        self._kill()
        if process is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await process.wait()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


DOCTOR: web.AppKey[Doctor] = web.AppKey("doctor", Doctor)


@doctor_routes.get("/doctor")
async def doctor_page(request: web.Request) -> web.Response:
    """The page; in a frame it says whether the page around it may show the avatar."""
    framed = framing(request.app[ACCESS], request.app[SERVICES].config, request)
    request[FRAMERS] = framed.framers
    told = {
        "problem": framed.problem, "message": framed.message, "avatar": framed.avatar or "",
        "page-token": framed.page_token, "token": framed.token,
    }  # fmt: skip
    metas = "".join(f'<meta name="{name}" content="{html.escape(value)}">' for name, value in told.items() if value)
    page = await asyncio.to_thread(request.app[DOCTOR].page.read_text, "utf-8")
    return web.Response(
        text=page.replace(_ACCESS_MARK, metas),
        content_type="text/html",
        charset="utf-8",
        headers={"Cache-Control": "no-store"},
    )


@doctor_routes.get("/doctor.json")
async def doctor_report(request: web.Request) -> web.Response:
    """What is found on the server, as ``python -m server doctor --json`` prints it."""
    # It costs time, and a word of each service: no page of another site may have that done, unseen, on this machine.
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise AccessDenied("origin_forbidden", "Only this server's own page may have it examined.")
    return web.json_response(await request.app[DOCTOR].report(), headers={"Cache-Control": "no-store"})
