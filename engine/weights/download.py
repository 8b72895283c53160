"""Fetches one large file from the first mirror that gives it whole: resumed, checked, and renamed when complete.

Place in the flow: addresses of ``engine.weights.sources`` -> this -> a file for ``engine.weights.add``.

Invariants:
    * a file under its own name is complete and, where its SHA-256 is known, the right one;
    * what arrived before a failure or Ctrl-C stays beside it and is continued only from the same file: same address and
      validator (RFC 9110, If-Range), or any address when the SHA-256 will tell;
    * only https is spoken, and http with this machine itself; redirects are held to the same rule.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from engine.errors import ConfigInvalid, DiskFull, DownloadFailed, VisavisError
from engine.weights.folder import check_space, exclusive, typed_errors
from engine.weights.part import Part
from engine.weights.sources import check_address, is_loopback, shown

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and those of the whole file, None while that is unknown."""

MAX_BYTES = 4 << 30
_BLOCK_BYTES = 1 << 18
_MAX_REDIRECTS = 5
_TIMEOUT_S = 30.0
# A connection that brings less than this in that time is taken for dead.
_STALL_S = 30.0
_STALL_BYTES = 32 << 10
# Attempts at one mirror that bring nothing new, and the pauses between them.
_ATTEMPTS = 4
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Download:
    """A complete file.

    Attributes:
        path: where it lies.
        sha256: of its content.
        address: which mirror gave it.
    """

    path: Path
    sha256: str
    address: str


