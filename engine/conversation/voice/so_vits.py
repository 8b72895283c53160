"""Speaks in another person's voice with a network of so-vits-svc 4.0 or 4.1, exported to ONNX.

Place in the flow: speech -> content units, pitch, loudness -> network -> the same words in another voice.

The folder ``<weights_dir>/<name>/`` holds the two networks and a card that says how sound is cut::

    kind = "so-vits"
    network = "model.onnx"      # as so-vits-svc's onnx_export.py writes it
    encoder = "encoder.onnx"    # of the content units it was trained with: ContentVec or HuBERT, 256 or 768 numbers
    sample_rate = 44100
    hop = 512                   # samples of a frame
    speaker = 0                 # which of the network's voices

Inputs of the network are told apart by their names: ``c`` (1, T, units), ``f0`` (1, T) in Hz, ``uv`` (1, T) 1 where
voiced, ``noise`` (1, 192, T) and ``sid``, either (1,) the speaker or (T, speakers) a mixture of them; where it has
them, ``mel2ph`` (1, T), for each frame the unit it takes, from 1, and ``vol`` (1, T), how loud it is. ``audio`` comes
out, ``hop`` samples a frame. The encoder takes (1, 1, N) at 16 kHz and gives (1, t, units), or units before t.

Invariant: the same sound gives the same result; noise is drawn anew, alike, for each block.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from engine.audio.pcm import resample
from engine.conversation.voice.blocks import BlockStream, Framing
from engine.conversation.voice.network import Network
from engine.conversation.voice.onnx_network import OnnxNetwork
from engine.conversation.voice.vocoder import track_pitch
from engine.errors import WeightsInvalid
from engine.types import ANALYSIS_RATE

_CARD_FILE = "weights.toml"
_NEEDED = {"c", "f0", "uv", "sid"}
_KNOWN = _NEEDED | {"mel2ph", "noise", "vol"}
# As the project's own inference has it by default.
_NOISE_LEVEL = 0.4
_LIVE = Framing(first=0.5, block=1.0, before=0.4, after=0.2)
_WHOLE = Framing(first=8.0, block=8.0, before=0.5, after=0.5)


@dataclass(frozen=True, slots=True)
class Card:
    """What ``weights.toml`` says.

    Attributes:
        network: file of the network.
        encoder: file of the content encoder.
        sample_rate: of the network's sound, Hz.
        hop: samples of a frame.
        speaker: which of its voices.
    """

    network: Path
    encoder: Path
    sample_rate: int
    hop: int
    speaker: int

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Reads a folder's card.

        Raises:
            WeightsInvalid: ``weights_card``: it, or a file it names, is missing or cannot be used.
        """
        try:
            card = tomllib.loads((folder / _CARD_FILE).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise _invalid(folder, f"{_CARD_FILE} cannot be read.") from error
        usual_files = {"network": "model.onnx", "encoder": "encoder.onnx"}
        files = [folder / str(card.get(part, usual)) for part, usual in usual_files.items()]
        for file in files:
            # A name that leads out of the folder is no file of these weights.
            if file.parent != folder or not file.is_file():
                raise _invalid(folder, f"there is no {file.name} in the folder.")
        limits = {"sample_rate": (44_100, 16_000, 96_000), "hop": (512, 64, 4096), "speaker": (0, 0, 100_000)}
        numbers = {}
        for name, (usual, least, most) in limits.items():
            numbers[name] = value = card.get(name, usual)
            if type(value) is not int or not least <= value <= most:
                raise _invalid(folder, f"{name} must be a whole number from {least} to {most}.")
        return cls(files[0], files[1], **numbers)


class SoVits:
    """A ``Conversion``; made by ``load``."""

    def __init__(self, card: Card, network: Network, encoder: Network, units: int) -> None:
        """Use ``load``. Args: card: of both; network; encoder: of content; units: numbers of a unit."""
        self._card = card
        self._network = network
        self._encoder = encoder
        self._units = units
        self._noise_channels = network.shape_of("noise")[1] if "noise" in network.inputs else 0
        sid = network.shape_of("sid")
        self._mixed = len(sid) == 2
        self._speakers = sid[1] if self._mixed else None

    @classmethod
    def load(cls, folder: Path, open_network: Callable[[Path], Network] = OnnxNetwork) -> SoVits:
        """Loads the networks of a folder and tries them on a second of silence.

        Args:
            folder: of the weights.
            open_network: opens the file of a network for what is to compute it.

        Raises:
            WeightsInvalid: ``weights_card`` or ``weights_unreadable``: they are not of the layout that is told above.
            BackendFailed: ``voice_gpu_failed``.
        """
        card = Card.read(folder)
        network, encoder = open_network(card.network), open_network(card.encoder)
        inputs = set(network.inputs)
        if not inputs >= _NEEDED or not inputs <= _KNOWN:
            raise _invalid(folder, f"its network has the inputs {', '.join(sorted(inputs))}, as none of so-vits-svc 4.")
        units = network.shape_of("c")[-1]
        if units is None or len(encoder.inputs) != 1:
            raise _invalid(folder, "its network or its content encoder is of an unknown layout.")
        loaded = cls(card, network, encoder, units)
        if loaded._speakers is not None and card.speaker >= loaded._speakers:
            raise _invalid(folder, f"it has {loaded._speakers} speakers, from 0 on, and none of number {card.speaker}.")
        loaded.speak(np.zeros(card.sample_rate, np.float32), card.sample_rate, 1.0)
        return loaded

    def moved(self, pitch: float) -> SoVitsStage:
        """See ``Conversion.moved``."""
        return SoVitsStage(self, 2 ** (pitch / 12))

    def speak(self, sound: np.ndarray, sample_rate: int, pitch: float, *, careful: bool = False) -> np.ndarray:
        """Says a sound in the network's voice.

        Args:
            sound: (n,) float32 in [-1, 1].
            sample_rate: of it, Hz.
            pitch: ratio by which the pitch is moved.
            careful: look longer for the pitch.

        Returns:
            (n,) float32.

        Raises:
            WeightsInvalid: ``weights_unreadable``: the networks do not fit each other or their card.
        """
        card = self._card
        own = resample(sound, sample_rate, card.sample_rate)
        frames = max(1, -(-own.size // card.hop))
        own = np.pad(own, (0, frames * card.hop - own.size))
        hz, voiced = self._pitch(own, frames, careful)
        fed: dict[str, np.ndarray] = {
            "c": self._content(resample(sound, sample_rate, ANALYSIS_RATE), frames)[np.newaxis],
            "f0": (hz * pitch).astype(np.float32)[np.newaxis],
            "mel2ph": np.arange(1, frames + 1, dtype=np.int64)[np.newaxis],
            "uv": voiced.astype(np.float32)[np.newaxis],
            "sid": self._speaker(frames),
            "vol": _loudness(own, card.hop, frames)[np.newaxis],
        }
        if self._noise_channels:
            noise = np.random.default_rng(0).standard_normal((1, self._noise_channels, frames), np.float32)
            fed["noise"] = _NOISE_LEVEL * noise
        said = self._network({name: fed[name] for name in self._network.inputs}).reshape(-1)
        if said.size != frames * card.hop:
            made = f"{said.size / frames:g}"
            raise _invalid(card.network.parent, f"its network makes {made} samples a frame, its card says {card.hop}.")
        back = resample(said, card.sample_rate, sample_rate)
        return back[: sound.size] if back.size >= sound.size else np.pad(back, (0, sound.size - back.size))

    def _content(self, sound: np.ndarray, frames: int) -> np.ndarray:
        """What is said, whoever says it: (frames, units) float32."""
        # The encoder needs more than one of its own frames.
        padded = np.pad(sound, (0, max(0, ANALYSIS_RATE // 10 - sound.size)))
        units = self._encoder({self._encoder.inputs[0]: padded[np.newaxis, np.newaxis]})[0]
        if units.ndim != 2 or self._units not in units.shape:
            raise _invalid(
                self._card.network.parent,
                f"its network takes units of {self._units} numbers, its content encoder gives {list(units.shape)}.",
            )
        if units.shape[1] != self._units:
            units = units.T
        return units[np.arange(frames) * len(units) // frames]

    def _pitch(self, sound: np.ndarray, frames: int, careful: bool) -> tuple[np.ndarray, np.ndarray]:
        """Pitch of each frame in Hz, carried on where nothing is voiced, and whether it is voiced."""
        period_ms = 1000 * self._card.hop / self._card.sample_rate
        rate = self._card.sample_rate
        found, _ = track_pitch(sound.astype(np.float64), rate, careful=careful, period_ms=period_ms)
        hz = np.pad(found, (0, max(0, frames - found.size)))[:frames]
        voiced = hz > 0
        if voiced.any():
            at = np.arange(frames)
            hz = np.interp(at, at[voiced], hz[voiced])
        return hz, voiced

    def _speaker(self, frames: int) -> np.ndarray:
        if not self._mixed:
            return np.array([self._card.speaker], np.int64)
        mixture = np.zeros((frames, self._speakers or self._card.speaker + 1), np.float32)
        mixture[:, self._card.speaker] = 1
        return mixture


class SoVitsStage:
    """A ``VoiceStage`` that speaks in another voice.

    Args:
        voice: whose.
        pitch: ratio by which the pitch is moved.
    """

    def __init__(self, voice: SoVits, pitch: float) -> None:
        self._voice = voice
        self._pitch = pitch

    def open(self, sample_rate: int, *, live: bool = True) -> BlockStream:
        """See ``VoiceStage.open``."""
        change = partial(self._voice.speak, sample_rate=sample_rate, pitch=self._pitch, careful=not live)
        return BlockStream(change, sample_rate, _LIVE if live else _WHOLE, live=live)


def _loudness(sound: np.ndarray, hop: int, frames: int) -> np.ndarray:
    """(frames,) float32: root of the mean square around the start of each frame."""
    around = np.pad(sound**2, (hop // 2, (hop + 1) // 2), mode="reflect")
    return np.sqrt(around[: frames * hop].reshape(frames, hop).mean(axis=1)).astype(np.float32)


def _invalid(folder: Path, reason: str) -> WeightsInvalid:
    return WeightsInvalid("weights_card", f"The voice {folder.name} cannot be used: {reason}")
