"""The page without a mouse, without eyes, with large text, and on every screen."""

from __future__ import annotations

import pytest

SCREENS = [(1440, 900), (820, 1180), (390, 844), (844, 390)]
SMALLEST = (320, 568)
CONTROLS = ["settings-button", "sound", "captions-button", "fullscreen", "talk-button", "file-button", "text"]


def test_every_control_is_reached_with_the_keyboard_and_shows_its_focus(visit):
    visited = visit().alive()
    reached = []
    for _ in range(20):
        visited.page.keyboard.press("Tab")
        reached.append(visited.js("document.activeElement.id"))
        if reached[-1]:
            outlined = visited.js(
                "document.activeElement.id === 'text' ? document.querySelector('.composer:focus-within') !== null"
                " : getComputedStyle(document.activeElement).outlineStyle !== 'none'"
            )
            assert outlined, f"no focus ring on {reached[-1]}"
    assert [name for name in CONTROLS if name not in reached] == []


def test_keys_do_what_buttons_do(visit):
    visited = visit().alive()
    visited.js("document.activeElement.blur()")
    visited.page.keyboard.press("Space")
    visited.until("document.querySelector('#talk').dataset.state === 'on'")
    visited.js("document.activeElement.blur()")
    visited.page.keyboard.press("Space")
    visited.until("document.querySelector('#talk').dataset.state === 'muted'")
    visited.page.keyboard.type("Hi")
    visited.page.keyboard.press("Shift+Enter")
    visited.page.keyboard.type("there")
    assert visited.js("document.querySelector('#text').value") == "Hi\nthere"
    visited.page.keyboard.press("Enter")
    visited.until("visavis.speaking")


def test_every_control_has_a_name_and_news_are_announced(visit):
    visited = visit().alive()
    visited.page.click("#settings-button")
    session = visited.page.context.new_cdp_session(visited.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "combobox", "slider", "img", "image", "radio", "dialog"}
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored")
        and node.get("role", {}).get("value") in roles
        and not node.get("name", {}).get("value", "").strip()
    ]
    assert nameless == []
    assert visited.js("document.documentElement.lang") == "en"
    assert visited.js("document.querySelectorAll('h1').length") == 1
    live = visited.js(
        "['status', 'count', 'spoken'].map(id => document.getElementById(id)).map(e => e.role || e.ariaLive)"
    )
    assert live == ["status", "status", "polite"]


def test_nothing_is_cut_off_on_any_screen_at_normal_and_double_text_size(visit):
    visited = visit().alive()
    cases = [(screen, 1) for screen in [*SCREENS, SMALLEST]] + [(screen, 2) for screen in SCREENS]
    for (width, height), text_size in cases:
        visited.page.set_viewport_size({"width": width, "height": height})
        visited.js("(size) => (document.documentElement.style.fontSize = `${size * 100}%`)", text_size)
        layout = visited.js(
            """() => {
                const inside = (id) => {
                    const box = document.getElementById(id).getBoundingClientRect();
                    return box.left >= 0 && box.right <= innerWidth && box.width > 24;
                };
                const stage = document.getElementById("stage").getBoundingClientRect();
                return { wide: document.documentElement.scrollWidth > innerWidth,
                         tall: document.documentElement.scrollHeight > innerHeight,
                         inside: ["talk-button", "text", "send", "settings-button"].every(inside),
                         portrait: Math.min(stage.width, stage.height) };
            }"""
        )
        case = (width, height, text_size)
        assert not layout["wide"], case
        assert layout["inside"], case
        assert layout["portrait"] >= 150, case
        if text_size == 1:
            assert not layout["tall"], case


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_colour_schemes(visit, scheme):
    visited = visit(color_scheme=scheme)
    ratios = visited.js(
        """() => {
            const canvas = new OffscreenCanvas(1, 1).getContext("2d");
            const luminance = (name) => {
                canvas.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
                canvas.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data]
                    .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const pairs = [["--ink", "--paper"], ["--quiet", "--paper"], ["--quiet", "--surface"],
                           ["--ink", "--surface"], ["--accent", "--surface"], ["--danger", "--surface"],
                           ["--on-accent", "--accent"], ["--on-accent", "--accent-strong"]];
            return pairs.map(([a, b]) => [luminance(a), luminance(b)].sort((x, y) => y - x))
                        .map(([light, dark], i) => [pairs[i].join(" on "), (light + 0.05) / (dark + 0.05)]);
        }"""
    )
    assert [pair for pair, ratio in ratios if ratio < 4.5] == []


def test_reduced_motion_stops_every_animation(visit):
    visited = visit(reduced_motion="reduce").alive()
    assert visited.js("document.getAnimations().length") == 0
