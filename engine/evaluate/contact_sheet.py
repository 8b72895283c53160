"""Draws a spoken sentence as one picture: mouths above waveform, phonemes, opening and mouth shapes, on one time axis.

Place in the flow: text or sound -> the engine's own offline pipeline -> frames and mouths -> PNG to look at.

Run as ``python -m engine.evaluate.contact_sheet --avatar NAME --text "..." -o sheet.png``.

Invariant: what lies on one vertical line happens at one time; a tile starts where its frame starts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from engine import registry
from engine.audio.decode import decode_audio
from engine.audio.pcm import to_playout
from engine.avatar.bundle import Avatar, avatar_folder, load_avatar
from engine.config_load import load_config
from engine.conversation.tts.espeak import DEFAULT_VOICE, shared_espeak
from engine.evaluate.measures import SHUT_OPENING, opening
from engine.lipsync.base import LipSync
from engine.offline import render_offline
from engine.option_docs import add_arguments as add_options
from engine.studio.coarticulation import frame_times_s, mouth_track
from engine.studio.phones import Gesture, gestures_from_espeak
from engine.types import FPS, FRAME_MS, MOUTH_SHAPES, PLAYOUT_RATE

TILE = 112
TILES_PER_ROW = 16
_LABELS_WIDTH = 104
_WAVE, _LANE, _CURVE, _HEAT = 56, 18, 56, 11
_GAP = 22
_PAPER, _INK, _FAINT = (255, 255, 255), (40, 40, 40), (205, 205, 205)
_BLUE, _RED, _GREEN = (190, 110, 30), (50, 50, 210), (90, 150, 40)
_MAX_S = 60


@dataclass(frozen=True, slots=True)
class Sheet:
    """Everything that is drawn.

    Attributes:
        tiles: one (TILE, TILE, 3) uint8 BGR picture per ``every`` frames.
        every: frames from one tile to the next.
        samples: (N,) int16 at 48 kHz.
        mouths: (F, len(MOUTH_SHAPES)) what the network heard.
        phonemes: (name, start_s, end_s); empty for recorded sound.
        gestures: what the phonemes ask of the mouth; empty for recorded sound.
    """

    tiles: list[np.ndarray]
    every: int
    samples: np.ndarray
    mouths: np.ndarray
    phonemes: list[tuple[str, float, float]] = field(default_factory=list)
    gestures: list[Gesture] = field(default_factory=list)


def draw(sheet: Sheet) -> np.ndarray:
    """The whole sheet, (height, width, 3) uint8 BGR."""
    rows = [_draw_row(sheet, first) for first in range(0, len(sheet.tiles), TILES_PER_ROW)]
    return np.concatenate(rows)


def _draw_row(sheet: Sheet, first: int) -> np.ndarray:
    seconds = TILES_PER_ROW * sheet.every / FPS
    start_s = first * sheet.every / FPS
    per_s = TILES_PER_ROW * TILE / seconds
    height = TILE + _WAVE + 2 * _LANE + _CURVE + len(MOUTH_SHAPES) * _HEAT + _GAP
    image = np.full((height, _LABELS_WIDTH + TILES_PER_ROW * TILE, 3), _PAPER, np.uint8)

    def x_at(time_s: float) -> int:
        return _LABELS_WIDTH + round((time_s - start_s) * per_s)

    for index, tile in enumerate(sheet.tiles[first : first + TILES_PER_ROW]):
        left = _LABELS_WIDTH + index * TILE
        image[:TILE, left : left + TILE] = tile
        cv2.rectangle(image, (left, 0), (left + TILE - 1, TILE - 1), _PAPER, 1)
        _write(image, str((first + index) * sheet.every), left + 3, 12, _PAPER, 0.36)
    top = TILE
    _draw_wave(image[top : top + _WAVE], sheet.samples, start_s, per_s)
    _write(image, "sound", 4, top + 30)
    top += _WAVE
    end_s = start_s + seconds
    gestures = [(gesture.viseme, gesture.start_s, gesture.end_s) for gesture in sheet.gestures]
    for label, spans in (("phonemes", sheet.phonemes), ("visemes", gestures)):
        _write(image, label, 4, top + 13)
        for name, from_s, to_s in spans:
            if to_s > start_s and from_s < end_s:
                left, right = max(_LABELS_WIDTH, x_at(from_s)), min(image.shape[1] - 1, x_at(to_s))
                shut = name.strip("',") in ("p", "b", "m", "PP")
                cv2.rectangle(image, (left, top), (right, top + _LANE - 1), _FAINT, -1 if shut else 1)
                if right - left > 7 * len(name) or x_at(from_s) >= _LABELS_WIDTH:
                    _write(image, name, left + 2, top + 13, _RED if shut else _INK, 0.36)
        top += _LANE
    _draw_curves(image[top : top + _CURVE], sheet, start_s, per_s)
    _write(image, "opening", 4, top + 22)
    _write(image, "(green: rule)", 4, top + 38, _GREEN, 0.34)
    top += _CURVE
    for lane, name in enumerate(MOUTH_SHAPES):
        y = top + lane * _HEAT
        _write(image, name, 4, y + 9, _INK, 0.34)
        for frame in range(first * sheet.every, min(len(sheet.mouths), (first + TILES_PER_ROW) * sheet.every)):
            shade = int(255 * (1 - np.clip(sheet.mouths[frame, lane], 0, 1)))
            left, right = x_at(frame / FPS), x_at((frame + 1) / FPS)
            cv2.rectangle(image, (left, y), (right - 1, y + _HEAT - 2), (shade, shade, 255 - (255 - shade) // 3), -1)
    top += len(MOUTH_SHAPES) * _HEAT
    for tick in range(int(np.ceil(start_s * 10)), int(end_s * 10) + 1):
        x = x_at(tick / 10)
        cv2.line(image, (x, top), (x, top + 4), _INK, 1)
        cv2.line(image, (x, TILE), (x, top), _FAINT, 1) if tick % 2 == 0 else None
        _write(image, f"{tick / 10:.1f}", x - 8, top + 15, _INK, 0.34)
    return image


def _draw_wave(area: np.ndarray, samples: np.ndarray, start_s: float, per_s: float) -> None:
    loudest = max(1, int(np.abs(samples.astype(np.int32)).max())) if len(samples) else 1
    middle, half = area.shape[0] // 2, area.shape[0] // 2 - 2
    for x in range(_LABELS_WIDTH, area.shape[1]):
        first = int((start_s + (x - _LABELS_WIDTH) / per_s) * PLAYOUT_RATE)
        part = samples[first : first + max(1, int(PLAYOUT_RATE / per_s))]
        if len(part):
            low, high = (round(float(value) / loudest * half) for value in (part.min(), part.max()))
            cv2.line(area, (x, middle - high), (x, middle - low), _BLUE, 1)


def _draw_curves(area: np.ndarray, sheet: Sheet, start_s: float, per_s: float) -> None:
    bottom, scale = area.shape[0] - 3, area.shape[0] - 6

    def plot(values: np.ndarray, colour: tuple[int, int, int]) -> None:
        times_s = (np.arange(len(values)) + 0.5) / FPS - start_s
        x = _LABELS_WIDTH + times_s * per_s
        points = np.stack([x, bottom - np.minimum(1.1, values) * scale], 1)[(x >= _LABELS_WIDTH - 60)]
        if len(points):
            cv2.polylines(area, [points.round().astype(np.int32)], False, colour, 1, cv2.LINE_AA)

    shut = int(bottom - SHUT_OPENING * scale)
    cv2.line(area, (_LABELS_WIDTH, shut), (area.shape[1], shut), _FAINT, 1)
    if sheet.gestures:
        rule = mouth_track(sheet.gestures, frame_times_s(len(sheet.samples) / PLAYOUT_RATE))
        plot(opening(rule), _GREEN)
    plot(opening(sheet.mouths), _RED)
    area[:, :_LABELS_WIDTH] = _PAPER


def _write(
    image: np.ndarray, text: str, x: int, y: int, colour: tuple[int, int, int] = _INK, size: float = 0.40
) -> None:
    readable = text.encode("ascii", "replace").decode()
    cv2.putText(image, readable, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def mouth_tile(image: np.ndarray, landmarks: np.ndarray, distance: float) -> np.ndarray:
    """The mouth and chin of a picture.

    Args:
        image: (H, W, 3) uint8 BGR.
        landmarks: (5, 2) pixels: eyes, nose, corners of the mouth.
        distance: from the eyes to the mouth, pixels.

    Returns:
        (TILE, TILE, 3) uint8 BGR.
    """
    centre = landmarks[3:5].mean(0) + np.array([0, 0.15 * distance], np.float32)
    scale = TILE / (1.6 * distance)
    matrix = np.array([[scale, 0, TILE / 2 - scale * centre[0]], [0, scale, TILE / 2 - scale * centre[1]]])
    return cv2.warpAffine(image, matrix, (TILE, TILE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)


def sheet_of(avatar: Avatar, lipsync: LipSync, samples: np.ndarray, every: int) -> Sheet:
    """Renders a sound with an avatar and keeps its mouths.

    Args:
        avatar: who speaks.
        lipsync: the model.
        samples: (N,) int16 mono at 48 kHz.
        every: frames from one tile to the next.
    """
    eyes, corners = avatar.landmarks[:, :2].mean(1), avatar.landmarks[:, 3:5].mean(1)
    distance = float(np.median(np.linalg.norm(eyes - corners, axis=1)))
    tiles, mouths = [], []
    for frame in render_offline(avatar, lipsync, samples):
        mouths.append(frame.mouth if frame.mouth is not None else np.zeros(len(MOUTH_SHAPES), np.float32))
        if frame.pts % every == 0:
            tiles.append(mouth_tile(frame.image, avatar.landmarks[frame.pts % len(avatar.frames)], distance))
    return Sheet(tiles, every, samples, np.array(mouths))


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws and writes a sheet."""
    parser = argparse.ArgumentParser(description="Draw a spoken sentence: mouths above waveform and phonemes.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", help="spoken by the built-in voice, with phonemes and visemes")
    source.add_argument("--sound", type=Path, help="a sound file; without phonemes")
    parser.add_argument("--every", type=int, default=2, metavar="N", help="a tile every N frames (default: 2)")
    parser.add_argument("-o", "--output", type=Path, default=Path("sheet.png"))
    add_options(parser, ["avatar", "avatars_dir", "lipsync", "precision", "voice_name", "voice_rate"])
    args = parser.parse_args(arguments)
    config = load_config({key: value for key, value in vars(args).items() if value is not None})
    avatar = load_avatar(avatar_folder(config.avatars_dir, config.avatar))
    lipsync = registry.create_lipsync(config.lipsync, threads=1, precision=config.precision)
    phonemes: list[tuple[str, float, float]] = []
    if args.text is not None:
        made = shared_espeak().synthesise(args.text, config.voice_name or DEFAULT_VOICE, config.voice_rate)
        phonemes = [(p.name, p.start_ms / 1000, p.end_ms / 1000) for p in made.phonemes]
        samples = to_playout(made.samples, made.sample_rate)
    else:
        samples = decode_audio(args.sound, _MAX_S)
    sheet = sheet_of(avatar, lipsync, samples, args.every)
    sheet = Sheet(
        sheet.tiles, sheet.every, samples, sheet.mouths, phonemes, gestures_from_espeak(phonemes) if phonemes else []
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.output), draw(sheet))
    print(f"{args.output}: {len(sheet.mouths)} frames of {FRAME_MS} ms, {len(sheet.tiles)} tiles")


if __name__ == "__main__":
    main()
