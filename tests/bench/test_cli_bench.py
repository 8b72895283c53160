"""``python -m engine bench``: what it measures, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.__main__ import main
from engine.bench import networks
from engine.bench.candidates import of_builtin
from engine.bench.race import Row
from engine.bench.stages import STAGES
from engine.lipsync.wav2lip import advice, export

CARD = f"""kind = "wav2lip"
variant = "wav2lip-96"
size = 96
colour = "bgr"
activation = "sigmoid"
window_offset = -3
parameters = 1
source_file = "a.pth"
source_sha256 = "{"0" * 64}"
added = 2026-01-02
licence = "none"
"""


@pytest.fixture
def weights_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "weights" / "mine"
    folder.mkdir(parents=True)
    (folder / "weights.toml").write_text(CARD)
    (folder / "model.safetensors").write_bytes(b"-")
    return folder.parent


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Races that take no time; the numbers of their cores."""
    cores: list[int] = []

    def race(candidates, weights, scratch, cpus, rounds):
        cores.append(len(cpus))
        speed = {"f32": 10.0, "bf16": 20.0, "int8": 40.0}
        return [Row(way, {len(cpus): speed[way.precision]}, {len(cpus): 1.0}, 50.0) for way in candidates]

    monkeypatch.setattr(networks, "race", race)
    monkeypatch.setattr(networks, "_has_gpu", lambda: False)
    monkeypatch.setattr(networks, "has_bf16", lambda: True)
    monkeypatch.setattr(networks, "separate_cores", lambda count: [0, 1])
    monkeypatch.setattr(networks, "make_int8", lambda *_: "refused: 30 dB")
    monkeypatch.setattr(export, "derive", lambda folder: folder)
    monkeypatch.setattr(export, "export_openvino", lambda folder, out: None)
    return cores


def _bench(avatars_dir: Path, weights_dir: Path, *words: str) -> int:
    return main(["bench", "--avatars-dir", str(avatars_dir), "--weights-dir", str(weights_dir), *words])


def test_all_models_are_measured_on_one_core_and_on_two(avatars_dir, weights_dir, quick, tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert _bench(avatars_dir, weights_dir, "--json", str(file)) == 0
    out = capsys.readouterr().out
    assert "builtin (builtin)" in out and "mine (wav2lip-96)" in out and "--precision bf16" in out
    models = json.loads(file.read_text())["models"]
    assert [model["name"] for model in models] == ["builtin", "mine"]
    assert len(models[0]["rows"]) == len(of_builtin(True))
    assert quick == [1, 2, 1, 2]


def test_auto_follows_what_was_measured(avatars_dir, weights_dir, quick, capsys):
    assert advice.advised_precision(weights_dir / "mine") is None
    assert _bench(avatars_dir, weights_dir, "--lipsync", "mine") == 0
    assert advice.advised_precision(weights_dir / "mine") == "bf16"
    assert "refused: 30 dB" in capsys.readouterr().out


def test_json_alone_is_all_that_is_printed(avatars_dir, weights_dir, quick, capsys):
    assert _bench(avatars_dir, weights_dir, "--lipsync", "mine", "--json") == 0
    model = json.loads(capsys.readouterr().out)["models"][0]
    assert model["advice"] == "bf16"
    assert {row["precision"] for row in model["rows"]} == {"f32", "bf16"}


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--lipsync", "nobody"), "nobody"), (("--json", "no/such/folder/f.json"), "its folder does not exist")],
)
def test_what_cannot_be_measured_is_one_line(avatars_dir, weights_dir, quick, capsys, words, said):
    assert _bench(avatars_dir, weights_dir, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("visavis: ") and said in error
    assert not quick


def test_stages_are_measured_on_demand(avatars_dir, weights_dir, capsys):
    assert _bench(avatars_dir, weights_dir, "--stages", "--frames", "3", "--json") == 0
    assert sorted(json.loads(capsys.readouterr().out)) == sorted(f"{stage}_cpu_ms" for stage in STAGES)
    assert _bench(avatars_dir, weights_dir, "--stages", "--frames", "3") == 0
    assert "x real time" in capsys.readouterr().out
