"""The portrait on a page of another site: every method, every event, and everything a visitor does."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from tests.browser.hosting import EVENTS

ELEMENT = '<talking-head id="head" avatar="maya"></talking-head>'
SILENT = '<talking-head id="head" avatar="maya" mic="off"></talking-head>'
CAUGHT = "(call) => call().then((value) => ['done', value], (error) => [error.code, error.message])"


def outcome(page, call: str) -> list:
    """What the promise of a method came to: ["done", value] or [code, message]."""
    return page.js(f"({CAUGHT})(() => {call})")


def started(hosted, body: str = SILENT, **options):
    """A page whose portrait is live."""
    page = hosted.open(body, **options)
    page.until_told("ready")
    assert outcome(page, "head.start()")[0] == "done"
    assert page.js("head.state") == "live"
    return page


def session_of(page) -> str:
    """The id of the session in the page's frame."""
    return page.frame().evaluate("head.session")


def is_open(server, session: str) -> bool:
    """Whether the server still has a session."""
    try:
        urllib.request.urlopen(f"{server.url}sessions/{session}/transcript", timeout=10).close()
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return False
    return True


def test_one_tap_brings_picture_sound_and_microphone(hosted):
    page = hosted.open(ELEMENT)
    assert page.until_told("ready")["avatar"] == "maya"
    frame = page.frame()
    assert frame.inner_text("#begin") == "Talk to Maya"
    assert {event["state"] for event in page.told("state")} == {"new"}, "nothing connects before somebody begins"
    frame.click("#begin")
    page.until_told("microphone", state="on")
    page.until_told("state", state="live")
    page.until_told("sound", muted=False)
    assert frame.evaluate("document.activeElement.id") == "talk-button"
    frame.fill("#text", "Hello there.")
    frame.press("#text", "Enter")
    page.until_told("speaking", speaking=True)
    page.until_true(lambda: frame.evaluate("head.stats().then((s) => s.audio_energy)"), "sound")
    assert page.told("error") == []
    assert page.complaints == []


def test_every_method_does_what_it_says(hosted, server):
    page = hosted.open(SILENT)
    page.until_told("ready")
    assert outcome(page, "head.say('too early')")[0] == "not_connected"
    assert outcome(page, "head.start()") == ["done", {}]
    assert page.js("head.state") == "live"
    said = outcome(page, "head.say('One two three four five six seven eight nine ten.')")
    assert said[0] == "done" and said[1]["utterance_id"] > 0
    page.until("head.speaking")
    assert outcome(page, "head.interrupt()")[0] == "done"
    page.until_told("interrupted")
    page.until("!head.speaking")
    asked = outcome(page, "head.ask('Who are you?')")
    assert asked[0] == "done" and asked[1]["turn_id"] > 0
    assert page.until_told("metrics")["stages_ms"]
    assert outcome(page, "head.setMuted(true)")[0] == "done"
    page.until_told("sound", muted=True)
    assert outcome(page, "head.setMicrophone(true)")[0] == "microphone_off"
    assert outcome(page, "head.setAvatar('leo')")[0] == "done"
    assert page.js("head.getAttribute('avatar')") == "leo"
    page.until_true(lambda: page.frame().inner_text("#name") == "Leo", "Leo's name")
    page.until_true(lambda: len([e for e in page.told("state") if e["state"] == "live"]) == 2, "the new face")
    assert outcome(page, "head.setAvatar('nobody')")[0] == "avatar_unknown"
    assert page.js("head.getAttribute('avatar')") == "leo"
    session = session_of(page)
    assert outcome(page, "head.stop()")[0] == "done"
    page.until_told("state", state="closed")
    page.until_true(lambda: not is_open(server, session), "the end of the session")
    assert outcome(page, "head.start()")[0] == "done", "and again from the beginning"


def test_microphone_opens_and_closes_from_the_page_around(hosted):
    page = started(hosted, ELEMENT)
    page.until_told("microphone", state="on")
    assert outcome(page, "head.setMicrophone(false)")[0] == "done"
    page.until_told("microphone", state="off")
    page.js("told.length = 0")
    assert outcome(page, "head.setMicrophone(true)")[0] == "done"
    page.until_told("microphone", state="on")


def test_what_is_heard_and_said_is_told(hosted):
    page = started(hosted)
    page.js("head.say('Good morning.')")
    assert page.until_told("avatar_transcript")["text"] == "Good morning."
    page.until_told("speaking", speaking=False)
    # What a person says is told by the server; here it speaks for itself.
    page.frame().evaluate(
        """() => {
            const tell = (type, detail) => head.dispatchEvent(new CustomEvent(type, { detail }));
            tell("user_speaking", { speaking: true });
            tell("transcript", { text: "what time is it", final: true, turn_id: 7 });
            tell("ending", { reason: "idle", seconds_left: 30 });
        }"""
    )
    assert page.until_told("user_speaking")["speaking"] is True
    heard = page.until_told("user_transcript")
    assert (heard["text"], heard["final"], heard["turn_id"]) == ("what time is it", True, 7)
    assert page.until_told("ending")["seconds_left"] == 30
    assert page.frame().is_visible("#ending")
    assert set(page.js("[...new Set(told.map((e) => e.type))]")) <= set(EVENTS.split())


