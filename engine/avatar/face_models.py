"""Finds and loads the networks that see faces: TensorFlow Lite files inside the mediapipe wheel, run by OpenVINO.

Place in the flow: installed wheel -> ``FaceNetwork`` -> face detector, face mesh, eye contours.

Invariants:
    * mediapipe is never imported: only its files are read (Apache-2.0; model cards by Google, 2021);
    * a network may be asked by one thread at a time.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import cv2
import numpy as np

from engine.errors import BackendFailed

INSTALL = "python -m pip install --no-deps -r engine/avatar/requirements.txt"
"""Command that brings the networks."""

_MODULES = "mediapipe/modules"


class FaceNetwork:
    """One network with a single picture as its input.

    Args:
        name: path of the file below ``mediapipe/modules``, without its ending.
        threads: threads of one run.

    Attributes:
        side: width and height of its input, pixels.

    Raises:
        BackendFailed: ``face_models_missing`` or ``face_models_unreadable``.
    """

    def __init__(self, name: str, threads: int = 1) -> None:
        path = model_file(name)
        # Listing avatars must not wait for it.
        import openvino as ov

        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        try:
            self._request = ov.Core().compile_model(str(path), "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise BackendFailed(
                "face_models_unreadable", f"{path.name} cannot be read; install it again: {INSTALL} --force-reinstall"
            ) from error
        self.side = int(self._request.model_inputs[0].shape[1])

    def __call__(self, crop: np.ndarray) -> list[np.ndarray]:
        """Runs the network.

        Args:
            crop: (side, side, 3) float32 RGB in the network's own range.

        Returns:
            All outputs in the file's order, flattened to (values,) or (rows, values), float32, owned by the caller.
        """
        self._request.infer([np.ascontiguousarray(crop[None], np.float32)])
        count = len(self._request.model_outputs)
        return [np.array(self._request.get_output_tensor(index).data).squeeze() for index in range(count)]


def model_file(name: str) -> Path:
    """Path of a network in the installed wheel.

    Raises:
        BackendFailed: ``face_models_missing``.
    """
    try:
        path = Path(str(distribution("mediapipe").locate_file(f"{_MODULES}/{name}.tflite")))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise BackendFailed(
            "face_models_missing",
            f"Finding faces needs the models of the mediapipe wheel, which are not installed here. Run: {INSTALL}",
        )
    return path


def cut_square(
    image: np.ndarray, centre: np.ndarray, side: float, angle_rad: float, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """A turned square of a picture, as a network wants it.

    Args:
        image: (H, W, 3) uint8 BGR.
        centre: (2,) pixels of the picture.
        side: of the square in the picture, pixels.
        angle_rad: by which the square is turned clockwise on the screen.
        pixels: side of the result.

    Returns:
        (pixels, pixels, 3) uint8 RGB, black beyond the picture, and the (2, 3) matrix from its pixels back to the
        picture's.
    """
    scale = side / pixels
    cosine, sine = np.cos(angle_rad) * scale, np.sin(angle_rad) * scale
    back = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
    back[:, 2] = np.asarray(centre) - back[:, :2] @ np.full(2, (pixels - 1) / 2)
    source = image
    if scale > 2:
        # Bilinear sampling alone would alias, so that points of large photos tremble.
        shrink = 1 / scale
        source = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        ratio = np.array([source.shape[1] / image.shape[1], source.shape[0] / image.shape[0]])
        forward = back * ratio[:, None]
        # Pixel centres, not corners, are what the matrix speaks of.
        forward[:, 2] += (ratio - 1) / 2
    else:
        forward = back
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(source, forward, (pixels, pixels), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB), back
