"""Measures one talking video, ours or anyone's: pictures, lips, and how well they follow its own sound.

Place in the flow: video (+ truth, phones, SyncNet weights) -> face track -> ``VideoReport`` -> table, JSON, plots.

Invariants:
    * a figure that cannot be measured is None, and ``notes`` says why;
    * pictures are read one at a time, twice where needed, so long or large videos need no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from engine.avatar.landmarks import FaceMesh, lip_opening
from engine.errors import InvalidInput
from engine.evaluate.expert import SyncExpert, SyncScore
from engine.evaluate.frechet import MIN_PICTURES, FaceFeatures, frechet_distance
from engine.evaluate.lips import SHUT_GAP, lip_shape, mouth_error, track_faces, tremor
from engine.evaluate.measures import closure_rate_of, sync
from engine.evaluate.niqe import niqe
from engine.evaluate.picture_measures import psnr, ssim
from engine.evaluate.video import VideoFile
from engine.types import FPS, FRAME_SAMPLES

_NIQE_EVERY = 12
_REST_PERCENTILE = 5
_QUIET_DB = -50.0
_QUIET_FRAMES = 5
_ALIGN_UNITS_PER_S = 25_000
_BILABIALS = ("p", "b", "m")


@dataclass(frozen=True)
class VideoReport:
    """What was measured of a video.

    Attributes:
        figures: by name, see README.md; None where there was nothing to measure.
        notes: why figures are missing.
        opening: (N,) seen opening, eye distances; NaN without a face.
        true_opening: the same of the truth, or None.
        curve: the expert's distance by offset, or None.
    """

    figures: dict[str, float | None]
    notes: list[str]
    opening: np.ndarray
    true_opening: np.ndarray | None = None
    curve: np.ndarray | None = field(default=None, repr=False)


def measure_video(
    path: Path, truth: Path | None = None, syncnet: Path | None = None, max_s: float = 20.0
) -> VideoReport:
    """Measures a video.

    Args:
        path: the video; beside it may lie ``NAME.align`` (GRID) or ``NAME.phones.json`` ([[phone, start_s, end_s]]).
        truth: the same speech as it should look; None leaves comparisons out.
        syncnet: the official SyncNet's weights, for LSE-C and LSE-D.
        max_s: only so much of the video is measured.

    Raises:
        InvalidInput: a video cannot be read, or shows no face.
        NotFound: there is no SyncNet file.
        BackendFailed: the face models or the expert are missing, or the SyncNet file is not what it should be.
    """
    network = None
    if syncnet is not None:
        from engine.evaluate.syncnet import load_syncnet

        network = load_syncnet(syncnet)
    video, mesh = VideoFile(path, max_s), FaceMesh.load()
    notes: list[str] = []
    points = track_faces(video.frames(), mesh)
    opening = lip_opening(points)
    if not np.isfinite(opening).any():
        raise InvalidInput("face_not_found", f"There is no face in {path}; give a video of a talking person.")
    figures: dict[str, float | None] = {
        "frames": float(len(points)),
        "face_found": float(np.isfinite(opening).mean()),
        "niqe": _niqe(video, notes),
        "landmark_jitter": _known(tremor(points)),
    }
    true_opening = None
    features = FaceFeatures()
    if truth is None:
        notes.append("psnr, ssim, mouth_error, fid: no truth was given (--truth VIDEO)")
    else:
        true_video = VideoFile(truth, max_s)
        true_points = track_faces(true_video.frames(), mesh)
        true_opening = lip_opening(true_points)
        figures |= _against_truth(video, true_video)
        figures["mouth_error"] = _known(mouth_error(points, true_points))
        compared = sync([(_filled(opening), _filled(true_opening))])
        figures["opening_corr"], figures["opening_lag"] = compared.correlation, float(compared.lag_frames)
        sets = [features(source.frames(), track) for source, track in ((video, points), (true_video, true_points))]
        figures["fid"] = _known(frechet_distance(*sets))
        if figures["fid"] is None:
            notes.append(f"fid: fewer than {MIN_PICTURES} pictures with a face")
    samples, score = video.sound(), None
    if samples is None or not len(samples):
        notes.append("sync, silence: the video has no sound")
    else:
        score = SyncExpert().judge(lip_shape(points), samples)
        figures |= _scored("expert", score, notes)
        figures |= _in_silence(opening, samples, notes)
        if network is None:
            notes.append("lse_c, lse_d: no SyncNet weights were given (--syncnet FILE)")
        else:
            from engine.evaluate.syncnet import judge_syncnet

            official = judge_syncnet(network, list(video.frames()), points, samples)
            figures["lse_c"] = official.confidence if official else None
            figures["lse_d"] = official.distance if official else None
            figures["syncnet_offset_frames"] = float(official.offset_frames) if official else None
    closures, source = closures_beside(path)
    figures["bilabial_closure"] = _known(closure_rate_of(_shut(opening), closures)) if closures else None
    notes.append(f"bilabial_closure: {source}")
    return VideoReport(figures, notes, opening, true_opening, None if score is None else score.curve)


def closures_beside(video: Path) -> tuple[list[tuple[float, float]], str]:
    """When p, b and m are said, from a file beside the video, and one sentence about it.

    ``NAME.phones.json`` gives phones. ``NAME.align`` (GRID's words) gives only words: of ``bin``, ``blue``, ``by``,
    ``place``, ``please`` and of the letters B, M and P, which begin with the closure, their first 80 ms are taken.
    """
    phones, words = video.with_suffix(".phones.json"), video.with_suffix(".align")
    if phones.is_file():
        import json

        rows = json.loads(phones.read_text("utf-8"))
        found = [(float(a), float(b)) for name, a, b in rows if str(name).strip("012").lower() in _BILABIALS]
        return found, f"from {phones.name}, {len(found)} closures"
    if words.is_file():
        found = []
        for line in words.read_text("utf-8").splitlines():
            start, _, word = line.split()[:3]
            if word in ("bin", "blue", "by", "place", "please", "b", "p"):
                start_s = int(start) / (_ALIGN_UNITS_PER_S if int(start) > 1000 else FPS)
                found.append((max(0.0, start_s - 0.04), start_s + 0.08))
        return found, f"from the words in {words.name}, {len(found)} closures"
    return [], f"skipped: neither {phones.name} nor {words.name} lies beside the video, so nobody knows its phones"


def _against_truth(video: VideoFile, truth: VideoFile) -> dict[str, float | None]:
    psnrs, ssims = [], []
    for ours, theirs in zip(video.frames(), truth.frames(), strict=False):
        if ours.shape != theirs.shape:
            ours = cv2.resize(ours, theirs.shape[1::-1], interpolation=cv2.INTER_AREA)
        psnrs.append(psnr(ours, theirs))
        ssims.append(ssim(ours, theirs))
    return {"psnr_db": _mean(psnrs), "ssim": _mean(ssims)}


def _niqe(video: VideoFile, notes: list[str]) -> float | None:
    try:
        return _mean([niqe(picture) for picture in islice(video.frames(), 0, None, _NIQE_EVERY)])
    except InvalidInput as error:
        notes.append(f"niqe: {error.message}")
        return None


def _scored(name: str, score: SyncScore | None, notes: list[str]) -> dict[str, float | None]:
    if score is None:
        notes.append(f"{name}: the video is shorter than a second, or shows too little of a face")
        return {f"{name}_confidence": None, f"{name}_distance": None, "av_offset_frames": None}
    return {
        f"{name}_confidence": score.confidence,
        f"{name}_distance": score.distance,
        "av_offset_frames": float(score.offset_frames),
    }


def _in_silence(opening: np.ndarray, samples: np.ndarray, notes: list[str]) -> dict[str, float | None]:
    """How far the lips are apart where there is no sound, and how often they are shut there."""
    loud = np.array([_level_db(block) > _QUIET_DB for block in _blocks(samples)])
    quiet = np.convolve(~loud, np.ones(_QUIET_FRAMES), "same") > _QUIET_FRAMES - 0.5
    count = min(len(quiet), len(opening))
    at = quiet[:count] & np.isfinite(opening[:count])
    if not at.any():
        notes.append("silence: the sound is never quiet for 200 ms")
        return {"silence_opening": None, "silence_shut": None}
    gap = opening[:count][at] - np.nanpercentile(opening, _REST_PERCENTILE)
    return {"silence_opening": float(gap.mean()), "silence_shut": float(_shut(opening)[:count][at].mean())}


def _blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(samples), FRAME_SAMPLES):
        yield samples[start : start + FRAME_SAMPLES]


def _level_db(block: np.ndarray) -> float:
    return 20 * float(np.log10(max(1e-6, float(np.sqrt(np.mean((block / 32768.0) ** 2))))))


def _shut(opening: np.ndarray) -> np.ndarray:
    """(N,) bool: lips at most ``SHUT_GAP`` further apart than the least the video shows."""
    return opening < np.nanpercentile(opening, _REST_PERCENTILE) + SHUT_GAP


def _filled(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    return np.interp(np.arange(len(values)), np.flatnonzero(known), values[known]) if known.any() else values * 0


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
