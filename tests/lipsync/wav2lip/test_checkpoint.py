"""Checkpoints are recognised by what is in them, converted exactly, and refused with a reason that helps."""

from __future__ import annotations

import os
import tomllib
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine import tensor_file
from engine.errors import WeightsInvalid
from engine.lipsync.wav2lip import checkpoint
from engine.lipsync.wav2lip.networks import Wav2Lip, build
from engine.lipsync.wav2lip.variants import VARIANTS
from engine.tensor_file import read_tensors, sha256_of
from tests.lipsync.wav2lip.states import faces, mels, official_layout, random_checkpoint, seeded_state

State = dict[str, Tensor]
_96 = VARIANTS["wav2lip-96"]


@pytest.fixture(scope="module")
def state() -> State:
    return seeded_state(_96, 5)


@pytest.fixture(scope="module")
def official(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "holiday.jpg"
    torch.save(official_layout(state), path)
    return path


def light(name: str) -> State:
    """A state of a variant that takes no memory: every tensor is one number, seen many times."""
    return {n: torch.tensor(0.5).expand(shape) for n, shape in VARIANTS[name].plan.shapes().items()}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def refusal(path: Path, read: Callable[[Path], object] = checkpoint.inspect) -> WeightsInvalid:
    with pytest.raises(WeightsInvalid) as caught:
        read(path)
    return caught.value


def test_official_checkpoint_is_recognised_whatever_it_is_called(official: Path) -> None:
    finding = checkpoint.inspect(official)
    assert finding.variant == _96
    assert finding.usual_name == "wav2lip"
    assert finding.parameters == 36_298_035
    facts = finding.facts()
    assert facts["size"] == 96 and facts["colour"] == "bgr" and facts["activation"] == "sigmoid"
    assert facts["window_offset"] == -3 and facts["source_sha256"] == sha256_of(official)
    for said in ("wav2lip-96", "BGR", "sigmoid", "-3 columns", "36.3 M"):
        assert said in str(finding)


def test_parameters_are_read_exactly_and_without_prefix(official: Path, state: State) -> None:
    assert same(checkpoint.read_state(official), state)


def _bare(path: Path, state: State) -> None:
    torch.save(state, path)


def _old_format(path: Path, state: State) -> None:
    torch.save(official_layout(state), path, _use_new_zipfile_serialization=False)


def _safetensors(path: Path, state: State) -> None:
    save_file(state, path)


def _twice_wrapped(path: Path, state: State) -> None:
    torch.save(official_layout(state, "module._orig_mod.module."), path)


def _script(path: Path, state: State) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(build(_96, state), (mels(1, 0), faces(96, 1, 0)), check_trace=False).save(path)


@pytest.mark.parametrize("save", [_bare, _old_format, _safetensors, _twice_wrapped, _script])
def test_every_usual_format_gives_the_same_parameters(
    save: Callable[[Path, State], None], tmp_path: Path, state: State
) -> None:
    save(tmp_path / "w.bin", state)
    assert same(checkpoint.read_state(tmp_path / "w.bin"), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, tmp_path: Path, state: State) -> None:
    torch.save({"state_dict": {name: tensor.to(dtype) for name, tensor in state.items()}}, tmp_path / "w.pth")
    read = checkpoint.read_state(tmp_path / "w.pth")
    assert same(read, {name: tensor.to(dtype).float() for name, tensor in state.items()})


@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.endswith("-192")])
def test_every_variant_is_recognised_by_names_and_shapes(name: str) -> None:
    assert checkpoint.recognise(light(name)).name == name


def test_layers_that_were_carried_along_untrained_are_left_out(tmp_path: Path) -> None:
    """LiveTalking's SAM checkpoints hold ``audio_refine`` without ever running it; primepake's run it."""
    refined = light("wav2lip-sam-refined-384")
    assert checkpoint.recognise(checkpoint._as_trained(refined)).name == "wav2lip-sam-refined-384"
    for name in refined:
        if name.startswith("audio_refine.") and "running" in name:
            refined[name] = torch.tensor(float(name.endswith("var"))).expand(refined[name].shape)
    assert checkpoint.recognise(checkpoint._as_trained(refined)).name == "wav2lip-sam-384"


