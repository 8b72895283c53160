"""What can be chosen in the settings, and that it is remembered."""

from __future__ import annotations

import pytest

BACKGROUND = "getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(243, 241, 236)", "rgb(12, 14, 13)"
SPEAKERS = """
    const list = navigator.mediaDevices.enumerateDevices.bind(navigator.mediaDevices);
    navigator.mediaDevices.enumerateDevices = async () => [
        ...(await list()).filter((d) => d.kind !== "audiooutput"),
        { kind: "audiooutput", deviceId: "kitchen", label: "Kitchen" },
        { kind: "audiooutput", deviceId: "gone", label: "Unplugged" },
    ];
    let sink = "";
    Object.defineProperty(HTMLMediaElement.prototype, "sinkId", { get: () => sink });
    HTMLMediaElement.prototype.setSinkId = async (id) => {
        if (id === "gone") throw new DOMException("", "NotFoundError");
        sink = id;
    };
"""


def open_settings(visited) -> None:
    visited.page.click("#settings-button")
    visited.until("document.querySelector('#settings').matches(':popover-open')")


@pytest.mark.parametrize(("system", "choice", "seen"), [("light", "dark", DARK), ("dark", "light", LIGHT)])
def test_theme_is_chosen_against_the_system_and_remembered(visit, system, choice, seen):
    visited = visit(color_scheme=system)
    visited.choose("theme", choice)
    assert visited.js(BACKGROUND) == seen
    visited.page.reload()
    assert visited.js(BACKGROUND) == seen
    assert visited.js("document.querySelector('#theme').value") == choice
    visited.choose("theme", "system")
    assert visited.js(BACKGROUND) != seen
    visited.page.emulate_media(color_scheme=choice)
    assert visited.js(BACKGROUND) == seen


def test_size_of_captions_is_chosen_and_remembered(visit):
    visited = visit()
    size = "parseFloat(getComputedStyle(document.querySelector('#captions')).fontSize)"
    visited.choose("captions-size", "small")
    small = visited.js(size)
    visited.choose("captions-size", "large")
    assert visited.js(size) > 1.3 * small
    visited.choose("captions-size", "off")
    assert visited.js("document.querySelector('#captions-button').getAttribute('aria-pressed')") == "false"
    visited.page.reload()
    visited.until("document.querySelector('#captions-size').value === 'off'")
    visited.page.click("#captions-button")
    assert visited.js("document.querySelector('#captions-size').value") == "large", "as large as before"


def test_loudspeaker_is_chosen_and_remembered(visit):
    visited = visit(script=SPEAKERS).alive()
    open_settings(visited)
    visited.until("document.querySelectorAll('#speaker option').length === 3")
    visited.choose("speaker", "kitchen")
    visited.until("visavis.video.sinkId === 'kitchen'")
    visited.choose("speaker", "gone")
    visited.until("document.querySelector('#speaker').value === 'kitchen'")
    visited.choose("speaker", "kitchen")
    visited.until("localStorage.getItem('visavis.speaker') === 'kitchen'")
    visited.page.reload()
    visited.alive()
    open_settings(visited)
    visited.until("visavis.video.sinkId === 'kitchen'")


def test_browser_that_lets_no_page_choose_has_no_choice(visit):
    visited = visit(script="delete HTMLMediaElement.prototype.setSinkId")
    assert visited.js("document.querySelector('#speaker-label').hidden")


def test_level_of_the_microphone_is_shown_while_it_is_open(visit):
    visited = visit().alive()
    open_settings(visited)
    assert visited.js("document.querySelector('#level-row').hidden")
    visited.js("document.querySelector('#talk-button').click()")
    visited.until("!document.querySelector('#level-row').hidden")
    # The fake microphone beeps once a second.
    visited.until("Number(document.querySelector('#level').getAttribute('aria-valuenow')) > 20")


def test_faces_live_in_the_list_and_stand_still_for_who_wants_that(visit):
    for motion, ending in (("no-preference", "thumbnail.webp"), ("reduce", "poster.jpg")):
        visited = visit(reduced_motion=motion)
        visited.until("document.querySelectorAll('#faces-list input').length >= 2")
        open_settings(visited)
        visited.until("document.querySelector('#faces-list img').naturalWidth > 0")
        assert visited.js("document.querySelector('#faces-list img').currentSrc").endswith(ending)


def test_small_moving_pictures_are_small_and_move(visit, server):
    visited = visit()
    answer = visited.page.request.get(f"{server.url}avatars/maya/thumbnail.webp")
    assert answer.headers["content-type"] == "image/webp"
    assert b"ANIM" in answer.body()[:64] and len(answer.body()) < 100_000


def test_choosing_a_face_keeps_the_keyboard_where_it_is(visit):
    visited = visit().alive()
    open_settings(visited)
    first = visited.js("document.querySelector('#faces-list input:checked').value")
    visited.js("document.querySelector('#faces-list input:checked').focus()")
    visited.page.keyboard.press("ArrowRight")
    chosen = visited.js("document.activeElement.value")
    assert chosen != first
    visited.until("visavis.state === 'live'")
    assert visited.js("visavis.avatar") == chosen


@pytest.mark.parametrize("enabled", [True, False])
def test_studio_is_linked_where_there_is_one(visit, enabled):
    visited = visit()
    visited.page.context.route("**/studio.json", lambda route: route.fulfill(json={"enabled": enabled}))
    visited.page.reload()
    visited.until(f"document.querySelector('#studio').hidden === {str(not enabled).lower()}")
    assert visited.js("document.querySelector('#studio').pathname") == "/studio"


def test_developers_see_the_last_minute_in_plots(visit):
    visited = visit("?debug").alive()
    figures = "[...document.querySelectorAll('#debug-plots figure')]"
    assert visited.js(f"{figures}.map((f) => f.dataset.series)") == ["fps", "kbit", "jitter", "model", "level"]
    visited.until(f"Number({figures}[0].querySelector('b').textContent) > 5")
    assert visited.complaints == []
    visited.until(
        f"""{figures}.slice(0, 2).every((figure) => {{
            const canvas = figure.querySelector("canvas");
            return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((v) => v > 0);
        }})"""
    )
