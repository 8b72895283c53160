"""Computes pictures in one of the candidates' ways; runs inside a worker process.

Place in the flow: ``Candidate`` + ``Material`` -> ``Runner`` -> pixels.

Invariants:
    * every way ends with the pasted rows as uint8 pixels in the host's memory: that is what a session needs;
    * a runtime is imported only for its own candidates, so the memory of a worker is that of its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.bench.candidates import Candidate
from engine.bench.material import Material

WHOLE_FILE = "whole.xml"
MATERIAL_FILE = "material.npz"


class Runner(Protocol):
    """One way, ready to compute."""

    def draw(self, rows: Sequence[int]) -> np.ndarray:
        """The pasted rows of the given rows of the material: (n, h, w, 3) uint8 BGR. Safe for several threads."""
        ...


def open_runner(candidate: Candidate, weights: Path | None, scratch: Path, threads: int) -> Runner:
    """Loads what a candidate needs.

    Args:
        candidate: the way.
        weights: folder of Wav2Lip weights; None for the built-in model.
        scratch: folder with ``MATERIAL_FILE``, and ``WHOLE_FILE`` for those that need it.
        threads: threads of one picture.
    """
    material = Material.load(scratch / MATERIAL_FILE)
    if weights is None:
        return _Builtin(candidate.precision, material, threads)
    if candidate.rows == "pasted":
        return _Served(candidate, weights, material, threads)
    if candidate.runtime == "openvino":
        return _WholeOpenVino(candidate.precision, weights, scratch / WHOLE_FILE, material, threads)
    return _TorchLoop(candidate, weights, material, threads)


class _TorchLoop:
    """The whole network in torch, eagerly, as the tutorials do."""

    def __init__(self, candidate: Candidate, weights: Path, material: Material, threads: int) -> None:
        import torch

        from engine.lipsync.wav2lip.checkpoint import load_network

        torch.set_num_threads(threads)
        variant, network = load_network(weights)
        self._torch, self._material = torch, material
        self._device = torch.device("cuda" if candidate.on_gpu else "cpu")
        self._dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[candidate.precision]
        self._layout = torch.contiguous_format if candidate.precision == "f32" else torch.channels_last
        self._network = network.to(self._device, self._dtype).to(memory_format=self._layout)  # type: ignore[call-overload]
        self._half, self._reverse = variant.paste_from, variant.colour == "rgb"

    def draw(self, rows: Sequence[int]) -> np.ndarray:
        mels, faces = self._material.mels[rows][:, None], self._material.faces[rows]
        with self._torch.inference_mode():
            mel = self._torch.from_numpy(mels).to(self._device, self._dtype)
            face = self._torch.from_numpy(faces).to(self._device, self._dtype).contiguous(memory_format=self._layout)
            picture = self._network(mel, face).float().cpu().numpy()
        return _pixels(picture[:, :, self._half :], self._reverse)


class _WholeOpenVino:
    """The whole network in OpenVINO."""

    def __init__(self, precision: str, weights: Path, file: Path, material: Material, threads: int) -> None:
        from engine.lipsync.openvino_runtime import Network
        from engine.lipsync.wav2lip.folder import read_variant

        variant = read_variant(weights)
        self._network = Network(file, threads, "bf16" if precision == "bf16" else "f32")
        self._material, self._half, self._reverse = material, variant.paste_from, variant.colour == "rgb"

    def draw(self, rows: Sequence[int]) -> np.ndarray:
        picture = self._network(self._material.mels[rows][:, None], self._material.faces[rows])[0]
        return _pixels(picture[:, :, self._half :], self._reverse)


class _Served:
    """As the product does: only the pasted rows, the faces' features kept."""

    def __init__(self, candidate: Candidate, weights: Path, material: Material, threads: int) -> None:
        from engine.lipsync.wav2lip.crop import first_row_of

        if candidate.on_gpu:
            from engine.lipsync.wav2lip.checkpoint import load_network
            from engine.lipsync.wav2lip.speaker import Speaker
            from engine.lipsync.wav2lip.torch_runtime import TorchSpeaker

            variant, network = load_network(weights)
            self._speaker: Speaker = TorchSpeaker(network, "cuda")
        else:
            from engine.lipsync.wav2lip.runtimes import open_speaker

            variant, self._speaker = open_speaker(weights, threads, candidate.precision)
        self._material = material
        self._above = variant.paste_from - first_row_of(variant)
        self._features = [self._speaker.encode_face(face[None]) for face in material.faces]

    def draw(self, rows: Sequence[int]) -> np.ndarray:
        mels, features = self._material.mels[rows][:, None], [self._features[row] for row in rows]
        return self._speaker.speak(mels, features)[:, self._above :]


class _Builtin:
    """The built-in model, from mel window to patch."""

    def __init__(self, precision: str, material: Material, threads: int) -> None:
        from engine.avatar.bundle import load_avatar
        from engine.lipsync.builtin import BuiltinLipSync

        avatar = load_avatar(Path(material.avatar))
        self._model = BuiltinLipSync.load(threads, "bf16" if precision == "bf16" else "f32")
        self._prepared, self._pictures = self._model.prepare(avatar), len(avatar.frames)
        self._mels = material.mels

    def draw(self, rows: Sequence[int]) -> np.ndarray:
        from engine.lipsync.base import LipJob

        jobs = [LipJob(self._prepared, row % self._pictures, self._mels[row]) for row in rows]
        return np.stack([patch.image for patch in self._model.predict(jobs)])


def _pixels(picture: np.ndarray, reverse: bool) -> np.ndarray:
    """(B, 3, h, w) in [0, 1] -> (B, h, w, 3) uint8 BGR."""
    pixels = np.clip(picture.transpose(0, 2, 3, 1) * 255, 0, 255).round().astype(np.uint8)
    return pixels[..., ::-1] if reverse else pixels
