"""The real process: the built-in model's own bits, back after it was killed, and never alone in the world."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from engine.avatar.bundle import load_avatar
from engine.avatar.pictures import FOLDER, PictureFiles
from engine.config import Config
from engine.errors import BackendFailed, ModelAway
from engine.lipsync.base import FacePatch, LipJob
from engine.model_process import ModelProcess, wants_model_process
from engine.registry import create_lipsync, create_restorer

ROOT = Path(__file__).resolve().parents[2]


def same(one: FacePatch, other: FacePatch) -> bool:
    assert one.mouth is not None and other.mouth is not None
    return (
        one.box == other.box
        and np.array_equal(one.image, other.image)
        and np.array_equal(one.mask, other.mask)
        and np.array_equal(one.mouth, other.mouth)
    )


async def test_model_process_gives_the_models_own_bits_and_comes_back_when_it_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.model_process.FIRST_PAUSE_S", 0.05)
    config = Config(restorer="none")
    process = ModelProcess(config)
    folder = Path(process.address).parent
    try:
        await process.start()
        local = await asyncio.to_thread(create_lipsync, "builtin")
        remote = await asyncio.to_thread(lambda: create_lipsync("any", socket=process.address))
        assert await asyncio.to_thread(lambda: create_restorer("any", socket=process.address)) is None
        pictures = PictureFiles(config.cache_dir / FOLDER)
        avatar = await asyncio.to_thread(lambda: load_avatar(config.avatars_dir / "maya", pictures))
        here, far = await asyncio.gather(
            asyncio.to_thread(local.prepare, avatar), asyncio.to_thread(remote.prepare, avatar)
        )
        rng = np.random.default_rng(7)
        jobs = [
            LipJob(here, index, rng.normal(0, 2, (80, local.window.columns)).clip(-4, 4).astype(np.float32), strength)
            for index, strength in ((0, 1.0), (7, 0.4), (33, 1.0), (8, 0.0))
        ]
        expected = local.predict(jobs)

        def ask() -> list[FacePatch]:
            return remote.predict([LipJob(far, job.frame_index, job.mel, job.strength) for job in jobs])

        assert all(map(same, await asyncio.to_thread(ask), expected))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        away, deadline_s = 0, time.monotonic() + 30
        while True:
            before_s = time.monotonic()
            try:
                patches = await asyncio.to_thread(ask)
                break
            except ModelAway:
                away += 1
                assert time.monotonic() - before_s < 2.5, "nobody waits for it"
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.02)
        assert away and process.restarts == 1 and all(map(same, patches, expected))
        pid = process.pid
    finally:
        await process.aclose()
    await process.aclose()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_what_is_wrong_with_a_model_is_told_by_whoever_starts_it() -> None:
    process = ModelProcess(Config(lipsync="no-such-model"))
    try:
        with pytest.raises(BackendFailed) as caught:
            await process.start()
        assert caught.value.code == "lipsync_not_found" and "no-such-model" in caught.value.message
    finally:
        await process.aclose()


def test_process_ends_with_whoever_started_it(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "engine.model_host", "--socket", str(tmp_path / "s"), "--restorer", "none",
        "--with-parent",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert json.loads(process.stdout.readline()) == {"ready": True}
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
        process.stdin.close()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.stdout.close()


def test_model_process_is_for_several_workers_on_a_gpu_unless_somebody_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver = tmp_path / "version"
    monkeypatch.setattr("engine.model_process._NVIDIA", driver)
    added = Config(lipsync="wav2lip")
    assert not wants_model_process(added, 4)
    driver.write_text("there")
    assert wants_model_process(added, 4) and not wants_model_process(added, 1)
    assert not wants_model_process(Config(lipsync="wav2lip", model_socket="/run/models"), 4)
    assert not wants_model_process(Config(restorer="none"), 4), "the built-in model runs on the CPU"
    assert wants_model_process(Config(model_process="on"), 1)
    assert not wants_model_process(Config(lipsync="wav2lip", model_process="off"), 4)


def test_nobody_there_is_told_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.remote.link import open_link

    with pytest.raises(ModelAway, match="No model process answers"):
        open_link(str(tmp_path / "nothing"), timeout_s=0.1)
