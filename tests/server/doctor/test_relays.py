"""STUN and TURN servers are asked for what browsers want of them; coturn itself where it is installed."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from contextlib import asynccontextmanager, contextmanager

import pytest
from aioice import stun

from engine.config import Config
from server.doctor import relays

SECRET = "a secret that coturn shares"


class Answerer(asyncio.DatagramProtocol):
    """A server that answers every request with one error, or with the address it came from, or not at all."""

    def __init__(self, error: int | None = None, silent: bool = False) -> None:
        self.error, self.silent = error, silent

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        if self.silent:
            return
        request = stun.parse_message(data)
        answer = stun.Message(
            message_method=request.message_method,
            message_class=stun.Class.ERROR if self.error else stun.Class.RESPONSE,
            transaction_id=request.transaction_id,
        )
        if self.error:
            answer.attributes["ERROR-CODE"] = (self.error, "No")
        else:
            answer.attributes["XOR-MAPPED-ADDRESS"] = addr
        self.transport.sendto(bytes(answer), addr)


@asynccontextmanager
async def answering(**how):
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Answerer(**how), local_addr=("127.0.0.1", 0)
    )
    yield transport.get_extra_info("sockname")[1]
    transport.close()


async def ask(url, **more):
    return [found async for found in relays.examine([{"urls": url, **more}])]


@contextmanager
def coturn(*more):
    """The real thing on a port of its own."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("coturn is not installed")
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            program, "-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}",
            "--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=visavis.example", "--no-tls", "--no-dtls",
            "--no-cli", "--log-file=stdout", "--pidfile=", "--min-port=50100", "--max-port=50120", *more,
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end_s = time.monotonic() + 10
        while time.monotonic() < end_s and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        assert process.poll() is None, "coturn ended"
        yield port
    finally:
        process.terminate()
        process.wait(10)


async def test_a_stun_server_that_answers_is_fine():
    async with answering() as port:
        (found,) = await ask(f"stun:127.0.0.1:{port}")
    assert found.verdict == "ok" and found.check == "stun"


@pytest.mark.parametrize("kind", ["stun", "turn"])
async def test_a_port_where_nobody_listens_is_a_problem_that_names_it(kind, monkeypatch):
    monkeypatch.setattr(relays, "_TIMEOUT_S", 0.5)
    (found,) = await ask(f"{kind}:127.0.0.1:9", username="a", credential="b")
    assert found.verdict == "problem" and "UDP port 9" in found.change


async def test_a_server_that_keeps_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(relays, "_TIMEOUT_S", 0.3)
    async with answering(silent=True) as port:
        (found,) = await ask(f"turn:127.0.0.1:{port}", username="a", credential="b")
    assert found.verdict == "problem" and "does not answer" in found.said


@pytest.mark.alone
async def test_several_are_asked_at_the_same_time(monkeypatch):
    monkeypatch.setattr(relays, "_TIMEOUT_S", 0.5)
    async with answering(silent=True) as port:
        started_s = time.monotonic()
        found = await ask([f"stun:127.0.0.1:{port}"] * 6)
        assert len(found) == 6 and time.monotonic() - started_s < 1.5


@pytest.mark.parametrize(("error", "told"), [(486, "no allocation left"), (441, "refuses our credentials")])
async def test_what_a_turn_server_refuses_is_explained(error, told):
    async with answering(error=error) as port:
        (found,) = await ask(f"turn:127.0.0.1:{port}", username="a", credential="b")
    assert found.verdict == "problem" and told in found.said


async def test_an_address_that_is_none_is_a_problem():
    (found,) = await ask("turn:a b")
    assert found.verdict == "problem"


def test_urls_without_the_secret_are_a_problem():
    servers, wrong = relays.servers(Config(turn_urls=["turn:turn.example"]))
    assert not servers and wrong is not None and wrong.verdict == "problem"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_coturn_takes_the_credentials_of_a_session(transport):
    with coturn() as port:
        url = f"turn:127.0.0.1:{port}?transport={transport}"
        servers, wrong = relays.servers(Config(turn_urls=[url], turn_secret=SECRET))
        (found,) = [found async for found in relays.examine(servers)]
        assert wrong is None and found.verdict == "ok", found.said
        (binding,) = await ask(f"stun:127.0.0.1:{port}")
        assert binding.verdict == "ok"


async def test_coturn_refuses_those_of_another_secret():
    with coturn() as port:
        servers, _ = relays.servers(Config(turn_urls=[f"turn:127.0.0.1:{port}"], turn_secret="another"))
        (found,) = [found async for found in relays.examine(servers)]
    assert found.verdict == "problem" and "static-auth-secret" in found.change
