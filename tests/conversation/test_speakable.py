import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.conversation.tts.speakable import speakable


@pytest.mark.parametrize(
    "text",
    [
        "It is 3.14, said Dr. Smith, e.g. on p. 12 at 5:30 p.m.",
        "Prices: $5.00, €3 or 100 % of 20 °C (±1), #1 in C#, AT&T, ~5 min, x^2 = 4.",
        "It's 5 < 6 and 7 > 3; a/b, rock-and-roll – yes — no…",
        "Is that so?! “Yes,” he said. [sic] (Really.)",
        "你好，世界！《红楼梦》。「はい」、『いいえ』。",
        "© 2024 Visavis™, №5, 5 × 3 ÷ 2 ≈ 7.5 ∑ √2",
        "नमस्ते क्‍ष می‌خواهم",
    ],
)
def test_plain_text_is_left_alone(text):
    assert speakable(text) == text


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("This is **bold**, *italic*, ***both***, _it_, ~~gone~~.", "This is bold, italic, both, it, gone."),
        ("# Title\nText", "Title\n\nText"),
        ("### Title ###", "Title ###"),
        ("Title\n=====\nText", "Title\n\nText"),
        ("Above\n\n---\n\nBelow\n***\nEnd", "Above\n\nBelow\n\nEnd"),
        ("- one\n- two\n* three\n+ four\n• five", "one\n\ntwo\n\nthree\n\nfour\n\nfive"),
        ("- [ ] open\n- [x] done", "open\n\ndone"),
        ("Steps:\n1. First\n2. Second", "Steps:\n\n1. First\n\n2. Second"),
        ("> quoted\n> text", "quoted text"),
        ("2 * 3 = 6, 2*3 and a * b", "2 × 3 = 6, 2×3 and a × b"),
        ("-5 degrees", "-5 degrees"),
        (r"\*not bold\* and \(x\) and $$y$$", "*not bold* and x and y"),
        ("Line one\nwraps here\r\nand here", "Line one wraps here and here"),
        ("Use `print_all(x)` and ``a`b``.", "Use print all(x) and a`b."),
        ("a snake_case name and __init__", "a snake case name and init"),
    ],
)
def test_marks_of_markdown_are_not_read(text, spoken):
    assert speakable(text) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("See https://example.org/a_b?c=d#e.", "See link."),
        ("(http://a.b/c), www.x.org!", "(link), link!"),
        ("Wiki https://en.wikipedia.org/wiki/Lip_(anatomy) here", "Wiki link here"),
        ("看https://a.b/c，好", "看link，好"),
        ("<https://a.b>", "link"),
        ("[the docs](https://a.b/c_(d) \"Title\") and [more][ref]", "the docs and more"),
        ("![a cat](cat.png) [![badge](b.svg)](https://x.y)", "a cat badge"),
        ("[https://a.b](https://a.b)", "link"),
        ("A fact[1][2], another [^3] and a third【4†source】.", "A fact, another and a third."),
        ("**https://a.b/c**.", "link."),
        ("hw www http hello", "hw www http hello"),
        ("me@example.org", "me@example.org"),
    ],
)
def test_addresses_are_a_word_and_links_their_label(text, spoken):
    assert speakable(text) == spoken


def test_an_address_can_have_a_name_in_another_language():
    assert speakable("Siehe https://a.b.", "Verweis") == "Siehe Verweis."


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Look:\n```python\nprint('*')\n```\nDone.", "Look:\n\nDone."),
        ("~~~\ncode\n~~~\nDone.", "Done."),
        ("````md\n```\ninner\n```\n````\nDone.", "Done."),
        ("Here: ```x = 1``` Done.", "Here:\n\nDone."),
        ("Never closed\n```\ncode", "Never closed"),
        ("<think>Secret. *Thoughts*</think>Hello.", "Hello."),
        ("<thinking>\nabc\n</thinking>\n\nHello.", "Hello."),
        ("a<!-- note -->b <script>x()</script>", "ab"),
    ],
)
def test_code_comments_and_thoughts_are_not_read(text, spoken):
    assert speakable(text) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("<b>Bold</b><br>Next<br/>line", "Bold\n\nNext\n\nline"),
        ("<p class=\"x\">One</p><ul><li>two</li></ul>", "One\n\ntwo"),
        ("<a href='https://x.y'>here</a> &amp; &lt;there&gt; &#39;x&#39;", "here & <there> 'x'"),
        ("if x<y and y>z", "if x<y and y>z"),
        ("I <3 you, <unknown> thing", "I <3 you, <unknown> thing"),
        ("R&D; Q&A", "R&D; Q&A"),
    ],
)
def test_html_is_not_read(text, spoken):
    assert speakable(text) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Hi 👋🏽, well done 🎉! 👨‍👩‍👧 ❤️ ✅", "Hi, well done!"),
        ("Flags 🇩🇪 and 1️⃣ keys ☀️.", "Flags and 1 keys."),
        ("A → B, then C -> D => E", "A, B, then C, D, E"),
        ("★★★ three stars", "three stars"),
    ],
)
def test_pictures_are_not_read(text, spoken):
    assert speakable(text) == spoken


def test_a_table_is_read_row_by_row():
    table = "| Name | Age |\n|:-----|----:|\n| Ann | 30 |\n| Bob | |\n\nEnd"
    assert speakable(table) == "Name, Age\n\nAnn, 30\n\nBob\n\nEnd"
    assert speakable("Name | Age\n--- | ---\nAnn | 30\nBob | 31") == "Name, Age\n\nAnn, 30\n\nBob, 31"


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_becomes_clean_text(text):
    spoken = speakable(text)
    assert all(char == "\n" or unicodedata.category(char) not in ("Cc", "Cs", "Co", "Cn") for char in spoken)
    assert spoken == spoken.strip() and "  " not in spoken and "\n" not in spoken.replace("\n\n", "")


@given(st.lists(st.text("abcXYZ0159äßñçéж你は", min_size=1, max_size=8), min_size=1))
def test_words_are_never_lost(words):
    assert speakable(" ".join(words)) == " ".join(words)
