"""Files for other runtimes give torch's result, or are not left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
openvino = pytest.importorskip("openvino")

from engine.errors import BackendFailed  # noqa: E402
from engine.restore import checkpoint, export  # noqa: E402
from tests.restore.networks import SMALL, seeded_faces, seeded_network, seeded_state  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "gfpgan"
    folder.mkdir()
    checkpoint.write(folder, seeded_state(SMALL, 7), {"kind": "gfpgan"})
    return folder


def test_openvino_file_takes_any_batch(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "face.xml"
    export.export_openvino(folder, out)
    compiled = openvino.Core().compile_model(out, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    faces = seeded_faces(SMALL.size, 3)
    with torch.inference_mode():
        wanted = seeded_network()(faces).numpy()
    np.testing.assert_allclose(compiled(faces.numpy())[0], wanted, atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.bin", "face.xml"]


def test_onnx_file_gives_torchs_result(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    export.export_onnx(folder, tmp_path / "face.onnx")
    compiled = openvino.Core().compile_model(tmp_path / "face.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    faces = seeded_faces(SMALL.size, 2)
    with torch.inference_mode():
        np.testing.assert_allclose(compiled(faces.numpy())[0], seeded_network()(faces).numpy(), atol=1e-4)


def test_a_wrong_file_is_not_left_behind(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_MOST_ERROR", -1.0)
    with pytest.raises(BackendFailed, match="off by"):
        export.export_openvino(folder, tmp_path / "face.xml")
    assert not list(tmp_path.iterdir())
