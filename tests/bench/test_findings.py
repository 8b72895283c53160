"""What is made of the rows: advice, table, JSON, and the figures of ``make bench-models``."""

from __future__ import annotations

import json

import pytest

from engine.bench import candidates as ways
from engine.bench.candidates import BASELINE, served
from engine.bench.networks import Findings, advised
from engine.bench.race import Row
from engine.bench.report import table, to_json
from tests.benchmarks.models import figures, weights_96
from tests.benchmarks.models import table as goals


def _rows() -> list[Row]:
    return [
        Row(BASELINE, {1: 8.0, 2: 12.0}, {1: 1.0, 2: 1.0}, memory_mb=450),
        Row(served("f32"), {1: 20.0, 2: 38.0}, {1: 2.5, 2: 3.2}, 79.0, 430),
        Row(served("bf16"), {1: 40.0, 2: 75.0}, {1: 5.0, 2: 6.2}, 53.8, 360),
        Row(served("int8"), {1: 64.0, 2: 115.0}, {1: 8.0, 2: 9.6}, 41.2, 270),
    ]


def test_the_fastest_on_one_core_is_advised():
    assert advised(_rows(), 38) == "int8"
    assert advised(_rows()[:3], 38) == "bf16"


def test_of_two_that_are_about_as_fast_the_more_exact_one_is_advised():
    rows = _rows()
    rows[3].fps[1] = 42.0
    assert advised(rows, 38) == "bf16"


def test_a_picture_that_is_too_coarse_is_not_advised_however_fast():
    assert advised(_rows(), 45) == "bf16"


def test_what_failed_is_never_advised():
    rows = _rows()
    rows[3].failed = "out of memory"
    assert advised(rows, 38) == "bf16"
    assert advised(rows[:1], 38) == ""


def test_table_shows_every_way_its_quality_and_what_is_recommended():
    rows = _rows()
    rows[1].failed = "no room"
    text = table(Findings("wav2lip", "wav2lip-96", rows, "refused: 36.0 dB", "bf16"))
    line = next(line for line in text.splitlines() if "bf16" in line and "OpenVINO" in line)
    assert line.split()[-6:] == ["40.0", "5.0", "75.0", "6.2", "53.8", "360"]
    assert "failed: no room" in text and "refused: 36.0 dB" in text and "--precision bf16" in text


def test_columns_of_processor_and_gpu_line_up():
    on_gpu = [Row(ways.GPU_BASELINE, {0: 300.0}, {0: 1.0}), Row(ways.on_gpu()[-1], {0: 9000.0}, {0: 30.0}, 52.0)]
    lines = table(Findings("wav2lip", "wav2lip-96", [*_rows(), *on_gpu])).splitlines()
    assert len({len(line) for line in lines[1:] if line}) == 1


def test_json_has_every_figure_by_number_of_cores():
    report = json.loads(json.dumps(to_json([Findings("wav2lip", "wav2lip-96", _rows(), advice="int8")])))
    assert report["models"][0]["advice"] == "int8"
    row = report["models"][0]["rows"][2]
    assert (row["fps_1core"], row["fps_2core"], row["ratio_2core"], row["psnr_db"]) == (40.0, 75.0, 6.2, 53.8)


def test_goals_are_held_against_the_served_ways():
    model = to_json([Findings("wav2lip", "wav2lip-96", _rows())])["models"][0]
    found = figures(model)
    assert found["ratio_2core"] == 6.2 and found["psnr_db"] == 53.8 and found["fps_1core"] == 40.0
    assert found["int8_ratio_2core"] == 9.6 and found["int8_psnr_db"] == 41.2
    assert found["baseline_fps_2core"] == 12.0
    assert "missed" not in goals(found)


def test_a_way_that_was_not_measured_is_null_and_said_to_be():
    model = to_json([Findings("wav2lip", "wav2lip-96", _rows()[:3])])["models"][0]
    found = figures(model)
    assert found["int8_ratio_2core"] is None
    assert "not measured" in goals(found)


@pytest.mark.parametrize(("names", "chosen"), [([], None), (["mine"], "mine"), (["mine", "wav2lip"], "wav2lip")])
def test_weights_called_wav2lip_come_first(tmp_path, names, chosen):
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"x")
        (tmp_path / name / "weights.toml").write_text(
            'kind = "wav2lip"\nvariant = "wav2lip-96"\nsize = 96\ncolour = "bgr"\nactivation = "sigmoid"\n'
            f'window_offset = -3\nparameters = 1\nsource_file = "a.pth"\nsource_sha256 = "{"0" * 64}"\n'
            'added = 2026-01-02\nlicence = "none"\n'
        )
    assert weights_96(tmp_path) == ((tmp_path, chosen) if chosen else None)
