"""``python -m server keys`` and ``embeds`` as a person types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.__main__ import main
from server.access.embeds import Embeds
from server.access.keys import ApiKeys


@pytest.fixture
def run(tmp_path: Path, avatars_dir: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"

    def run(*words: str) -> tuple[int, str, str]:
        folders = ["--data-dir", str(data), "--avatars-dir", str(avatars_dir)]
        try:
            code = main([*words, *folders])
        except SystemExit as exit:
            code = int(exit.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    run.data = data
    return run


def test_a_key_is_printed_once_listed_by_name_and_revoked(run):
    code, out, err = run("keys", "create", "shop")
    key = out.strip()
    assert code == 0 and key.startswith("vk_") and "cannot be shown again" in err
    assert ApiKeys(run.data).find(key).name == "shop"
    _, out, _ = run("keys", "list")
    assert "shop" in out and key not in out
    assert run("keys", "revoke", "shop")[0] == 0
    assert ApiKeys(run.data).find(key) is None


def test_mistakes_are_one_line_and_exit_code_1(run):
    for words in (
        ("keys", "revoke", "nobody"),
        ("embeds", "add", "nobody", "--origin", "https://shop.example"),
        ("embeds", "add", "tiny", "--origin", "https://*.example"),
        ("embeds", "add", "tiny"),
        ("embeds", "remove", "ve_x"),
    ):
        code, out, err = run(*words)
        assert code == 1 and out == "" and err.count("\n") == 1, words


def test_an_embed_is_added_listed_and_removed(run):
    code, out, _ = run("embeds", "add", "tiny", "--origin", "https://shop.example", "--origin", "http://localhost:3000")
    key = out.strip()
    assert code == 0 and Embeds(run.data).find(key).origins == ("https://shop.example", "http://localhost:3000")
    assert "tiny  https://shop.example http://localhost:3000" in run("embeds", "list")[1]
    assert run("embeds", "remove", key)[0] == 0
    assert run("embeds", "list")[1] == ""


@pytest.mark.parametrize("words", [("keys",), ("keys", "steal"), ("embeds", "add")])
def test_what_is_missing_is_explained(run, words):
    code, _, err = run(*words)
    assert code == 2 and "usage: python -m server" in err
