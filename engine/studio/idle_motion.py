"""How a person moves while nobody speaks: breathing, a little sway, blinks, gaze; a loop that closes exactly.

Place in the flow: number of frames -> one expression and one set of bone rotations per frame -> scene of the idle loop.

Invariants:
    * every slow motion is a sum of whole periods of the loop, so the last frame flows into the first;
    * the mouth never moves: rest is the base expression alone;
    * while the head sways the eyes stay on the camera, as living eyes do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.studio.figure import ARMS_DOWN
from engine.studio.rig import rotation

_LID_CLOSURE = (0.22, 0.80, 1.0, 0.86, 0.50, 0.22, 0.07)
"""A blink at 25 frames a second: lids fall in two frames and rise in four."""


@dataclass(frozen=True)
class Idle:
    """What makes an idle loop.

    Attributes:
        frames: length of the loop.
        breaths: breaths per loop.
        blinks: frames at which lids begin to fall.
        fixations: (first frame, turn, nod) of the gaze in radians away from the camera; the eyes jump between them.
    """

    frames: int
    breaths: int
    blinks: Sequence[int]
    fixations: Sequence[tuple[int, float, float]]


@dataclass(frozen=True)
class Moment:
    """One frame of motion.

    Attributes:
        expression: target -> weight, to be added to the base expression.
        rotations: bone -> (3, 3) rotation.
        mouth: (len(MOUTH_SHAPES),) what the mouth says, or None at rest.
    """

    expression: Mapping[str, float]
    rotations: Mapping[str, np.ndarray]
    mouth: np.ndarray | None = None


def lid_closure(frames: int, blinks: Sequence[int]) -> np.ndarray:
    """How far the lids are shut: (frames,) float64, 0 open … 1 shut, wrapping around the loop."""
    closure = np.zeros(frames)
    for start in blinks:
        for step, value in enumerate(_LID_CLOSURE):
            closure[(start + step) % frames] = max(value, closure[(start + step) % frames])
    return closure


def gaze(frames: int, fixations: Sequence[tuple[int, float, float]]) -> np.ndarray:
    """Where the eyes look: (frames, 2) turn and nod in radians; a jump takes two frames."""
    targets = np.zeros((frames, 2))
    ordered = sorted(fixations)
    for (start, turn, nod), following in zip(ordered, [*ordered[1:], (ordered[0][0] + frames, 0, 0)], strict=True):
        targets[np.arange(start, following[0]) % frames] = turn, nod
    return 0.5 * targets + 0.5 * np.roll(targets, 1, axis=0)


def idle_moments(idle: Idle, eye_convergence: float, eye_pitch: float) -> list[Moment]:
    """The motion of every frame of the loop.

    Args:
        idle: what happens.
        eye_convergence: radians each eye turns inwards to meet the other's line at the camera.
        eye_pitch: radians the eyes look down to meet the camera.
    """
    lids = lid_closure(idle.frames, idle.blinks)
    looks = gaze(idle.frames, idle.fixations)
    moments = []
    for frame in range(idle.frames):
        turn, nod = looks[frame]
        eyes = (
            rotation(eye_pitch + nod, turn - eye_convergence, 0),
            rotation(eye_pitch + nod, turn + eye_convergence, 0),
        )
        moments.append(_moment(idle, frame, float(lids[frame]), eyes))
    return moments


def _moment(idle: Idle, frame: int, lid: float, eyes: tuple[np.ndarray, np.ndarray]) -> Moment:
    angle = 2 * np.pi * frame / idle.frames

    def wave(periods: int, phase: float) -> float:
        return float(np.sin(periods * angle + phase))

    # Breathing in is quicker than out: a second harmonic leans the wave.
    breath = 0.5 + 0.5 * (wave(idle.breaths, 0.0) + 0.22 * wave(2 * idle.breaths, 0.4)) / 1.15
    chest = rotation(-0.007 * breath, 0.003 * wave(1, 0.9), 0.003 * wave(1, 1.0))
    neck = rotation(0.006 * breath, 0.010 * wave(1, 0.2), 0.006 * wave(1, 0.7))
    head = rotation(
        0.012 * wave(1, 0.5) + 0.005 * wave(3, 2.1),
        0.022 * wave(1, 0.0) + 0.010 * wave(2, 1.3),
        0.010 * wave(1, 2.0) + 0.004 * wave(2, 0.3),
    )
    steady = (chest @ neck @ head).T
    lift = 0.020 * breath
    rotations = {
        **ARMS_DOWN,
        "clavicle.L": rotation(0, 0, -0.06 + lift),
        "clavicle.R": rotation(0, 0, 0.06 - lift),
        "spine01": chest,
        "neck01": neck,
        "head": head,
        "eye.L": steady @ eyes[0],
        "eye.R": steady @ eyes[1],
    }
    brows = 0.04 * wave(1, 1.9) + 0.03 * wave(2, 0.8)
    expression = {
        "arkit/eyeBlinkLeft": lid,
        "arkit/eyeBlinkRight": lid,
        "arkit/browInnerUp": brows - 0.05 * lid,
        "arkit/browOuterUpLeft": 0.8 * brows,
        "arkit/browOuterUpRight": 0.8 * brows,
    }
    return Moment(expression, rotations)
