"""The dialogue that shows what to paste; and what it shows, pasted."""

from __future__ import annotations

import pytest


def opened(visit, **options):
    visited = visit(**options).alive()
    visited.page.click("#settings-button")
    visited.page.click("#embed-open")
    visited.until("document.querySelector('#embed-code').textContent.includes('maya')")
    return visited


def choose(visited, kind: str) -> str:
    visited.page.locator(f"#embed-kinds input[value={kind}]").check(force=True)
    return visited.js("document.querySelector('#embed-code').textContent")


@pytest.mark.parametrize("kind", ["element", "bubble", "frame"])
def test_what_it_shows_works_on_another_page(visit, hosted, kind):
    snippet = choose(opened(visit), kind)
    assert ("integrity=" in snippet) == (kind != "frame")
    page = hosted.open(snippet, script=False)
    page.until_true(lambda: page.js("said.some(({ data }) => data.type === 'ready')"), "ready")
    assert page.complaints == []
    assert (page.page.locator("talking-head[bubble]").count() == 1) == (kind == "bubble")


def test_a_script_that_was_changed_on_the_way_does_not_run(visit, hosted):
    snippet = choose(opened(visit), "element").replace('integrity="sha384-', 'integrity="sha384-AAAA')
    page = hosted.open(snippet, script=False)
    page.until_true(lambda: any("integrity" in line for line in page.complaints), "a refusal")
    assert page.js("customElements.get('talking-head') === undefined")


def test_it_copies_and_gives_the_keyboard_back(visit):
    visited = opened(visit)
    visited.page.context.grant_permissions(
        ["clipboard-read", "clipboard-write"], origin=visited.page.url.rstrip("/")
    )
    visited.soon_shows("#embed-copy", "Copied")
    visited.page.click("#embed-copy")
    visited.until("window.shown")
    assert visited.js("navigator.clipboard.readText()") == visited.js(
        "document.querySelector('#embed-code').textContent"
    )
    visited.page.keyboard.press("Escape")
    visited.until("!document.querySelector('#embed').open")
    visited.until("document.activeElement.id === 'settings-button'")


def test_server_that_asks_for_a_key_has_one_put_in(visit):
    visited = opened(visit, config={"access": "closed"})
    assert 'key="YOUR-EMBED-KEY"' in choose(visited, "element")
    assert "key=YOUR-EMBED-KEY" in choose(visited, "frame")
    assert "embeds add maya" in visited.page.inner_text("#embed-key")
    assert not visited.page.is_visible("#embed-here")


@pytest.mark.parametrize("width", [360, 1440])
def test_it_fits_the_window(visit, width):
    visited = opened(visit, viewport={"width": width, "height": 640})
    box = visited.page.locator("#embed").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] <= 640
    assert visited.js("document.querySelector('#embed').scrollWidth <= document.querySelector('#embed').clientWidth")
