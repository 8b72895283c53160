"""Trains the audio network on synthesised and recorded speech and keeps the weights that suit real talkers best.

Place in the flow: shards -> ``Batches`` -> AudioNet -> ``audio.safetensors`` -> ``audio_export``.

Run as ``python -m engine.studio.audio_train SHARDS RUN --talkers openings.json --videos DIR``; on a GPU where there is
one.

Invariant: the kept weights are a running mean (EMA) of the trained ones, and are the ones that are judged.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from engine.studio.audio_batches import Batches
from engine.studio.audio_judge import Judge
from engine.studio.audio_net import AudioNet
from engine.studio.speech_data import VISEME_NAMES
from engine.types import MOUTH_SHAPES

_SHAPE_WEIGHTS = {
    "jawOpen": 2.5, "mouthPress": 2.0, "mouthFunnel": 1.5, "mouthPucker": 1.5, "mouthStretch": 1.5,
    "mouthUpperUp": 0.7, "mouthLowerDown": 1.2, "mouthRollLower": 1.3, "mouthSmile": 0.1, "tongueOut": 0.5,
}  # fmt: skip
_PEAK_CHANNELS = [MOUTH_SHAPES.index(n) for n in ("mouthPress", "mouthPucker", "mouthFunnel", "mouthRollLower")]
_PRESS, _ROLL = MOUTH_SHAPES.index("mouthPress"), MOUTH_SHAPES.index("mouthRollLower")
_SILENT = VISEME_NAMES.index("sil")
_DIFFERENCE_COLUMNS = 3  # one video frame
_REPORT_STEPS = 150
_MOST_WORKERS = 8  # each holds all shards in memory


def loss_of(mouth: Tensor, scores: Tensor, target: Tensor, viseme: Tensor) -> Tensor:
    """Weighted error of shapes, of their movement and of its size, plus the error of the recognised visemes.

    Missing a closure or a rounding costs more than making one: a plain mean would leave the lips half open. Where the
    sound leaves the shape in doubt a network answers with the mean of what may be, and mumbles; so the spread of each
    shape over a clip counts too.

    Args:
        mouth: (B, S, 10) predicted.
        scores: (B, S, visemes) predicted.
        target: (B, S, 10) true.
        viseme: (B, S) true numbers.
    """
    shape_weight = mouth.new_tensor([_SHAPE_WEIGHTS[name] for name in MOUTH_SHAPES])
    peak = torch.ones_like(target)
    peak[..., _PEAK_CHANNELS] += 1.5 * target[..., _PEAK_CHANNELS]
    moment = 1 + 1.2 * target[..., _PRESS, None] + 0.6 * target[..., _ROLL, None] + (viseme == _SILENT)[..., None]
    error = (mouth - target).abs()
    still = (shape_weight * peak * moment * (0.5 * error + 2 * error**2)).mean()
    steps = [x[:, _DIFFERENCE_COLUMNS:] - x[:, :-_DIFFERENCE_COLUMNS] for x in (mouth, target)]
    moving = (shape_weight * (steps[0] - steps[1]).abs()).mean()
    lively = (shape_weight * (mouth.std(1) - target.std(1)).abs()).mean()
    heard = functional.cross_entropy(scores.flatten(0, 1), viseme.flatten(), label_smoothing=0.05)
    return still + 0.3 * moving + 0.3 * lively + 0.15 * heard


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains until the step count or the time is reached; safe to stop at any moment."""
    parser = argparse.ArgumentParser(description="Train the audio network.")
    parser.add_argument("shards", type=Path, help="folder of speech_data's shards")
    parser.add_argument("run", type=Path, help="folder for weights and the log")
    parser.add_argument("--talkers", type=Path, help="measured openings of real talkers (JSON) to choose weights by")
    parser.add_argument("--videos", type=Path, help="folder of the videos named in it")
    parser.add_argument(
        "--source",
        action="append",
        metavar="PATTERN=SHARE",
        help="shards and how often their clips are drawn (default: train_*.npz=1); may be repeated",
    )
    parser.add_argument("--silent", type=float, default=0.14, help="share of items in which nobody speaks")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--start", type=Path, help="weights to start from: best.pt of a run, or audio.safetensors")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: cuda where there is one")
    parser.add_argument("--workers", type=int, help="processes that make batches (default: 1, on a GPU up to 8)")
    options = parser.parse_args(arguments)
    options.run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    has_gpu = torch.cuda.is_available()
    if options.device.startswith("cuda") and not has_gpu:
        parser.error("this machine has no GPU that torch can use; leave out --device, or say --device cpu")
    device = torch.device(("cuda" if has_gpu else "cpu") if options.device == "auto" else options.device)
    # Making a batch costs a CPU core as long as a training step costs another one; a GPU takes far more of them.
    usual = 1 if device.type == "cpu" else max(1, min(_MOST_WORKERS, (os.cpu_count() or 2) - 1))

    sources = []
    for source in options.source or ["train_*.npz=1"]:
        pattern, _, share = source.partition("=")
        if not (shards := sorted(options.shards.glob(pattern))):
            parser.error(f"there is no {pattern} in {options.shards}")
        sources.append((shards, float(share or 1)))
    batches = DataLoader(
        Batches(sources, options.batch, options.silent, options.seed),
        batch_size=None,
        num_workers=max(1, options.workers or usual),
        prefetch_factor=8,
        pin_memory=device.type == "cuda",
    )
    judge = Judge(options.shards, options.talkers, options.videos)
    network = AudioNet().to(device)
    if options.start:
        network.load_state_dict(_weights(options.start))
    mean = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.02)
    started_s, best = time.monotonic(), -1.0
    running = 0.0
    for step, (mel, target, viseme) in enumerate(batches, 1):
        elapsed = (time.monotonic() - started_s) / (60 * options.minutes)
        progress = max(step / options.steps, elapsed)
        for group in optimiser.param_groups:
            group["lr"] = options.rate * min(1.0, step / 100) * (1 - 0.97 * min(1.0, progress))
        network.train()
        mel, target, viseme = (part.to(device, non_blocking=True) for part in (mel, target, viseme))
        with torch.autocast(device.type, torch.bfloat16):
            mouth, scores = network.both(mel)
        loss = loss_of(mouth.float(), scores.float(), target, viseme)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        _blend(mean, network, min(0.995, step / (step + 50)))
        running += (loss.item() - running) / min(step, 50)
        if step % _REPORT_STEPS == 0 or progress >= 1:
            report = judge(mean)
            report.update(step=step, loss=round(running, 4), minutes=round((time.monotonic() - started_s) / 60, 1))
            with (options.run / "log.jsonl").open("a") as log:
                log.write(json.dumps(report) + "\n")
            print(json.dumps(report), flush=True)
            torch.save(mean.state_dict(), options.run / "last.pt")
            if report["score"] > best:
                best = report["score"]
                torch.save(mean.state_dict(), options.run / "best.pt")
                save_file(mean.state_dict(), options.run / "audio.safetensors")
        if progress >= 1:
            return


def _weights(path: Path) -> dict[str, Tensor]:
    """Weights on the CPU, wherever they were trained."""
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)


@torch.no_grad()
def _blend(mean: AudioNet, network: AudioNet, keep: float) -> None:
    for kept, new in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(new, 1 - keep)
        else:
            kept.copy_(new)


if __name__ == "__main__":
    main()
