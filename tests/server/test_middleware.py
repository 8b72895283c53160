"""The page's files, asked for by whoever does not mean them well."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry

from server.metrics import ServerMetrics
from server.middleware import errors, static_files


@pytest.fixture
async def client(aiohttp_client, tmp_path: Path) -> TestClient:
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("the page")
    (tmp_path / "secret.txt").write_text("none of theirs")
    metrics = ServerMetrics(CollectorRegistry())
    return await aiohttp_client(web.Application(middlewares=[errors(metrics), static_files(folder)]))


async def status_of_raw(client: TestClient, path: str) -> int:
    """The answer to a path that no client library would send as it is."""
    reader, writer = await asyncio.open_connection(client.server.host, client.server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


@pytest.mark.parametrize(
    "path",
    [
        "/%2e%2e/secret.txt", "/%2e%2e", "/%2e%2e" * 40 + "/", "/%2e%2e" * 40 + "/etc/passwd", "/%2e", "/" + "a" * 300,
        "/" + "a" * 300 + ".html", "/" + "a/" * 2500 + "b.html", "/a%00b.html", "/%ff%fe.html", "/..%5csecret.txt",
        "/%2f%2f%2e%2e/", "/index.html/%2e%2e/%2e%2e/secret.txt",
    ],
)  # fmt: skip
async def test_a_path_that_leads_nowhere_is_not_found_whatever_it_looks_like(client: TestClient, path: str):
    assert await status_of_raw(client, path) == 404


@pytest.mark.parametrize("path", ["/", "/index", "/index.html"])
async def test_the_page_is_found_by_each_of_its_names(client: TestClient, path: str):
    assert await status_of_raw(client, path) == 200
