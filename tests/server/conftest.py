"""Fixtures of the server's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.serving import Server, serve


@pytest.fixture(autouse=True)
def data_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where servers keep their data, unless the test says otherwise: never in the home of whoever runs the tests."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data-home"))
    return tmp_path / "data-home" / "visavis"


@pytest.fixture
async def server(aiohttp_client) -> Server:
    """A server with a fake stage and default options."""
    return await serve(aiohttp_client)
