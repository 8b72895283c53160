"""Models in another process: the same bits, fair to all clients, nothing left behind by those that are gone."""

from __future__ import annotations

import dataclasses
import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.audio.mel import MEL_BANDS
from engine.avatar.bundle import Avatar, load_avatar
from engine.errors import BackendFailed, Cancelled, ModelAway
from engine.lipsync.base import LipJob
from engine.lipsync.remote import RemoteLipSync
from engine.model_host.host import Host
from engine.remote.arena import make_arena, open_arena
from engine.remote.wire import HEADER, MAX_BODY_BYTES, Broken, Kind, Reader, message, words
from engine.restore.base import RestoreJob
from engine.restore.remote import RemoteRestorer
from engine.schedule import Urgency
from tests.fakes import FakeLipSync, FakeRestorer, tiny_avatar
from tests.model_host.serving import serving

BOX = (56, 80, 32, 64)


@pytest.fixture
def model() -> FakeLipSync:
    return FakeLipSync()


@pytest.fixture
def hosted(tmp_path: Path, model: FakeLipSync) -> Iterator[tuple[str, Host]]:
    with serving(tmp_path, model, FakeRestorer()) as (address, host):
        yield address, host


@pytest.fixture(scope="module")
def stored(avatars_dir: Path) -> Avatar:
    return load_avatar(avatars_dir / "tiny")


def mel(level: float) -> np.ndarray:
    return np.full((MEL_BANDS, 8), level, np.float32)


def until(happened: Callable[[], bool], seconds: float = 5.0) -> None:
    end_s = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.005)


def counts(host: Host) -> dict[str, int]:
    return host._models.shelf.counts()


def test_patches_are_those_of_the_model_bit_for_bit(hosted: tuple[str, Host], stored: Avatar) -> None:
    remote, local = RemoteLipSync.connect(hosted[0]), FakeLipSync()
    assert (remote.crop_size, remote.window, remote.batch_limit) == (local.crop_size, local.window, 1)
    far, here = remote.prepare(stored), local.prepare(stored)
    levels = [(index, -4.0 + index / 2, strength) for index in range(12) for strength in (1.0, 0.3)]
    jobs = [LipJob(far, index, mel(level), strength) for index, level, strength in levels]
    expected = local.predict([dataclasses.replace(job, prepared=here) for job in jobs])
    for one, other in zip(remote.predict(jobs), expected, strict=True):
        assert one.box == other.box and np.array_equal(one.image, other.image) and np.array_equal(one.mask, other.mask)
        assert one.mouth is not None and np.array_equal(one.mouth, other.mouth)


def test_patch_that_needs_more_room_than_expected_gets_it(hosted: tuple[str, Host], stored: Avatar) -> None:
    remote = RemoteLipSync.connect(hosted[0])
    prepared = remote.prepare(stored)
    prepared.patch_bytes = 100
    patch = remote.predict([LipJob(prepared, 0, mel(1.0))])[0]
    assert patch.image.shape == (24, 32, 3) and prepared.patch_bytes == 4 * 24 * 32


def test_avatar_is_prepared_once_for_all_clients_and_kept_while_one_needs_it(
    hosted: tuple[str, Host], stored: Avatar, model: FakeLipSync
) -> None:
    address, host = hosted
    one, other = RemoteLipSync.connect(address), RemoteLipSync.connect(address)
    mine, yours = one.prepare(stored), other.prepare(stored)
    assert model.prepared == 1 and counts(host)["handles"] == 2
    del yours
    gc.collect()
    other.predict([LipJob(other.prepare(stored), 0, mel(0.0))])
    assert counts(host)["handles"] == 2
    del other
    gc.collect()
    until(lambda: counts(host)["handles"] == 1)
    assert one.predict([LipJob(mine, 0, mel(0.0))])


def test_avatar_that_is_not_the_same_is_refused(hosted: tuple[str, Host], stored: Avatar) -> None:
    remote = RemoteLipSync.connect(hosted[0])
    with pytest.raises(BackendFailed) as caught:
        remote.prepare(tiny_avatar())
    assert caught.value.code == "avatar_not_on_disk"
    other = dataclasses.replace(stored, landmarks=stored.landmarks + 1)
    with pytest.raises(BackendFailed) as caught:
        remote.prepare(other)
    assert caught.value.code == "avatar_changed"


