"""``python -m server`` as a person starts and stops it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.__main__ import address

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("VISAVIS_")}


@contextmanager
def running(*options: str) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-m", "server", *options],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_when_it_answers_and_stops_in_time(avatars_dir, number):
    port = free_port()
    with running("--port", str(port), "--avatars-dir", str(avatars_dir)) as process:
        assert process.stdout.readline() == f"Visavis is ready: http://localhost:{port}\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as response:
            assert json.load(response)["status"] == "ok"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/avatars/tiny/poster.jpg") as response:
            assert response.headers["Content-Type"] == "image/jpeg"
        told_s = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
        # It takes 0.25 s of CPU time, but test machines are shared.
        assert time.monotonic() - told_s < 10
        assert process.returncode == 0
        assert "Traceback" not in out + err


def test_a_port_in_use_is_one_line_and_exit_code_1(avatars_dir):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with running("--port", str(port), "--avatars-dir", str(avatars_dir)) as process:
            out, err = process.communicate(timeout=20)
    assert process.returncode == 1 and out == ""
    assert err.count("\n") == 1 and f"port {port} is in use" in err and "--port" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--port", "99999"], "65535"), (["--avatars-dir", "/nonexistent"], "no avatar"), (["--config", "/no"], "/no")],
)
def test_what_a_person_can_mend_is_said_without_a_trace(options, said):
    with running("--port", str(free_port()), *options) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1 and said in err and "Traceback" not in err


def test_the_default_path_imports_neither_torch_nor_librosa():
    code = (
        "import sys, server.app, server.stage, engine.lipsync.builtin.model, engine.conversation.tts.espeak;"
        "print([name for name in ('torch', 'librosa', 'numba', 'scipy') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://localhost:8080"),
        ("0.0.0.0", "http://localhost:8080"),
        ("::", "http://localhost:8080"),
        ("fd00::2", "http://[fd00::2]:8080"),
        ("face.example", "http://face.example:8080"),
    ],
)
def test_the_address_can_be_typed_into_a_browser(host, expected):
    assert address(host, 8080) == expected
