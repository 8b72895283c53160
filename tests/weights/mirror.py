"""A mirror on this machine that can be told to misbehave."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType


@dataclass
class Behaviour:
    """What one address does.

    Attributes:
        content: the file.
        status: of the answer; None answers normally.
        headers: added to the answer, or in place of the usual ones.
        ranges: whether Range is understood.
        etag: entity tag; "" sends none.
        breaks_at: so many bytes of each answer, taken off the front once per request, are sent before the connection
            is cut; when used up, answers are whole.
        pause_s: before each KiB.
        announce: whether Content-Length is sent.
    """

    content: bytes = b""
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    etag: str = '"v1"'
    breaks_at: list[int] = field(default_factory=list)
    pause_s: float = 0.0
    announce: bool = True


class Mirror:
    """Serves ``files`` on loopback and remembers the requests: (path, Range header or "")."""

    def __init__(self) -> None:
        self.files: dict[str, Behaviour] = {}
        self.requests: list[tuple[str, str]] = []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # Whoever gives up in the middle is what some tests are about.
                with contextlib.suppress(ConnectionError):
                    mirror.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Mirror:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        self.requests.append((request.path, asked))
        file = self.files.get(request.path.lstrip("/"), Behaviour(status=404))
        if file.status is not None:
            request.send_response(file.status)
            for name, value in {"Content-Length": str(len(file.content)), **file.headers}.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(file.content)
            return
        body, offset = file.content, 0
        fresh = request.headers.get("If-Range", file.etag) == file.etag
        if asked and file.ranges and fresh:
            offset = int(asked.removeprefix("bytes=").rstrip("-"))
            if offset >= len(file.content):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(file.content)}")
                request.end_headers()
                return
            body = file.content[offset:]
        request.send_response(206 if offset else 200)
        headers = {"Content-Type": "application/octet-stream"}
        if file.announce:
            headers["Content-Length"] = str(len(body))
        if file.etag:
            headers["ETag"] = file.etag
        if offset:
            headers["Content-Range"] = f"bytes {offset}-{len(file.content) - 1}/{len(file.content)}"
        for name, value in {**headers, **file.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        sent = body[: file.breaks_at.pop(0)] if file.breaks_at else body
        for start in range(0, len(sent), 1024 if file.pause_s else len(sent) or 1):
            time.sleep(file.pause_s)
            request.wfile.write(sent[start : start + (1024 if file.pause_s else len(sent))])
            request.wfile.flush()
        request.close_connection = True
