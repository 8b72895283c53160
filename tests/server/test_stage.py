"""The real stage: avatars, model and voice as the server opens them, and a real session behind the API."""

from __future__ import annotations

import gc

import cv2
import numpy as np
import pytest

from engine.avatar.bundle import write_avatar
from engine.config import Config
from engine.errors import ConfigInvalid, NotFound
from engine.metrics import EngineMetrics
from server import stage as stage_module
from server.stage import Stage
from tests.fakes import tiny_avatar
from tests.server.serving import Browser, eventually, serve

pytestmark = pytest.mark.may_block_loop


@pytest.fixture
async def stage(avatars_dir):
    stage = await Stage.open(Config(avatars_dir=avatars_dir, render_threads=1), EngineMetrics())
    yield stage
    await stage.aclose()


async def test_a_folder_without_avatars_is_told_in_one_sentence(tmp_path):
    with pytest.raises(ConfigInvalid, match="no avatar") as caught:
        await Stage.open(Config(avatars_dir=tmp_path), EngineMetrics())
    assert caught.value.code == "avatar_missing"


async def test_a_gpu_for_voices_that_is_not_there_is_told_at_the_start(avatars_dir):
    with pytest.raises(ConfigInvalid) as caught:
        await Stage.open(Config(avatars_dir=avatars_dir, voice_device="gpu"), EngineMetrics())
    assert caught.value.code == "voice_gpu_missing" and "onnxruntime-gpu" in caught.value.message


async def test_an_avatar_that_is_asked_for_and_missing_is_told_with_those_that_exist(avatars_dir):
    with pytest.raises(ConfigInvalid, match="usable ones: tiny"):
        await Stage.open(Config(avatars_dir=avatars_dir, avatar="nobody"), EngineMetrics())


async def test_the_poster_is_the_first_idle_picture(stage):
    poster = await stage.poster("tiny")
    image = cv2.imdecode(np.frombuffer(poster.jpeg, np.uint8), cv2.IMREAD_COLOR)
    first = stage._avatars["tiny"].frames[0]
    assert np.abs(image.astype(int) - first).mean() < 2
    assert (await stage.poster("tiny")).etag == poster.etag


async def test_the_poster_of_an_avatar_nobody_has_asked_for_does_not_load_its_loop(tmp_path):
    for name in ("one", "two"):
        write_avatar(tmp_path / name, tiny_avatar(name=name))
    stage = await Stage.open(Config(avatars_dir=tmp_path, render_threads=1), EngineMetrics())
    try:
        one, two = await stage.poster("one"), await stage.poster("two")
        pictures = [cv2.imdecode(np.frombuffer(p.jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int) for p in (one, two)]
        assert np.abs(pictures[0] - pictures[1]).mean() < 2, "colours agree, loaded or not"
        assert set(stage._avatars) == {"one"}
    finally:
        await stage.aclose()


async def test_few_avatars_stay_loaded_and_never_one_that_a_session_shows_goes(tmp_path):
    names = [f"a{index}" for index in range(stage_module.AVATARS_KEPT + 3)]
    for name in names:
        write_avatar(tmp_path / name, tiny_avatar(name=name))
    stage = await Stage.open(Config(avatars_dir=tmp_path, render_threads=1), EngineMetrics())
    try:
        shown, _ = await stage.create_session(names[1])
        for name in names[2:]:
            await (await stage.create_session(name))[0].aclose()
            gc.collect()
        assert len(stage._avatars) == stage_module.AVATARS_KEPT
        kept = {names[0], names[1], *names[2 - stage_module.AVATARS_KEPT :]}
        assert set(stage._avatars) == kept, "the default, the shown, the newest"
        again, _ = await stage.create_session(names[1])
        assert again.avatar is shown.avatar
        several = [(await stage.create_session(name))[0] for name in names]
        assert set(stage._avatars) == set(names), "all in use"
        assert len(several) == len(names)
    finally:
        await stage.aclose()


async def test_decoded_pictures_are_mapped_and_those_of_an_uploaded_person_lie_in_that_avatars_folder(tmp_path):
    write_avatar(tmp_path / "shipped" / "one", tiny_avatar(name="one"))
    write_avatar(tmp_path / "data" / "avatars" / "made", tiny_avatar(name="made"))
    config = Config(avatars_dir=tmp_path / "shipped", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    metrics = EngineMetrics()
    stage = await Stage.open(config, metrics)
    try:
        session, _ = await stage.create_session("made")
        assert len(list((tmp_path / "cache" / "pictures").glob("*.bgr"))) == 1
        assert len(list((tmp_path / "data" / "avatars" / "made" / "pictures").glob("*.bgr"))) == 1
        assert session.avatar.memory_bytes == 0
        assert metrics.registry.get_sample_value("visavis_avatar_bytes") == stage.avatar_bytes > 0
    finally:
        await stage.aclose()


async def test_avatars_that_are_in_memory_make_room_for_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(stage_module, "PictureFiles", lambda folder: None)
    monkeypatch.setattr(stage_module, "AVATARS_KEPT_BYTES", 3 * tiny_avatar().frames.nbytes)
    names = [f"a{index}" for index in range(5)]
    for name in names:
        write_avatar(tmp_path / name, tiny_avatar(name=name))
    stage = await Stage.open(Config(avatars_dir=tmp_path, render_threads=1), EngineMetrics())
    try:
        for name in names[1:]:
            await (await stage.create_session(name))[0].aclose()
            gc.collect()
        assert list(stage._avatars) == [names[0], *names[-2:]]
    finally:
        await stage.aclose()


@pytest.mark.parametrize("name", ["nobody", "../tiny", "tiny/../tiny", "/tiny", "TINY"])
async def test_names_that_are_not_in_the_list_are_unknown(stage, name):
    with pytest.raises(NotFound) as caught:
        stage.known(name)
    assert caught.value.code == "avatar_unknown"


async def test_a_typed_sentence_is_heard_seen_and_told(aiohttp_client, avatars_dir):
    config = Config(avatars_dir=avatars_dir, render_threads=1)
    server = await serve(aiohttp_client, await Stage.open(config, EngineMetrics()), avatars_dir=avatars_dir)
    async with Browser() as browser:
        session = await server.offer(browser)
        await browser.watch(5)
        response = await server.client.post(f"/sessions/{session}/say", json={"text": "Hello, nice to meet you."})
        assert response.status == 202
        assert (await browser.expect("caption"))["text"] == "Hello, nice to meet you."
        assert (await browser.expect("speaking"))["speaking"] is True
        assert max((await browser.expect("viseme"))["mouth"].values()) <= 1
        await eventually(lambda: any(np.abs(r.frame.to_ndarray()).max() > 2000 for r in browser.sounds), 5)
        played = await (await server.client.post(f"/sessions/{session}/interrupt")).json()
        assert played["utterance_id"] == 1 and played["played_ms"] > 0
        await server.end()
