"""Looks at the avatars, the models that move and restore faces, and how fast this machine draws.

Place in the flow: ``examine`` -> findings of the groups ``face`` and ``machine``; what was loaded is let go again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.avatar.bundle import default_avatar, load_avatar
from engine.avatar.card import CARD_FILE, read_card
from engine.bench import stages
from engine.config import Config, usable_cores
from engine.errors import AvatarInvalid, VisavisError
from engine.lipsync.base import LipSync
from engine.registry import check_voice_device, create_conversion, create_lipsync, create_restorer
from engine.types import FPS
from engine.weights.folder import WeightsCard, list_weights
from server.doctor.report import Figures, Finding, Verdict
from server.library import Library

_GROUP = "face"
_FRAME_MS = 1000 / FPS
_MEASURED_FRAMES = 50
_MOST_OPENED = 12
"""Avatars whose pictures are decoded; of more than that, only their cards are read."""


@dataclass(frozen=True, slots=True)
class Cast:
    """The avatars there are.

    Attributes:
        library: the usable ones.
        default: the one that is shown when none is asked for; empty when there is none to show.
    """

    library: Library
    default: str


def cast(config: Config) -> Cast:
    """Reads all cards. Args: config: options."""
    library = Library(config.avatars_dir, config.data_dir / "avatars")
    shipped = [name for name in library.cards if not library.is_made(name)]
    default = config.avatar or (default_avatar(shipped or library.cards) if library.cards else "")
    return Cast(library, default if default in library.cards else "")


def avatars(config: Config, found: Cast) -> Iterator[Finding]:
    """Whether the avatars can be used. Args: config: options; found: what there is."""
    cards = found.library.cards
    if not cards:
        change = "Point --avatars-dir at the project's folder of avatars, or make one: python -m engine avatar create."
        yield Finding("avatars", _GROUP, "problem", f"There is no avatar in {config.avatars_dir}.", change)
        return
    if not found.default:
        told = f"There is no avatar called {config.avatar}; there is {', '.join(cards)}."
        yield Finding("avatars", _GROUP, "problem", told, "Correct --avatar, or leave it out.")
    broken = list(_broken(config, found))
    yield from broken
    if not broken and found.default:
        listed = ", ".join(cards)
        told = f"All {len(cards)} avatars are usable" if len(cards) > 1 else "There is one avatar, and it is usable"
        yield Finding("avatars", _GROUP, "ok", f"{told}: {listed}.", "", {"avatars": len(cards)})


def _broken(config: Config, found: Cast) -> Iterator[Finding]:
    for folder in _folders(config):
        try:
            read_card(folder)
        except AvatarInvalid as error:
            yield Finding("avatars", _GROUP, "warning", error.message, f"Mend or remove {folder}; it is left out.")
    names = sorted(found.library.cards, key=lambda name: name != found.default)
    for name in names[:_MOST_OPENED]:
        folder = found.library.folder(name)
        try:
            load_avatar(folder)
        except AvatarInvalid as error:
            verdict: Verdict = "problem" if name == found.default else "warning"
            change = f"Mend or remove {folder}: whoever asks for it sees nothing."
            yield Finding("avatars", _GROUP, verdict, error.message, change)


def _folders(config: Config) -> Iterator[Path]:
    for directory in (config.avatars_dir, config.data_dir / "avatars"):
        if directory.is_dir():
            yield from sorted(folder for folder in directory.iterdir() if (folder / CARD_FILE).is_file())


def models(config: Config) -> Iterator[tuple[Finding, LipSync | None]]:
    """Whether the models load; with the first finding, the model that moves the lips. Args: config: options."""
    started_s = time.monotonic()
    try:
        lipsync = create_lipsync(config.lipsync, threads=1, precision=config.precision, weights_dir=config.weights_dir)
    except VisavisError as error:
        change = "Without --lipsync, --precision and --weights-dir the built-in model is used."
        yield Finding("lipsync", _GROUP, "problem", error.message, change), None
    else:
        took_ms = round(1000 * (time.monotonic() - started_s))
        told = f"The lip-sync model {config.lipsync} loads."
        yield Finding("lipsync", _GROUP, "ok", told, "", {"load_ms": took_ms}), lipsync
    yield _restorer(config), None
    if config.voice_device == "gpu":
        yield _voice_device(config), None
    if config.voice_conversion:
        yield _conversion(config), None
    for broken in list_weights(config.weights_dir).values():
        if not isinstance(broken, WeightsCard):
            change = "python -m engine weights lists all; remove it, and add it again."
            yield Finding("weights", _GROUP, "warning", broken.message, change), None


def _restorer(config: Config) -> Finding:
    try:
        restorer = create_restorer(config.restorer, precision=config.precision, weights_dir=config.weights_dir)
    except VisavisError as error:
        return Finding("restorer", _GROUP, "problem", error.message, "Faces are drawn without one: --restorer none.")
    if restorer is None:
        return Finding("restorer", _GROUP, "ok", "Faces are shown as the lip-sync model draws them.")
    return Finding("restorer", _GROUP, "ok", "The face restorer loads.")


def _voice_device(config: Config) -> Finding:
    try:
        check_voice_device(config.voice_device)
    except VisavisError as error:
        return Finding("voice_device", _GROUP, "problem", error.message, "Without --voice-device the CPU goes on.")
    return Finding("voice_device", _GROUP, "ok", "Other people's voices are computed on the GPU.")


def _conversion(config: Config) -> Finding:
    try:
        create_conversion(config.voice_conversion, config.weights_dir, config.voice_device)
    except VisavisError as error:
        change = "Correct --voice-conversion, or leave it out."
        return Finding("voice_conversion", _GROUP, "problem", error.message, change)
    return Finding("voice_conversion", _GROUP, "ok", f"The voice {config.voice_conversion} loads.")


def speed(config: Config, found: Cast, lipsync: LipSync) -> Finding:
    """Whether this machine draws 25 pictures a second, and for how many sessions.

    Args:
        config: options.
        found: what there is to draw; it has a default.
        lipsync: the model.
    """
    avatar = load_avatar(found.library.folder(found.default))
    # Its text is read by the voice that needs nothing: what is measured is the face.
    spoken = config.model_copy(update={"voice": "espeak", "voice_name": "", "voice_rate": 165})
    costs_ms = stages.measure(avatar, lipsync, spoken, _MEASURED_FRAMES)
    total_ms = sum(costs_ms.values())
    figures: Figures = {f"{name}_cpu_ms": round(cost, 2) for name, cost in costs_ms.items()}
    sessions = int(usable_cores() * _FRAME_MS / total_ms)
    figures |= {"frame_cpu_ms": round(total_ms, 2), "cores": usable_cores(), "faces_at_once": sessions}
    told = (
        f"A picture costs {total_ms:.1f} ms of a core, and there are {_FRAME_MS:.0f} ms for it: about"
        f" {max(sessions, 0)} {'face speaks' if sessions == 1 else 'faces speak'} at once on {usable_cores()} cores"
    )
    if total_ms > _FRAME_MS:
        change = "Use the built-in model, a smaller picture, or a faster processor or GPU."
        return Finding("speed", "machine", "problem", f"{told}.", change, figures)
    if sessions < config.max_sessions:
        told += f", and {config.max_sessions} may come in"
        change = f"Should all speak at once, pictures would be late: --max-sessions {max(sessions, 1)} avoids that."
        return Finding("speed", "machine", "note", f"{told}.", change, figures)
    return Finding("speed", "machine", "ok", f"{told}.", "", figures)