class _Runs:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_checkpoint_is_named_and_never_runs(new_format: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": _Runs(tmp_path / "ran")}, path, _use_new_zipfile_serialization=new_format)
    error = refusal(path)
    assert error.code == "weights_run_code" and "system" in error.message
    assert not (tmp_path / "ran").exists()


class _WakesUp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.weight = state[0]
        self.training = state[1]


def test_script_that_would_run_on_loading_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(_WakesUp()).save(tmp_path / "w.pt")
    assert refusal(tmp_path / "w.pt").code == "weights_run_code"


def _cut(share: float, **options: bool) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        torch.save(official_layout({"output_block.1.bias": torch.ones(3000)}), path, **options)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return make


def _cut_safetensors(path: Path) -> None:
    save_file({"output_block.1.bias": torch.ones(3000)}, path)
    path.write_bytes(path.read_bytes()[:-100])


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("wav2lip_gan.pth", b"checkpoint")


@pytest.mark.parametrize(
    ("make", "code", "word"),
    [
        (lambda path: None, "weights_missing", "no file"),
        (lambda path: path.mkdir(), "weights_missing", "no file"),
        (lambda path: path.write_bytes(b""), "weights_unreadable", "empty"),
        (lambda path: path.write_text("\n<!DOCTYPE html><p>Quota exceeded"), "weights_unreadable", "web page"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "weights_unreadable", "LFS"),
        (lambda path: path.write_text("see the other folder"), "weights_unreadable", "text file"),
        (lambda path: path.write_bytes(b"Rar!\x1a\x07\x01\x00" + bytes(99)), "weights_unreadable", "unpack"),
        (lambda path: path.write_bytes(bytes(range(255, 0, -1)) * 9), "weights_unreadable", "no format"),
        (_zip, "weights_unreadable", "wav2lip_gan.pth. Unpack"),
        (_cut(0.9), "weights_unreadable", "incomplete"),
        (_cut(0.1), "weights_unreadable", "incomplete"),
        (_cut(0.9, _use_new_zipfile_serialization=False), "weights_unreadable", "incomplete"),
        (_cut_safetensors, "weights_unreadable", "incomplete"),
        (lambda path: torch.save({"epoch": 3}, path), "weights_empty", "no parameters"),
        (lambda path: torch.save([1, 2], path), "weights_empty", "no parameters"),
        (lambda path: torch.save({"a": torch.ones(3, dtype=torch.int8)}, path), "weights_type", "int8"),
    ],
)
def test_what_is_no_checkpoint_says_what_it_is(
    make: Callable[[Path], object], code: str, word: str, tmp_path: Path
) -> None:
    make(tmp_path / "w.pth")
    error = refusal(tmp_path / "w.pth")
    assert error.code == code
    assert word in error.message


@pytest.mark.parametrize(
    ("first", "code", "word"),
    [
        ("binary_pred.0.weight", "weights_other_network", "discriminator"),
        ("face_encoder.0.conv_block.0.weight", "weights_other_network", "SyncNet"),
        ("netcnnlip.0.weight", "weights_other_network", "SyncNet"),
        ("conv1_1.weight", "weights_other_network", "S3FD"),
        # Left to the restorer's own recognition.
        ("stylegan_decoder.style_conv1.bias", "weights_unknown", "stylegan_decoder"),
        ("model.0.conv.weight", "weights_unknown", "no Wav2Lip"),
    ],
)
def test_other_networks_are_named(first: str, code: str, word: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{first}": torch.ones(3)}}, tmp_path / "w.pth")
    error = refusal(tmp_path / "w.pth")
    assert error.code == code
    assert word in error.message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    torch.save({"output_block.1.weight": torch.tensor([1.0, value])}, tmp_path / "w.pth")
    error = refusal(tmp_path / "w.pth")
    assert error.code == "weights_not_finite" and "output_block.1.weight" in error.message


def test_negative_variance_is_refused(state: State, tmp_path: Path) -> None:
    name = "audio_encoder.0.conv_block.1.running_var"
    torch.save(state | {name: torch.full((32,), -1.0)}, tmp_path / "w.pth")
    error = refusal(tmp_path / "w.pth")
    assert error.code == "weights_statistics" and name in error.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("output_block.1.bias"), "output_block.1.bias is missing"),
        (lambda s: s.update(extra=torch.ones(1)), "extra does not belong to it"),
        (lambda s: s.update({"output_block.1.bias": torch.ones(4)}), "output_block.1.bias is [4] instead of [3]"),
    ],
)
def test_almost_wav2lip_says_what_differs(change: Callable[[State], object], said: str) -> None:
    state = light("wav2lip-96")
    change(state)
    with pytest.raises(WeightsInvalid, match="looks like wav2lip-96") as caught:
        checkpoint.recognise(state)
    assert caught.value.code == "weights_mismatch"
    assert said in caught.value.message


