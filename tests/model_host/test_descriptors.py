"""Many workers at one model process: there is room for all, and whoever is there is served when there is none."""

from __future__ import annotations

import errno
import itertools
import json
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from engine.avatar.bundle import load_avatar
from engine.config import Config
from engine.lipsync.base import LipJob
from engine.lipsync.remote import RemoteLipSync
from engine.model_host import host as host_module
from engine.model_host.__main__ import DESCRIPTORS
from engine.model_host.host import ACCEPT_AGAIN_S, CONNECTIONS_LIMIT
from engine.remote.wire import HEADER, Kind, message
from tests.fakes import FakeLipSync
from tests.model_host.serving import serving

ROOT = Path(__file__).resolve().parents[2]
CONNECTIONS, IN_ALL = 9, 13
"""Connections of a worker, and descriptors that it costs the model process: some lanes have memory of their own."""


def ping(address: str) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(30)
    connected.connect(address)
    connected.sendall(message(Kind.PING))
    return connected


def test_as_many_workers_as_there_may_be_find_room() -> None:
    (most,) = (it.le for it in Config.model_fields["workers"].metadata if hasattr(it, "le"))
    assert most * CONNECTIONS <= CONNECTIONS_LIMIT
    assert CONNECTIONS_LIMIT * IN_ALL / CONNECTIONS < DESCRIPTORS


def test_process_may_open_more_files_than_is_usual(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    command = [
        sys.executable, "-c",
        "import resource, runpy, sys\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))\n"
        f"sys.argv = ['model_host', '--socket', {str(tmp_path / 's')!r}, '--lipsync', 'no-such-model']\n"
        "try:\n    runpy.run_module('engine.model_host', run_name='__main__')\n"
        "except SystemExit:\n    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    said, limit = done.stdout.splitlines()
    assert json.loads(said)["code"] == "lipsync_not_found", "it went as far as the models"
    assert int(limit) == (DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard))
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_whoever_is_there_is_served_when_no_descriptor_is_left(
    tmp_path: Path, avatars_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[float] = []

    def none_left(self: socket.socket) -> None:
        tries.append(time.monotonic())
        raise OSError(errno.EMFILE, "Too many open files")

    with serving(tmp_path, FakeLipSync()) as (address, _):
        remote = RemoteLipSync.connect(address)
        prepared = remote.prepare(load_avatar(avatars_dir / "tiny"))
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "accept", none_left)
            outside = ping(address)
            end_s = time.monotonic() + 60
            while len(tries) < 4 and time.monotonic() < end_s:
                assert remote.predict([LipJob(prepared, 0, np.zeros((80, 8), np.float32))])
            seen = list(tries)
        assert len(seen) >= 4, "it tries again"
        assert all(later - earlier >= 0.9 * ACCEPT_AGAIN_S for earlier, later in itertools.pairwise(seen))
        with outside:
            _, number = HEADER.unpack(outside.recv(HEADER.size, socket.MSG_WAITALL))
        assert number == Kind.PONG, "let in as soon as that is possible"
    assert len([it for it in caplog.records if it.name == host_module.__name__]) == 1, "told once"


def test_host_ends_while_nobody_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(self: socket.socket) -> None:
        raise OSError(errno.ENFILE, "Too many open files in system")

    monkeypatch.setattr(host_module, "ACCEPT_AGAIN_S", 3600.0)
    with serving(tmp_path, FakeLipSync()) as (address, host):
        monkeypatch.setattr(socket.socket, "accept", none_left)
        with ping(address):
            end_s = time.monotonic() + 60
            while host._resting is None and time.monotonic() < end_s:
                time.sleep(0.005)
            listener, _ = host._resting or pytest.fail("the listener rests")
    assert listener.fileno() == -1, "closed with the rest"
