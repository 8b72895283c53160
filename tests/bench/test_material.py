"""Faces and sounds to measure with, and the runners that compute with them."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

from engine.bench.candidates import BASELINE, Candidate, of_builtin, served
from engine.bench.gather import gather, gather_builtin, speech
from engine.bench.material import Material
from engine.bench.networks import make_int8
from engine.bench.race import psnr_db
from engine.bench.runners import MATERIAL_FILE, WHOLE_FILE, open_runner
from engine.config_load import load_config
from engine.errors import NotFound
from engine.lipsync.builtin import BuiltinLipSync
from engine.lipsync.wav2lip import checkpoint, export, quantise
from engine.lipsync.wav2lip.folder import int8_file
from engine.lipsync.wav2lip.variants import VARIANTS
from tests.lipsync.wav2lip.small import small, small_network

VARIANT = VARIANTS["wav2lip-96"]


@pytest.fixture(scope="module")
def config(avatars_dir):
    return load_config({"avatars_dir": avatars_dir})


@pytest.fixture(scope="module")
def material(config):
    return gather(VARIANT, config, 7)


def test_faces_are_the_networks_input_and_sounds_are_speech(material):
    assert material.faces.shape == (7, 6, 96, 96) and material.mels.shape == (7, 80, 16)
    assert not material.faces[:, :3, 48:].any() and material.faces[:, 3:, 48:].mean() > 0.1
    assert material.mels.std() > 0.5
    assert len(np.unique(material.mels, axis=0)) == 7


def test_faces_are_the_same_each_time(material, config):
    assert np.array_equal(gather(VARIANT, config, 7).faces, material.faces)


def test_material_survives_saving(material, tmp_path):
    material.save(tmp_path / "m.npz")
    loaded = Material.load(tmp_path / "m.npz")
    assert np.array_equal(loaded.faces, material.faces) and np.array_equal(loaded.mels, material.mels)


def test_some_rows_are_spread_over_all(material):
    assert np.array_equal(material.some(3).mels, material.mels[[0, 3, 6]])
    assert len(material.some(100).mels) == 7


def test_without_an_avatar_nothing_can_be_measured(tmp_path):
    with pytest.raises(NotFound):
        gather(VARIANT, load_config({"avatars_dir": tmp_path}), 4)


def test_speech_has_the_length_that_was_asked_for(config):
    assert len(speech(config, 0.5)) == 24_000


def test_the_builtin_model_draws_its_patches(config, tmp_path):
    gather_builtin(config, BuiltinLipSync.window, 3).save(tmp_path / MATERIAL_FILE)
    drawn = open_runner(of_builtin(bf16=False)[0], None, tmp_path, 1).draw([0, 1, 2])
    assert drawn.dtype == np.uint8 and drawn.shape[0] == 3 and drawn.shape[3] == 3


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of weights of a small network."""
    folder = tmp_path_factory.mktemp("weights") / "wav2lip"
    folder.mkdir()
    (folder / "weights.toml").write_text('kind = "wav2lip"\nvariant = "wav2lip-96"\n')
    return folder


@pytest.fixture
def small_weights(weights, monkeypatch):
    network = small_network()
    for module in (export, checkpoint):
        monkeypatch.setattr(module, "load_network", lambda _: (small(), network))
    return weights


def test_all_ways_draw_the_same_pasted_rows(material, small_weights, tmp_path):
    material.save(tmp_path / MATERIAL_FILE)
    export.export_openvino(small_weights, tmp_path / WHOLE_FILE)
    exact = open_runner(BASELINE, small_weights, tmp_path, 1).draw([0, 1])
    assert exact.shape == (2, 48, 96, 3) and exact.std() > 5
    assert psnr_db(exact[0], exact[1]) < 60
    for way in (Candidate("openvino", "all", "f32"), served("f32")):
        assert psnr_db(exact, open_runner(way, small_weights, tmp_path, 1).draw([0, 1])) > 50


def test_int8_is_kept_when_it_is_good_enough_and_refused_when_not(material, small_weights, monkeypatch):
    pytest.importorskip("nncf")
    monkeypatch.setattr(quantise, "FLOOR_DB", 99.0)
    assert "refused: In int8 these weights give" in make_int8(small_weights, VARIANT, material)
    assert int8_file(small_weights) is None
    monkeypatch.setattr(quantise, "FLOOR_DB", 10.0)
    assert make_int8(small_weights, VARIANT, material).startswith("made from 7 faces and sounds")
    assert int8_file(small_weights) is not None
    assert make_int8(small_weights, VARIANT, material) == "it was there already"


def test_without_nncf_int8_is_left_out_and_said_to_be(material, small_weights, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nncf", None)
    assert "pip install nncf" in make_int8(_copy(small_weights, tmp_path), VARIANT, material)


def _copy(folder, target):
    shutil.copytree(folder, target / "copy", ignore=shutil.ignore_patterns("*int8*"))
    return target / "copy"
