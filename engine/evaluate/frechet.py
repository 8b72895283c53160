"""Frechet distance between two sets of face pictures, on features of the face mesh network that comes in a package.

Place in the flow: pictures + tracked faces -> 96 features each -> distance to the features of other pictures.

Method: M. Heusel et al., "GANs trained by a two time-scale update rule …", 2017, but on MediaPipe's face mesh instead
of Inception: channel means of its activations at a quarter (32) and an eighth (64) of its input. Nothing is downloaded;
the values do not compare with Inception FIDs.

Invariant: a set has distance 0 to itself, and the distance is symmetric.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from engine.avatar.face_models import cut_square, model_file

FEATURES = 96
MIN_PICTURES = 10
"""Below this, means and covariances say little."""

_CHANNELS_OF_SIDE = {48: 32, 24: 64}
_CROP_PER_FACE = 1.25


class FaceFeatures:
    """The network, cut off after its early layers, which see texture and shape rather than where points are."""

    def __init__(self, threads: int = 1) -> None:
        """Loads the network from the installed wheel.

        Raises:
            BackendFailed: ``face_models_missing``.
        """
        import openvino

        core = openvino.Core()
        network = core.read_model(str(model_file("face_landmark/face_landmark")))
        last = {}
        for operation in network.get_ordered_ops():
            shape = operation.get_output_partial_shape(0) if operation.get_type_name() == "PRelu" else None
            if shape is not None and shape.is_static and shape[2].get_length() in _CHANNELS_OF_SIDE:
                last[shape[2].get_length()] = operation.output(0)
        outputs = [last[side] for side in _CHANNELS_OF_SIDE]
        self._side = int(network.inputs[0].shape[1])
        features = openvino.Model(outputs, network.get_parameters())
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self._request = core.compile_model(features, "CPU", settings).create_infer_request()

    def __call__(self, pictures: Iterable[np.ndarray], points: np.ndarray) -> np.ndarray:
        """Features of the faces in some pictures; pictures without a face are left out.

        Args:
            pictures: (H, W, 3) uint8 BGR each.
            points: (N, 468, 3) pixels of the face in each.

        Returns:
            (M, FEATURES) float64.
        """
        rows = []
        for picture, face in zip(pictures, points, strict=False):
            if np.isfinite(face).all():
                low, high = face[:, :2].min(0), face[:, :2].max(0)
                side = _CROP_PER_FACE * float((high - low).max())
                crop, _ = cut_square(picture, (low + high) / 2, side, 0.0, self._side)
                self._request.infer([crop[None].astype(np.float32) / 255])
                means = [self._request.get_output_tensor(index).data[0].mean((1, 2)) for index in range(2)]
                rows.append(np.concatenate(means))
        return np.array(rows, np.float64).reshape(-1, FEATURES)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of two Gaussians fitted to features.

    Args:
        a: (N, F) features of one set.
        b: (M, F) features of the other.

    Returns:
        0 for the same set; NaN when either has fewer than ``MIN_PICTURES``.
    """
    if min(len(a), len(b)) < MIN_PICTURES:
        return float("nan")
    step = a.mean(0) - b.mean(0)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The trace of sqrt(A B) is that of sqrt(A^½ B A^½), which is symmetric and therefore safe to take apart.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    return max(0.0, float(step @ step + np.trace(first) + np.trace(second) - 2 * shared))
