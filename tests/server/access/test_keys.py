"""Keys and embeds on disk."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import ConfigInvalid, InvalidInput, NotFound
from server.access import keys as keys_module
from server.access import records as records_module
from server.access.embeds import Embeds, origin_of
from server.access.keys import ApiKeys


def test_a_key_is_found_and_the_file_does_not_hold_it(tmp_path: Path):
    keys = ApiKeys(tmp_path)
    key = keys.create("shop")
    assert key.startswith("vk_") and len(key) >= 46
    assert keys.find(key).name == "shop"
    assert key.removeprefix("vk_") not in (tmp_path / "keys.json").read_text()
    assert keys.find(key[:-1]) is None and keys.find("vk_") is None and keys.find("") is None


def test_only_the_owner_may_read_the_files(tmp_path: Path):
    folder = tmp_path / "new"
    ApiKeys(folder).create("shop")
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {file.name for file in folder.iterdir()} == {"keys.json", "keys.lock"}


def test_another_process_sees_new_and_revoked_keys_at_once(tmp_path: Path):
    server, command = ApiKeys(tmp_path), ApiKeys(tmp_path)
    assert not server.any
    key = command.create("shop")
    found = server.find(key)
    assert found is not None and server.stands(found.id)
    command.revoke("shop")
    assert server.find(key) is None and not server.stands(found.id)


def test_a_new_key_of_an_old_name_is_another_key(tmp_path: Path):
    keys = ApiKeys(tmp_path)
    first = keys.find(keys.create("shop"))
    keys.revoke("shop")
    keys.create("shop")
    assert not keys.stands(first.id)


@pytest.mark.parametrize("name", ["", "x" * 101, "two\nlines", "\x1b[2J"])
def test_names_of_keys_are_printable(tmp_path: Path, name: str):
    with pytest.raises(InvalidInput):
        ApiKeys(tmp_path).create(name)


def test_a_name_is_used_once_and_revoked_once(tmp_path: Path):
    keys = ApiKeys(tmp_path)
    keys.create("shop")
    with pytest.raises(InvalidInput, match="already"):
        keys.create("shop")
    keys.revoke("shop")
    with pytest.raises(NotFound):
        keys.revoke("shop")


def test_commands_at_the_same_moment_lose_nothing(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: ApiKeys(tmp_path).create(f"key {n}"), range(24)))
    assert {ApiKeys(tmp_path).find(key).name for key in made} == {f"key {n}" for n in range(24)}


def test_a_file_that_could_not_be_read_for_a_while_lets_in_again(tmp_path: Path, monkeypatch):
    keys = ApiKeys(tmp_path)
    key = keys.create("shop")
    read, clock = Path.read_bytes, [1000.0]
    monkeypatch.setattr(records_module.time, "monotonic", lambda: clock[0])

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert ApiKeys(tmp_path).find(key) is None
    server = ApiKeys(tmp_path)
    assert server.find(key) is None
    monkeypatch.setattr(Path, "read_bytes", read)
    assert server.find(key) is None, "not tried at every request"
    clock[0] += records_module.AGAIN_S
    assert server.find(key).name == "shop"


def test_new_permissions_are_noticed_at_once(tmp_path: Path, monkeypatch):
    server = ApiKeys(tmp_path)
    key = server.create("shop")
    read = Path.read_bytes

    def as_permitted(path: Path) -> bytes:
        if not path.stat().st_mode & 0o400:
            raise PermissionError(13, "Permission denied")
        return read(path)

    # Whoever runs the tests may be root, who may read everything.
    monkeypatch.setattr(Path, "read_bytes", as_permitted)
    (tmp_path / "keys.json").chmod(0o000)
    assert server.find(key) is None
    (tmp_path / "keys.json").chmod(0o600)
    assert server.find(key).name == "shop"


def test_a_broken_file_lets_nobody_in_and_is_not_overwritten(tmp_path: Path, caplog):
    keys = ApiKeys(tmp_path)
    key = keys.create("shop")
    for content in ("{", "[{}]", json.dumps([{"name": 1, "sha256": "", "created": "", "more": 1}])):
        (tmp_path / "keys.json").write_text(content)
        assert keys.find(key) is None
        assert "cannot be read" in caplog.text
        with pytest.raises(ConfigInvalid):
            keys.create("other")
        assert (tmp_path / "keys.json").read_text() == content


def test_a_key_is_compared_with_all_hashes_in_constant_time(tmp_path: Path, monkeypatch):
    keys = ApiKeys(tmp_path)
    made = [keys.create(f"key {n}") for n in range(5)]
    compared = []
    genuine = keys_module.hmac.compare_digest

    def counting(a, b):
        compared.append((a, b))
        return genuine(a, b)

    monkeypatch.setattr(keys_module.hmac, "compare_digest", counting)
    for shown in (made[0], made[4], "vk_wrong"):
        compared.clear()
        keys.find(shown)
        assert len(compared) == 5 and all(len(a) == len(b) == 64 for a, b in compared)


# ---- embeds


def test_an_embed_is_added_found_and_removed(tmp_path: Path):
    embeds = Embeds(tmp_path)
    embed = embeds.add("maya", ["https://Shop.example:443/", "http://localhost:3000", "https://shop.example"])
    assert embed.key.startswith("ve_")
    assert embed.origins == ("https://shop.example", "http://localhost:3000")
    assert Embeds(tmp_path).find(embed.key) == embed
    embeds.remove(embed.key)
    assert Embeds(tmp_path).find(embed.key) is None
    with pytest.raises(NotFound):
        embeds.remove(embed.key)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("HTTPS://Shop.Example", "https://shop.example"),
        ("https://shop.example:8443", "https://shop.example:8443"),
        ("http://[2001:DB8::1]:80", "http://[2001:db8::1]"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_origins_are_written_as_browsers_send_them(text: str, origin: str):
    assert origin_of(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "", "*", "null", "shop.example", "https://", "https://*.shop.example", "ftp://shop.example", "file:///etc",
        "https://shop.example/path", "https://shop.example?q", "https://me@shop.example", "https://shop.example:x",
        "https://shop.example; script-src *", "https://shop.example 'self'", "https://a,https://b", "javascript:x",
        "https://shop.example:99999", "https://[::1",
    ],
)  # fmt: skip
def test_what_is_no_exact_origin_is_refused(text: str):
    with pytest.raises(InvalidInput):
        origin_of(text)


def test_an_embed_without_origins_is_refused(tmp_path: Path):
    with pytest.raises(InvalidInput):
        Embeds(tmp_path).add("maya", [])
