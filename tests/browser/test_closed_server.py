"""The page of a server that asks everybody for a key: who was let in can do all that the page offers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.access.keys import ApiKeys
from tests.browser.serving import Server, serving
from tests.browser.test_voices import sound_file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lets nobody in without a key."""
    with serving(tmp_path_factory.mktemp("closed"), access="closed") as running:
        yield running


def test_file_is_spoken_in_the_changed_voice_by_whoever_was_let_in(visit, server):
    key = ApiKeys(server.data_dir).create("page")
    visited = visit(f"#token={key}").alive()
    visited.choose("pitch", "4")
    visited.page.set_input_files("#file", sound_file(2.0))
    visited.page.click("#upload-changed")
    visited.until("visavis.speaking || !document.querySelector('#notice').hidden", timeout_s=60)
    assert visited.notice() == ""
    visited.until("document.querySelector('#upload').hidden")
