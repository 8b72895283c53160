"""``python -m server doctor``: text, JSON and an exit code; the same for a running server, and over HTTP."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import jsonschema
import pytest

from engine.config import Config
from engine.errors import BackendFailed
from server import schemas
from server.access.keys import ApiKeys
from server.doctor import command, examine
from server.doctor.report import GROUPS, Finding
from server.doctor_routes import DOCTOR, Doctor
from tests.server.serving import eventually, serve
from tests.server.test_main import ROOT, environment, free_port

DOCUMENT = json.loads((Path(schemas.__file__).parent / "openapi.json").read_text())
SECRET = "sk-nobody-may-read-this"


def run(*words: str, told: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", "doctor", *words],
        cwd=ROOT, env=environment(), input=told, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def check_report(report) -> None:
    schema = {"$ref": "#/components/schemas/DoctorReport", "components": DOCUMENT["components"]}
    jsonschema.validate(report, schema)


@pytest.fixture
def fast(monkeypatch):
    """Checks of the test's own in place of all; returns a setter of what they find."""
    found: list[Finding] = []

    async def pretend(_config, *, running):
        for finding in found:
            yield finding

    monkeypatch.setattr(command, "examine", pretend)
    return found.extend


def test_every_group_is_looked_at_and_told_as_json(tmp_path, avatars_dir):
    options = Config(avatars_dir=avatars_dir, data_dir=tmp_path, port=free_port(), llm_key=SECRET)
    done = run("--json", "--running", told=options.model_dump_json(exclude_unset=True))
    report = json.loads(done.stdout)
    check_report(report)
    assert {finding["group"] for finding in report["findings"]} == set(GROUPS)
    checks = {finding["check"]: finding["verdict"] for finding in report["findings"]}
    assert "unfinished" not in checks
    assert checks["avatars"] == checks["lipsync"] == checks["codecs"] == checks["udp"] == checks["port"] == "ok"
    assert done.returncode == int(report["verdict"] == "problem")
    assert SECRET not in done.stdout + done.stderr


def test_text_has_a_verdict_a_line_and_what_to_change(fast, capsys):
    fast([Finding("a", "face", "ok", "Fine."), Finding("b", "network", "warning", "Slow.", "Wait.")])
    assert command.main([], "1") == 0
    out = capsys.readouterr().out
    assert "Face\n  ok       Fine.\n\nNetwork\n  warning  Slow.\n           → Wait.\n" in out
    assert out.endswith("All that is needed works: 1 warning.\n")


def test_a_problem_is_exit_code_one(fast, capsys):
    fast([Finding("a", "face", "problem", "Gone.", "Bring it back.")])
    assert command.main(["--json"], "1") == 1
    report = json.loads(capsys.readouterr().out)
    check_report(report)
    assert report["verdict"] == "problem"


def test_options_that_cannot_be_used_are_the_problem(capsys):
    assert command.main(["--port", "none"], "1") == 1
    assert "--port" in capsys.readouterr().out
    assert command.main(["--json", "--port", "none"], "1") == 1
    check_report(json.loads(capsys.readouterr().out))


async def test_a_check_that_fails_itself_does_not_end_the_others(monkeypatch, tmp_path):
    def broken(_config):
        raise RuntimeError(f"no such thing {SECRET}")
        yield

    async def nothing(*_):
        return
        yield

    monkeypatch.setattr(examine.installation, "examine", broken)
    monkeypatch.setattr(examine, "_faces", nothing)
    monkeypatch.setattr(examine.conversation, "examine", nothing)
    monkeypatch.setattr(examine, "_network", nothing)
    found = [item async for item in examine.examine(Config(data_dir=tmp_path, llm_key=SECRET), running=True)]
    assert (found[0].check, found[0].group, found[0].verdict) == ("unfinished", "installation", "problem")
    assert SECRET not in found[0].said
    assert any(item.group == "address" for item in found)


PRETEND = textwrap.dedent("""
    import json, os, sys
    told = json.load(sys.stdin)
    log = open(sys.argv[1], "a")
    log.write(json.dumps({"told": told, "argv": sys.argv, "env": [n for n in os.environ if n.startswith("VISAVIS")]}))
    log.write(chr(10))
    print(json.dumps({"version": "1", "verdict": "ok", "findings": [],
                      "counts": {"ok": 0, "note": 0, "warning": 0, "problem": 0}}))
""")