def test_failing_model_is_told_and_goes_on(hosted: tuple[str, Host], stored: Avatar, model: FakeLipSync) -> None:
    remote = RemoteLipSync.connect(hosted[0])
    prepared = remote.prepare(stored)
    model.failing = True
    with pytest.raises(BackendFailed) as caught:
        remote.predict([LipJob(prepared, 0, mel(0.0))])
    assert caught.value.code == "model_failed" and not isinstance(caught.value, ModelAway)
    model.failing = False
    remote.predict([LipJob(prepared, 0, mel(0.0))])


def test_most_urgent_mouth_of_all_clients_comes_first(tmp_path: Path, stored: Avatar) -> None:
    class Noting(FakeLipSync):
        def predict(self, jobs):
            order.extend(job.frame_index for job in jobs)
            return super().predict(jobs)

    order: list[int] = []
    model = Noting()
    with serving(tmp_path, model) as (address, host):
        clients = [RemoteLipSync.connect(address) for _ in range(4)]
        prepared = [client.prepare(stored) for client in clients]
        model.gate = threading.Event()

        def ask(number: int) -> None:
            urgency = Urgency(time.monotonic() + (100 - number if number else 0), owner=1)
            clients[number].predict([LipJob(prepared[number], number, mel(0.0), urgency=urgency)])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for number, thread in enumerate(threads):
            thread.start()
            if number == 0:
                assert model.begun.acquire(timeout=5)
        until(lambda: host._models.lips.waiting == 3)
        model.gate.set()
        for thread in threads:
            thread.join(5)
    assert order == [0, 3, 2, 1]


def test_mouths_of_all_clients_share_a_batch(tmp_path: Path, stored: Avatar) -> None:
    sizes: list[int] = []

    class Batching(FakeLipSync):
        batch_limit = 8

        def predict(self, jobs):
            sizes.append(len(jobs))
            return super().predict(jobs)

    model = Batching()
    with serving(tmp_path, model) as (address, host):
        clients = [RemoteLipSync.connect(address) for _ in range(4)]
        prepared = [client.prepare(stored) for client in clients]
        model.gate = threading.Event()

        def ask(number: int) -> None:
            urgency = Urgency(time.monotonic() + 100, owner=1)
            clients[number].predict([LipJob(prepared[number], index, mel(0.0), urgency=urgency) for index in range(2)])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        threads[0].start()
        assert model.begun.acquire(timeout=5)
        for thread in threads[1:]:
            thread.start()
        until(lambda: host._models.lips.waiting == 6)
        model.gate.set()
        for thread in threads:
            thread.join(5)
    assert sizes == [2, 6]


def test_client_that_is_gone_leaves_nothing_behind(hosted: tuple[str, Host], stored: Avatar) -> None:
    address, host = hosted
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        remote, restorer = RemoteLipSync.connect(address), RemoteRestorer.connect(address)
        assert restorer is not None
        remote.predict([LipJob(remote.prepare(stored), 0, mel(0.0))])
        kept = restorer.restore([RestoreJob(stored.frames[0], stored.landmarks[0], BOX, 3)])
        assert kept[0].trace is not None
        del remote, restorer, kept
        gc.collect()
    until(lambda: counts(host)["handles"] == counts(host)["traces"] == 0 and not host._connections)
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
    assert counts(host)["avatars"] == 1, "the next client finds it prepared"


def test_who_sends_nonsense_is_disconnected_and_nobody_else(hosted: tuple[str, Host], stored: Avatar) -> None:
    address, _ = hosted
    remote = RemoteLipSync.connect(address)
    prepared = remote.prepare(stored)
    hello = words(Kind.HELLO, client="x")
    for nonsense in (
        b"GET / HTTP/1.1\r\n\r\n",
        HEADER.pack(MAX_BODY_BYTES + 1, Kind.HELLO),
        message(Kind.PREDICT, b"x"),
        hello + message(Kind.PREDICT, b"x" * 3),
        hello + message(Kind.PREDICT),
        hello + message(Kind.ARENA),
        hello + message(Kind.PREPARE, b"[]"),
    ):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(5)
            stranger.connect(address)
            stranger.sendall(nonsense)
            while stranger.recv(4096):
                pass
    assert remote.predict([LipJob(prepared, 0, mel(0.0))])


