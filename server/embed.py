"""The embed over HTTP: the page that other sites frame, the script that defines their element, and what to paste.

Place in the flow: another site's page -> its pinned script -> ``GET /embed`` in a frame -> the API, as from our page.
``server.access`` says who may frame it and gives each frame its token.

Invariants:
    * a script that was given out under a version never changes, so that its integrity hash can be pinned;
    * what may be framed by anybody does nothing but say why it does nothing;
    * a token is in the answer to one request for the page alone, and no cache keeps that answer.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import re
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from engine.errors import NotFound
from server.access.framing import framing
from server.access.gate import ACCESS
from server.middleware import FRAMERS
from server.services import SERVICES

_SCRIPT = re.compile(r"v(\d+)\.(\d+)\.(\d+)\.js")
_ACCESS_MARK = "<!-- access -->"
"""Where the pages take up what is only known when they are asked for."""

embed_routes = web.RouteTableDef()


@dataclass(frozen=True, slots=True)
class Script:
    """One version of the script that defines the element.

    Attributes:
        version: such as ``1.0.0``.
        body: the file.
        integrity: its SHA-384 as browsers check it.
    """

    version: str
    body: bytes
    integrity: str


class Embed:
    """What the handlers work with: the pages and all versions of the script."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: of the static files; ``embed/vX.Y.Z.js`` in it are the scripts.
        """
        self.page = folder / "embed.html"
        self.refusal = folder / "embed-refused.html"
        found = {name: file for file in folder.glob("embed/*.js") if (name := _SCRIPT.fullmatch(file.name))}
        self.scripts = {name[0]: _script(file) for name, file in sorted(found.items(), key=lambda it: _number(it[0]))}

    @property
    def latest(self) -> Script:
        """The version to paste today.

        Raises:
            NotFound: ``embed_missing``: the static files are not those of this server.
        """
        if not self.scripts:
            raise NotFound("embed_missing", "The static files of this server have no embed/vX.Y.Z.js.")
        return next(reversed(self.scripts.values()))


EMBED: web.AppKey[Embed] = web.AppKey("embed", Embed)


def _number(name: re.Match[str]) -> tuple[int, ...]:
    return tuple(int(part) for part in name.groups())


def _script(file: Path) -> Script:
    body = file.read_bytes()
    digest = base64.b64encode(hashlib.sha384(body).digest()).decode()
    return Script(file.stem.removeprefix("v"), body, f"sha384-{digest}")


@embed_routes.get("/embed")
async def embed_page(request: web.Request) -> web.Response:
    """The portrait for a frame; where this frame may not show it, what to change."""
    embed = request.app[EMBED]
    framed = framing(request.app[ACCESS], request.app[SERVICES].config, request)
    request[FRAMERS] = framed.framers
    if framed.problem:
        file, told, status = embed.refusal, {"problem": framed.problem, "message": framed.message}, 403
    else:
        told = {"avatar": framed.avatar or "", "page-token": framed.page_token, "token": framed.token}
        file, status = embed.page, 200
    # Read each time: a page and its modules must never be of two versions.
    page = await asyncio.to_thread(file.read_text, "utf-8")
    metas = "".join(
        f'<meta name="{name}" content="{html.escape(value)}">' for name, value in told.items() if value
    )
    return web.Response(
        text=page.replace(_ACCESS_MARK, metas),
        status=status,
        content_type="text/html",
        charset="utf-8",
        headers={"Cache-Control": "no-store"},
    )


@embed_routes.get("/embed/snippet")
async def embed_snippet(request: web.Request) -> web.Response:
    """What a page of another site needs, with addresses as seen from the server's root."""
    latest = request.app[EMBED].latest
    return web.json_response(
        {
            "version": latest.version,
            "script": f"embed/v{latest.version}.js",
            "integrity": latest.integrity,
            "page": "embed",
        },
        headers={"Cache-Control": "no-cache"},
    )


@embed_routes.get("/embed/{script}")
async def embed_script(request: web.Request) -> web.Response:
    """One version of the script; the same bytes for ever, for everybody."""
    script = request.app[EMBED].scripts.get(request.match_info["script"])
    if script is None:
        raise NotFound("embed_version_unknown", "There is no such version of the script; see /embed/snippet.")
    return web.Response(
        body=script.body,
        content_type="text/javascript",
        charset="utf-8",
        headers={
            "Cache-Control": "public, max-age=31536000, immutable",
            # An integrity hash is only checked of what the page around may read.
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
        },
    )
