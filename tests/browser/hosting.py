"""Pages of other sites that embed the portrait: a web server of their own, and what their visitors see.

Place in the flow: ``hosted`` (a fixture of the embed's tests) -> ``Host`` serves, Chromium shows -> ``Hosted``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.browser.conftest import PATIENCE_S, Visit
from tests.browser.serving import Server

EVENTS = (
    "ready state speaking user_speaking user_transcript avatar_transcript interrupted sound microphone bubble ending "
    "metrics error"
)
RECORDER = f"""
window.told = [];
window.said = [];
for (const type of "{EVENTS}".split(" ")) {{
    addEventListener("talking-head:" + type, (e) => told.push({{ from: e.target.id, type, ...e.detail }}));
}}
addEventListener("message", ({{ origin, data }}) => said.push({{ origin, data }}));
"""
"""Runs in every page: all events as they arrive at the window, and all messages."""


class Host:
    """A web server with whatever pages a test gives it, under any name."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[str, dict[str, str]]] = {"/favicon.ico": ("", {"Content-Type": "image/x-icon"})}
        pages = self.pages

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body, headers = pages.get(self.path, ("", {}))
                self.send_response(200 if self.path in pages else 404)
                for name, value in {"Content-Type": "text/html; charset=utf-8", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Hosted(Visit):
    """A page of another site that somebody opened.

    Attributes:
        origin: of that page.
    """

    origin: str = ""

    def told(self, kind: str, element: str = "head") -> list[dict[str, Any]]:
        """Events of one type that an element told so far."""
        return self.js("([type, from]) => told.filter((e) => e.type === type && e.from === from)", [kind, element])

    def until_told(self, kind: str, element: str = "head", **expected: Any) -> dict[str, Any]:
        """The first event of a type that has these members, as soon as it is told."""
        find = """([type, from, wanted]) => told.find((e) => e.type === type && e.from === from
            && Object.entries(wanted).every(([key, value]) => e[key] === value)) ?? null"""
        return self.until_true(lambda: self.js(find, [kind, element, expected]), f"{kind} {expected} of {element}")

    def frame(self, mark: str = "/embed") -> Any:
        """The embed's own page, or the one whose address has a mark."""
        return self.until_true(
            lambda: next((frame for frame in self.page.frames[1:] if mark in frame.url), None), f"a frame with {mark}"
        )

    def until_true(self, check: Callable[[], Any], what: str) -> Any:
        """What a check gives as soon as it gives something."""
        end_s = time.monotonic() + PATIENCE_S
        while not (value := check()):
            assert time.monotonic() < end_s, f"not within {PATIENCE_S} s: {what}; told: {self.js('told')}"
            self.page.wait_for_timeout(30)
        return value

    def until_live(self, element: str = "head") -> None:
        """Waits for the connection of one element."""
        self.until(f"{element}.state === 'live'")


@dataclass
class Hosting:
    """Opens pages of other sites; see ``open``."""

    browser: Any
    server: Server
    host: Host = field(default_factory=Host)
    contexts: list[Any] = field(default_factory=list)

    def open(
        self,
        body: str,
        *,
        name: str = "localhost",
        microphone: bool = True,
        headers: dict[str, str] | None = None,
        route: Callable[[Any], None] | None = None,
        script: bool = True,
        **options: Any,
    ) -> Hosted:
        """A page of ``http://name``.

        Args:
            body: its HTML; ``SERVER`` stands for the portrait server's address.
            name: of its host.
            microphone: whether the visitor allows the microphone.
            headers: of its answer.
            route: makes changes to the browser's context.
            script: whether it loads the element's script.
            options: of the context.
        """
        origin = f"http://{name}:{self.host.port}"
        served = self.server.url.rstrip("/")
        loader = f'<script src="{served}/embed/v1.0.0.js" crossorigin="anonymous" async></script>' if script else ""
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>Shop</title><h1>A page of somebody else</h1>{loader}{body.replace('SERVER', served)}"
        )
        headers = {name: value.replace("SERVER", served) for name, value in (headers or {}).items()}
        self.host.pages["/"] = (page, headers)
        context = self.browser.new_context(**options)
        self.contexts.append(context)
        # Browsers have no microphones for pages that are neither encrypted nor on this machine.
        if microphone and name == "localhost":
            context.grant_permissions(["microphone"], origin=origin)
        context.add_init_script(f"if (window === top) {{ {RECORDER} }}")
        if route:
            route(context)
        hosted = Hosted(context.new_page(), origin=origin)

        def note(message: Any) -> None:
            if message.type in ("error", "warning"):
                hosted.complaints.append(f"{message.text} {message.location['url']}")

        hosted.page.on("console", note)
        hosted.page.on("pageerror", lambda error: hosted.complaints.append(str(error)))
        hosted.page.goto(f"{origin}/")
        return hosted

    def close(self) -> None:
        for context in self.contexts:
            for page in context.pages:
                # Leaving by way of another page gives the seat back, as a person's tab does.
                page.goto("about:blank")
            context.close()
        self.host.close()


@contextmanager
def hosting(browser: Any, server: Server) -> Iterator[Hosting]:
    """Everything above, closed at the end."""
    opened = Hosting(browser, server)
    try:
        yield opened
    finally:
        opened.close()
