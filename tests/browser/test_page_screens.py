"""The settings on the smallest and the largest screen, with the keyboard alone, and as assistive technology is told."""

from __future__ import annotations

import pytest

PHONE, WALL = (360, 740), (3840, 2160)
FOCUSABLE = """() => {
    const shown = (element) => element.checkVisibility() && !element.disabled && element.tabIndex >= 0;
    const all = document.querySelectorAll("#settings :is(button, select, input, a, [tabindex])");
    const controls = [...all].filter(shown);
    // Of a group of radio buttons the keyboard reaches one; the arrows do the rest.
    return controls.filter((element) => element.type !== "radio" || element.checked).length;
}"""


@pytest.mark.parametrize("screen", [PHONE, WALL])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_settings_fit_and_everything_can_be_hit(visit, screen, lang):
    visited = visit(f"?lang={lang}", viewport={"width": screen[0], "height": screen[1]}).alive()
    visited.page.click("#settings-button")
    visited.until("document.querySelector('#settings').matches(':popover-open')")
    seen = visited.js(
        """() => {
            const panel = document.querySelector("#settings");
            const box = panel.getBoundingClientRect();
            const controls = "button, select, input:not([type=radio]), label:has([type=radio]), a";
            const small = [...panel.querySelectorAll(controls)].filter((element) => {
                if (!element.checkVisibility()) return false;
                const { width, height } = element.getBoundingClientRect();
                return width < 24 || height < 24;
            });
            return { inside: box.left >= 0 && box.right <= innerWidth && box.top >= 0 && box.bottom <= innerHeight,
                     wide: panel.scrollWidth > panel.clientWidth || document.documentElement.scrollWidth > innerWidth,
                     small: small.map((element) => element.id || element.outerHTML),
                     text: parseFloat(getComputedStyle(document.documentElement).fontSize) };
        }"""
    )
    assert seen["inside"] and not seen["wide"]
    assert seen["small"] == []
    assert seen["text"] == (24 if screen == WALL else 16)


def test_settings_are_opened_walked_and_left_with_the_keyboard(visit):
    visited = visit().alive()
    visited.js("document.querySelector('#settings-button').focus()")
    visited.page.keyboard.press("Enter")
    visited.until("document.querySelector('#settings').matches(':popover-open')")
    expected = visited.js(FOCUSABLE)
    reached = set()
    for _ in range(expected + 2):
        if len(reached) == expected:
            break
        visited.page.keyboard.press("Tab")
        # Names of buttons that have no id: the movements.
        name = visited.js(
            """() => {
                const { activeElement: at } = document;
                return at.closest("#settings") ? at.id || at.dataset.name || at.value || at.textContent : "";
            }"""
        )
        if name:
            reached.add(name)
            assert visited.js(
                "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
                " || document.activeElement.type === 'radio'"
            ), f"no focus ring on {name}"
    assert len(reached) == expected
    visited.page.keyboard.press("Escape")
    visited.until("!document.querySelector('#settings').matches(':popover-open')")
    assert visited.js("document.activeElement.id") == "settings-button"


def test_settings_move_nothing_for_who_wants_no_motion(visit):
    visited = visit(reduced_motion="reduce").alive()
    visited.page.click("#settings-button")
    visited.until("document.querySelector('#settings').matches(':popover-open')")
    assert visited.js("document.getAnimations().length") == 0


def test_states_are_told_and_counters_are_not(visit):
    visited = visit().alive()
    roles = visited.js(
        "['ending-spoken', 'status', 'way-state', 'level', 'spoken'].map((id) => document.getElementById(id))"
        ".map((e) => e.role || e.ariaLive)"
    )
    assert roles == ["status", "status", "status", "meter", "polite"]
    assert visited.js("document.querySelector('#ending').getAttribute('aria-hidden')") == "true"
