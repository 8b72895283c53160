"""What a person does beside resting: greeting, nodding, listening, thinking; each a short clip as plain data.

Place in the flow: ``Action`` -> one ``Moment`` per frame -> clip of the avatar folder.

Invariants:
    * every clip begins with the pose, gaze and picture of the idle loop's first frame and returns to it;
    * lips stay closed: no action opens the mouth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from engine.studio.idle_motion import Gesture, Idle, Moment, eye_rotations, gaze, lid_closure, moment

Curve = Sequence[tuple[int, float]]
"""(frame, value) points that are eased through; before the first and after the last point the value is 0."""


@dataclass(frozen=True)
class Action:
    """One clip.

    Attributes:
        frames: its length.
        loop: whether it plays on and on; then the body sways and breathes, else it keeps still but for the curves.
        keys: frames whose whole picture is drawn; the first is 0.
        curves: field of ``Gesture`` -> curve.
        blinks: as in ``Idle``.
        fixations: as in ``Idle``, away from where the idle loop's first frame looks; the first is at rest.
    """

    frames: int
    loop: bool
    keys: Sequence[int]
    curves: Mapping[str, Curve]
    blinks: Sequence[int] = ()
    fixations: Sequence[tuple[int, float, float]] = field(default=((0, 0.0, 0.0),))


def follow(curve: Curve, frames: int) -> np.ndarray:
    """(frames,) float64 values of a curve; between its points it eases out of one and into the next."""
    points = [(-1, 0.0), *curve, (frames, 0.0)]
    values = np.zeros(frames)
    for (first, low), (second, high) in pairwise(points):
        inside = np.arange(max(first, 0), min(second, frames))
        values[inside] = low + (high - low) * (0.5 - 0.5 * np.cos(np.pi * (inside - first) / (second - first)))
    return values


def action_moments(action: Action, idle: Idle, eye_convergence: float, eye_pitch: float) -> list[Moment]:
    """The motion of every frame of a clip.

    Args:
        action: what happens.
        idle: the person's idle loop, from whose first frame the clip comes and to which it returns.
        eye_convergence: radians each eye turns inwards to meet the other's line at the camera.
        eye_pitch: radians the eyes look down to meet the camera.
    """
    if action.loop:
        base = Idle(action.frames, 1, action.blinks, action.fixations, idle.phase)
    else:
        # One period so long that nothing of the sway is seen: the first pose is held.
        base = Idle(idle.frames * 1000, idle.breaths, action.blinks, action.fixations, idle.phase)
    lids = lid_closure(action.frames, action.blinks)
    looks = gaze(action.frames, action.fixations) + gaze(idle.frames, idle.fixations)[0]
    curves = {name: follow(curve, action.frames) for name, curve in action.curves.items()}
    return [
        moment(
            base,
            frame,
            float(lids[frame]),
            eye_rotations(looks[frame], eye_convergence, eye_pitch),
            Gesture(**{name: float(values[frame]) for name, values in curves.items()}),
        )
        for frame in range(action.frames)
    ]


def actions(side: float) -> Mapping[str, Action]:
    """The clips of a person.

    Args:
        side: 1 to tilt and look to the person's left, -1 to the right.
    """
    return {
        "greeting": Action(
            frames=44,
            loop=False,
            keys=(0, 8, 15, 23, 33),
            curves={
                "nod": ((2, 0), (7, -0.014), (15, 0.075), (23, 0.012), (30, 0.022), (40, 0)),
                "tilt": ((3, 0), (16, 0.022 * side), (40, 0)),
                "brows": ((2, 0), (9, 0.34), (26, 0.20), (40, 0)),
                "smile": ((2, 0), (13, 0.30), (30, 0.28), (43, 0)),
            },
        ),
        "nod": Action(
            frames=36,
            loop=False,
            keys=(0, 12, 19, 26),
            curves={
                "nod": ((2, 0), (6, -0.010), (12, 0.080), (19, 0.004), (26, 0.045), (34, 0)),
                "brows": ((2, 0), (10, 0.12), (26, 0.08), (34, 0)),
                "smile": ((3, 0), (12, 0.10), (24, 0.10), (34, 0)),
            },
        ),
        "listening": Action(
            frames=100,
            loop=True,
            keys=(0, 17, 36, 52, 70, 80),
            curves={
                "tilt": ((0, 0), (18, 0.050 * side), (80, 0.044 * side), (99, 0)),
                "nod": ((0, 0), (18, 0.012), (28, 0.010), (36, 0.055), (44, 0.014), (52, 0.038), (64, 0.010), (98, 0)),
                "brows": ((0, 0), (15, 0.22), (78, 0.16), (98, 0)),
                "smile": ((0, 0), (20, 0.08), (78, 0.08), (98, 0)),
            },
            blinks=(71,),
        ),
        "thinking": Action(
            frames=100,
            loop=True,
            keys=(0, 8, 30, 50, 58, 84, 94),
            curves={
                "tilt": ((1, 0), (22, -0.034 * side), (78, -0.030 * side), (99, 0)),
                "turn": ((1, 0), (20, 0.050 * side), (80, 0.045 * side), (98, 0)),
                "nod": ((1, 0), (18, -0.026), (80, -0.020), (98, 0)),
                "brows": ((1, 0), (16, 0.10), (78, 0.08), (98, 0)),
                "look_up": ((1, 0), (4, 0.45), (86, 0.40), (89, 0)),
            },
            blinks=(85,),
            fixations=((0, 0.0, 0.0), (2, 0.17 * side, -0.12), (52, 0.12 * side, -0.14), (87, 0.0, 0.0)),
        ),
    }
