"""The studio from outside: jobs from the form to the list, watched, cancelled, refused, and cleaned up after."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from server.studio import intake, jobs
from server.studio import workplace as workplace_module
from server.studio.workplace import Workplace
from tests.server.serving import eventually
from tests.server.studio import files
from tests.server.studio.conftest import HANGS, MAYA, events

pytestmark = pytest.mark.may_block_loop


async def test_a_photo_becomes_an_avatar_on_the_list_with_a_preview_and_can_be_deleted(workshop):
    shop = await workshop()
    job = await shop.make(title="Zoë Müller", synthetic="yes")
    assert (job["name"], job["title"]) == ("zoe-muller", "Zoë Müller")
    done = await shop.until(job["id"], "done")
    assert done["progress"] == 1 and "error" not in done
    assert await shop.names() == ["ada", "bob", "zoe-muller"], "after those that came with the server"
    preview = await shop.server.client.get("/avatars/zoe-muller/preview.mp4")
    assert (preview.status, preview.content_type) == (200, "video/mp4")
    assert await preview.read() == b"preview"
    assert shop.remains() == [], "nothing of the upload is kept"
    assert (await shop.server.client.delete("/avatars/zoe-muller")).status == 204
    assert await shop.names() == ["ada", "bob"]
    assert list((shop.data / "avatars").iterdir()) == []


async def test_a_job_is_told_as_it_goes_on_and_the_stream_ends_with_it(workshop):
    shop = await workshop("tell(stage='finding the face', progress=0.25)\ntime.sleep(0.3)\nmake()\ntell(made=True)")
    job = await shop.make()
    async with shop.server.client.get(f"/avatars/{job['id']}/job/events") as stream:
        assert stream.content_type == "text/event-stream"
        told = events(await stream.text())
    assert told[-1]["state"] == "done"
    assert any(event["stage"] == "finding the face" and event["progress"] == 0.25 for event in told)
    assert [event["progress"] for event in told] == sorted(event["progress"] for event in told)


async def test_one_job_runs_few_wait_and_more_are_refused(workshop):
    shop = await workshop(HANGS)
    made = [await shop.make() for _ in range(jobs.MAX_WAITING + 1)]
    assert [job["name"] for job in made] == ["maya-two", "maya-two-2", "maya-two-3", "maya-two-4"]
    await shop.until(made[0]["id"], "running")
    assert (await shop.until(made[1]["id"], "queued"))["state"] == "queued"
    refused = await shop.post()
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    for job in made:
        assert (await shop.server.client.delete(f"/avatars/{job['id']}/job")).status == 204


async def test_a_job_can_be_cancelled_while_it_waits_and_while_it_runs_but_not_afterwards(workshop):
    shop = await workshop(HANGS)
    running, waiting = await shop.make(), await shop.make()
    await shop.until(running["id"], "running")
    for job in (waiting, running):
        assert (await shop.server.client.delete(f"/avatars/{job['id']}/job")).status == 204
        assert (await shop.until(job["id"], "cancelled"))["state"] == "cancelled"
        again = await shop.server.client.delete(f"/avatars/{job['id']}/job")
        assert again.status == 409
    assert shop.remains() == []
    assert await shop.names() == ["ada", "bob"]
    assert [folder.name for folder in shop.studio.workplace._own.iterdir()] == ["lock"]


async def test_cancelling_kills_the_process_and_what_it_started(workshop, tmp_path):
    script = (
        "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
        f"pathlib.Path({str(tmp_path / 'pids')!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n" + HANGS
    )
    shop = await workshop(script)
    job = await shop.make()
    await eventually(lambda: (tmp_path / "pids").exists() and " " in (tmp_path / "pids").read_text(), 30)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    await shop.server.client.delete(f"/avatars/{job['id']}/job")
    for pid in pids:
        await eventually(lambda pid=pid: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def test_a_worker_that_hangs_is_ended(workshop):
    shop = await workshop(HANGS, studio_max_job_s=10)
    shop.studio.jobs._work.__self__._config = shop.studio.config.model_copy(update={"studio_max_job_s": 0.5})
    failed = await shop.until((await shop.make())["id"], "failed")
    assert failed["error"]["code"] == "create_too_long"
    assert shop.remains() == []


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("os.kill(os.getpid(), 9)", "create_killed"),
        ("sys.exit(0)", "create_killed"),
        ("print('x' * 100_000)", "create_failed"),
        ("while True: print('{}')", "create_failed"),
        ("tell(error={'code': 'no_face', 'message': 'There is no face.'})\nsys.exit(2)", "no_face"),
        ("tell(error={'code': 'disk_full', 'message': 'No room.'})\nsys.exit(2)", "disk_full"),
        ("tell(error={'code': '<script>', 'message': 'x' * 5000})\nsys.exit(2)", "create_failed"),
        ("tell(made=True)", "data_dir_unwritable"),
    ],
)
async def test_whatever_a_worker_does_the_job_fails_with_a_word_and_leaves_nothing(workshop, script, code):
    shop = await workshop(script)
    failed = await shop.until((await shop.make())["id"], "failed")
    assert failed["error"]["code"] == code
    assert len(failed["error"]["message"]) <= 500
    assert shop.remains() == []
    assert await shop.names() == ["ada", "bob"]


async def test_a_worker_that_eats_memory_or_time_is_stopped_by_its_limits(workshop):
    limits = "from server.studio.limits import Limits\nLimits({memory} << 20, {cpu}, 1 << 20).apply()\n"
    path = f"sys.path.insert(0, {os.getcwd()!r})\n"
    eats = path + limits.format(memory=256, cpu=60) + "hog = bytearray(512 << 20)\nmake()\ntell(made=True)"
    spins = path + limits.format(memory=4096, cpu=1) + "while True: pass"
    writes = path + limits.format(memory=4096, cpu=60) + "open(task['folder'] + '/big', 'wb').write(bytes(2 << 20))\n"
    for script in (eats, spins, writes):
        shop = await workshop(script)
        failed = await shop.until((await shop.make())["id"], "failed")
        assert failed["error"]["code"] == "create_killed"
        assert shop.remains() == []


async def test_the_worker_gets_no_key_of_the_server(workshop, monkeypatch):
    monkeypatch.setenv("VISAVIS_LLM_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    script = "leaks = 'secret' in os.environ.values() or 'secret' in json.dumps(task)\nmake()\ntell(made=not leaks)"
    shop = await workshop(script, llm_key="secret")
    await shop.until((await shop.make())["id"], "done")


@pytest.mark.parametrize(
    ("data", "fields", "status", "code"),
    [
        (b"#EXTM3U\nhttp://127.0.0.1/\n", MAYA, 415, "source_type"),
        (files.png(claims=(60_000, 60_000)), MAYA, 413, "source_too_large"),
        (files.png(after=b"PK\3\4"), MAYA, 422, "source_appended"),
        (b"", MAYA, 422, "source_empty"),
        (files.png()[:50], MAYA, 422, "source_damaged"),
        (files.png(), {"title": "Eve"}, 422, "consent_missing"),
        (files.png(), {**MAYA, "name": "../../etc"}, 422, "avatar_name_invalid"),
        (files.png(), {**MAYA, "name": "ada"}, 409, "avatar_exists"),
        (files.png(), {**MAYA, "colour": "blue"}, 422, "invalid_form"),
        (files.png(), {**MAYA, "sentence": "x" * 3000}, 422, "invalid_form"),
    ],
)
async def test_what_cannot_be_used_is_refused_with_its_reason_and_leaves_nothing(workshop, data, fields, status, code):
    shop = await workshop()
    response = await shop.post(data, **fields)
    assert (response.status, (await response.json())["error"]["code"]) == (status, code)
    assert shop.remains() == []


async def test_the_name_of_the_file_is_never_used(workshop):
    shop = await workshop("tell(error={'code': 'no_face', 'message': ' '.join(os.listdir(task['folder']))})")
    for name in ("../../../../tmp/evil.png", "/etc/passwd", "..\\..\\evil.png", "$(reboot).png", "source.sh"):
        failed = await shop.until((await (await shop.post(filename=name, **MAYA)).json())["id"], "failed")
        assert failed["error"]["message"] == "source.png"


@pytest.mark.parametrize(
    "path",
    ["/avatars/%2e%2e/preview.mp4", "/avatars/..%2f..%2fetc/preview.mp4", "/avatars/ada%2f..%2fada/preview.mp4",
     "/avatars/%00/preview.mp4", "/avatars/nobody/preview.mp4", "/avatars/..%2f..%2fetc/job"],
)  # fmt: skip
async def test_no_path_in_an_address_leads_anywhere(workshop, path):
    shop = await workshop()
    assert (await shop.server.client.get(path)).status == 404
    assert (await shop.server.client.delete(path.removesuffix("/preview.mp4"))).status in (404, 405)


async def test_too_large_a_form_is_refused_before_and_while_it_arrives(workshop, monkeypatch):
    shop = await workshop(studio_max_mb=1)
    assert (await shop.post(b"\0" * 1_100_000, **MAYA)).status == 413
    monkeypatch.setattr(intake, "_FORM_BYTES", 10_000_000)
    refused = await shop.post(b"\0" * 1_100_000, **MAYA)
    assert (await refused.json())["error"]["code"] == "body_too_large"
    assert shop.remains() == []


async def test_a_form_without_a_length_is_refused(workshop):
    shop = await workshop()

    async def endless():
        yield b"--x\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (await shop.server.client.post("/avatars", data=endless(), headers=headers)).status == 411


@pytest.mark.parametrize("limit", ["CHUNK_TIMEOUT_S", "GRACE_S"])
async def test_who_sends_slowly_gives_the_place_back(workshop, monkeypatch, limit):
    monkeypatch.setattr(intake, limit, 0.2)
    shop = await workshop()
    url = shop.server.client.make_url("/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    writer.write(
        b"POST /avatars HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: 1000000\r\n\r\n" + head
    )
    answer = asyncio.create_task(reader.read(100))
    for _ in range(200):
        writer.write(b"\0")
        await asyncio.sleep(0.02 if limit == "GRACE_S" else 0.5)
        if answer.done() or reader.at_eof():
            break
    assert b" 408 " in await answer
    writer.close()
    await eventually(lambda: shop.studio.intake._active == 0 and shop.remains() == [])


async def test_few_forms_arrive_at_a_time(workshop, monkeypatch):
    monkeypatch.setattr(intake, "MAX_UPLOADS", 0)
    response = await (await workshop()).post()
    assert (response.status, (await response.json())["error"]["code"]) == (429, "uploads_busy")


async def test_a_full_disk_is_told_and_leaves_nothing(workshop, monkeypatch):
    shop = await workshop()
    await shop.until((await shop.make())["id"], "done")
    monkeypatch.setattr(workplace_module, "SPARE_BYTES", 1 << 60)
    response = await shop.post()
    assert (response.status, (await response.json())["error"]["code"]) == (507, "disk_full")
    monkeypatch.undo()
    assert shop.remains() == []


async def test_a_disk_that_fills_while_a_file_arrives_is_told_and_leaves_nothing(workshop, monkeypatch):
    shop = await workshop()
    await shop.until((await shop.make())["id"], "done")

    async def store(_self, part, file, _pace):
        data = await part.read()
        # What the system says when a write does not fit.
        await asyncio.to_thread(Path("/dev/full").write_bytes, data)

    monkeypatch.setattr(intake.Intake, "_store", store)
    response = await shop.post()
    assert (response.status, (await response.json())["error"]["code"]) == (507, "disk_full")
    assert shop.remains() == []


async def test_the_number_of_avatars_is_limited_those_in_the_making_included(workshop):
    shop = await workshop(HANGS, studio_max_avatars=1)
    await shop.make()
    response = await shop.post()
    assert (response.status, (await response.json())["error"]["code"]) == (409, "studio_full")
    await shop.studio.aclose()


async def test_two_forms_that_arrive_together_do_not_get_the_same_name(workshop):
    shop = await workshop(HANGS)
    answers = await asyncio.gather(*(shop.post(**MAYA) for _ in range(2)))
    names = [(await answer.json())["name"] for answer in answers]
    assert len(set(names)) == 2
    await shop.studio.aclose()


async def test_an_avatar_that_came_with_the_server_cannot_be_deleted(workshop):
    shop = await workshop()
    response = await shop.server.client.delete("/avatars/bob")
    assert (response.status, (await response.json())["error"]["code"]) == (403, "avatar_shipped")
    assert (await shop.server.client.delete("/avatars/nobody")).status == 404


async def test_an_avatar_that_a_session_shows_cannot_be_deleted_until_it_ends(workshop, monkeypatch):
    shop = await workshop()
    await shop.until((await shop.make())["id"], "done")
    session = await shop.server.open_session()
    live = shop.server.services.sessions.get(session)
    live.avatar = "maya-two"
    response = await shop.server.client.delete("/avatars/maya-two")
    assert (response.status, (await response.json())["error"]["code"]) == (409, "avatar_in_use")
    await shop.server.client.delete(f"/sessions/{session}")
    assert (await shop.server.client.delete("/avatars/maya-two")).status == 204


async def test_a_switched_off_studio_changes_nothing_and_says_so(workshop):
    for options, refused in (({"studio": "off"}, 403), ({"host": "0.0.0.0", "access": "open"}, 401)):
        shop = await workshop(**options)
        assert (await shop.post()).status == refused
        assert (await shop.server.client.delete("/avatars/bob")).status == refused
        state = await (await shop.server.client.get("/studio.json")).json()
        assert not state["enabled"] and "--studio on" in state["note"]


async def test_a_studio_that_others_can_reach_wants_a_key_to_make_and_to_delete(workshop):
    shop = await workshop(host="0.0.0.0", access="open", studio="on")
    assert (await shop.post()).status == 401
    assert (await shop.server.client.delete("/avatars/bob")).status == 401
    assert (await shop.server.client.get("/studio.json")).status == 200


async def test_a_page_of_another_origin_can_make_nothing(workshop):
    shop = await workshop()
    response = await shop.server.client.post("/avatars", headers={"Origin": "https://evil.example"})
    assert response.status == 403


async def test_a_stopping_server_ends_its_jobs_and_those_who_watch_them_and_leaves_nothing(workshop):
    shop = await workshop(HANGS)
    job = await shop.make()
    await shop.until(job["id"], "running")
    watching = asyncio.create_task(shop.server.client.get(f"/avatars/{job['id']}/job/events"))
    stream = await watching
    await shop.studio.aclose()
    assert events(await stream.text())[-1]["state"] == "cancelled"
    assert list((shop.data / "studio").iterdir()) == []


async def test_what_a_killed_server_left_behind_is_swept_away_and_what_a_running_one_has_is_not(workshop, data_home):
    killed, running = Workplace(data_home), Workplace(data_home)
    (killed.open_job(1) / "source.png").write_bytes(b"half")
    ours = running.open_job(1)
    # A process that ends, however it ends, gives its locks back.
    os.close(killed._lock)
    shop = await workshop()
    assert not killed._own.exists()
    assert ours.is_dir()
    assert await shop.names() == ["ada", "bob"]
    running.close()


async def test_a_worker_ends_when_the_server_is_gone(tmp_path):
    script = (
        "import threading, time\nfrom server.studio import worker\n"
        "threading.Thread(target=worker._end_with_the_server, daemon=True).start()\ntime.sleep(600)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdin=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.getcwd()}
    )
    process.stdin.close()
    async with asyncio.timeout(60):
        assert await process.wait() not in (0, -signal.SIGKILL)
