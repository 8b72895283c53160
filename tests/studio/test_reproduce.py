"""From nothing to a model: which stages there are, what is skipped, what goes on after a failure."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.__main__ import main
from engine.cli.studio import COMMANDS
from engine.errors import BackendFailed
from engine.studio.reproduce import Plan, Stage, carry_out, is_done, stages


def works(tmp_path: Path, name: str, file: Path) -> Stage:
    """A stage that copies itself into a file by a module of the standard library."""
    source = tmp_path / f"{name}.txt"
    source.write_text("hello")
    return Stage(name, ("zipfile", "-c", str(file), str(source)), "packs")


def test_stages_unpack_first_and_measure_after_exporting(tmp_path: Path) -> None:
    names = [stage.name for stage in stages(Plan(tmp_path / "assets", tmp_path / "work", archives=tmp_path))]
    assert names[0] == "unpack"
    assert names.index("evaluate") > max(names.index("export-picture"), names.index("export-audio"))
    assert not any(name.startswith("avatar") for name in names)


def test_avatars_are_drawn_where_there_is_an_interpreter_for_it(tmp_path: Path) -> None:
    made = stages(Plan(tmp_path, tmp_path / "work", bpy_python=Path("python3")))
    assert [stage.words[2] for stage in made if stage.name.startswith("avatar-")] == ["maya", "leo", "amara", "kenji"]


def test_every_stage_is_accepted_by_the_module_it_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    made = stages(Plan(tmp_path / "a", tmp_path / "w", tmp_path / "z", Path("python3"), tmp_path / "data", share=0.1))
    for stage in made:
        if stage.words[0] == "engine":
            continue
        module = importlib.import_module(stage.words[0])
        with pytest.raises(SystemExit) as left:
            module.main([*stage.words[1:], "--help"])
        assert left.value.code == 0
        told = capsys.readouterr().out
        options = [word for word in stage.words if word.startswith("--")]
        assert not [option for option in options if option not in told]


def test_what_is_done_is_skipped_until_its_command_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "made.zip"
    stage = works(tmp_path, "pack", file)
    carry_out([stage], tmp_path)
    assert file.exists() and is_done(stage, tmp_path)
    file.unlink()
    carry_out([stage], tmp_path)
    assert not file.exists()
    assert "done before" in capsys.readouterr().out
    assert not is_done(Stage("pack", (*stage.words, "more"), ""), tmp_path)


def test_a_failed_stage_stops_everything_and_is_tried_again(tmp_path: Path) -> None:
    late = tmp_path / "late.zip"
    broken = Stage("broken", ("zipfile", "-l", str(tmp_path / "absent.zip")), "lists")
    with pytest.raises(BackendFailed, match="goes on from here"):
        carry_out([broken, works(tmp_path, "late", late)], tmp_path)
    assert not late.exists() and not is_done(broken, tmp_path)


def test_a_dry_run_prints_the_commands_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["studio", "all", "--assets", str(tmp_path / "assets"), "--work", str(tmp_path / "work"), "--dry-run"]
    assert main(words) == 0
    assert "python -m engine.studio.pairs" in capsys.readouterr().out
    assert not (tmp_path / "work").exists()


def test_without_assets_and_archives_one_line_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["studio", "all", "--assets", str(tmp_path / "assets"), "--work", str(tmp_path)]) == 2
    assert "--archives" in capsys.readouterr().err


def test_every_command_names_a_module_with_a_main() -> None:
    pytest.importorskip("torch")
    for command in COMMANDS.values():
        assert callable(importlib.import_module(f"engine.studio.{command.module}").main)


def test_words_reach_the_module_untouched(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["studio", "pairs", "--help"])
    assert left.value.code == 0
    assert "--beaming" in capsys.readouterr().out


def test_a_missing_package_gets_the_install_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> object:
        raise ModuleNotFoundError("No module named 'numba'", name="numba")

    monkeypatch.setattr("engine.cli.studio.importlib", SimpleNamespace(import_module=absent))
    assert main(["studio", "pairs"]) == 2
    error = capsys.readouterr().err
    assert "numba" in error and "engine/studio/requirements.txt" in error
