"""OpenVINO and onnxruntime speak alike, and what computes a voice is what was asked for, or told.

There is no GPU where these run: onnxruntime's CPU provider takes the place of CUDA's where one is needed.
"""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

from engine.conversation.voice import ort_network, runtimes
from engine.conversation.voice.onnx_network import OnnxNetwork
from engine.conversation.voice.ort_network import CPU, CUDA, PROBE, OrtNetwork
from engine.conversation.voice.so_vits import SoVits
from engine.errors import BackendFailed, ConfigInvalid, WeightsInvalid
from tests.conversation.voice.made_up import save_encoder, save_voice
from tests.conversation.voice.test_so_vits import LAYOUTS, RATE, pitch_of, spoken, sung

MOST_APART_DB = -100
"""How loud the difference of the two may be, beside what they say."""


def by_onnxruntime(path: Path) -> OrtNetwork:
    return OrtNetwork(path, CPU)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU: what asks for CUDA gets onnxruntime's CPU provider."""
    monkeypatch.setattr(ort_network, "CUDA", CPU)
    monkeypatch.setattr(OrtNetwork.__init__, "__defaults__", (CPU,))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_both_runtimes_say_the_same(tmp_path: Path, layout: dict):
    folder = save_voice(tmp_path, **layout)
    sound = (sung(1.5, 220) / 32_768).astype(np.float32)
    one, other = (SoVits.load(folder, runtime).speak(sound, RATE, 1.0) for runtime in (OnnxNetwork, by_onnxruntime))
    assert len(one) == len(other) == len(sound)
    assert 20 * np.log10(np.std(one - other) / np.std(one) + 1e-9) < MOST_APART_DB


def test_both_runtimes_tell_the_same_of_a_network(tmp_path: Path):
    folder = save_voice(tmp_path, mixed=True, volume=True)
    one, other = OnnxNetwork(folder / "model.onnx"), by_onnxruntime(folder / "model.onnx")
    assert set(one.inputs) == set(other.inputs)
    assert {name: one.shape_of(name) for name in one.inputs} == {name: other.shape_of(name) for name in other.inputs}


def test_many_threads_may_call_a_network(tmp_path: Path):
    save_encoder(tmp_path / "encoder.onnx")
    network = by_onnxruntime(tmp_path / "encoder.onnx")
    sounds = [np.full((1, 1, 1600 + 320 * n), n / 10, np.float32) for n in range(8)]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda sound: network({"source": sound}), sounds))
    for n, result in enumerate(results):
        assert result.shape == (1, 4 + n, 8)
        assert result == pytest.approx(n / 10, abs=1e-4)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_a_gpu_the_cpu_speaks(tmp_path: Path, device: str, caplog):
    caplog.set_level(logging.INFO)
    voice = runtimes.load_voice(save_voice(tmp_path), device)
    assert pitch_of(spoken(voice, sung(1, 220))) == pytest.approx(220, rel=0.01)
    assert "singer runs on the CPU" in caplog.text
    assert ("built without CUDA" in caplog.text) == (device == "auto"), "auto says why"


def test_a_gpu_that_is_asked_for_and_not_there_is_an_error_with_its_remedy(tmp_path: Path):
    with pytest.raises(ConfigInvalid, match=r"built without CUDA.*pip install .onnxruntime-gpu") as caught:
        runtimes.load_voice(save_voice(tmp_path), "gpu")
    assert caught.value.code == "voice_gpu_missing"


def test_without_the_package_the_cpu_speaks_and_a_gpu_is_refused(tmp_path: Path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.delitem(sys.modules, "engine.conversation.voice.ort_network")
    monkeypatch.delattr("engine.conversation.voice.ort_network")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    runtimes.load_voice(save_voice(tmp_path), "auto")
    assert "onnxruntime-gpu is not installed" in caplog.text
    with pytest.raises(ConfigInvalid, match="onnxruntime-gpu is not installed"):
        runtimes.check_device("gpu")


def test_a_provider_that_is_listed_but_does_not_start_is_no_gpu(monkeypatch):
    # As onnxruntime-gpu without CUDA's libraries: it lists CUDA, and leaves the session to the CPU without an error.
    monkeypatch.setattr(ort_network.ort, "get_available_providers", lambda: [CUDA, CPU])
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        assert "CUDA does not start" in runtimes.gpu_problem()


def test_a_network_that_onnxruntime_left_to_the_cpu_is_not_taken(tmp_path: Path):
    save_encoder(tmp_path / "encoder.onnx")
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BackendFailed, match="left it to the CPU") as caught,
    ):
        OrtNetwork(tmp_path / "encoder.onnx")
    assert caught.value.code == "voice_gpu_failed"


