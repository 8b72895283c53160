"""Recognising GFPGAN checkpoints, refusing everything else, keeping them in a folder."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from engine.errors import WeightsInvalid  # noqa: E402
from engine.restore import checkpoint  # noqa: E402
from engine.restore.gfpgan_net import Gfpgan, GfpganShape  # noqa: E402
from tests.restore.networks import SMALL, seeded_faces, seeded_network, seeded_state  # noqa: E402


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return seeded_state(SMALL, 7)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def refusal(path: Path) -> WeightsInvalid:
    with pytest.raises(WeightsInvalid) as caught:
        checkpoint.inspect(path)
    return caught.value


@pytest.mark.parametrize("wrap", [
    lambda state: {"params_ema": state},
    lambda state: {"params": state},
    lambda state: state,
    lambda state: {"params_ema": {f"module.{name}": tensor for name, tensor in state.items()}},
])  # fmt: skip
def test_recognised_however_it_is_wrapped_and_named(tmp_path: Path, state, wrap) -> None:
    finding = checkpoint.inspect(saved(tmp_path / "Wav2Lip.pth", wrap(state)))
    assert finding.shape == SMALL
    assert finding.variant == "gfpgan-v1clean-128"
    assert finding.source_file == "Wav2Lip.pth" and len(finding.source_sha256) == 64


def test_the_averaged_parameters_win(tmp_path: Path, state) -> None:
    other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    read = checkpoint.read_state(saved(tmp_path / "x.pth", {"params": other, "params_ema": state}))
    assert torch.equal(read["final_conv.weight"], state["final_conv.weight"])


def test_the_official_layout_is_recognised_by_its_shapes() -> None:
    with torch.device("meta"):
        official = Gfpgan(GfpganShape.of())
    shape = checkpoint.shape_of(official.state_dict())
    assert shape == GfpganShape.of()
    assert sum(parameter.numel() for parameter in official.parameters()) == 86_444_252


def test_half_precision_becomes_float32(tmp_path: Path, state) -> None:
    half = {name: tensor.half() for name, tensor in state.items()}
    read = checkpoint.read_state(saved(tmp_path / "half.pth", {"params_ema": half}))
    assert {tensor.dtype for tensor in read.values()} == {torch.float32}
    assert torch.equal(read["final_conv.weight"], half["final_conv.weight"].float())


def test_safetensors_are_read_too(tmp_path: Path, state) -> None:
    save_file(state, tmp_path / "x.safetensors")
    assert checkpoint.inspect(tmp_path / "x.safetensors").shape == SMALL


def test_a_folder_gives_the_network_back(tmp_path: Path, state) -> None:
    path = saved(tmp_path / "x.pth", {"params_ema": state})
    finding = checkpoint.inspect(path)
    folder = tmp_path / "gfpgan"
    folder.mkdir()
    checkpoint.write(folder, checkpoint.read_state(path), finding.facts(date(2026, 1, 2)))
    card = tomllib.loads((folder / "weights.toml").read_text("utf-8"))
    assert card["kind"] == "gfpgan" and card["size"] == 128 and card["colour"] == "rgb"
    assert card["added"] == date(2026, 1, 2) and card["parameters"] == finding.parameters
    faces = seeded_faces(SMALL.size)
    with torch.inference_mode():
        assert torch.allclose(checkpoint.load_network(folder)(faces), seeded_network()(faces), atol=1e-5)


def test_the_card_is_one_that_the_folder_of_weights_can_read(tmp_path: Path, state) -> None:
    from engine.weights.folder import read_card

    finding = checkpoint.describe(saved(tmp_path / "x.pth", state), state)
    folder = tmp_path / "gfpgan"
    folder.mkdir()
    checkpoint.write(folder, state, finding.facts())
    assert read_card(folder).variant == finding.variant


def test_a_file_with_code_is_refused_and_nothing_runs(tmp_path: Path, state) -> None:
    goal = tmp_path / "ran"

    class Touches:
        def __reduce__(self):
            return (Path.touch, (goal,))

    error = refusal(saved(tmp_path / "x.pth", {"params_ema": state, "extra": Touches()}))
    assert error.code == "weights_run_code" and not goal.exists()


def test_a_truncated_file_is_refused(tmp_path: Path, state) -> None:
    path = saved(tmp_path / "x.pth", {"params_ema": state})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert refusal(path).code == "weights_unreadable"


def test_a_web_page_a_missing_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    page, empty = tmp_path / "page.pth", tmp_path / "empty.pth"
    page.write_text("<!doctype html><title>Quota exceeded</title>")
    empty.touch()
    assert refusal(page).code == "weights_unreadable"
    assert refusal(empty).code == "weights_unreadable"
    assert refusal(tmp_path / "none.pth").code == "weights_missing"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, state, value: float) -> None:
    broken = state | {"final_conv.bias": torch.full_like(state["final_conv.bias"], value)}
    error = refusal(saved(tmp_path / "x.pth", {"params_ema": broken}))
    assert error.code == "weights_not_finite" and "final_conv.bias" in error.message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("stylegan_decoder.style_convs.0.activate.bias", "version 1"),
        ("conv_body_first.0.weight", "version 1"),
        ("quantize.embedding.weight", "CodeFormer"),
        ("face_encoder_blocks.0.0.conv_block.0.weight", "Wav2Lip"),
        ("style_convs.0.modulated_conv.weight", "without the U-Net"),
        ("conv_first.weight", "upscaler"),
    ],
)
def test_other_networks_are_refused_by_name(tmp_path: Path, name: str, says: str) -> None:
    error = refusal(saved(tmp_path / "GFPGANv1.4.pth", {"params_ema": {name: torch.zeros(4, 4, 3, 3)}}))
    assert error.code == "weights_other_network" and says in error.message


def test_a_network_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    error = refusal(saved(tmp_path / "x.pth", {"layer.weight": torch.zeros(3)}))
    assert error.code == "weights_unknown" and "layer.weight" in error.message


def test_missing_additional_and_misshapen_parameters_are_named(tmp_path: Path, state) -> None:
    broken = {name: tensor for name, tensor in state.items() if name != "toRGB.0.bias"}
    broken |= {"surplus": torch.zeros(2), "condition_scale.0.0.weight": torch.zeros(3, 3)}
    error = refusal(saved(tmp_path / "x.pth", broken))
    assert error.code == "weights_mismatch"
    assert all(word in error.message for word in ("toRGB.0.bias is missing", "surplus", "condition_scale.0.0.weight"))


def test_a_damaged_folder_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{broken}")
    with pytest.raises(WeightsInvalid) as caught:
        checkpoint.load_network(tmp_path)
    assert caught.value.code == "weights_unreadable"
