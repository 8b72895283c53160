import pickle

import numpy as np
import pytest
import torch

from engine.errors import BackendFailed, NotFound
from engine.evaluate.syncnet import MFCC, SyncNet, euclidean_score, load_syncnet, mfcc


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SyncNet().eval()


def test_towers_take_and_give_the_official_shapes(network):
    with torch.no_grad():
        assert network.sound(torch.zeros(2, 1, 13, 20)).shape == (2, 1024)
    state = network.state_dict()
    assert state["netcnnlip.0.weight"].shape == (96, 3, 5, 7, 7)
    assert state["netcnnlip.18.weight"].shape == (512, 256, 1, 6, 6)
    assert state["netcnnaud.18.weight"].shape == (512, 256, 5, 4)
    assert state["netfclip.3.weight"].shape == state["netfcaud.3.weight"].shape == (1024, 512)


def test_weights_survive_a_round_trip(network, tmp_path):
    path = tmp_path / "syncnet_v2.model"
    torch.save(network.state_dict(), path)
    again = load_syncnet(path)
    sound = torch.randn(2, 1, 13, 20)
    with torch.no_grad():
        assert torch.equal(network.sound(sound), again.sound(sound))


def test_other_files_are_refused_with_a_reason(network, tmp_path):
    with pytest.raises(NotFound):
        load_syncnet(tmp_path / "none.model")
    path = tmp_path / "wrong.model"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(BackendFailed, match="layout"):
        load_syncnet(path)
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(BackendFailed, match="cannot be read"):
        load_syncnet(path)


@pytest.mark.parametrize("late", [-3, 0, 4])
def test_offset_of_embeddings_is_found_and_late_lips_are_positive(late):
    sounds = np.random.default_rng(0).standard_normal((90, 32))
    assert euclidean_score(np.roll(sounds, late, 0), sounds).offset_frames == late


def test_mfcc_has_a_column_every_ten_milliseconds_and_hears_loudness():
    tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    loud, soft = mfcc(tone), mfcc(0.1 * tone)
    assert loud.shape[0] == MFCC and 98 <= loud.shape[1] <= 100
    # A tenth of the amplitude is a hundredth of the energy; the other coefficients speak of the spectrum's shape.
    assert np.median(loud[0] - soft[0]) == pytest.approx(np.log(100), abs=0.01)
    assert np.abs(loud[1:, 5:90] - soft[1:, 5:90]).max() < 0.01