def test_the_network_that_tries_the_gpu_is_one_convolution():
    network = onnx.load_from_string(PROBE)
    onnx.checker.check_model(network)
    assert [node.op_type for node in network.graph.node] == ["Conv"]


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_a_gpu_speaks_where_there_is_one(tmp_path: Path, gpu, device: str, caplog):
    caplog.set_level(logging.INFO)
    runtimes.check_device(device)
    voice = runtimes.load_voice(save_voice(tmp_path), device)
    assert "singer runs on the GPU" in caplog.text
    assert pitch_of(spoken(voice, sung(1, 220))) == pytest.approx(220, rel=0.01)


class Failing:
    """A network whose GPU fails at its second call."""

    def __init__(self, path: Path) -> None:
        self._network = by_onnxruntime(path)
        self.inputs = self._network.inputs
        self.shape_of = self._network.shape_of
        self.calls = 0

    def __call__(self, inputs):
        self.calls += 1
        if self.calls > 1:
            raise BackendFailed("voice_gpu_failed", "The GPU has no memory left.")
        return self._network(inputs)


def test_the_cpu_goes_on_where_the_gpu_fails(tmp_path: Path, caplog):
    save_encoder(tmp_path / "encoder.onnx")
    failing = []

    def opened(path: Path) -> Failing:
        failing.append(Failing(path))
        return failing[0]

    network = runtimes.Replaced(tmp_path / "encoder.onnx", opened)
    results = [network({"source": np.ones((1, 1, 1600), np.float32)}) for _ in range(4)]
    for result in results:
        assert result == pytest.approx(results[0], abs=1e-5)
    assert failing[0].calls == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no memory left" in caplog.text


def test_the_cpu_takes_a_network_that_does_not_fit_the_gpu(tmp_path: Path, caplog):
    save_encoder(tmp_path / "encoder.onnx")

    def full(path: Path) -> OrtNetwork:
        raise BackendFailed("voice_gpu_failed", "The GPU has no memory left.")

    network = runtimes.Replaced(tmp_path / "encoder.onnx", full)
    assert network({"source": np.ones((1, 1, 1600), np.float32)}).shape == (1, 4, 8)
    assert "no memory left" in caplog.text


def test_a_damaged_file_is_the_files_fault(tmp_path: Path, gpu):
    folder = save_voice(tmp_path)
    (folder / "model.onnx").write_bytes(b"no network")
    for device in ("auto", "gpu"):
        with pytest.raises(WeightsInvalid, match=r"model\.onnx"):
            runtimes.load_voice(folder, device)


def test_sound_of_the_wrong_shape_is_not_the_gpus_fault(tmp_path: Path, monkeypatch):
    save_encoder(tmp_path / "encoder.onnx")
    network = by_onnxruntime(tmp_path / "encoder.onnx")
    monkeypatch.setattr(network, "_provider", CUDA)
    with pytest.raises(WeightsInvalid, match=r"encoder\.onnx"):
        network({"source": np.zeros((1, 16_000), np.float32)})


def test_what_the_gpu_cannot_do_is_its_own_fault(tmp_path: Path, monkeypatch):
    save_encoder(tmp_path / "encoder.onnx")
    network = by_onnxruntime(tmp_path / "encoder.onnx")
    monkeypatch.setattr(network, "_provider", CUDA)

    def full(*_) -> None:
        raise RuntimeException("Failed to allocate memory.\nSecond line.")

    monkeypatch.setattr(network._session, "run", full)
    with pytest.raises(BackendFailed, match=r"at a voice \(Failed to allocate memory\); with voice_device set to auto"):
        network({"source": np.zeros((1, 1, 16_000), np.float32)})
