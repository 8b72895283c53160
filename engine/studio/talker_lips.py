"""Measures how far a talker's lips are apart in every frame of a video, for ``engine/evaluate/talkers.json``.

Place in the flow: videos of talkers -> MediaPipe's face mesh, run by OpenVINO -> openings -> ``engine.evaluate``.

Run as ``python -m engine.studio.talker_lips --mesh face_landmark.tflite OUT.json grid/a.mpg grid/b.mpg ...``; the
mesh lies in the wheel ``mediapipe==0.10.21`` under ``mediapipe/modules/face_landmark``. It is only read here and is
no part of the product.

Invariant: openings are in units of the distance between the outer corners of the eyes, so talkers are comparable.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import openvino as ov

_SIDE = 192  # the mesh network's input
_LIP_PAIRS = ((13, 14), (82, 87), (312, 317))  # inner lips: middle, and a little to both sides
_EYE_CORNERS = (33, 263)
_CROP_PER_FACE = 1.5
_SETTLING_RUNS = 4


class LipMeter:
    """Finds a face once per video and then follows it from frame to frame."""

    def __init__(self, mesh: Path) -> None:
        """Loads the mesh network.

        Args:
            mesh: ``face_landmark.tflite``.
        """
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._mesh = ov.Core().compile_model(mesh, "CPU", settings)
        cascade = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        self._faces = cv2.CascadeClassifier(str(cascade))

    def openings(self, video: Path) -> np.ndarray:
        """Inner lip distance per eye distance in every frame.

        Returns:
            (frames,) float32.

        Raises:
            ValueError: no face in the first frame.
        """
        values, square = [], None
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                image = frame.to_ndarray(format="bgr24")
                if square is None:
                    square = self._first_square(image, video)
                points, square = self._points(image, square)
                eyes = np.linalg.norm(points[_EYE_CORNERS[0]] - points[_EYE_CORNERS[1]])
                gaps = [np.linalg.norm(points[upper] - points[lower]) for upper, lower in _LIP_PAIRS]
                values.append(np.mean(gaps) / eyes)
        return np.array(values, np.float32)

    def _first_square(self, image: np.ndarray, video: Path) -> np.ndarray:
        faces = self._faces.detectMultiScale(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), 1.1, 4, minSize=(80, 80))
        if len(faces) == 0:
            raise ValueError(f"no face in the first frame of {video}")
        x, y, width, height = max(faces, key=lambda face: face[2])
        square = np.array([x + width / 2, y + 0.55 * height, 1.35 * width])
        for _ in range(_SETTLING_RUNS):
            _, square = self._points(image, square)
        return square

    def _points(self, image: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mesh points in pixels, (468, 2), and the square (centre x, y, side) for the next frame."""
        x, y, side = square
        scale = _SIDE / side
        matrix = np.array([[scale, 0, _SIDE / 2 - scale * x], [0, scale, _SIDE / 2 - scale * y]])
        crop = cv2.warpAffine(image, matrix, (_SIDE, _SIDE))[..., ::-1].astype(np.float32) / 255
        results = self._mesh(crop[None])
        mesh = next(value for value in results.values() if value.size == 468 * 3).reshape(468, 3)[:, :2]
        points = mesh / scale + np.array([x - side / 2, y - side / 2])
        low, high = points.min(0), points.max(0)
        return points, np.array([*(low + high) / 2, _CROP_PER_FACE * (high - low).max()])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures videos and writes ``{"openings": {"folder/name": [...]}}``."""
    parser = argparse.ArgumentParser(description="Measure the lips of talkers in videos.")
    parser.add_argument("--mesh", type=Path, required=True, help="face_landmark.tflite")
    parser.add_argument("out", type=Path)
    parser.add_argument("videos", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    meter = LipMeter(options.mesh)
    openings = {
        f"{video.parent.name}/{video.stem}": [round(float(value), 3) for value in meter.openings(video)]
        for video in options.videos
    }
    options.out.write_text(json.dumps({"openings": openings}) + "\n", "utf-8")


if __name__ == "__main__":
    main()
