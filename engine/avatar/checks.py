"""Whether a picture can become an avatar: one face, large enough, turned to the viewer, well lit, mouth visible.

Place in the flow: picture + found faces -> ``the_face`` -> crop; every refusal says why and what to do.

Invariant: what passes here can be shown by the built-in model; limits are in units that do not depend on the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from engine.avatar.landmarks import Face, lip_opening
from engine.avatar.lips import WIDEST_OPENING
from engine.errors import PortraitInvalid

MIN_FACE_PX = 72
"""Forehead to chin; an avatar of 512 pixels shows it three times as large."""
MAX_YAW_DEG = 28.0
MAX_PITCH_DEG = 22.0
MAX_ROLL_DEG = 25.0
MAX_FACE_SHARE = 0.85
"""Face height per shorter side of the picture; beyond it hair and chin are cut off."""

_LEVEL_PITCH_DEG = 6.0
"""What the mesh measures when somebody looks straight ahead: the forehead recedes."""
_COMPANY = 0.45
"""A second face counts when it is at least this large compared with the largest."""
_DARK_HIGHLIGHT = 70
_DARK_MIDDLE = 38
_BRIGHT_MIDDLE = 240
_FLAT_SPREAD = 7.0
_COVERED_CHROMA = 24.0
_CHEEKS, _FOREHEAD = (117, 118, 119, 50, 101, 205), (9, 107, 336, 66, 296, 151)
_MOUTH = (165, 391, 18, 186, 410, 91, 321, 2)

FaceChoice = Literal["only", "largest"]


@dataclass(frozen=True, slots=True)
class HeadPose:
    """How a head is turned, degrees; 0, 0, 0 looks straight into the camera.

    Attributes:
        yaw: to the side.
        pitch: up or down.
        roll: tilted towards a shoulder.
    """

    yaw: float
    pitch: float
    roll: float

    @property
    def is_frontal(self) -> bool:
        """Whether the whole mouth can be seen."""
        return abs(self.yaw) <= MAX_YAW_DEG and abs(self.pitch) <= MAX_PITCH_DEG and abs(self.roll) <= MAX_ROLL_DEG


def head_pose(points: np.ndarray) -> HeadPose:
    """The pose of a face mesh, from its widest and its highest line.

    Args:
        points: (468, 3) pixels.
    """
    across, down, eyes = (points[b] - points[a] for a, b in ((234, 454), (10, 152), (33, 263)))
    yaw, pitch, roll = (
        float(np.degrees(np.arctan2(rise, run)))
        for rise, run in ((across[2], across[0]), (down[2], down[1]), (eyes[1], eyes[0]))
    )
    return HeadPose(yaw, pitch - _LEVEL_PITCH_DEG, roll)


def choose_face(faces: list[Face], choice: FaceChoice = "only") -> Face:
    """The face an avatar is made of.

    Args:
        faces: all of a picture, the largest first.
        choice: ``only`` refuses company, ``largest`` ignores it.

    Raises:
        PortraitInvalid: ``no_face`` or ``several_faces``.
    """
    if not faces:
        raise PortraitInvalid(
            "no_face",
            "No face was found. Use a picture of one person, seen from the front, with eyes and mouth visible.",
        )
    company = [face for face in faces if _height(face) >= _COMPANY * _height(faces[0])]
    if choice == "only" and len(company) > 1:
        raise PortraitInvalid(
            "several_faces",
            f"There are {len(company)} faces. Crop the picture to one of them, or take the largest: --face largest.",
        )
    return faces[0]


def check_place(face: Face, width: int, height: int) -> None:
    """Refuses a face that is too small, cut off, or turned away.

    Args:
        face: in a picture of ``width`` x ``height`` pixels.

    Raises:
        PortraitInvalid: ``face_too_small``, ``face_cut_off`` or ``face_turned_away``.
    """
    tall = _height(face)
    if tall < MIN_FACE_PX:
        raise PortraitInvalid(
            "face_too_small",
            f"The face is {tall:.0f} pixels high; at least {MIN_FACE_PX} are needed. "
            "Use a larger picture, or go closer.",
        )
    y1, y2, x1, x2 = face.box
    if tall > MAX_FACE_SHARE * min(width, height) or y1 < 0 or x1 < 0 or y2 > height - 1 or x2 > width - 1:
        raise PortraitInvalid(
            "face_cut_off", "The face is cut off by the picture's border. Use a picture with room around the head."
        )
    pose = head_pose(face.points)
    if not pose.is_frontal:
        raise PortraitInvalid(
            "face_turned_away",
            f"The head is turned by {abs(pose.yaw):.0f}° to the side, {abs(pose.pitch):.0f}° up or down and tilted by "
            f"{abs(pose.roll):.0f}°; at most {MAX_YAW_DEG:.0f}°, {MAX_PITCH_DEG:.0f}° and {MAX_ROLL_DEG:.0f}° work. "
            "Look into the camera.",
        )


def check_light(image: np.ndarray, face: Face) -> None:
    """Refuses a face that is too dark, too bright or without contrast.

    Args:
        image: (H, W, 3) uint8 BGR.
        face: in it.

    Raises:
        PortraitInvalid: ``too_dark``, ``too_bright`` or ``low_contrast``.
    """
    y1, y2, x1, x2 = (max(0, int(value)) for value in face.box)
    grey = cv2.cvtColor(image[y1 : y2 + 1, x1 : x2 + 1], cv2.COLOR_BGR2GRAY)
    inside = np.zeros(grey.shape, np.uint8)
    cv2.fillConvexPoly(inside, cv2.convexHull((face.points[:, :2] - [x1, y1]).astype(np.int32)), 1)
    values = grey[inside > 0]
    middle, highlight = float(np.median(values)), float(np.percentile(values, 95))
    if highlight < _DARK_HIGHLIGHT or middle < _DARK_MIDDLE:
        raise PortraitInvalid(
            "too_dark", "The face is too dark. Light it from the front, or brighten the picture, and try again."
        )
    if middle > _BRIGHT_MIDDLE:
        raise PortraitInvalid("too_bright", "The face is overexposed. Use less light or a shorter exposure.")
    if float(values.std()) < _FLAT_SPREAD:
        raise PortraitInvalid(
            "low_contrast", "The face has almost no contrast (haze, or a lens out of focus). Use a clearer picture."
        )


def check_mouth(image: np.ndarray, face: Face) -> None:
    """Refuses a mouth that is wide open or covered, as far as colours tell.

    Args:
        image: (H, W, 3) uint8 BGR.
        face: in it.

    Raises:
        PortraitInvalid: ``mouth_open`` or ``mouth_covered``.
    """
    if float(lip_opening(face.points)) > WIDEST_OPENING:
        raise PortraitInvalid(
            "mouth_open", "The mouth is wide open. An avatar rests with closed lips: use a calmer picture."
        )
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    mouth, cheeks, forehead = (_chroma(lab, face.points, area) for area in (_MOUTH, _CHEEKS, _FOREHEAD))
    if min(np.linalg.norm(mouth - cheeks), np.linalg.norm(mouth - forehead)) > _COVERED_CHROMA:
        raise PortraitInvalid(
            "mouth_covered", "Something seems to cover the mouth. Use a picture in which it can be seen."
        )


def _chroma(lab: np.ndarray, points: np.ndarray, area: tuple[int, ...]) -> np.ndarray:
    """Median a, b of the hull of some mesh points."""
    mask = np.zeros(lab.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(points[list(area), :2].astype(np.int32)), 1)
    inside = lab[mask > 0]
    return np.median(inside[:, 1:], 0) if len(inside) else np.zeros(2)


def _height(face: Face) -> float:
    return float(face.box[1] - face.box[0])