@pytest.fixture(scope="module")
def folder(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    read = checkpoint.read_state(official)
    checkpoint.write(folder, read, checkpoint.describe(official, read).facts())
    return folder


def test_folder_gives_the_network_back(folder: Path, state: State) -> None:
    variant, network = checkpoint.load_network(folder)
    assert variant == _96 and isinstance(network, Wav2Lip) and not network.training
    assert same({name: tensor for name, tensor in network.state_dict().items() if name in state}, state)
    assert same(load_file(folder / "model.safetensors"), state)


def test_card_says_what_was_found(folder: Path, official: Path) -> None:
    card = tomllib.loads((folder / "weights.toml").read_text("utf-8"))
    assert card == checkpoint.inspect(official).facts(card["added"])
    assert card["kind"] == "wav2lip" and card["source_file"] == "holiday.jpg"


def _with_card(folder: Path, to: Path, **changes: object) -> Path:
    to.mkdir()
    (to / "model.safetensors").symlink_to(folder / "model.safetensors")
    card = tomllib.loads((folder / "weights.toml").read_text("utf-8")) | changes
    (to / "weights.toml").write_text("\n".join(f"{k} = {tensor_file._toml(v)}" for k, v in card.items()), "utf-8")
    return to


def test_card_may_set_other_conventions(folder: Path, tmp_path: Path) -> None:
    variant, _ = checkpoint.load_network(_with_card(folder, tmp_path / "w", window_offset=-6, colour="rgb"))
    assert (variant.window_offset, variant.colour) == (-6, "rgb")
    assert variant.window.lookahead_ms == 137.5


@pytest.mark.parametrize(
    "change", [{"variant": "wav2lip-256"}, {"variant": "wav2lip-97"}, {"colour": "cmyk"}, {"window_offset": 900}]
)
def test_card_that_does_not_fit_the_network_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    error = refusal(_with_card(folder, tmp_path / "w", **change), checkpoint.load_network)
    assert error.code == "weights_card_invalid"


def test_damaged_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path, checkpoint.load_network).code == "weights_missing"
    damaged = _with_card(folder, tmp_path / "w")
    (damaged / "weights.toml").write_bytes(b"size = \xff")
    assert refusal(damaged, checkpoint.load_network).code == "weights_card_invalid"
    (damaged / "weights.toml").unlink()
    assert refusal(damaged, checkpoint.load_network).code == "weights_card_invalid"


def test_random_checkpoint_for_other_tests_is_of_official_layout(tmp_path: Path) -> None:
    path = random_checkpoint(tmp_path / "w.pth", count=2)
    assert checkpoint.inspect(path).variant == _96
    assert all(name.startswith("module.") for name in torch.load(path, weights_only=True)["state_dict"])
    assert read_tensors(path)["audio_encoder.3.conv_block.1.running_var"].std() > 0
