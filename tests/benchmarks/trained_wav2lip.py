"""A Wav2Lip 96 checkpoint of official layout that has really learnt: our own talker, taught to the official network.

    python -m tests.benchmarks.trained_wav2lip .bench/wav2lip-96.pth [--steps 300]

Random weights exaggerate every rounding error and show noise instead of a face, and the official file cannot be had
everywhere. The shipped avatars, speaking with the built-in model, teach the official network for some minutes: enough
for weights and activations with the statistics of trained ones, not for a model anybody should use.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from engine.audio.mel import mel_spectrogram
from engine.audio.pcm import Decimator
from engine.audio.window import MelWindow
from engine.avatar.bundle import load_avatar
from engine.cli.render import spoken
from engine.compose import paste
from engine.config import Config
from engine.config_load import load_config
from engine.lipsync.base import LipJob
from engine.lipsync.builtin import BuiltinLipSync
from engine.lipsync.wav2lip.crop import cut_face, face_boxes
from engine.lipsync.wav2lip.networks import Wav2Lip
from engine.lipsync.wav2lip.variants import VARIANTS

VARIANT = VARIANTS["wav2lip-96"]
TEXTS = {
    "en-us": "Good morning, people. Beyond the bridge, five old mops moved about, and nobody ever knew why.",
    "en-gb+f3": "Whoever shows you what they hear makes music of the words: oh, my, few, pop, see, two.",
    "de+m3": "Ein Bild spricht, wenn Lippen und Laut zusammen kommen, immer wieder, ohne Mühe.",
    "fr+f2": "Bonjour, voici un visage qui parle, et sa bouche suit bien la musique des mots.",
}
_BATCH, _RATE = 8, 1e-3


def sound_of(voice: str) -> np.ndarray:
    """(n,) int16 at 48 kHz of the built-in voice reading its text."""
    return asyncio.run(spoken(TEXTS[voice], load_config({"voice_name": voice})))


def windows_of(sound: np.ndarray, window: MelWindow) -> list[np.ndarray]:
    """The mel window of every video frame of a 48 kHz sound."""
    decimator = Decimator()
    analysis = np.concatenate([decimator.push(sound), decimator.flush()])
    mel = mel_spectrogram(analysis)
    return [window.cut(mel, index) for index in range(len(sound) // 1920)]


def lesson(avatars: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Speaking faces and the mel windows that belong to them.

    Returns:
        (N, 96, 96, 3) uint8 BGR, (N, 80, 16) float32; consecutive rows of one avatar belong together.
    """
    builtin = BuiltinLipSync.load()
    faces, mels = [], []
    for path, voice in zip(avatars, TEXTS, strict=False):
        avatar = load_avatar(path)
        prepared, boxes = builtin.prepare(avatar), face_boxes(avatar.all_landmarks())
        sound = sound_of(voice)
        theirs, ours = windows_of(sound, VARIANT.window), windows_of(sound, builtin.window)
        for index, (mel, heard) in enumerate(zip(theirs, ours, strict=True)):
            picture = index % len(avatar.frames)
            patch = builtin.predict([LipJob(prepared, picture, heard)])[0]
            faces.append(cut_face(paste(avatar.frames[picture], patch), boxes[picture], VARIANT.size))
            mels.append(mel)
    return np.stack(faces), np.stack(mels)


def train(faces: np.ndarray, mels: np.ndarray, steps: int, out: Path) -> None:
    """Teaches the network and writes the checkpoint; takes up again from ``out`` where that exists."""
    torch.manual_seed(0)
    network = Wav2Lip(VARIANT).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), _RATE)
    done = 0
    if out.is_file():
        saved = torch.load(out, weights_only=True)
        network.load_state_dict({key.removeprefix("module."): value for key, value in saved["state_dict"].items()})
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["global_step"]
    draw = np.random.default_rng(done)
    half, started_s = VARIANT.paste_from, time.monotonic()
    network.train()
    for step in range(done, steps):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, 4 * (1 - step / steps))
        wanted = draw.integers(0, len(faces), _BATCH)
        # The reference shows the same person saying something else.
        others = np.clip(wanted + draw.integers(-60, 60, _BATCH), 0, len(faces) - 1)
        target, reference = (torch.from_numpy(faces[rows]).permute(0, 3, 1, 2) / 255.0 for rows in (wanted, others))
        masked = target.clone()
        masked[:, :, half:] = 0
        face = torch.cat([masked, reference], 1).contiguous(memory_format=torch.channels_last)
        mel = torch.from_numpy(mels[wanted])[:, None]
        with torch.autocast("cpu", torch.bfloat16):
            picture = network(mel, face)
        error = (picture.float() - target).abs()
        loss = error.mean() + 2 * error[:, :, half:].mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 20 == 0 or step + 1 == steps:
            _save(network, optimizer, step + 1, out)
            worst = F.mse_loss(picture.float()[:, :, half:], target[:, :, half:]).item()
            spent_s = time.monotonic() - started_s
            print(f"step {step + 1}/{steps}  lower half {-10 * np.log10(worst):.1f} dB  {spent_s:.0f} s", flush=True)


def _save(network: Wav2Lip, optimizer: torch.optim.Optimizer, step: int, out: Path) -> None:
    state = {f"module.{key}": value.contiguous() for key, value in network.state_dict().items()}
    unfinished = out.with_suffix(".part")
    torch.save({"state_dict": state, "optimizer": optimizer.state_dict(), "global_step": step}, unfinished)
    unfinished.replace(out)


def sheet(network: Wav2Lip, faces: np.ndarray, mels: np.ndarray, out: Path) -> None:
    """A picture of some faces: what was hidden below, what the network drew, the truth."""
    rows = np.linspace(0, len(faces) - 1, 8).astype(int)
    target = torch.from_numpy(faces[rows]).permute(0, 3, 1, 2) / 255.0
    masked = target.clone()
    masked[:, :, VARIANT.paste_from :] = 0
    with torch.inference_mode():
        picture = network.eval()(torch.from_numpy(mels[rows])[:, None], torch.cat([masked, target.roll(1, 0)], 1))
    lines = [(line.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy() for line in (masked, picture, target)]
    cv2.imwrite(str(out), np.vstack([np.hstack(list(line)) for line in lines]))


def main() -> None:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.trained_wav2lip")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    avatars = sorted(path for path in Config().avatars_dir.iterdir() if (path / "avatar.toml").is_file())
    faces, mels = lesson(avatars)
    print(f"{len(faces)} speaking faces of {len(avatars)} avatars", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    train(faces, mels, options.steps, options.out)
    saved = torch.load(options.out, weights_only=True)["state_dict"]
    network = Wav2Lip(VARIANT)
    network.load_state_dict({key.removeprefix("module."): value for key, value in saved.items()})
    sheet(network, faces, mels, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
