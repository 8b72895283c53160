"""Two peers meet over UDP as a browser and the server would, and who can reach this machine is told."""

from __future__ import annotations

import pytest

from engine.config import Config
from server.doctor import udp


async def test_two_peers_on_this_machine_meet():
    found = await udp.connection(Config(), [])
    assert found.verdict == "ok" and found.figures["host_candidates"] >= 1


async def test_peers_that_do_not_meet_are_a_problem(monkeypatch):
    monkeypatch.setattr(udp, "_CONNECT_S", 0.001)
    found = await udp.connection(Config(), [])
    assert found.verdict == "problem" and "UDP" in found.change


NETWORK = {"host": "0.0.0.0"}
PRIVATE, PUBLIC = ("host", "192.168.1.5"), ("host", "93.184.216.34")


@pytest.mark.parametrize(
    ("options", "offered", "verdict", "told"),
    [
        ({}, [PRIVATE], "ok", "this machine's browsers"),
        (NETWORK, [PRIVATE], "warning", "private addresses"),
        (NETWORK, [PRIVATE, PUBLIC], "note", "public address"),
        (NETWORK, [PRIVATE, ("srflx", "93.184.216.34")], "note", "public address"),
        (NETWORK, [PRIVATE, ("relay", "93.184.216.34")], "ok", "relay"),
        ({"trusted_proxies": ["127.0.0.1"]}, [PRIVATE], "warning", "private addresses"),
    ],
)
def test_who_can_reach_this_machine_is_told(monkeypatch, options, offered, verdict, told):
    monkeypatch.setattr(udp, "_CONTAINER", ())
    found = udp.reachability(Config(**options), offered, 20, {})
    assert found.verdict == verdict and told in found.said
    assert "192.168.1.5" not in found.said


def test_a_server_that_holds_up_every_session_is_told():
    assert udp.reachability(Config(), [PRIVATE], 10_000, {}).verdict == "warning"


def test_the_network_of_a_container_is_recognised(monkeypatch, tmp_path):
    monkeypatch.setattr(udp, "_CONTAINER", (tmp_path,))
    found = udp.reachability(Config(**NETWORK), [("host", "172.17.0.2")], 20, {})
    assert found.verdict == "warning" and "--network host" in found.change
