"""Tells a person from the background: MediaPipe's selfie segmentation, read from the wheel and run by OpenVINO.

Place in the flow: picture -> ``PersonNetwork`` -> probability of "person", small -> ``engine.avatar.matte`` refines it.

The network (Google, 2021, Apache-2.0; its model card measures it on people of every region, skin tone and gender)
holds one operation that OpenVINO's reader does not know; it is put in here as the two known ones it stands for.

Invariants:
    * mediapipe is never imported: only its file is read;
    * a network may be asked by one thread at a time.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from engine.avatar.face_models import INSTALL, model_file
from engine.errors import BackendFailed

_NAME = "selfie_segmentation/selfie_segmentation"
# A transposed convolution of 2 x 2 with a stride of 2 and a bias: what it upsamples by is in its shapes.
_UNKNOWN = "TFFrameworkNode"
_STRIDE = 2


class PersonNetwork:
    """The network.

    Args:
        threads: threads of one run.

    Attributes:
        side: width and height of what it sees and says, pixels.

    Raises:
        BackendFailed: ``face_models_missing`` or ``face_models_unreadable``.
    """

    def __init__(self, threads: int = 1) -> None:
        path = model_file(_NAME)
        # Only whoever wants a matte pays for loading it.
        import openvino as ov
        from openvino.frontend import FrontEndManager

        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        try:
            reader = FrontEndManager().load_by_framework("tflite")
            model = reader.convert_partially(reader.load(str(path)))
            for node in model.get_ordered_ops():
                if node.get_type_name() == _UNKNOWN:
                    node.output(0).replace(_upsampling(*(port.get_source_output() for port in node.inputs())))
            model.validate_nodes_and_infer_types()
            self._request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
        except (RuntimeError, TypeError) as error:
            raise BackendFailed(
                "face_models_unreadable", f"{path.name} cannot be read; install it again: {INSTALL} --force-reinstall"
            ) from error
        self.side = int(self._request.model_inputs[0].shape[1])

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Where the person is.

        Args:
            picture: (H, W, 3) uint8 BGR; it is seen whole, stretched to a square.

        Returns:
            (side, side) float32 in [0, 1], owned by the caller.
        """
        small = cv2.resize(picture, (self.side, self.side), interpolation=cv2.INTER_AREA)
        seen = cv2.cvtColor(small, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        self._request.infer([seen[None]])
        return np.array(self._request.get_output_tensor(0).data).reshape(self.side, self.side).clip(0, 1)


def _upsampling(values: Any, kernel: Any, bias: Any) -> Any:
    """A transposed convolution with bias.

    Args:
        values: output of (1, H, W, channels in).
        kernel: output of (channels out, rows, columns, channels in).
        bias: output of (channels out,).

    Returns:
        Output of (1, 2 H, 2 W, channels out).
    """
    from openvino import opset13 as ops

    planes = ops.convolution_backprop_data(
        ops.transpose(values, [0, 3, 1, 2]),
        ops.transpose(kernel, [3, 0, 1, 2]),
        strides=[_STRIDE, _STRIDE],
        pads_begin=[0, 0],
        pads_end=[0, 0],
        dilations=[1, 1],
    )
    return ops.add(ops.transpose(planes, [0, 2, 3, 1]), bias).output(0)
