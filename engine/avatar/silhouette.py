"""Tells head and hair from the background, well enough to move one and leave the other.

Place in the flow: picture + face -> ``Silhouette`` -> weights of a living picture.

Uses the segmentation output of MediaPipe's pose network (Bazarevsky et al., 2020). It is sure about heads and hair
and unsure about clothes cut off by the picture's border, so only the head is taken from it.

Invariant: 1 where the head certainly is, 0 well away from it; everything on the face mesh is inside.
"""

from __future__ import annotations

import cv2
import numpy as np

from engine.avatar.face_models import FaceNetwork, cut_square

_POSE = "pose_landmark/pose_landmark_full"
_SIDE_PER_FACE = 3.2
"""Side of the square the network sees, per face height; it expects a person's upper body."""
_DROP_PER_SIDE = 0.15
_MASK_SIDE = 256


class Silhouette:
    """The network; use it from one thread at a time.

    Args:
        threads: threads of one run.

    Raises:
        BackendFailed: the network is missing or unreadable.
    """

    def __init__(self, threads: int = 1) -> None:
        self._network = FaceNetwork(_POSE, threads)

    def __call__(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(H, W) float32 in [0, 1]: head, hair and what the network sees of the body.

        Args:
            image: (H, W, 3) uint8 BGR.
            points: (468, 3) face mesh in pixels.
        """
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        side = _SIDE_PER_FACE * float(high[1] - low[1])
        centre = (low + high) / 2 + np.array([0.0, _DROP_PER_SIDE * side])
        crop, back = cut_square(image, centre, side, 0.0, self._network.side)
        outputs = self._network(crop.astype(np.float32) / 255)
        logits = next(output for output in outputs if output.size == _MASK_SIDE**2).reshape(_MASK_SIDE, _MASK_SIDE)
        mask = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        height, width = image.shape[:2]
        whole = cv2.warpAffine(mask.astype(np.float32), back, (width, height), flags=cv2.INTER_LINEAR)
        hull = cv2.convexHull(np.rint(points[:, :2]).astype(np.int32))
        cv2.fillConvexPoly(whole, hull, 1.0)
        return whole
