"""Lets an avatar say all trials and measures what is SEEN: lips found in the pictures, not the network's wishes.

Place in the flow: avatar + model + ``Trial``s -> pictures -> face mesh -> ``AvatarReport`` -> table, JSON, plots.

Invariants:
    * pictures are measured as the renderer makes them, before any video codec;
    * the same body without sound is rendered beside every trial, so that only what speech changes is judged.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.avatar.bundle import Avatar
from engine.avatar.landmarks import FaceMesh, lip_opening
from engine.compose import paste
from engine.evaluate.expert import SyncExpert, SyncScore
from engine.evaluate.frechet import FaceFeatures, frechet_distance
from engine.evaluate.lips import SHUT_GAP, lip_shape, track_faces
from engine.evaluate.measures import SHUT_OPENING, closure_rate_of, shut_rate, sync
from engine.evaluate.measures import opening as mouth_opening
from engine.evaluate.niqe import niqe
from engine.evaluate.picture_measures import SAME_DB, psnr
from engine.evaluate.trials import Trial
from engine.lipsync.base import FacePatch, LipJob, LipSync, PreparedAvatar
from engine.lipsync.builtin.model import BuiltinLipSync, BuiltinPrepared
from engine.offline import render_offline
from engine.types import MOUTH_SHAPES

_NIQE_EVERY = 25
_FEATURES_EVERY = 3
_REST_SAMPLES = 8
_HAIR = 0.002


@dataclass(frozen=True)
class Saying:
    """One trial as an avatar says it.

    Attributes:
        trial: the sound.
        mouths: (F, len(MOUTH_SHAPES)) what the network wanted.
        points: (F, 468, 3) the face as the tracker sees it.
        idle_points: (F, 468, 3) the face of the same body without sound.
        change: (F,) greatest change of a pixel outside the patch, grey levels.
    """

    trial: Trial
    mouths: np.ndarray
    points: np.ndarray
    idle_points: np.ndarray
    change: np.ndarray

    @property
    def opening(self) -> np.ndarray:
        """(F,) how far the seen lips are further apart than at rest, eye distances; may be a little negative."""
        rest = np.nanmedian(lip_opening(self.idle_points))
        seen = lip_opening(self.points) - rest
        return np.where(np.isfinite(seen), seen, 0.0)


@dataclass(frozen=True)
class AvatarReport:
    """All figures of one avatar.

    Attributes:
        avatar: its name.
        figures: by name, see README.md; None where there was nothing to measure.
        voices: correlation by voice.
        sayings: what was rendered, for plots.
        curve: mean distance of the expert by offset, or None.
    """

    avatar: str
    figures: dict[str, float | None]
    voices: dict[str, float]
    sayings: list[Saying] = field(repr=False)
    curve: np.ndarray | None = field(default=None, repr=False)


class Watched:
    """A lip-sync model that remembers the boxes of its patches and how long they took.

    Attributes:
        crop_size, window: as of the model.
        boxes: (y1, y2, x1, x2) of all patches since the list was cleared.
        cpu_ms: CPU time of every prediction that moved the mouth.
    """

    def __init__(self, model: LipSync) -> None:
        self._model = model
        self.crop_size, self.window = model.crop_size, model.window
        self.boxes: list[tuple[int, int, int, int]] = []
        self.cpu_ms: list[float] = []

    def prepare(self, avatar: Avatar) -> PreparedAvatar:
        """As the model."""
        return self._model.prepare(avatar)

    def predict(self, jobs: Sequence[LipJob]) -> list[FacePatch]:
        """As the model, one job at a time."""
        patches = []
        for job in jobs:
            started_ns = time.thread_time_ns()
            patch = self._model.predict([job])[0]
            if patch.mouth is None or patch.mouth.max() > 0.05:
                self.cpu_ms.append((time.thread_time_ns() - started_ns) / 1e6)
            self.boxes.append(patch.box)
            patches.append(patch)
        return patches

    def warmup(self, batch_sizes: Sequence[int]) -> None:
        """As the model."""
        self._model.warmup(batch_sizes)


class AvatarJudge:
    """Everything that judging needs, loaded once for all avatars."""

    def __init__(self, model: LipSync, trials: Sequence[Trial]) -> None:
        """Loads tracker, features and expert.

        Args:
            model: the lip-sync model, on one thread.
            trials: what avatars shall say.

        Raises:
            BackendFailed: the face models or the expert are missing.
        """
        self._model, self._trials = model, trials
        self._mesh, self._features, self._expert = FaceMesh.load(), FaceFeatures(), SyncExpert()

    def __call__(self, avatar: Avatar) -> AvatarReport:
        """Renders and measures."""
        watched = Watched(self._model)
        longest = np.zeros(max(len(trial.samples) for trial in self._trials), np.int16)
        # The body does the same in every trial, so it is drawn and followed without sound only once.
        idle = [frame.image for frame in render_offline(avatar, self._model, longest)]
        idle_points = track_faces(idle, self._mesh)
        sayings, seen, niqes = [], [], []
        for trial in self._trials:
            saying, pictures = self._say(avatar, watched, trial, idle, idle_points)
            sayings.append(saying)
            if trial.kind != "silent":
                seen.append(self._features(pictures[::_FEATURES_EVERY], saying.points[::_FEATURES_EVERY]))
                niqes += [niqe(picture) for picture in pictures[_NIQE_EVERY // 2 :: _NIQE_EVERY]]
        figures: dict[str, float | None] = {}
        for kind in ("synthetic", "real"):
            result = sync([(s.opening, s.trial.opening) for s in sayings if s.trial.kind == kind])
            known = result.frames > 0
            figures[f"sync_corr_{kind}"] = result.correlation if known else None
            figures[f"lag_{kind}"] = result.lag_frames if known else None
        figures |= _closing(sayings) | self._experts(sayings)
        figures["rest_psnr_db"] = rest_psnr(avatar, self._model)
        figures["jitter"] = float(max((s.change.max() for s in sayings if len(s.change)), default=0.0))
        figures["niqe"] = _mean(niqes)
        figures["niqe_idle"] = _mean([niqe(picture) for picture in idle[_NIQE_EVERY // 2 :: _NIQE_EVERY]])
        still = self._features(idle[::_FEATURES_EVERY], idle_points[::_FEATURES_EVERY])
        figures["fid_to_idle"] = _known(frechet_distance(np.concatenate(seen), still)) if seen else None
        figures["ms_per_frame_1core"] = float(np.median(watched.cpu_ms)) if watched.cpu_ms else None
        spoken = [s for s in sayings if s.trial.kind != "silent"]
        voices = {
            f"{kind} {voice}": sync(
                [(s.opening, s.trial.opening) for s in spoken if (s.trial.kind, s.trial.voice) == (kind, voice)]
            ).correlation
            for kind, voice in dict.fromkeys((s.trial.kind, s.trial.voice) for s in spoken)
        }
        curves = [score.curve for s in sayings if s.trial.kind != "silent" and (score := self._score(s))]
        curve = np.mean([c for c in curves if len(c) == len(curves[0])], 0) if curves else None
        return AvatarReport(avatar.name, figures, voices, sayings, curve)

    def _say(
        self, avatar: Avatar, watched: Watched, trial: Trial, idle: Sequence[np.ndarray], idle_points: np.ndarray
    ) -> tuple[Saying, list[np.ndarray]]:
        mouths, pictures, change = [], [], []
        watched.boxes.clear()
        for frame, still in zip(render_offline(avatar, watched, trial.samples), idle, strict=False):
            mouths.append(np.zeros(len(MOUTH_SHAPES), np.float32) if frame.mouth is None else frame.mouth)
            pictures.append(frame.image)
            change.append(change_outside(frame.image, still, watched.boxes))
            watched.boxes.clear()
        points = track_faces(pictures, self._mesh)
        return Saying(trial, np.array(mouths), points, idle_points[: len(points)], np.array(change)), pictures

    def _score(self, saying: Saying) -> SyncScore | None:
        return self._expert.judge(lip_shape(saying.points), saying.trial.samples)

    def _experts(self, sayings: Sequence[Saying]) -> dict[str, float | None]:
        scores = [score for s in sayings if s.trial.kind != "silent" and (score := self._score(s))]
        return {
            "expert_confidence": _mean([score.confidence for score in scores]),
            "expert_distance": _mean([score.distance for score in scores]),
            "expert_offset": float(np.median([score.offset_frames for score in scores])) if scores else None,
        }


def rest_psnr(avatar: Avatar, model: LipSync) -> float:
    """PSNR of the mouth patch at rest, the worst of some idle pictures.

    The model hears digital silence at full strength, though the product would not even ask it. The built-in one answers
    that without its picture network, so this also has that network draw a mouth a hair away from rest.
    """
    prepared = model.prepare(avatar)
    quiet = np.full((80, model.window.columns), -4.0, np.float32)
    worst = SAME_DB
    for index in np.linspace(0, len(avatar.frames) - 1, _REST_SAMPLES).astype(int):
        patches = model.predict([LipJob(prepared, int(index), quiet, 1.0)])
        if isinstance(model, BuiltinLipSync) and isinstance(prepared, BuiltinPrepared):
            patches.append(model.draw(prepared, int(index), np.full(len(MOUTH_SHAPES), _HAIR, np.float32)))
        frame = avatar.frames[index]
        for patch in patches:
            y1, y2, x1, x2 = (max(edge, 0) for edge in patch.box)
            worst = min(worst, psnr(paste(frame, patch)[y1:y2, x1:x2], frame[y1:y2, x1:x2]))
    return worst


def _closing(sayings: Sequence[Saying]) -> dict[str, float | None]:
    """Closures and silence, seen in the picture and wished by the network."""
    seen, wished, quiet_seen, quiet_wished, paused = [], [], [], [], []
    for saying in sayings:
        shut = saying.opening < SHUT_GAP
        wish = mouth_opening(saying.mouths)
        for span in saying.trial.closures_s:
            seen.append(closure_rate_of(shut, [span]))
            wished.append(closure_rate_of(wish < SHUT_OPENING, [span]))
        if saying.trial.kind == "silent":
            quiet_seen.append(shut.mean())
            quiet_wished.append(shut_rate(saying.mouths))
        elif len(saying.trial.quiet):
            count = min(len(shut), len(saying.trial.quiet))
            paused.extend(shut[:count][saying.trial.quiet[:count]])
    return {
        "closures": float(len(seen)),
        "bilabial_closure": _mean(seen),
        "bilabial_closure_mouth": _mean(wished),
        "silence_shut": _mean(quiet_seen),
        "silence_shut_mouth": _mean(quiet_wished),
        "pause_shut": _mean(paused),
    }


def change_outside(image: np.ndarray, still: np.ndarray, boxes: Sequence[tuple[int, int, int, int]]) -> float:
    """Greatest difference of two pictures outside some boxes."""
    difference = np.abs(image.astype(np.int16) - still)
    for y1, y2, x1, x2 in boxes:
        difference[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = 0
    return float(difference.max())


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
