"""Where the server listens and who may come in: what does not fit together is found before a visitor finds it."""

from __future__ import annotations

import socket

import pytest
from aiohttp import web

from engine.config import Config
from server.access.embeds import Embeds
from server.access.keys import ApiKeys
from server.doctor import address


def config(tmp_path, avatars_dir=None, **options):
    if avatars_dir is not None:
        options["avatars_dir"] = avatars_dir
    return Config(data_dir=tmp_path, **options)


def verdicts(findings, check):
    return [found.verdict for found in findings if found.check == check]


async def test_a_free_port_is_fine_and_one_that_is_in_use_is_not(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        used = config(tmp_path, port=other.getsockname()[1])
        found = await address.port(used, running=False)
        assert found.verdict == "problem" and "--port" in found.change
        assert (await address.port(used, running=True)).verdict == "ok"
    assert (await address.port(used, running=False)).verdict == "ok"


async def test_our_own_server_on_the_port_is_no_problem(tmp_path, server):
    used = config(tmp_path, port=server.client.port)
    found = await address.port(used, running=False)
    assert found.verdict == "ok" and "already" in found.said


async def test_another_http_server_on_the_port_is_one(tmp_path, aiohttp_client):
    client = await aiohttp_client(web.Application())
    assert (await address.port(config(tmp_path, port=client.port), running=False)).verdict == "problem"


async def test_an_address_that_is_not_this_machines_is_a_problem(tmp_path):
    found = await address.port(config(tmp_path, host="192.0.2.7", port=8209), running=False)
    assert found.verdict == "problem" and "--host" in found.change


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ({}, "ok"),
        ({"host": "localhost"}, "ok"),
        ({"host": "0.0.0.0"}, "warning"),
        ({"host": "0.0.0.0", "trusted_proxies": ["10.0.0.1"]}, "note"),
    ],
)
def test_a_network_without_tls_is_told(tmp_path, options, verdict):
    assert address.secure_context(config(tmp_path, **options)).verdict == verdict


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ({}, "ok"),
        ({"allowed_origins": ["https://shop.example", "http://localhost:3000"]}, "ok"),
        ({"allowed_origins": ["*"]}, "note"),
        ({"allowed_origins": ["*"], "host": "0.0.0.0"}, "warning"),
        ({"allowed_origins": ["*"], "host": "0.0.0.0", "access": "closed"}, "note"),
        ({"allowed_origins": ["http://shop.example"]}, "warning"),
        ({"allowed_origins": ["https://Shop.example"]}, "problem"),
        ({"allowed_origins": ["https://shop.example:443"]}, "problem"),
    ],
)
def test_origins_are_held_to_what_browsers_send(tmp_path, options, verdict):
    assert [found.verdict for found in address.origins(config(tmp_path, **options))] == [verdict]


def test_a_corrected_origin_is_given():
    (found,) = address.origins(Config(allowed_origins=["https://Shop.example:443"]))
    assert "Write https://shop.example in" in found.change


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ({}, "ok"),
        ({"host": "0.0.0.0", "access": "open"}, "warning"),
        ({"host": "0.0.0.0"}, "problem"),
        ({"access": "closed"}, "problem"),
    ],
)
def test_a_door_without_a_key_and_a_door_without_a_lock_are_told(tmp_path, avatars_dir, options, verdict):
    assert verdicts(address.access(config(tmp_path, avatars_dir, **options)), "access") == [verdict]


def test_with_a_key_a_closed_server_is_fine(tmp_path, avatars_dir):
    ApiKeys(tmp_path).create("shop")
    assert verdicts(address.access(config(tmp_path, avatars_dir, access="closed")), "access") == ["ok"]


def test_files_of_keys_that_others_may_read_are_told(tmp_path, avatars_dir):
    ApiKeys(tmp_path).create("shop")
    (tmp_path / "keys.json").chmod(0o644)
    found = list(address.access(config(tmp_path, avatars_dir)))
    assert verdicts(found, "access_files") == ["warning"]


def test_a_broken_file_of_keys_is_a_problem(tmp_path, avatars_dir):
    (tmp_path / "keys.json").write_text("{")
    assert [found.verdict for found in address.access(config(tmp_path, avatars_dir))] == ["problem"]


def test_embeds_of_avatars_that_are_gone_and_of_pages_without_https_are_told(tmp_path, avatars_dir):
    embeds = Embeds(tmp_path)
    embeds.add("tiny", ["https://shop.example", "http://old.example"])
    gone = embeds.add("nobody", ["https://shop.example"])
    found = [found for found in address.access(config(tmp_path, avatars_dir)) if found.check == "embeds"]
    assert [item.verdict for item in found] == ["warning", "problem"]
    assert "http://old.example" in found[0].said and gone.key in found[1].change
