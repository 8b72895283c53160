"""Small networks of the layouts that so-vits-svc exports: a voice that hums the pitch as loud as its units say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

UNITS = 8
SAMPLE_RATE = 44_100
HOP = 512
GAINS = np.array([0.2, 0.4], np.float32)
"""How loud each of the two speakers hums a unit of one."""

FLOAT, LONG = TensorProto.FLOAT, TensorProto.INT64


def _constants(**values: np.ndarray) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def _save(path: Path, nodes, inputs, outputs, constants) -> None:
    graph = helper.make_graph(nodes, "made-up", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def save_encoder(path: Path, *, units: int = UNITS, units_first: bool = False) -> None:
    """Sound (1, 1, N) at 16 kHz -> (1, t, units), each the loudness around it."""
    nodes = [
        helper.make_node("Mul", ["source", "source"], ["power"]),
        helper.make_node("Conv", ["power", "kernel"], ["mean"], strides=[320]),
        helper.make_node("Sqrt", ["mean"], ["loudness"]),
        helper.make_node("Identity" if units_first else "Transpose", ["loudness"], ["embed"],
                         **({} if units_first else {"perm": [0, 2, 1]})),
    ]  # fmt: skip
    shape = [1, units, "t"] if units_first else [1, "t", units]
    _save(
        path, nodes, [helper.make_tensor_value_info("source", FLOAT, [1, 1, "N"])],
        [helper.make_tensor_value_info("embed", FLOAT, shape)],
        _constants(kernel=np.full((units, 1, 400), 1 / 400, np.float32)),
    )  # fmt: skip


def save_network(
    path: Path, *, mel2ph: bool = True, mixed: bool = False, volume: bool = False, noise: bool = True, hop: int = HOP
) -> None:
    """The layout of the official export: with a mixture of speakers and the loudness, as 4.1 has them, or without."""
    nodes = []
    content = "c"
    if mel2ph:
        nodes += [
            # Unit 0 is nothing, as in the official network.
            helper.make_node("Pad", ["c", "pads"], ["padded"]),
            helper.make_node("Gather", ["padded", "mel2ph"], ["gathered"], axis=1),
            helper.make_node("Squeeze", ["gathered", "axis0"], ["content"]),
        ]
        content = "content"
    nodes += [helper.make_node("ReduceMean", [content], ["level"], axes=[2], keepdims=0)]
    if mixed:
        nodes += [helper.make_node("MatMul", ["sid", "gains"], ["gain"])]
    else:
        nodes += [helper.make_node("Gather", ["gains", "sid"], ["gain"])]
    nodes += [
        helper.make_node("Mul", ["level", "gain"], ["spoken"]),
        helper.make_node("Mul", ["spoken", "uv"], ["amplitude"]),
    ]
    amplitude = "amplitude"
    if volume:
        nodes += [helper.make_node("Mul", ["amplitude", "vol"], ["scaled"])]
        amplitude = "scaled"
    for name in ("f0", amplitude):
        nodes += [
            helper.make_node("Unsqueeze", [name, "axis2"], [f"{name}_column"]),
            helper.make_node("Tile", [f"{name}_column", "repeats"], [f"{name}_tiled"]),
            helper.make_node("Reshape", [f"{name}_tiled", "flat"], [f"{name}_samples"]),
        ]
    nodes += [
        helper.make_node("Mul", ["f0_samples", "step"], ["steps"]),
        helper.make_node("CumSum", ["steps", "axis_of_time"], ["phase"]),
        helper.make_node("Sin", ["phase"], ["hum"]),
        helper.make_node("Mul", ["hum", f"{amplitude}_samples"], ["voice"]),
    ]
    last = "voice"
    if noise:
        nodes += [
            helper.make_node("ReduceMean", ["noise"], ["hiss"], keepdims=1),
            helper.make_node("Mul", ["hiss", "little"], ["quiet"]),
            helper.make_node("Add", ["voice", "quiet"], ["audio"]),
        ]
        last = "audio"
    if last != "audio":
        nodes += [helper.make_node("Identity", [last], ["audio"])]
    inputs = [
        helper.make_tensor_value_info("c", FLOAT, [1, "T_units", UNITS]),
        helper.make_tensor_value_info("f0", FLOAT, [1, "T"]),
        helper.make_tensor_value_info("uv", FLOAT, [1, "T"]),
        helper.make_tensor_value_info("sid", *((FLOAT, ["T", 2]) if mixed else (LONG, [1]))),
    ]
    if mel2ph:
        inputs.insert(2, helper.make_tensor_value_info("mel2ph", LONG, [1, "T"]))
    if noise:
        inputs.append(helper.make_tensor_value_info("noise", FLOAT, [1, 192, "T"]))
    if volume:
        inputs.append(helper.make_tensor_value_info("vol", FLOAT, [1, "T"]))
    constants = _constants(
        pads=np.array([0, 1, 0, 0, 0, 0], np.int64), axis0=np.array([0], np.int64), axis2=np.array([2], np.int64),
        gains=GAINS, repeats=np.array([1, 1, hop], np.int64), flat=np.array([1, 1, -1], np.int64),
        step=np.float32(2 * np.pi / SAMPLE_RATE), axis_of_time=np.int64(2), little=np.float32(1e-4),
    )  # fmt: skip
    used = {name for node in nodes for name in node.input}
    _save(
        path, nodes, inputs, [helper.make_tensor_value_info("audio", FLOAT, [1, 1, "N"])],
        [constant for constant in constants if constant.name in used],
    )  # fmt: skip


def save_voice(weights_dir: Path, name: str = "singer", card: str = "", **layout) -> Path:
    """A complete folder of weights."""
    folder = weights_dir / name
    folder.mkdir(parents=True)
    save_network(folder / "model.onnx", **layout)
    save_encoder(folder / "encoder.onnx")
    (folder / "weights.toml").write_text('kind = "so-vits"\n' + card, "utf-8")
    return folder
