"""What it costs to have the models in another process, and what it brings to have them there once for all workers.

    python -m tests.benchmarks.model_process [--seconds 4] [-o .bench/model_process.json] [--wav2lip FOLDER]

Three parts, one JSON:

* ``transport``: one caller, a model that only copies a patch out of the avatar's picture. Microseconds per picture
  when asked in this process and over the socket and shared memory; the difference is what the way costs.
* ``builtin``: 1 to 3 worker processes, together 1, 4 and 8 sessions, the built-in model. Every worker asks for its
  pictures as fast as it gets them (``pictures_per_s``, ``cpu_ms`` of a picture over all processes), once with one model
  process for all and once with a model in every worker; and then at 25 pictures a second and session (``wait_ms``, from
  asking to having).
* ``batches``: Wav2Lip 96 on torch's CPU path, which stands in for a GPU: the mouths of several clients end up in one
  batch and are those of one at a time, as well as floating point lets batches be. Needs a folder of weights.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from engine.audio.window import MelWindow
from engine.avatar.bundle import Avatar, load_avatar
from engine.avatar.pictures import FOLDER, PictureFiles
from engine.config import Config, usable_cores
from engine.lipsync.base import FacePatch, LipJob, LipSync
from engine.lipsync.remote import RemoteLipSync
from engine.model_host.host import Host
from engine.model_process import ModelProcess
from engine.registry import create_lipsync
from engine.schedule import Urgency

PATCH = (280, 430, 180, 330)
"""Of the model that only copies: as large as the built-in model's on the shipped avatars, about."""
WORKERS, SESSIONS = (1, 2, 3), (1, 4, 8)


class Copying:
    """A model that copies its patch out of the avatar's picture, and does nothing else."""

    crop_size = 128
    window = MelWindow(columns=32, offset=-24)

    def __init__(self) -> None:
        y1, y2, x1, x2 = PATCH
        self._mask = np.full((y2 - y1, x2 - x1), 255, np.uint8)

    def prepare(self, avatar: Avatar) -> Any:
        class Prepared:
            def __init__(self) -> None:
                self.avatar = avatar

        return Prepared()

    def predict(self, jobs: Sequence[LipJob]) -> list[FacePatch]:
        y1, y2, x1, x2 = PATCH
        mouth = np.zeros(10, np.float32)
        return [
            FacePatch(job.prepared.avatar.picture(job.frame_index)[y1:y2, x1:x2], PATCH, self._mask, mouth)
            for job in jobs
        ]

    def warmup(self, batch_sizes: Sequence[int]) -> None:
        pass


def the_avatar() -> Avatar:
    """The shipped face."""
    config = Config()
    return load_avatar(config.avatars_dir / "maya", PictureFiles(config.cache_dir / FOLDER))


def mels(count: int, columns: int, seed: int = 0) -> list[np.ndarray]:
    """Windows that open the mouth in most pictures."""
    rng = np.random.default_rng(seed)
    return [rng.normal(1.5, 1.5, (80, columns)).clip(-4, 4).astype(np.float32) for _ in range(count)]


# The way --------------------------------------------------------------------------------------------------------------


def transport(seconds: float) -> dict[str, Any]:
    """Asks a model that costs nothing, here and in another process."""
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder) / "s")
        command = [sys.executable, "-m", "tests.benchmarks.model_process", "--serve-copying", address]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            avatar = the_avatar()
            remote, local = RemoteLipSync.connect(address), Copying()
            far, here = remote.prepare(avatar), local.prepare(avatar)
            sounds = mels(8, 32)
            figures = {}
            for name, model, prepared in (("here", local, here), ("there", remote, far)):
                for size in (1, 8):
                    jobs = [LipJob(prepared, index, sounds[index]) for index in range(size)]
                    took_us = _microseconds(lambda model=model, jobs=jobs: model.predict(jobs), seconds / 4)
                    figures[f"{name}_{size}"] = {
                        "median_us": round(float(np.median(took_us)) / size, 1),
                        "p95_us": round(float(np.percentile(took_us, 95)) / size, 1),
                    }
        finally:
            process.kill()
            process.wait()
    one, eight = (
        round(figures[f"there_{size}"]["median_us"] - figures[f"here_{size}"]["median_us"], 1) for size in (1, 8)
    )
    return {**figures, "overhead_us": one, "overhead_us_of_eight": eight}