class _Again(Exception):
    """The connection failed in a way that another attempt at the same mirror may mend."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class _Hopeless(Exception):
    """This mirror does not have the file."""


def download(
    addresses: Sequence[str],
    goal: Path,
    *,
    sha256: str | None = None,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
    pause: Callable[[float], None] = time.sleep,
    timeout_s: float = _TIMEOUT_S,
) -> Download:
    """Fetches a file from the first address that gives it whole and right.

    Args:
        addresses: mirrors, best first.
        goal: the file to write; its folder is made when missing. A file of that name is replaced.
        sha256: that the file must have; None accepts any.
        progress: told while bytes arrive.
        say: told in one sentence when a mirror is given up or tried again.
        pause: waits so many seconds.
        timeout_s: longest silence of a mirror.

    Raises:
        DownloadFailed: ``download_failed`` with what is wrong with every mirror, or ``download_mismatch`` when one had
            a file, but no right one.
        ConfigInvalid: ``mirror_invalid``.
        DiskFull: ``disk_full``; what arrived is removed.
        InvalidInput: ``weights_dir_unwritable``.
        Busy: ``download_running``: another process fetches this file.
    """
    for address in addresses:
        check_address(address)
    with typed_errors(goal.parent):
        goal.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(goal):
        return _first(addresses, goal, sha256, progress, say, pause, timeout_s)


def _first(
    addresses: Sequence[str],
    goal: Path,
    sha256: str | None,
    progress: Progress,
    say: Callable[[str], None],
    pause: Callable[[float], None],
    timeout_s: float,
) -> Download:
    part = Part(goal.with_name(goal.name + ".part"))
    with typed_errors(goal.parent):
        part.load()
    reasons: list[str] = []
    mismatch = False
    for address in addresses:
        fetch = _Fetch(address, part, sha256, progress, say, pause, timeout_s)
        try:
            found = fetch.run()
        except _Hopeless as error:
            reasons.append(f"{shown(address)}: {error}")
            if len(addresses) > len(reasons):
                say(f"{reasons[-1]}; trying the next mirror.")
            continue
        if sha256 is not None and found != sha256:
            mismatch = True
            reasons.append(f"{shown(address)}: its SHA-256 is {found}, not {sha256}")
            with typed_errors(goal.parent):
                part.drop()
            continue
        with typed_errors(goal.parent):
            part.finish(goal)
        return Download(goal, found, address)
    kept = f" {part.size / 1e6:.0f} MB are kept; the same command continues." if part.size else ""
    if mismatch:
        message = f"No mirror has the right {goal.name}. {'; '.join(reasons)}. If you trust it, say --sha256 HEX."
        raise DownloadFailed("download_mismatch", message + kept)
    raise DownloadFailed("download_failed", f"{goal.name} could not be fetched. {'; '.join(reasons)}.{kept}")


@dataclass(slots=True)
class _Fetch:
    """One mirror's attempts."""

    address: str
    part: Part
    sha256: str | None
    progress: Progress
    say: Callable[[str], None]
    pause: Callable[[float], None]
    timeout_s: float

    def run(self) -> str:
        """Fetches the file into the part and returns its SHA-256.

        Raises:
            _Hopeless: the mirror does not have the file, or broke down too often.
        """
        failures, suspicious = 0, False
        while True:
            before, resumed = self.part.size, self._may_resume()
            try:
                self._attempt()
            except _Again as error:
                gained = self._may_resume() and self.part.size - before > _STALL_BYTES
                failures = 1 if gained else failures + 1
                if failures >= _ATTEMPTS:
                    raise _Hopeless(str(error)) from error
                wait_s = min(error.pause_s or _PAUSE_S * 2 ** (failures - 1), _LONGEST_PAUSE_S)
                self.say(f"{shown(self.address)}: {error}; again in {wait_s:.0f} s.")
                self.pause(wait_s)
                continue
            with typed_errors(self.part.path), self.part.path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if not resumed or suspicious or self.sha256 in (None, found):
                return found
            # Two files may have been joined; the mirror gets one chance to give its own from beginning to end.
            suspicious = True
            self.say(f"{shown(self.address)}: what was continued does not fit together; from the beginning.")
            with typed_errors(self.part.path):
                self.part.drop()

    def _may_resume(self) -> bool:
        if not self.part.size:
            return False
        return bool(self.sha256) or self.part.is_of(self.address)

    def _attempt(self) -> None:
        """One connection: fetches what is missing.

        Raises:
            _Again, _Hopeless: as their names say.
        """
        request = urllib.request.Request(self.address, headers={"User-Agent": "visavis", "Accept-Encoding": "identity"})
        offset = self.part.size if self._may_resume() else 0
        if offset:
            request.add_header("Range", f"bytes={offset}-")
            if self.part.is_of(self.address):
                request.add_header("If-Range", self.part.validator)
        try:
            response = _opener(self.address).open(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and offset:
                    self._range_refused(error)
                    return
                raise self._refusal(error) from error
        except ConfigInvalid as error:
            raise _Hopeless(f"it redirects to where it must not: {error.message}") from error
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            raise _unreachable(error) from error
        with response:
            offset = self._begin(response, offset)
            self._receive(response, offset)

    def _range_refused(self, response: urllib.error.HTTPError) -> None:
        """Nothing lies behind what is there: then it is complete, or of another file."""
        whole = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
        if whole and int(whole[1]) == self.part.size:
            return
        with typed_errors(self.part.path):
            self.part.drop()
        raise _Again("the file has changed", pause_s=0.1)

    @staticmethod
    def _refusal(error: urllib.error.HTTPError) -> Exception:
        reason = f"HTTP {error.code} {error.reason}".strip()
        if 300 <= error.code < 400:
            return _Hopeless("it redirects in circles, or too often")
        if error.code not in _TRANSIENT:
            return _Hopeless(reason)
        wait = error.headers.get("Retry-After", "")
        return _Again(reason, float(wait) if wait.isdecimal() else None)

    def _begin(self, response: http.client.HTTPResponse, offset: int) -> int:
        """Checks the head of an answer and makes the part ready for its body; returns where the body belongs."""
        headers = response.headers
        if headers.get("Content-Encoding", "identity") != "identity":
            raise _Hopeless(f"it sends the file as {headers['Content-Encoding']}, which was not asked for")
        if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise _Hopeless("it sends a web page, not the file")
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        if response.status == 206:
            place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
            if place and int(place[1]) == offset and self.part.total in (None, int(place[2])):
                self.part.total = int(place[2])
                return offset
            with typed_errors(self.part.path):
                self.part.drop()
            raise _Again("it sends another part than was asked for", pause_s=0.1)
        if total is not None and total > MAX_BYTES:
            raise _Hopeless(f"the file has {total / 1e9:.1f} GB; no checkpoint is so large")
        tag = headers.get("ETag", "")
        # Weak tags are of files that only mean the same; they must not be continued.
        validator = tag if tag.startswith('"') else headers.get("Last-Modified", "") if not tag else ""
        with typed_errors(self.part.path):
            self.part.begin(self.address, validator, total)
        return 0

    def _receive(self, response: http.client.HTTPResponse, offset: int) -> None:
        part = self.part
        done, mark_bytes, mark_s = offset, offset, time.monotonic()
        try:
            check_space(part.path.parent, (part.total or 0) - offset)
            with typed_errors(part.path), part.path.open("r+b" if offset else "wb") as file:
                file.seek(offset)
                self.progress(done, part.total)
                while block := _read(response):
                    if done == 0 and (other := _not_weights(block)):
                        raise _Hopeless(other)
                    file.write(block)
                    done += len(block)
                    self.progress(done, part.total)
                    if done > (part.total or MAX_BYTES):
                        raise _Hopeless("it sends more than it announced")
                    now_s = time.monotonic()
                    if now_s - mark_s > _STALL_S:
                        if done - mark_bytes < _STALL_BYTES:
                            raise _Again("it has all but stopped sending")
                        mark_bytes, mark_s = done, now_s
        except (DiskFull, _Hopeless):
            # Keeping it would keep the disk full, or continue what is no part of the file.
            part.drop()
            raise
        if not done:
            raise _Hopeless("it sends an empty file")
        if part.total is not None and done < part.total:
            raise _Again(f"the connection broke at {done / 1e6:.0f} of {part.total / 1e6:.0f} MB")


def _read(response: IO[bytes]) -> bytes:
    """The next bytes, as many as are there; b"" at the end."""
    try:
        return response.read1(_BLOCK_BYTES)  # type: ignore[attr-defined]
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise _Again(f"the connection broke ({_reason(error)})") from error


def _not_weights(head: bytes) -> str:
    """What the beginning of a file says it is when it is a usual stand-in for the file; else ""."""
    start = head[:200].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it sends a web page, not the file"
    if start.startswith(b"version https://git-lfs"):
        return "it sends a Git LFS pointer, not the file"
    return ""


def _unreachable(error: Exception) -> Exception:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return _Hopeless(f"its certificate is not valid ({reason.verify_message})")
    if isinstance(reason, VisavisError):
        return _Hopeless(reason.message)
    text = _reason(reason)
    return _Again(text) if isinstance(reason, OSError | http.client.HTTPException) else _Hopeless(text)


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    text = getattr(error, "strerror", None) or str(error)
    return text or type(error).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows few redirects, and only to where a mirror may be."""

    max_redirections = _MAX_REDIRECTS
    max_repeats = 2

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        check_address(newurl)
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise ConfigInvalid("mirror_invalid", f"from https to {shown(newurl)}.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(address: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_Redirects()]
    if is_loopback(address):
        # A proxy would reach its own machine, not this one.
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)
