"""The mouth as numbers: which sculpted units of the human each mouth shape moves, and which shapes each sound needs.

Place in the flow: phonemes -> visemes -> mouth vector (``engine.types.MOUTH_SHAPES``) -> weights of the mesh's targets.

Invariants:
    * a weight of 1 is the strongest that speech uses, so vectors stay in [0, 1];
    * the zero vector is the rest face: lips closed, jaw up.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.types import MOUTH_SHAPES

_UNIT = "expression/units/caucasian/mouth-"

RIG: Mapping[str, Mapping[str, float]] = {
    "jawOpen": {_UNIT + "open": 0.80},
    "mouthPress": {_UNIT + "compression": 0.62},
    "mouthFunnel": {_UNIT + "protusion": 0.60},
    "mouthPucker": {_UNIT + "pursing": 0.75},
    "mouthStretch": {_UNIT + "retraction": 0.50, _UNIT + "upward-retraction": 0.18},
    "mouthUpperUp": {_UNIT + "upward-retraction": 0.40},
    "mouthLowerDown": {
        _UNIT + "parling": 0.50,
        _UNIT + "upward-retraction": 0.14,
        "arkit/mouthLowerDownLeft": 0.20,
        "arkit/mouthLowerDownRight": 0.20,
    },
    "mouthRollLower": {
        _UNIT + "parling": 0.15,
        _UNIT + "upward-retraction": 0.28,
        "arkit/mouthRollLower": 0.30,
        "vis/viseme_FF": 0.55,
    },
    "mouthSmile": {_UNIT + "corner-puller": 0.60},
    "tongueOut": {"arkit/tongueOut": 0.65},
}
"""Mouth shape -> weights of mesh targets at strength 1.

The upper lip rises a little with every shape that bares teeth: without it hisses and f would show a dark slit.
"""

VISEMES: Mapping[str, Mapping[str, float]] = {
    "sil": {},
    "PP": {"mouthPress": 1.0},
    "FF": {"mouthRollLower": 1.0},
    "TH": {"mouthLowerDown": 0.90, "jawOpen": 0.18, "tongueOut": 1.0},
    "DD": {"mouthLowerDown": 0.90, "jawOpen": 0.13},
    "L": {"mouthLowerDown": 0.85, "jawOpen": 0.25, "tongueOut": 0.40},
    "kk": {"jawOpen": 0.30, "mouthLowerDown": 0.50},
    "CH": {"mouthFunnel": 0.92, "jawOpen": 0.06},
    "SS": {"mouthLowerDown": 1.0, "mouthStretch": 0.60, "jawOpen": 0.04},
    "RR": {"mouthFunnel": 0.50, "mouthPucker": 0.27, "jawOpen": 0.15},
    "aa": {"jawOpen": 0.82, "mouthLowerDown": 0.20},
    "AE": {"jawOpen": 0.69, "mouthStretch": 0.70, "mouthLowerDown": 0.40},
    "E": {"jawOpen": 0.50, "mouthStretch": 0.56, "mouthLowerDown": 0.60},
    "I": {"jawOpen": 0.20, "mouthStretch": 0.90, "mouthLowerDown": 0.70, "mouthUpperUp": 0.50},
    "O": {"jawOpen": 0.56, "mouthFunnel": 0.63},
    "U": {"mouthPucker": 0.96, "mouthFunnel": 0.33, "jawOpen": 0.06},
    "ax": {"jawOpen": 0.38, "mouthLowerDown": 0.44},
    "hh": {"jawOpen": 0.30, "mouthLowerDown": 0.30},
}
"""Viseme -> mouth shapes when it is fully reached."""


def viseme_vector(viseme: str) -> np.ndarray:
    """The mouth vector of a fully reached viseme.

    Returns:
        (len(MOUTH_SHAPES),) float32 in [0, 1].
    """
    shapes = VISEMES[viseme]
    return np.array([shapes.get(name, 0.0) for name in MOUTH_SHAPES], np.float32)


def target_weights(mouth: np.ndarray) -> dict[str, float]:
    """Weights of mesh targets that show a mouth vector.

    Args:
        mouth: (len(MOUTH_SHAPES),) weights, usually in [0, 1].
    """
    weights: dict[str, float] = {}
    for name, strength in zip(MOUTH_SHAPES, mouth, strict=True):
        for target, scale in RIG[name].items():
            weights[target] = weights.get(target, 0.0) + scale * float(strength)
    return weights
