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

_NECK_SHARE = 0.35


@dataclass(frozen=True)
class Idle:
    """What makes an idle loop.

    Attributes:
        frames: length of the loop.
        breaths: breaths per loop.
        blinks: frames at which lids begin to fall.
        fixations: (first frame, turn, nod) of the gaze in radians away from the camera; the eyes jump between them.
        phase: radians that all slow motions are shifted by, so that people do not sway in step.
    """

    frames: int
    breaths: int
    blinks: Sequence[int]
    fixations: Sequence[tuple[int, float, float]]
    phase: float = 0.0


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


@dataclass(frozen=True)
class Gesture:
    """What is added to swaying and breathing in one frame.

    Attributes:
        nod: radians the head bows.
        turn: radians the head turns to the person's left.
        tilt: radians the head leans to the person's left.
        brows: how far both brows are raised.
        smile: added to the resting smile; the cheeks rise with it.
        look_up: how far the upper lids follow a raised gaze.
    """

    nod: float = 0.0
    turn: float = 0.0
    tilt: float = 0.0
    brows: float = 0.0
    smile: float = 0.0
    look_up: float = 0.0


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
    return [
        moment(idle, frame, float(lids[frame]), eye_rotations(looks[frame], eye_convergence, eye_pitch), Gesture())
        for frame in range(idle.frames)
    ]


def eye_rotations(look: np.ndarray, convergence: float, pitch: float) -> tuple[np.ndarray, np.ndarray]:
    """(3, 3) rotations of the left and the right eye of an unmoved head.

    Args:
        look: (2,) turn and nod of the gaze away from the camera, radians.
        convergence: radians each eye turns inwards.
        pitch: radians the eyes look down to meet the camera.
    """
    turn, nod = look
    return rotation(pitch + nod, turn - convergence, 0), rotation(pitch + nod, turn + convergence, 0)


def quick_frames(
    frames: int, blinks: Sequence[int], fixations: Sequence[tuple[int, float, float]], keys: Sequence[int]
) -> list[int]:
    """Frames between keys in whose stretch lids or gaze move: what is too quick to be carried from key to key.

    Args:
        frames: length of the loop.
        blinks: as in ``Idle``.
        fixations: as in ``Idle``.
        keys: drawn frames, ascending, starting at 0; the loop's first frame follows its last stretch.

    Returns:
        Frame numbers, ascending; never a key.
    """
    eyes = np.column_stack([lid_closure(frames, blinks), gaze(frames, fixations)])
    quick: list[int] = []
    for first, second in zip(keys, [*keys[1:], frames], strict=True):
        stretch = eyes[np.arange(first, second + 1) % frames]
        if np.ptp(stretch, axis=0).any():
            quick += range(first + 1, second)
    return quick


def moment(idle: Idle, frame: int, lid: float, eyes: tuple[np.ndarray, np.ndarray], gesture: Gesture) -> Moment:
    """One frame: the sway and breath of the loop, and what is added to it.

    Args:
        idle: its length, breaths and phase.
        frame: number of the frame.
        lid: 0 open … 1 shut.
        eyes: see ``eye_rotations``.
        gesture: what is added.
    """
    angle = 2 * np.pi * frame / idle.frames

    def wave(periods: int, phase: float) -> float:
        return float(np.sin(periods * angle + phase + idle.phase))

    # Breathing in is quicker than out: a second harmonic leans the wave.
    breath = 0.5 + 0.5 * (wave(idle.breaths, 0.0) + 0.22 * wave(2 * idle.breaths, 0.4)) / 1.15
    chest = rotation(-0.007 * breath, 0.003 * wave(1, 0.9), 0.003 * wave(1, 1.0))
    neck = rotation(0.006 * breath, 0.010 * wave(1, 0.2), 0.006 * wave(1, 0.7))
    head = rotation(
        0.012 * wave(1, 0.5) + 0.005 * wave(3, 2.1),
        0.022 * wave(1, 0.0) + 0.010 * wave(2, 1.3),
        0.010 * wave(1, 2.0) + 0.004 * wave(2, 0.3),
    )
    # A nod or a turn is shared by neck and head.
    neck = neck @ rotation(*(_NECK_SHARE * np.array([gesture.nod, gesture.turn, -gesture.tilt])))
    head = head @ rotation(*((1 - _NECK_SHARE) * np.array([gesture.nod, gesture.turn, -gesture.tilt])))
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
    raised = brows + gesture.brows
    expression = {
        "arkit/eyeBlinkLeft": lid,
        "arkit/eyeBlinkRight": lid,
        "arkit/browInnerUp": raised - 0.05 * lid,
        "arkit/browOuterUpLeft": 0.8 * raised,
        "arkit/browOuterUpRight": 0.8 * raised,
    }
    if gesture.smile:
        expression["expression/units/caucasian/mouth-corner-puller"] = gesture.smile
        expression |= dict.fromkeys(("arkit/cheekSquintLeft", "arkit/cheekSquintRight"), 0.8 * gesture.smile)
    if gesture.look_up:
        expression |= dict.fromkeys(("arkit/eyeLookUpLeft", "arkit/eyeLookUpRight"), gesture.look_up)
    return Moment(expression, rotations)
