"""The page's files keep the promises of a page without a build step and without third parties."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[2] / "static"
FILES = sorted(path for path in STATIC.rglob("*") if path.suffix in {".html", ".css", ".js", ".svg"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_is_small_and_names_no_other_host(path):
    text = path.read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://\w[\w.-]*\w", text)) - {"http://www.w3.org", "http://localhost", "https://example.org"}
    assert addresses == set()
    assert len(text.splitlines()) < 400


def test_page_needs_no_exception_from_its_security_policy():
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|data:", page)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)


def test_modules_import_only_each_other():
    for path in STATIC.glob("*.js"):
        for source in re.findall(r'(?:from|import) "([^"]+)"', path.read_text(encoding="utf-8")):
            assert source.startswith("./") and (STATIC / source).is_file(), (path.name, source)


def test_every_icon_that_is_used_is_drawn():
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    scripts = "".join(path.read_text(encoding="utf-8") for path in STATIC.glob("*.js"))
    used = set(re.findall(r"#(i-[\w-]+)", page + scripts))
    assert used == set(re.findall(r'<symbol id="([\w-]+)"', page))


def test_icons_of_the_embed_are_those_of_the_page():
    def drawn(name: str) -> dict[str, str]:
        page = (STATIC / name).read_text(encoding="utf-8")
        return dict(re.findall(r'<symbol id="([\w-]+)"[^>]*>(.*?)</symbol>', page))

    modules = ("embed.html", "embed-page.js", "talk.js")
    used = set(re.findall(r"#(i-[\w-]+)", "".join((STATIC / name).read_text(encoding="utf-8") for name in modules)))
    assert used == set(drawn("embed.html"))
    assert drawn("embed.html").items() <= drawn("index.html").items()


@pytest.mark.parametrize("name", ["embed.html", "embed-refused.html"])
def test_pages_in_frames_need_no_exception_from_their_security_policy(name):
    page = (STATIC / name).read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|data:", page)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    assert page.count("<!-- access -->") == 1
