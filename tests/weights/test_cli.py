"""``python -m engine weights`` keeps checkpoints, and fetches them only after the terms were accepted."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.__main__ import main
from engine.restore.gfpgan_net import Gfpgan, GfpganShape
from engine.weights import add as add_module
from engine.weights.sources import SOURCES
from tests.weights.mirror import Behaviour, Mirror

OFFICIAL = "GFPGANv1.4.pth"

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GFPGAN checkpoint of the official layout, but 16 pixels small."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("checkpoint") / "downloaded (1).pth"
    shapes = Gfpgan(GfpganShape(16, (8, 8, 8), (16, 16, 16), 16)).state_dict()
    torch.save({"params_ema": {name: torch.randn(tensor.shape) for name, tensor in shapes.items()}}, path)
    return path


@pytest.fixture(autouse=True)
def no_official_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong, a test leaves the authors' servers alone."""
    for name, source in list(SOURCES.items()):
        monkeypatch.setitem(SOURCES, name, replace(source, addresses=()))


@pytest.fixture
def weights_dir(tmp_path: Path) -> Path:
    return tmp_path / "weights"


@pytest.fixture
def cli(weights_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs ``weights ...`` on a folder of its own: exit code, standard output, standard error."""
    monkeypatch.setenv("VISAVIS_WEIGHTS_DIR", str(weights_dir))
    monkeypatch.chdir(weights_dir.parent)

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main(["weights", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def mirror(checkpoint: Path) -> Iterator[Mirror]:
    with Mirror() as running:
        running.files[OFFICIAL] = Behaviour(checkpoint.read_bytes())
        yield running


@pytest.fixture
def get(cli: Cli, mirror: Mirror, checkpoint: Path) -> Cli:
    """Runs ``weights get gfpgan`` against the mirror, which has another file than the official one."""
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()

    def run(*words: str) -> tuple[int, str, str]:
        return cli("get", "gfpgan", "--mirror", mirror.url, "--sha256", digest, *words)

    return run


def answer(monkeypatch: pytest.MonkeyPatch, *answers: str | type[BaseException]) -> None:
    """Sits at the terminal and gives these answers, or presses the key that raises this."""
    left = iter(answers)

    def ask(question: str) -> str:
        given = next(left)
        if isinstance(given, str):
            return given
        raise given

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", ask)


def there(weights_dir: Path) -> list[str]:
    return sorted(os.listdir(weights_dir)) if weights_dir.is_dir() else []


def test_checkpoint_is_recognised_by_content_and_described(cli: Cli, checkpoint: Path, weights_dir: Path) -> None:
    code, out, err = cli("add", checkpoint)
    assert (code, err) == (0, "")
    assert "downloaded (1).pth is gfpgan-v1clean-16." in out
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() in out
    assert "non-commercial" in out and "--restorer gfpgan" in out
    assert there(weights_dir) == ["gfpgan"]
    assert there(weights_dir / "gfpgan") == ["model.safetensors", "weights.toml"]


def test_list_show_and_remove(cli: Cli, checkpoint: Path, weights_dir: Path) -> None:
    assert "no weights" in cli("list")[1]
    cli("add", checkpoint, "--name", "mine", "--licence", "all mine")
    (weights_dir / "broken").mkdir()
    (weights_dir / "broken" / "weights.toml").write_text("kind = 1")
    code, out, _ = cli("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["broken", "mine"]
    assert "unusable" in out
    code, out, _ = cli("show", "mine")
    assert code == 0 and "all mine" in out and "model.safetensors" in out
    assert cli("remove", "mine")[0] == 0
    assert there(weights_dir) == ["broken"]
    assert cli("remove", "broken")[0] == 0
    code, _, err = cli("show", "mine")
    assert code == 2 and "no weights mine" in err


def test_taken_name_needs_force(cli: Cli, checkpoint: Path, weights_dir: Path) -> None:
    cli("add", checkpoint, "--licence", "first")
    code, _, err = cli("add", checkpoint, "--licence", "second")
    assert code == 2 and "--force" in err
    assert "first" in (weights_dir / "gfpgan" / "weights.toml").read_text()
    assert cli("add", checkpoint, "--licence", "second", "--force")[0] == 0
    assert "second" in (weights_dir / "gfpgan" / "weights.toml").read_text()
    assert there(weights_dir) == ["gfpgan"]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS"),
        (os.urandom(4096), ""),
        (None, "no file"),
    ],
)
def test_what_is_no_checkpoint_is_refused_with_a_reason(
    cli: Cli, tmp_path: Path, weights_dir: Path, content: bytes | None, word: str
) -> None:
    if content is not None:
        (tmp_path / "w.pth").write_bytes(content)
    code, _, err = cli("add", tmp_path / "w.pth")
    assert code == 2 and err.startswith("visavis: ") and word in err
    assert there(weights_dir) == []


def test_damaged_and_foreign_checkpoints_leave_the_old_weights(
    cli: Cli, checkpoint: Path, tmp_path: Path, weights_dir: Path
) -> None:
    cli("add", checkpoint)
    before = (weights_dir / "gfpgan" / "model.safetensors").read_bytes()
    bad = tmp_path / "bad.pth"
    state = torch.load(checkpoint, weights_only=True)["params_ema"]
    state["final_conv.weight"][0, 0, 0, 0] = float("nan")
    torch.save({"params_ema": state}, bad)
    for make in (
        lambda: None,
        lambda: bad.write_bytes(checkpoint.read_bytes()[:-5000]),
        lambda: torch.save({"weight": torch.ones(3)}, bad),
        lambda: torch.save({"params_ema": {"a": print}}, bad),
    ):
        make()
        code, _, err = cli("add", bad, "--name", "gfpgan", "--force")
        assert code == 2 and err.startswith("visavis: ")
    assert there(weights_dir) == ["gfpgan"]
    assert (weights_dir / "gfpgan" / "model.safetensors").read_bytes() == before


def test_unknown_network_is_told_apart_from_a_broken_file(cli: Cli, tmp_path: Path) -> None:
    torch.save({"state_dict": {"layer.weight": torch.ones(3)}}, tmp_path / "w.pth")
    _, _, err = cli("add", tmp_path / "w.pth")
    assert "neither Wav2Lip" in err


def test_network_from_the_surroundings_of_a_known_one_is_named(cli: Cli, tmp_path: Path) -> None:
    torch.save({"state_dict": {"face_encoder.0.conv_block.0.weight": torch.ones(3)}}, tmp_path / "w.pth")
    assert "SyncNet" in cli("add", tmp_path / "w.pth")[2]
    torch.save({"params_ema": {"quantize.embedding.weight": torch.ones(3)}}, tmp_path / "w.pth")
    assert "RestoreFormer" in cli("add", tmp_path / "w.pth")[2]


def test_folder_in_place_of_a_file(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("add", tmp_path)
    assert code == 2 and "is a folder" in err


def test_get_fetches_adds_and_tidies_up(get: Cli, weights_dir: Path) -> None:
    code, out, err = get("--accept-licence")
    assert code == 0
    assert out.index("non-commercial") < out.index("came from")
    assert "of 0 MB (100 %)" in err
    assert there(weights_dir) == [".downloads", "gfpgan"]
    assert [name for name in there(weights_dir / ".downloads") if not name.endswith(".lock")] == []


def test_quiet_get_shows_no_progress(get: Cli) -> None:
    assert get("--accept-licence", "--quiet")[2] == ""


def test_get_refuses_without_terminal_and_acceptance(get: Cli, mirror: Mirror, weights_dir: Path) -> None:
    code, out, err = get()
    assert code == 2
    assert "StyleGAN2" in out and "--accept-licence" in err
    assert mirror.requests == [] and there(weights_dir) == []


@pytest.mark.parametrize("answers", [("y",), ("YES ",), ("maybe", "what?", "y")])
def test_accepted_terms_start_the_download(
    get: Cli, weights_dir: Path, monkeypatch: pytest.MonkeyPatch, answers: tuple[str, ...]
) -> None:
    answer(monkeypatch, *answers)
    assert get()[0] == 0
    assert "gfpgan" in there(weights_dir)


@pytest.mark.parametrize("answers", [("",), ("n",), ("No",), ("a", "b", "c"), (EOFError,)])
def test_refused_terms_fetch_nothing(
    get: Cli, mirror: Mirror, weights_dir: Path, monkeypatch: pytest.MonkeyPatch, answers: tuple
) -> None:
    answer(monkeypatch, *answers)
    code, _, err = get()
    assert code == 2 and "nothing was fetched" in err
    assert mirror.requests == [] and there(weights_dir) == []


def test_ctrl_c_at_the_question(get: Cli, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, KeyboardInterrupt)
    assert get()[0] == 130
    assert mirror.requests == []


def test_taken_name_is_refused_before_anything_is_asked(get: Cli, cli: Cli, checkpoint: Path, mirror: Mirror) -> None:
    cli("add", checkpoint)
    code, out, err = get("--accept-licence")
    assert code == 2 and "--force" in err and out == ""
    assert mirror.requests == []


def test_file_other_than_the_official_one_is_refused(cli: Cli, mirror: Mirror, weights_dir: Path) -> None:
    code, _, err = cli("get", "gfpgan", "--accept-licence", "--mirror", mirror.url)
    assert code == 1 and SOURCES["gfpgan"].sha256 in err and "--sha256" in err
    assert there(weights_dir) == [".downloads"]


def test_mirrors_may_be_configured(cli: Cli, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_WEIGHTS_MIRRORS", f"{mirror.url}other.pth, {mirror.url}sub/")
    content = mirror.files[OFFICIAL].content
    mirror.files["sub/" + OFFICIAL] = Behaviour(content)
    digest = hashlib.sha256(content).hexdigest()
    code, out, _ = cli("get", "gfpgan", "--accept-licence", "--sha256", "SHA256:" + digest.upper())
    assert code == 0 and "/sub/" in out
    assert [path for path, _ in mirror.requests] == ["/sub/" + OFFICIAL]


def test_get_without_an_address_says_what_to_do(cli: Cli) -> None:
    code, _, err = cli("get", "wav2lip-gan", "--accept-licence")
    assert code == 2
    assert "https://github.com/Rudrabha/Wav2Lip" in err and "weights add FILE --name wav2lip-gan" in err


@pytest.mark.parametrize("words", [("--sha256", "abc"), ("--mirror", "http://example.org/"), ("--name", "A B")])
def test_get_refuses_bad_options_before_anything_is_asked(cli: Cli, words: tuple[str, str]) -> None:
    code, out, err = cli("get", "gfpgan", "--accept-licence", *words)
    assert code == 2 and out == "" and err.startswith("visavis: ")


def test_file_that_is_no_checkpoint_after_all_is_not_kept(cli: Cli, mirror: Mirror, weights_dir: Path) -> None:
    content = os.urandom(5000)
    mirror.files[OFFICIAL] = Behaviour(content)
    digest = hashlib.sha256(content).hexdigest()
    code, _, _ = cli("get", "gfpgan", "--accept-licence", "--mirror", mirror.url, "--sha256", digest)
    assert code == 2
    assert [name for name in there(weights_dir / ".downloads") if not name.endswith(".lock")] == []
    assert there(weights_dir) == [".downloads"]


def test_full_disk_while_converting_keeps_the_download(
    get: Cli, mirror: Mirror, weights_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(add_module, "read_card", full)
        patch.setattr("engine.restore.checkpoint.write", full)
        code, _, err = get("--accept-licence")
    assert code == 2 and "No space is left" in err
    assert there(weights_dir) == [".downloads"]
    count = len(mirror.requests)
    assert get("--accept-licence")[0] == 0
    assert len(mirror.requests) == count
    assert "gfpgan" in there(weights_dir)


def test_export_needs_a_fitting_name_and_does_not_overwrite(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    cli("add", checkpoint)
    (tmp_path / "taken.onnx").write_text("mine")
    (tmp_path / "taken.bin").write_text("mine")
    for words, said in (
        (("--onnx", "x.xml"), "must be named *.onnx"),
        (("--openvino", "x.onnx"), "must be named *.xml"),
        (("--onnx", "nowhere/x.onnx"), "no folder"),
        (("--onnx", "taken.onnx"), "--force"),
        (("--openvino", "taken.xml"), "taken.bin exists"),
    ):
        code, _, err = cli("export", "gfpgan", *words)
        assert code == 2 and said in err
    assert (tmp_path / "taken.onnx").read_text() == "mine"