def test_messages_are_put_together_however_they_arrive() -> None:
    sent = words(Kind.HELLO, client="x") + message(Kind.PING) + message(Kind.RELEASE, b"12345678")
    reader, got = Reader(), []
    for at in range(len(sent)):
        got += list(reader.feed(sent[at : at + 1]))
    assert [kind for kind, _ in got] == [Kind.HELLO, Kind.PING, Kind.RELEASE] and got[2][1] == b"12345678"


def test_shared_memory_is_seen_by_both_sides_and_cannot_be_taken_away() -> None:
    mine, descriptor = make_arena(100_000)
    with pytest.raises(OSError):
        os.ftruncate(descriptor, 10)
    yours = open_arena(os.dup(descriptor))
    os.close(descriptor)
    mine.part(99_000, 3)[:] = 1, 2, 3
    assert yours.part(99_000, 3).tolist() == [1, 2, 3] and len(mine) == len(yours) >= 100_000
    with pytest.raises(Broken):
        mine.part(len(mine) - 1, 2)


def test_restored_pictures_are_those_of_the_restorer_and_traces_stay_there(
    hosted: tuple[str, Host], stored: Avatar
) -> None:
    address, host = hosted
    remote, local = RemoteRestorer.connect(address), FakeRestorer()
    assert remote is not None
    far = here = None
    for index in range(4):
        job = RestoreJob(stored.frames[index], stored.landmarks[index], BOX, 3)
        restored = remote.restore([dataclasses.replace(job, trace=far)])[0]
        expected = local.restore([dataclasses.replace(job, trace=here)])[0]
        far, here = restored.trace, expected.trace
        assert np.array_equal(restored.image, expected.image)
    assert host._models.restorer.traces == [None, 1, 2, 3]  # type: ignore[union-attr]
    assert counts(host)["traces"] <= 2, "those that no session carries any more are let go"
    image = stored.frames[0]
    assert remote.restore([RestoreJob(image, stored.landmarks[0], BOX, 1)])[0].image is image


def test_host_without_a_restorer_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, FakeLipSync()) as (address, _):
        assert RemoteRestorer.connect(address) is None


def test_restored_avatar_is_loaded_from_where_it_is_kept_and_may_be_given_up(
    tmp_path: Path, stored: Avatar, avatars_dir: Path
) -> None:
    class Keeping(FakeRestorer):
        def restore_avatar(self, avatar, progress=None):
            progress(1, 2)
            super().restore_avatar(avatar, progress)
            return avatar

    restorer = Keeping()
    with serving(tmp_path, FakeLipSync(), restorer) as (address, _):
        remote = RemoteRestorer.connect(address)
        assert remote is not None
        told: list[tuple[int, int]] = []
        found = remote.restore_avatar(stored, lambda done, of: told.append((done, of)))
        assert found.folder == stored.folder and told == [(1, 2)]
        restorer.avatar_gate = threading.Event()

        def stop(done: int, of: int) -> None:
            raise Cancelled("enough", "Enough.")

        with pytest.raises(Cancelled):
            remote.restore_avatar(stored, stop)
        assert remote.restore([RestoreJob(stored.frames[0], stored.landmarks[0], BOX, 3)])
        until(lambda: not restorer.avatar_gate.is_set())
        restorer.avatar_gate.set()


def test_restart_is_noticed_by_a_client_that_asks_nothing(tmp_path: Path, stored: Avatar) -> None:
    with serving(tmp_path, FakeLipSync()) as (address, _):
        remote = RemoteLipSync.connect(address)
        prepared = remote.prepare(stored)
    until(lambda: remote._link._boot is None)
    with pytest.raises(ModelAway):
        remote.predict([LipJob(prepared, 0, mel(0.0))])
    model = FakeLipSync()
    with serving(tmp_path, model) as (_, host):
        until(lambda: remote._link._boot is not None)
        assert model.prepared == 1 and counts(host)["handles"] == 1, "before anybody asks for a picture"
        assert remote.predict([LipJob(prepared, 0, mel(0.0))])
        remote = prepared = None
        gc.collect()
        until(lambda: counts(host)["handles"] == 0)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "visavis-model-link"])