def test_attributes_take_effect_at_once(hosted):
    page = hosted.open('<talking-head id="head" avatar="maya" captions="off" mic="hold" muted></talking-head>')
    page.until_told("ready")
    frame = page.frame()
    assert frame.get_attribute("#captions-button", "aria-pressed") == "false"
    page.js("head.setAttribute('captions', 'on')")
    page.until_true(lambda: frame.get_attribute("#captions-button", "aria-pressed") == "true", "captions")
    page.js("head.setAttribute('avatar', 'leo')")
    page.until_true(lambda: frame.inner_text("#begin") == "Talk to Leo", "the other face")
    frame.click("#begin")
    page.until_told("microphone", state="ready")
    page.until_told("state", state="live")
    assert frame.inner_text("#talk-label") == "Hold to talk"
    assert frame.evaluate("head.muted"), "muted means muted, also after the tap"
    page.js("head.removeAttribute('muted')")
    page.until_told("sound", muted=False)
    page.js("told.length = 0; head.setAttribute('mic', 'off')")
    page.until_told("ready")
    assert not page.frame("mic=off").is_visible("#talk")


def test_controls_speak_the_language_of_the_page_around(hosted):
    page = hosted.open(f'<div lang="zh-CN">{ELEMENT}</div>')
    page.until_told("ready")
    assert page.frame().inner_text("#begin") == "和Maya说话"
    assert page.frame().evaluate("document.documentElement.lang") == "zh-CN"


def test_picture_moves_without_a_tap_where_the_page_wants_that(hosted):
    page = hosted.open('<talking-head id="head" avatar="maya" autostart></talking-head>')
    page.until_live()
    frame = page.frame()
    page.until_true(lambda: frame.evaluate("head.classList.contains('showing')"), "the picture")
    assert frame.evaluate("head.muted") and frame.is_visible("#begin")
    frame.click("#begin")
    page.until_told("sound", muted=False)
    page.until_told("microphone", state="on")
    assert len([e for e in page.told("state") if e["state"] == "live"]) == 1, "it is the same session"


def test_two_portraits_on_one_page_do_not_mix(hosted):
    page = hosted.open(SILENT + '<talking-head id="other" avatar="leo" mic="off"></talking-head>')
    page.until_told("ready")
    page.until_told("ready", "other")
    assert outcome(page, "Promise.all([head.start(), other.start()])")[0] == "done"
    assert outcome(page, "other.say('It is only me who speaks.')")[0] == "done"
    page.until_told("speaking", "other", speaking=True)
    assert not page.js("head.speaking")
    assert page.until_told("avatar_transcript", "other")["text"] == "It is only me who speaks."
    assert page.told("avatar_transcript") == []
    page.js("(window.gone = other).remove()")
    assert outcome(page, "gone.say('Gone.')")[0] == "removed"
    assert outcome(page, "head.say('Still here.')")[0] == "done"


def test_portrait_that_is_taken_off_the_page_gives_its_seat_back(hosted, server):
    page = started(hosted)
    session = session_of(page)
    assert is_open(server, session)
    page.js("head.remove()")
    page.until_true(lambda: not is_open(server, session), "the end of the session")


def test_other_windows_can_neither_command_nor_pretend(hosted):
    page = hosted.open(SILENT + '<iframe srcdoc="<p>Advertisement</p>"></iframe>')
    page.until_told("ready")
    intruder = page.until_true(lambda: next((f for f in page.page.frames if f.url == "about:srcdoc"), None), "it")
    intruder.evaluate(
        """() => {
            const message = (type, data) => ({ source: "talking-head", v: 1, type, data });
            for (let i = 0; i < top.length; i++) top[i].postMessage(message("set_captions", { captions: false }), "*");
            top.postMessage(message("speaking", { speaking: true }), "*");
        }"""
    )
    page.until_true(lambda: page.js("said.some(({ data }) => data.type === 'speaking')"), "the pretence")
    page.page.wait_for_timeout(300)
    assert page.frame().get_attribute("#captions-button", "aria-pressed") == "true"
    assert page.told("speaking") == []
    page.js("document.querySelectorAll('talking-head')[0].setAttribute('captions', 'off')")
    page.until_true(lambda: page.frame().get_attribute("#captions-button", "aria-pressed") == "false", "the page's own")


def test_page_with_a_strict_policy_needs_to_allow_frame_and_script_only(hosted, server):
    policy = "default-src 'none'; script-src SERVER/embed/; frame-src SERVER; require-trusted-types-for 'script'"
    page = hosted.open(SILENT, headers={"Content-Security-Policy": policy})
    page.until_told("ready")
    assert outcome(page, "head.start()")[0] == "done"
    assert page.complaints == []
    box = page.page.locator("talking-head").bounding_box()
    assert (box["width"], box["height"]) == (360, 480)


