"""The page in English and in Chinese, from one table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[2] / "static"
TABLE = (STATIC / "messages.js").read_text(encoding="utf-8")
KEYS = set(re.findall(r'^  "([\w.]+)":', TABLE, re.MULTILINE))
PAGE = (STATIC / "index.html").read_text(encoding="utf-8")
WORDS_OF_THE_PAGE = [
    "app", "captions", "composer", "conversation", "conversions", "devices", "display", "faces", "files", "hints",
    "notice", "panel", "plots", "protocol", "talk", "talking-head", "transcript", "transcript-view", "veil", "voice",
    "waterfall",
]  # fmt: skip
SEEN = """() => {
    const own = "code, kbd, h1, select, output, #name, #faces-list, #figures, #debug, #transcript, #status-text, "
        + "#veil[hidden]";
    const foreign = (text) => /[A-Za-z]{3,}/.test(text) && !/[\\u4e00-\\u9fff]/.test(text);
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
        const { parentElement: parent, data } = walker.currentNode;
        const skipped = parent.closest(`script, noscript, style, ${own}`);
        if (!skipped && foreign(data)) found.push(data.trim());
    }
    for (const element of document.querySelectorAll("[aria-label], [title], [placeholder], option, optgroup")) {
        if (element.closest("#devices, #speaker, #style, #model, #language, #conversion")) continue;
        const option = element.tagName === "OPTION" ? element.text : "";
        for (const words of [element.ariaLabel, element.title, element.placeholder, option])
            if (foreign(words ?? "")) found.push(words);
    }
    return found;
}"""
"""What the page shows or tells without a Chinese character, but for names, keys and code."""


def test_the_document_itself_says_nothing():
    rest = re.sub(r"<(script|code|noscript|title|kbd)\b.*?</\1>", "", PAGE)
    texts = re.findall(r">([^<>]*[A-Za-z]{2,}[^<>]*)<", rest)
    assert [text.strip() for text in texts] == ["Visavis"]
    assert re.findall(r'(?:aria-label|placeholder|title|alt)="[^"]+"', PAGE) == []


def test_every_key_has_words_and_every_word_is_used():
    asked = set(re.findall(r'data-t(?:-\w+)?="([\w.]+)"', PAGE))
    assert asked <= KEYS
    scripts = "".join(path.read_text(encoding="utf-8") for path in STATIC.glob("*.js") if path.name != "messages.js")
    asked |= {key for key in KEYS if f'"{key}"' in scripts}
    # What is put together from a name and a word of the server's, or of a state.
    composed = (
        "status.", "tries.", "hint.", "failure.", "ending.", "voice.", "quality.", "latency.", "connection.", "plot.",
        "move.", "background.", "embed.",
    )  # fmt: skip
    assert {key for key in KEYS - asked if not key.startswith(composed)} == set()
    used = set(re.findall(r'\bt\("([\w.]+)"', scripts))
    assert used <= KEYS


def test_every_entry_is_in_both_languages_with_the_same_values():
    words = r'("(?:[^"\\]|\\.)*")'
    entries = re.findall(rf'^  "([\w.]+)": \[\s*{words},\s*{words},?\s*\],$', TABLE, re.MULTILINE)
    assert {key for key, _, _ in entries} == KEYS
    for key, english, chinese in entries:
        allowed = set(re.findall(r"\{(\w+)\}", english))
        assert set(re.findall(r"\{(\w+)\}", chinese)) <= allowed, key
        assert len(english) > 2 and len(chinese) > 2, key
        assert key in {"portrait.ai"} or re.search(r"[\u4e00-\u9fff]", chinese), key
    pairs = {key: english for key, english, _ in entries}
    assert all(f"{key.removesuffix('.how')}" in pairs for key in pairs if key.endswith(".how"))


def test_modules_write_no_words_of_their_own():
    found = []
    for name in WORDS_OF_THE_PAGE:
        code = re.sub(r"/\*.*?\*/|(?<!:)//[^\n]*", "", (STATIC / f"{name}.js").read_text(encoding="utf-8"), flags=re.S)
        found += [
            (name, text)
            for text in re.findall(r'["`]([A-Z][a-z]+ [^"`]*)["`]', code)
            if not any(word in text for word in ("console", "cancelled", "Not wanted", "Bearer "))
        ]
    assert found == []


@pytest.mark.parametrize(("locale", "lang", "words"), [("zh-CN", "zh-CN", "设置"), ("de-DE", "en", "Settings")])
def test_language_is_the_browsers_where_the_page_speaks_it(visit, locale, lang, words):
    visited = visit(locale=locale)
    assert visited.js("document.documentElement.lang") == lang
    assert visited.js("document.querySelector('#settings-button').getAttribute('aria-label')") == words


def test_address_and_choice_come_before_the_browser(visit):
    visited = visit("?lang=zh", locale="en-US")
    assert visited.js("document.documentElement.lang") == "zh-CN"
    visited = visit(locale="en-US")
    visited.choose("language", "zh")
    visited.page.reload()
    assert visited.js("document.documentElement.lang") == "zh-CN"


def test_nothing_is_left_in_english_and_the_session_goes_on(visit):
    visited = visit().alive()
    session = visited.js("visavis.session")
    visited.page.click("#settings-button")
    visited.js(
        """() => {
            const tell = (type, detail) => visavis.dispatchEvent(new CustomEvent(type, { detail }));
            tell("latency", { stages_ms: { endpoint: 5, first_token: 9 } });
            tell("ending", { reason: "idle", seconds_left: 60 });
        }"""
    )
    visited.choose("language", "zh")
    allowed = re.compile(r"WebRTC|Chrome|Firefox|iframe|https?|wav|mp3|VISAVIS|Visavis|English")
    assert [text for text in visited.js(SEEN) if not allowed.search(text)] == []
    assert visited.js("visavis.session") == session
    visited.choose("language", "en")
    assert visited.js("document.querySelector('#talk-label').textContent") == "Start talking"
    assert visited.complaints == []


def test_failures_are_explained_in_chinese(visit):
    visited = visit("?lang=zh", microphone=False).alive()
    visited.page.click("#talk-button")
    visited.until("!document.querySelector('#notice').hidden")
    assert "麦克风被禁用" in visited.notice()
