"""An embed that cannot work says why: to whoever looks at it, to the page around it, and on the console."""

from __future__ import annotations

import socket

import pytest

from server.access.embeds import Embeds
from tests.browser.test_embed import ELEMENT, SILENT, outcome
from tests.browser.test_troubles import ASKING

FRAME = '<iframe src="SERVER/embed?avatar=maya" width="360" height="480"></iframe>'


def without_referer(context) -> None:
    """As a proxy or an extension does that removes what browsers tell."""

    def strip(route) -> None:
        headers = {name: value for name, value in route.request.headers.items() if name != "referer"}
        route.fulfill(response=route.fetch(headers=headers))

    context.route("**/embed?*", strip)


def accessible_text(page) -> str:
    """All words that a screen reader finds in the page, closed shadow roots included."""
    session = page.page.context.new_cdp_session(page.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    return " ".join(n.get("name", {}).get("value", "") for n in nodes if n["role"]["value"] == "StaticText")


def test_page_that_is_not_listed_reads_in_the_frame_what_to_change(hosted):
    page = hosted.open(SILENT, name="shop.example")
    error = page.until_told("error")
    assert error["code"] == "embed_origin_not_listed" and page.origin in error["message"]
    assert page.origin in page.frame().inner_text("#message")
    assert outcome(page, "head.start()")[0] == "embed_origin_not_listed"
    page.page.wait_for_timeout(500)
    assert len(page.told("error")) == 1, "it is told once"
    assert any("embed_origin_not_listed" in line for line in page.complaints), "developers read the console"
    assert page.frame().query_selector("button") is None, "there is nothing to press"


def test_bubble_that_is_refused_makes_room_for_the_words(hosted):
    page = hosted.open('<talking-head id="head" bubble></talking-head>', name="shop.example")
    page.until_told("error")
    assert page.page.locator("talking-head").bounding_box()["width"] == 360


def test_frame_that_the_browser_refuses_is_noticed_by_the_element(hosted):
    page = hosted.open(SILENT, name="shop.example", route=without_referer)
    error = page.until_told("error", code="origin_refused")
    assert f"--origin {page.origin}" in error["message"]
    assert f"--origin {page.origin}" in accessible_text(page)
    assert outcome(page, "head.start()")[0] == "origin_refused"


def test_page_that_prevents_the_default_keeps_its_console_clean(hosted):
    quiet = "<script>addEventListener('talking-head:error', (e) => e.preventDefault())</script>"
    page = hosted.open(quiet + SILENT, name="shop.example")
    page.until_told("error")
    assert not [line for line in page.complaints if "<talking-head>" in line]


def test_frame_without_allow_says_which_attribute_is_missing(hosted):
    page = hosted.open(FRAME, script=False)
    frame = page.frame()
    find = "said.find(({ data }) => data.type === 'error')?.data.data ?? null"
    error = page.until_true(lambda: page.js(find), "an error")
    assert error["code"] == "microphone_policy" and error["missing"] == ["microphone", "autoplay"]
    assert 'allow="microphone; autoplay; fullscreen"' in error["message"]
    assert frame.is_visible("#notice") and "allow=" in frame.inner_text("#notice-text")
    frame.click("#notice-close")
    frame.click("#begin")
    page.until_true(lambda: frame.evaluate("head.state === 'live'"), "the portrait lives all the same")
    frame.click("#talk-button")
    frame.wait_for_selector("#notice[data-code='microphone_policy']", state="visible")
    frame.fill("#text", "Typing works without it.")
    frame.press("#text", "Enter")
    page.until_true(lambda: frame.evaluate("head.speaking"), "speech")


def test_sound_that_the_page_around_may_not_begin_waits_for_a_click(hosted):
    page = hosted.open(FRAME.replace("maya", "maya&mic=off&autostart"), script=False)
    said = "([type, member, value]) => said.find((m) => m.data.type === type && m.data.data[member] === value) ?? null"
    page.until_true(lambda: page.js(said, ["state", "state", "live"]), "the picture")
    page.js("frames[0].postMessage({ source: 'talking-head', v: 1, type: 'start' }, '*')")
    page.until_true(lambda: page.js(said, ["sound", "blocked", True]), "silence")
    page.until_true(lambda: page.js(said, ["error", "code", "autoplay_policy"]), "why")
    frame = page.frame()
    frame.click("#sound")
    page.until_true(lambda: not frame.evaluate("head.muted || head.video.paused"), "sound after a click")


def test_visitor_who_blocks_the_microphone_can_type(hosted):
    page = hosted.open(ELEMENT, microphone=False)
    page.until_told("ready")
    assert outcome(page, "head.start()")[0] == "done"
    assert page.until_told("error")["code"] == "microphone_denied"
    frame = page.frame()
    assert "blocked" in frame.inner_text("#notice-title")
    assert outcome(page, "head.setMicrophone(true)")[0] == "microphone_denied"
    frame.fill("#text", "Hello.")
    frame.press("#text", "Enter")
    page.until_told("speaking", speaking=True)


def test_page_whose_policy_forbids_the_frame_is_told_so(hosted, server):
    policy = "default-src 'none'; script-src SERVER/embed/"
    page = hosted.open(SILENT, headers={"Content-Security-Policy": policy})
    error = page.until_told("error")
    assert error["code"] == "page_policy"
    assert "frame-src" in error["message"] and server.url.rstrip("/") in error["message"]
    assert "frame-src" in accessible_text(page)


def test_server_that_is_gone_is_told_apart(hosted):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    page = hosted.open(f'<talking-head id="head" src="{address}"></talking-head>')
    error = page.until_told("error")
    assert error["code"] == "server_gone" and address in error["message"]


def test_avatar_that_does_not_exist_is_named(hosted):
    page = hosted.open('<talking-head id="head" avatar="nobody"></talking-head>')
    assert page.until_told("error")["code"] == "avatar_unknown"
    assert outcome(page, "head.start()")[0] == "avatar_unknown"
    assert page.frame().is_visible("#notice")


@pytest.mark.parametrize("attribute", ["", "autostart"])
def test_avatar_that_is_named_rightly_afterwards_comes_alive(hosted, attribute):
    page = hosted.open(f'<talking-head id="head" avatar="nobody" mic="off" {attribute}></talking-head>')
    page.until_told("error", code="avatar_unknown")
    if not attribute:
        assert outcome(page, "head.start()")[0] == "avatar_unknown"
    page.js("head.setAttribute('avatar', 'leo')")
    page.until_live()
    assert page.frame().inner_text("#name") == "Leo"
    assert not page.frame().is_visible("#notice")


def test_microphone_that_is_allowed_after_the_end_stays_closed(hosted):
    page = hosted.open(ELEMENT, route=lambda context: context.add_init_script(ASKING))
    page.until_told("ready")
    frame = page.frame()
    frame.click("#begin")
    page.until_true(lambda: frame.evaluate("asked.length"), "the browser's question")
    frame.click("#end")
    frame.evaluate("asked[0].allow()")
    closed = "opened.length && opened.every((track) => track.readyState === 'ended')"
    page.until_true(lambda: frame.evaluate(closed), "a closed microphone")
    page.js("void (window.wanted = head.setMicrophone(true).catch(({ code }) => code))")
    page.until_true(lambda: frame.evaluate("asked.length === 2"), "another question")
    assert outcome(page, "head.setMicrophone(false)")[0] == "done"
    assert page.js("wanted") == "microphone_off"


def test_key_opens_the_portrait_on_its_own_pages_as_often_as_wanted(hosted, server):
    key = Embeds(server.data_dir).add("leo", [f"http://localhost:{hosted.host.port}"]).key
    page = hosted.open(f'<talking-head id="head" key="{key}" mic="off"></talking-head>')
    page.until_told("ready")
    exchanged, offered = [], []
    page.page.on("request", lambda r: exchanged.append(r.post_data_json) if r.url.endswith("/tokens") else None)
    page.page.on("request", lambda r: offered.append(r.post_data_json) if r.url.endswith("/offer") else None)
    for _ in range(2):
        assert outcome(page, "head.start()")[0] == "done"
        assert outcome(page, "head.stop()")[0] == "done"
    assert page.frame().inner_text("#name") == "Leo"
    assert len({sent["page_token"] for sent in exchanged}) == len(exchanged) == 2, "each is good once"
    assert len({sent["token"] for sent in offered}) == len(offered) == 2
    assert outcome(page, "head.setAvatar('maya').then(() => head.start())")[0] != "done", "it is Leo's key"


def test_key_is_worth_nothing_on_other_pages(hosted, server):
    key = Embeds(server.data_dir).add("leo", ["https://shop.example"]).key
    page = hosted.open(f'<talking-head id="head" key="{key}"></talking-head>')
    assert page.until_told("error")["code"] == "embed_origin_not_listed"
    assert page.frame().query_selector("#begin") is None


def test_page_that_stood_too_long_takes_a_new_token(hosted, server):
    key = Embeds(server.data_dir).add("leo", [f"http://localhost:{hosted.host.port}"]).key
    page = hosted.open(f'<talking-head id="head" key="{key}" mic="off"></talking-head>')
    page.until_told("ready")
    frame = page.frame()
    # As after a night: the token has expired, and the page is old.
    frame.evaluate(
        """() => {
            const exchange = head.api.tokens.bind(head.api);
            head.api.tokens = () => exchange({ page_token: "vp_expired" });
            const now = performance.now.bind(performance);
            performance.now = () => now() + 3_600_000;
        }"""
    )
    page.js("said.length = 0")
    frame.click("#begin")
    page.until_told("error", code="page_stale")
    page.until_true(lambda: page.js("said.some(({ data }) => data.type === 'ready')"), "the page anew")
    page.frame().click("#begin")
    page.until_live()