def test_frame_without_the_element_speaks_the_same_messages(hosted):
    frame = '<iframe src="SERVER/embed?avatar=maya&mic=off" allow="microphone; autoplay; fullscreen"></iframe>'
    page = hosted.open(frame, script=False)
    page.until_true(lambda: page.js("said.some(({ data }) => data.type === 'ready')"), "ready")
    post = "(message) => frames[0].postMessage({ source: 'talking-head', v: 1, ...message }, '*')"
    page.js(post, {"type": "start", "id": 1})
    answer = "(id) => said.find(({ data }) => data.id === id)?.data ?? null"
    assert page.until_true(lambda: page.js(answer, 1), "started")["type"] == "result"
    page.js(post, {"type": "fly", "id": 2})
    refused = page.until_true(lambda: page.js(answer, 2), "an answer")
    assert (refused["type"], refused["data"]["code"]) == ("error", "command_unknown")
    page.js(post, {"type": "say", "id": 3, "v": 2, "data": {"text": "Another version."}})
    page.js(post, {"type": "stop", "id": 4})
    page.until_true(lambda: page.js(answer, 4), "stopped")
    assert page.js(answer, 3) is None


@pytest.mark.parametrize("screen", [(1000, 700), (360, 640)])
def test_bubble_opens_talks_and_closes(hosted, server, screen):
    size = dict(zip(("width", "height"), screen, strict=True))
    page = hosted.open('<talking-head id="head" avatar="maya" bubble></talking-head>', viewport=size)
    page.until_told("ready")
    frame, element = page.frame(), page.page.locator("talking-head")
    closed = element.bounding_box()
    assert closed["width"] == closed["height"] == 72
    assert closed["x"] + 72 == size["width"] - 16 and closed["y"] + 72 == size["height"] - 16
    assert frame.get_attribute("#bubble", "aria-label") == "Talk to Maya, a computer-generated person"
    frame.press("#bubble", "Enter")
    page.until_told("bubble", open=True)
    page.until_told("state", state="live")
    page.until_true(lambda: element.bounding_box()["height"] > 480, "the open bubble")
    page.page.wait_for_timeout(300)
    opened = element.bounding_box()
    assert opened["x"] >= 0 and opened["y"] >= 0 and opened["height"] > 480
    assert opened["x"] + opened["width"] <= size["width"]
    assert frame.evaluate("document.activeElement.id") == "talk-button"
    page.until_told("microphone", state="on")
    page.js("head.say('I am going to talk for quite a while about all that there is in this shop.')")
    page.until("head.speaking")
    session = session_of(page)
    frame.press("#text", "Escape")
    page.until("!head.speaking")
    assert page.page.locator("talking-head").bounding_box()["width"] > 72, "the first one is for what is being said"
    frame.press("#text", "Escape")
    page.until_told("bubble", open=False)
    assert frame.evaluate("document.activeElement.id") == "bubble"
    assert page.until_told("microphone", state="off")
    page.until_true(lambda: not is_open(server, session), "the end of the session")
    assert element.bounding_box()["width"] == 72


def test_every_control_of_the_frame_has_a_name_and_is_reached_with_the_keyboard(hosted):
    page = started(hosted, ELEMENT)
    frame = page.frame()
    frame.focus("#sound")
    reached = []
    for _ in range(8):
        reached.append(frame.evaluate("document.activeElement.id"))
        page.page.keyboard.press("Tab")
    assert [name for name in ("sound", "captions-button", "end", "talk-button", "text") if name not in reached] == []
    nameless = frame.evaluate(
        """() => [...document.querySelectorAll("button, textarea, talking-head")]
            .filter((e) => e.checkVisibility() && !(e.ariaLabel || e.innerText?.trim() || e.labels?.length))
            .map((e) => e.id)"""
    )
    assert nameless == []
    assert page.js("document.querySelector('talking-head').shadowRoot") is None
    assert frame.evaluate("document.querySelectorAll('h1').length") == 1


def test_reduced_motion_stops_every_animation(hosted):
    bubble = '<talking-head id="head" avatar="maya" mic="off" bubble></talking-head>'
    page = started(hosted, bubble, reduced_motion="reduce")
    assert page.frame().evaluate("document.getAnimations().length") == 0
    assert page.js("document.getAnimations().length") == 0


@pytest.mark.parametrize("size", [(360, 480), (240, 240), (160, 160), (320, 200), (900, 300), (720, 900)])
def test_controls_stay_inside_frames_of_every_size(hosted, size):
    page = started(hosted, ELEMENT, viewport={"width": 1000, "height": 1000})
    frame = page.frame()
    page.js("([w, h]) => Object.assign(head.style, { width: `${w}px`, height: `${h}px` })", list(size))
    page.until_true(lambda: frame.evaluate("[innerWidth, innerHeight]") == list(size), "its size")
    outside = frame.evaluate(
        """() => [...document.querySelectorAll("button, textarea, .badge")].filter((e) => {
            const { left, top, right, bottom } = e.getBoundingClientRect();
            return e.checkVisibility() && (left < 0 || top < 0 || right > innerWidth || bottom > innerHeight);
        }).map((e) => e.id)"""
    )
    assert outside == []
    assert frame.is_visible("#talk-button") and frame.is_visible("#badge abbr")
