"""The capacity model on paper agrees with what was measured, and with common sense."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from server.scaling import TABLE as TABLE_FILE
from server.scaling import Demand, Machine, cores_of, load_table, main, plan, refreshed

TABLE = load_table()
TOLERANCE = 0.3
"""Machines that share their cores with others measure no better."""


@pytest.mark.parametrize("point", TABLE["measured"], ids=lambda point: point["what"])
def test_the_model_agrees_with_what_was_measured(point) -> None:
    cores = cores_of(TABLE, point.get("talking", 0), point.get("idle", 0), point.get("viewers", 0))
    assert cores == pytest.approx(point["cores"], rel=TOLERANCE)


def test_more_of_anything_never_needs_less() -> None:
    demand = Demand(sessions=300, viewers=500, broadcasts=2)
    before = plan(demand, Machine(), TABLE)
    for more in ({"sessions": 600}, {"talking_share": 0.6}, {"viewers": 5000}, {"model": "wav2lip-96"}):
        after = plan(replace(demand, **more), Machine(), TABLE)
        assert after.cores > before.cores and after.machines >= before.machines


def test_a_lost_machine_leaves_enough() -> None:
    found = plan(Demand(sessions=1000), Machine(), TABLE)
    assert (found.machines - 1) >= max(found.filled.values())
    assert found.gateways >= 2


def test_a_gpu_takes_the_model_from_the_cores() -> None:
    on_cpu = plan(Demand(100, model="wav2lip-256"), Machine(), TABLE)
    on_gpu = plan(Demand(100, model="wav2lip-256", gpu="h100"), Machine(gpus=1), TABLE)
    assert on_gpu.cores < on_cpu.cores / 3 and on_gpu.gpus > 0 and on_gpu.estimated


def test_a_restorer_without_a_gpu_has_no_plan(capsys) -> None:
    assert main(["--restorer", "gfpgan"]) == 1
    assert "GPU" in capsys.readouterr().err


def test_the_command_prints_a_plan(capsys) -> None:
    assert main(["--sessions", "100000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clusters"] > 1 and found["machines"] > 100
    assert main(["--sessions", "10"]) == 0
    assert "machines: 1," in capsys.readouterr().out


def test_the_document_shows_what_its_commands_print() -> None:
    document = TABLE_FILE.with_name("SCALING.md").read_text("utf-8")
    assert document.count("$ python -m server.scaling --") >= 4
    assert refreshed(document) == document, "python -m server.scaling --refresh server/SCALING.md"