def _microseconds(call: Any, seconds: float) -> list[float]:
    took, end_s = [], time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        before = time.perf_counter_ns()
        call()
        took.append((time.perf_counter_ns() - before) / 1000)
    return took[len(took) // 10 :]


# Workers --------------------------------------------------------------------------------------------------------------


def work(address: str, sessions: int, seconds: float, paced: bool, start_at: float) -> dict[str, Any]:
    """One worker: asks for the pictures of its sessions, from as many threads as a renderer would."""
    cv2.setNumThreads(1)
    lipsync: LipSync = create_lipsync("builtin", socket=address)
    prepared = lipsync.prepare(the_avatar())
    sounds = mels(64, lipsync.window.columns, os.getpid())
    threads = usable_cores()
    waits: list[float] = []
    counts = [0] * threads
    lock, turn = threading.Lock(), [0]
    lipsync.predict([LipJob(prepared, 0, sounds[0])])
    time.sleep(max(0.0, start_at - time.time()))
    started_s = time.monotonic()
    own = psutil.Process()
    cpu_s = sum(own.cpu_times()[:2])

    def ask(number: int) -> None:
        while True:
            with lock:
                at, turn[0] = turn[0], turn[0] + 1
            due_s = started_s + at / (25 * sessions) + 0.1 if paced else time.monotonic() + 0.1
            if (due_s - 0.1 if paced else time.monotonic()) - started_s > seconds:
                return
            if paced:
                time.sleep(max(0.0, due_s - 0.1 - time.monotonic()))
            before_s = time.monotonic()
            lipsync.predict(
                [LipJob(prepared, at % 100, sounds[at % 64], urgency=Urgency(due_s, 1 + at % sessions))]
            )
            waits.append((time.monotonic() - (due_s - 0.1 if paced else before_s)) * 1000)
            counts[number] += 1

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    took_s = time.monotonic() - started_s
    return {
        "pictures": sum(counts), "seconds": took_s, "cpu_s": sum(own.cpu_times()[:2]) - cpu_s,
        "wait_ms": [round(wait, 2) for wait in waits],
    }  # fmt: skip


def workers(count: int, sessions: int, seconds: float, paced: bool, address: str, model: int | None) -> dict[str, Any]:
    """Some workers at once, and what they got together."""
    start_at = time.time() + 6.0
    shares = [sessions // count + (number < sessions % count) for number in range(count)]
    command = [sys.executable, "-m", "tests.benchmarks.model_process", "--work", address, "--seconds", str(seconds)]
    command += ["--start-at", str(start_at)] + (["--paced"] if paced else [])
    processes = [
        subprocess.Popen([*command, "--sessions", str(share)], stdout=subprocess.PIPE, text=True)
        for share in shares
        if share
    ]
    time.sleep(max(0.0, start_at - time.time()))
    before_s = sum(psutil.Process(model).cpu_times()[:2]) if model is not None else 0.0
    results = [json.loads(process.communicate()[0]) for process in processes]
    model_s = sum(psutil.Process(model).cpu_times()[:2]) - before_s if model is not None else 0.0
    pictures = sum(result["pictures"] for result in results)
    waits = np.concatenate([result["wait_ms"] for result in results])
    return {
        "pictures_per_s": round(sum(result["pictures"] / result["seconds"] for result in results), 1),
        "cpu_ms": round(1000 * (sum(result["cpu_s"] for result in results) + model_s) / max(1, pictures), 2),
        "wait_ms_p50": round(float(np.percentile(waits, 50)), 1),
        "wait_ms_p95": round(float(np.percentile(waits, 95)), 1),
    }


async def builtin(seconds: float, worker_counts: Sequence[int]) -> list[dict[str, Any]]:
    """The built-in model, once for all workers and once in each."""
    process = ModelProcess(Config(restorer="none", render_threads=usable_cores()))
    rows = []
    try:
        await process.start()
        for count in worker_counts:
            for sessions in SESSIONS:
                if sessions < count:
                    continue
                for paced in (False, True):
                    for name, address, model in (("shared", process.address, process.pid), ("own", "", None)):
                        found = await asyncio.to_thread(workers, count, sessions, seconds, paced, address, model)
                        row = {"workers": count, "sessions": sessions, "paced": paced, "model": name, **found}
                        rows.append(row)
                        print(json.dumps(row), flush=True)
    finally:
        await process.aclose()
    return rows


# Batches --------------------------------------------------------------------------------------------------------------


@contextmanager
def torch_host(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """A host in this process with Wav2Lip on torch's CPU path, which takes batches as a GPU does."""
    import torch

    from engine.lipsync.wav2lip.checkpoint import load_network
    from engine.lipsync.wav2lip.model import Wav2LipSync
    from engine.lipsync.wav2lip.torch_runtime import TorchSpeaker

    torch.set_num_threads(1)
    variant, network = load_network(folder)
    model, sizes = Wav2LipSync(variant, TorchSpeaker(network, "cpu")), []
    predict = model.predict

    def counting(jobs: Sequence[LipJob]) -> list[FacePatch]:
        sizes.append(len(jobs))
        return predict(jobs)

    model.predict = counting  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as place:
        host = Host(model, None, 1, Config().cache_dir, Path(place) / "made")
        host.listen(Path(place) / "s")
        thread = threading.Thread(target=host.serve, daemon=True)
        thread.start()
        try:
            yield str(Path(place) / "s"), sizes
        finally:
            host.stop()
            thread.join(10)


def batches(folder: Path, clients: int = 4, pictures: int = 12) -> dict[str, Any]:
    """The mouths of several clients in one batch, against the same one at a time."""
    avatar = the_avatar()
    with torch_host(folder) as (address, sizes):
        remotes = [RemoteLipSync.connect(address) for _ in range(clients)]
        prepared = [remote.prepare(avatar) for remote in remotes]
        sounds = mels(clients * pictures, remotes[0].window.columns)
        found: dict[tuple[int, int], FacePatch] = {}

        def ask(client: int) -> None:
            for at in range(pictures):
                urgency = Urgency(time.monotonic() + 10, 1)
                job = LipJob(prepared[client], at, sounds[client * pictures + at], urgency=urgency)
                found[client, at] = remotes[client].predict([job])[0]

        asking = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
        started_s = time.monotonic()
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        together_s, merged = time.monotonic() - started_s, list(sizes)
        started_s, apart = time.monotonic(), []
        here = remotes[0].prepare(avatar)
        for client, at in sorted(found):
            patch = remotes[0].predict([LipJob(here, at, sounds[client * pictures + at])])[0]
            apart.append(int(np.abs(patch.image.astype(int) - found[client, at].image).max()))
        apart_s = time.monotonic() - started_s
    return {
        "batch_mean": round(sum(merged) / len(merged), 2), "batch_most": max(merged),
        "largest_difference": max(apart), "same_pictures": sum(gap == 0 for gap in apart), "pictures": len(apart),
        "pictures_per_s_together": round(len(apart) / together_s, 1),
        "pictures_per_s_apart": round(len(apart) / apart_s, 1),
    }  # fmt: skip


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", nargs="*", choices=("transport", "builtin", "batches"))
    parser.add_argument("--workers", type=int, nargs="*", default=WORKERS)
    parser.add_argument("--wav2lip", type=Path, default=Config().weights_dir / "wav2lip")
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/model_process.json"))
    parser.add_argument("--serve-copying", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--sessions", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--start-at", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--paced", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve_copying is not None:
        host = Host(Copying(), None, 1, Config().cache_dir, Path("/nonexistent"))
        host.listen(args.serve_copying)
        host.serve(sys.stdin.fileno())
        return
    if args.work is not None:
        print(json.dumps(work(args.work, args.sessions, args.seconds, args.paced, args.start_at)))
        return
    cv2.setNumThreads(1)
    parts = args.only or ["transport", "builtin", "batches"]
    result: dict[str, Any] = {"load_before": os.getloadavg()[0], "cores": usable_cores()}
    if "transport" in parts:
        result["transport"] = transport(args.seconds)
        print(json.dumps(result["transport"]), flush=True)
    if "batches" in parts and args.wav2lip.is_dir():
        result["batches"] = batches(args.wav2lip)
        print(json.dumps(result["batches"]), flush=True)
    if "builtin" in parts:
        result["builtin"] = asyncio.run(builtin(args.seconds, args.workers))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
