"""Fixtures of the server's tests."""

from __future__ import annotations

import pytest

from tests.server.serving import Server, serve


@pytest.fixture
async def server(aiohttp_client) -> Server:
    """A server with a fake stage and default options."""
    return await serve(aiohttp_client)
