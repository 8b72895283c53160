"""One HTTP client for every speech, language and voice service: stages with time-outs, retries, typed errors.

Place in the flow: a provider's request -> ``Service.ask`` -> ``Answer`` -> bytes, JSON or server-sent events.

Errors are ``BackendFailed`` with these codes; their messages say which option to look at:
    service_unreachable   nobody listens, no such host, or no trusted certificate
    service_timeout       connecting, the first byte or the next byte took too long
    service_rejected_key  401 or 403
    service_rate_limited  429, or the service's own limit is used up
    service_failed        any other refusal, or an answer that broke off
    service_garbled       an answer that is not what was asked for

Invariants:
    * leaving ``ask`` before the answer ended closes the connection, so the service stops working at once;
    * a request is repeated only while nothing of an answer has been received, and only where that can help;
    * neither the key, nor what was asked, nor what the service wrote in an error reaches a log, a message or a repr;
    * messages are shown to strangers, so they do not tell the address, which may be of an inner network: the log does.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from engine.conversation.retry_after import retry_after_s
from engine.conversation.service_url import base_url
from engine.conversation.sse import END_OF_EVENTS, EventParser
from engine.errors import BackendFailed, Closed, ConfigInvalid

MAX_BODY_BYTES = 16 << 20

_RETRIED = frozenset({429, 500, 502, 503, 504, 529})
_FIRST_BACKOFF_S = 0.25
_LONGEST_BACKOFF_S = 4.0  # nobody waits longer than this for an answer; a longer Retry-After is an error at once

_log = logging.getLogger(__name__)

Form = Mapping[str, str | tuple[str, bytes, str]]
"""Fields of a multipart form: a text, or a file as (name, bytes, content type)."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each stage of a request may take, seconds.

    Attributes:
        connect_s: name look-up, TCP and TLS together.
        first_byte_s: from the request, all its attempts together, to the first byte or event of the answer.
        next_byte_s: between two reads, or two events, of the answer.
    """

    connect_s: float = 3.0
    first_byte_s: float = 20.0
    next_byte_s: float = 10.0


class Answer:
    """A successful answer whose body is still arriving. Valid inside ``async with service.ask(...)``.

    Attributes:
        done: whether ``events`` has met ``[DONE]``: a body without a length also ends where a service dies.
    """

    def __init__(self, service: Service, response: aiohttp.ClientResponse, first_byte_by_s: float) -> None:
        self._service = service
        self._response = response
        self._by_s = first_byte_by_s  # time of the loop by which the next bytes must be here
        self.done = False

    @property
    def content_type(self) -> str:
        """The kind of the body without parameters, such as ``application/json``."""
        return self._response.content_type

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the answer; names in any case."""
        return self._response.headers

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The body as it arrives.

        Raises:
            BackendFailed: ``service_timeout``, ``service_failed`` when it breaks off.
        """
        while chunk := await self._read():
            yield chunk
            self._allow_next()

    async def events(self) -> AsyncGenerator[str]:
        """Data of the server-sent events, up to ``[DONE]`` or the end of the body.

        Keep-alive comments do not prolong the wait for an event.

        Raises:
            BackendFailed: ``service_timeout``, ``service_failed`` when it breaks off, ``service_garbled``.
        """
        parser = EventParser()
        while True:
            chunk = await self._read()
            try:
                found = parser.feed(chunk) if chunk else parser.end()
            except ValueError:
                raise self.garbled("a line without an end") from None
            for data in found:
                if data.strip() == END_OF_EVENTS:
                    self.done = True
                    await self._finish()
                    return
                yield data
                self._allow_next()
            if not chunk:
                return

    async def read(self, limit_bytes: int = MAX_BODY_BYTES) -> bytes:
        """The whole body.

        Raises:
            BackendFailed: as ``chunks``; ``service_garbled`` when it is longer than the limit.
        """
        body = bytearray()
        while chunk := await self._read():
            body += chunk
            if len(body) > limit_bytes:
                raise self.garbled(f"more than {limit_bytes} bytes")
            self._allow_next()
        return bytes(body)

    async def json(self) -> Any:
        """The whole body as JSON.

        Raises:
            BackendFailed: as ``read``; ``service_garbled`` when it is none.
        """
        try:
            return jsonlib.loads(await self.read())
        except (ValueError, RecursionError):
            raise self.garbled("no JSON") from None

    def garbled(self, found: str) -> BackendFailed:
        """The error for an answer that is not what was asked for; ``found`` says what it is, never quotes it."""
        what = f"gave an answer that cannot be used: {found}."
        return self.error("service_garbled", what, "url", "names a service of the right kind")

    def error(self, code: str, what: str, look_at: str = "", which: str = "") -> BackendFailed:
        """As ``Service.error``, for what a provider finds in the body."""
        return self._service.error(code, what, look_at, which)

    def _allow_next(self) -> None:
        self._by_s = asyncio.get_running_loop().time() + self._service.timeouts.next_byte_s

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._by_s):
                return await self._response.content.readany()
        except TimeoutError:
            raise self._service.error("service_timeout", "stopped in the middle of an answer.") from None
        except (aiohttp.ClientError, OSError):
            raise self._service.error("service_failed", "broke off in the middle of an answer.") from None

    async def _finish(self) -> None:
        """Takes the end of a body that is all but over, so that the connection can be used again."""
        try:
            async with asyncio.timeout(0.05):
                await self._response.content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError):
            return


class Service:
    """One configured service: where it is, its key, and how patient to be with it."""

    def __init__(
        self,
        name: str,
        option: str,
        url: str,
        key: str = "",
        timeouts: Timeouts | None = None,
        *,
        versioned: bool = True,
        attempts: int = 3,
        choice: str = "model",
        failure_level: int = logging.WARNING,
    ) -> None:
        """Checks the configuration; nothing is sent yet.

        Args:
            name: what it is to a person: "language model".
            option: prefix of its options, for messages: "llm" for llm_url and llm_key.
            url: base URL, see ``base_url``.
            key: secret sent as a bearer token; empty sends none.
            timeouts: patience.
            versioned: see ``base_url``.
            attempts: how often a request is tried at most.
            choice: which of its options says what is asked for, for messages: "model" for llm_model.
            failure_level: of what is logged when a request failed.

        Raises:
            ConfigInvalid: ``service_url_invalid``, ``service_key_invalid``.
        """
        self.name = name
        self.option = option
        self.url = base_url(url, f"{option}_url", versioned)
        self.timeouts = timeouts or Timeouts()
        self._key = key.strip()
        self._attempts = attempts
        self._choice = choice
        self._failure_level = failure_level
        self._client: aiohttp.ClientSession | None = None
        self._closed = False
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise ConfigInvalid(
                "service_key_invalid",
                f"{option}_key holds a blank or a character that no key has. Copy it again, without quotes.",
            )

    def __repr__(self) -> str:
        return f"Service({self.name!r}, {self.url!r}, key={'***' if self._key else 'none'})"

    @asynccontextmanager
    async def ask(
        self,
        path: str,
        *,
        json: Any = None,
        form: Form | None = None,
        query: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Answer]:
        """Sends a request and gives its answer once the service has accepted it.

        Leaving the block, also by cancellation, closes the connection of an answer that has not ended.

        Args:
            path: below the base URL: ``/chat/completions``.
            json: body to send as JSON.
            form: body to send as a multipart form. Without a body the request is a GET.
            query: parameters of the address.

        Raises:
            BackendFailed: any code of this module.
            Closed: ``service_closed``.
        """
        try:
            async with self._asked(path, json, form, query) as answer:
                yield answer
        except BackendFailed as error:
            _log.log(self._failure_level, "the %s at %s failed: %s", self.name, self.url, error.code)
            raise

    @asynccontextmanager
    async def _asked(
        self, path: str, json: Any, form: Form | None, query: Mapping[str, str] | None
    ) -> AsyncIterator[Answer]:
        loop = asyncio.get_running_loop()
        by_s = loop.time() + self.timeouts.first_byte_s
        attempt = 1
        while True:
            try:
                response = await self._send(path, json, form, query, by_s)
                break
            except _Retry as retry:
                backoff_s = _FIRST_BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.8, 1.2)
                wait_s = retry.wait_s if retry.wait_s is not None else backoff_s
                too_long = wait_s > _LONGEST_BACKOFF_S or loop.time() + wait_s >= by_s
                if attempt >= self._attempts or too_long:
                    raise retry.error from None
                _log.info("%s: %s, attempt %d; again in %.2f s", self.name, retry.error.code, attempt, wait_s)
            attempt += 1
            await asyncio.sleep(wait_s)
        try:
            answer = Answer(self, response, by_s)
            if answer.content_type == "text/html":
                raise answer.garbled("a web page")
            yield answer
        finally:
            response.close()

    async def aclose(self) -> None:
        """Closes all connections. Idempotent."""
        self._closed = True
        if self._client is not None:
            await self._client.close()

    def error(self, code: str, what: str, look_at: str = "", which: str = "") -> BackendFailed:
        """A typed error: "The language model <what>", and the option to check if any."""
        message = f"The {self.name} {what}"
        if look_at:
            option = f"{self.option}_{look_at}"
            message += f" Check that {option} (VISAVIS_{option.upper()}) {which}."
        return BackendFailed(code, message)

    async def _send(
        self, path: str, json: Any, form: Form | None, query: Mapping[str, str] | None, by_s: float
    ) -> aiohttp.ClientResponse:
        """One attempt. Raises ``_Retry`` where another may help."""
        limits = self.timeouts
        try:
            async with asyncio.timeout_at(by_s):
                response = await self._open_client().request(
                    "GET" if json is None and form is None else "POST",
                    self.url + path,
                    json=json,
                    data=None if form is None else _multipart(form),
                    params=query,
                    headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
                    allow_redirects=False,  # a redirected POST becomes a GET, and the key may go to a stranger
                    timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect_s),
                )
        except aiohttp.ConnectionTimeoutError:
            raise self.error("service_timeout", "did not accept a connection in time.", "url", "is right") from None
        except TimeoutError:
            raise self.error("service_timeout", f"did not answer within {limits.first_byte_s:g} s.") from None
        except aiohttp.ClientSSLError:
            untrusted = "has no certificate that is trusted here."
            raise self.error("service_unreachable", untrusted, "url", "is right") from None
        except aiohttp.ClientResponseError:
            raise self.error("service_garbled", "does not speak HTTP.", "url", "is right") from None
        except (aiohttp.ClientError, OSError):
            raise _Retry(
                self.error("service_unreachable", "cannot be reached. Is it running?", "url", "is right")
            ) from None
        if 200 <= response.status < 300:
            return response
        try:
            await self._refuse(response)
        finally:
            response.close()
        raise AssertionError("unreachable")

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        """Raises the error for a status that is no success."""
        status = response.status
        if status in (401, 403):
            raise self.error("service_rejected_key", f"refuses the key (status {status}).", "key", "holds a valid key")
        if 300 <= status < 400:
            raise self.error("service_failed", f"has moved (status {status}).", "url", "is the address it moved to")
        if status == 429:
            if await self._is_out_of_quota(response):
                empty = "has no credit left for this key."
                raise self.error("service_rate_limited", empty, "key", "is of an account with credit")
            limited = self.error("service_rate_limited", "gets too many requests. Try again in a moment.")
            raise _Retry(limited, retry_after_s(response.headers))
        if status == 404:
            unknown = "has no such endpoint or model (status 404)."
            raise self.error("service_failed", unknown, "url", f"and {self.option}_{self._choice} are right")
        if status < 500:
            refused = f"refuses the request (status {status})."
            raise self.error("service_failed", refused, self._choice, f"is a {self._choice} for this use")
        failed = self.error("service_failed", f"failed (status {status}). Its own log says why.")
        if status in _RETRIED:
            raise _Retry(failed, retry_after_s(response.headers))
        raise failed

    async def _is_out_of_quota(self, response: aiohttp.ClientResponse) -> bool:
        """Whether a 429 says that waiting does not help."""
        try:
            async with asyncio.timeout(1.0):
                return b"insufficient_quota" in await response.content.read(4096)
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False

    def _open_client(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Closed("service_closed", f"The {self.name} is closed.")
        if self._client is None:
            self._client = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": "visavis"}, auto_decompress=True
            )
        return self._client


class _Retry(Exception):
    """An attempt that failed in a way that may pass; ``wait_s`` is what the service asked for."""

    def __init__(self, error: BackendFailed, wait_s: float | None = None) -> None:
        super().__init__(error.code)
        self.error = error
        self.wait_s = wait_s


def _multipart(form: Form) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name, value in form.items():
        if isinstance(value, str):
            data.add_field(name, value)
        else:
            filename, content, content_type = value
            data.add_field(name, content, filename=filename, content_type=content_type)
    return data