@pytest.fixture
def examined(tmp_path, aiohttp_client, monkeypatch):
    """Serves with a script in place of the checks; returns the server and a function that reads what it was told."""
    monkeypatch.setenv("VISAVIS_LLM_KEY", SECRET)

    async def start(script=PRETEND, **options):
        server = await serve(aiohttp_client, data_dir=tmp_path / "data", **options)
        log = tmp_path / "log"
        doctor = server.client.app[DOCTOR]
        doctor._command = [sys.executable, "-c", script, str(log)]
        return server, lambda: [json.loads(line) for line in log.read_text().splitlines()]

    return start


async def test_the_report_comes_over_http_and_keys_reach_the_process_through_its_input_alone(examined):
    server, told = await examined(llm_key=SECRET)
    response = await server.client.get("/doctor.json")
    assert response.status == 200 and response.headers["Cache-Control"] == "no-store"
    check_report(await response.json())
    (once,) = told()
    assert once["told"]["llm_key"] == SECRET and SECRET not in str(once["argv"]) and not once["env"]


async def test_a_page_that_is_loaded_twice_does_not_measure_twice(examined):
    server, told = await examined()
    for _ in range(3):
        assert (await server.client.get("/doctor.json")).status == 200
    assert len(told()) == 1


@pytest.mark.parametrize("script", ["print('{')", "import sys; sys.exit(3)", "import time; time.sleep(60)"])
async def test_a_process_that_gives_no_report_is_an_error_in_time(examined, monkeypatch, script):
    monkeypatch.setattr("server.doctor_routes.LIMIT_S", 1.0)
    server, _ = await examined(script)
    response = await server.client.get("/doctor.json")
    assert response.status == 500 and (await response.json())["error"]["code"] == "doctor_failed"


@pytest.mark.parametrize("options", [{"access": "closed"}, {"host": "0.0.0.0", "access": "open"}])
async def test_elsewhere_it_takes_a_key(examined, tmp_path, options):
    server, _ = await examined(**options)
    headers = {"X-Forwarded-For": "198.51.100.7"}
    assert (await server.client.get("/doctor.json", headers=headers)).status == 401
    headers["Authorization"] = "Bearer vk_wrong"
    assert (await server.client.get("/doctor.json", headers=headers)).status == 401
    headers["Authorization"] = f"Bearer {ApiKeys(tmp_path / 'data').create('me')}"
    assert (await server.client.get("/doctor.json", headers=headers)).status == 200


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200)])
async def test_no_page_of_another_site_may_have_the_server_examined(examined, site, status):
    server, _ = await examined()
    response = await server.client.get("/doctor.json", headers={"Sec-Fetch-Site": site})
    assert response.status == status


async def test_a_run_ends_with_the_server(tmp_path):
    doctor = Doctor(Config(data_dir=tmp_path), tmp_path, [sys.executable, "-c", "import time; time.sleep(60)"])
    asking = asyncio.create_task(doctor.report())
    await eventually(lambda: doctor._process is not None)
    process = doctor._process
    await doctor.aclose()
    with pytest.raises(BackendFailed):
        await asking
    assert process is not None and process.returncode not in (None, 0)


async def test_the_page_says_in_a_frame_what_the_server_thinks_of_the_page_around(examined):
    server, _ = await examined(access="closed")
    response = await server.client.get("/doctor", headers={"Referer": "https://shop.example/"})
    page = await response.text()
    assert response.status == 200 and '<meta name="problem" content="embed_key_required">' in page
    assert response.headers["Content-Security-Policy"].endswith("frame-ancestors *")


async def test_the_page_of_a_listed_origin_may_frame_it(examined):
    server, _ = await examined(allowed_origins=["https://shop.example"])
    response = await server.client.get("/doctor", headers={"Referer": "https://shop.example/"})
    assert 'name="problem"' not in await response.text()
    assert "https://shop.example" in response.headers["Content-Security-Policy"]
