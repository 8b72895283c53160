"""From nothing to a model: which stages there are, what is skipped, what goes on after a failure."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.__main__ import main
from engine.cli.studio import COMMANDS
from engine.errors import BackendFailed
from engine.studio.reproduce import Plan, Stage, carry_out, is_done, marks, stages


def works(tmp_path: Path, name: str, file: Path, needs: tuple[str, ...] = ()) -> Stage:
    """A stage that copies itself into a file by a module of the standard library."""
    source = tmp_path / f"{name}.txt"
    source.write_text("hello")
    return Stage(name, ("zipfile", "-c", str(file), str(source)), "packs", needs)


def done(made: list[Stage], work: Path) -> list[str]:
    return [name for name, mark in marks(made).items() if is_done(name, mark, work)]


def test_stages_unpack_first_and_measure_after_exporting(tmp_path: Path) -> None:
    names = [stage.name for stage in stages(Plan(tmp_path / "assets", tmp_path / "work", archives=tmp_path))]
    assert names[0] == "unpack"
    assert names.index("evaluate") > max(names.index("export-picture"), names.index("export-audio"))
    assert not any(name.startswith("avatar") for name in names)


def test_avatars_are_drawn_where_there_is_an_interpreter_for_it(tmp_path: Path) -> None:
    made = stages(Plan(tmp_path, tmp_path / "work", bpy_python=Path("python3")))
    assert [stage.words[3] for stage in made if stage.name.startswith("avatar-")] == ["maya", "leo", "amara", "kenji"]


def test_every_stage_is_accepted_by_the_command_it_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    work, data, recordings = tmp_path / "w", tmp_path / "data", tmp_path / "list.tsv"
    made = stages(Plan(tmp_path / "a", work, tmp_path / "z", Path("python3"), data, recordings, share=0.1))
    for stage in made:
        with pytest.raises(SystemExit) as left:
            main([*stage.command[1:], "--help"])
        assert left.value.code == 0
        told = capsys.readouterr().out
        options = [word for word in stage.command if word.startswith("--")]
        assert not [option for option in options if option not in told]


def test_stages_need_only_what_was_made_before(tmp_path: Path) -> None:
    made = stages(Plan(tmp_path, tmp_path, tmp_path, Path("python3"), tmp_path, tmp_path))
    for index, stage in enumerate(made):
        assert set(stage.needs) <= {other.name for other in made[:index]}


def test_what_is_done_is_skipped_until_its_command_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "made.zip"
    stage = works(tmp_path, "pack", file)
    carry_out([stage], tmp_path)
    assert file.exists() and done([stage], tmp_path) == ["pack"]
    file.unlink()
    carry_out([stage], tmp_path)
    assert not file.exists()
    assert "done before" in capsys.readouterr().out
    assert done([replace(stage, how=("--threads", "2"))], tmp_path) == ["pack"]
    assert not done([replace(stage, words=(*stage.words, "more"))], tmp_path)


def test_a_stage_is_done_again_when_one_that_it_builds_on_changes(tmp_path: Path) -> None:
    first, other = works(tmp_path, "first", tmp_path / "1.zip"), works(tmp_path, "other", tmp_path / "2.zip")
    second = works(tmp_path, "second", tmp_path / "3.zip", needs=("first",))
    third = works(tmp_path, "third", tmp_path / "4.zip", needs=("second",))
    carry_out([first, other, second, third], tmp_path)
    changed = replace(first, words=("zipfile", "-c", str(tmp_path / "5.zip"), *first.words[3:]))
    assert done([changed, other, second, third], tmp_path) == ["other"]


def test_a_stage_that_is_stopped_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = works(tmp_path, "pack", tmp_path / "made.zip")
    carry_out([stage], tmp_path)

    def stopped(command: list[str]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("engine.studio.reproduce.subprocess.run", stopped)
        carry_out([works(tmp_path, "late", tmp_path / "late.zip"), stage], tmp_path)
    assert "Stopped in stage late" in capsys.readouterr().out
    assert done([stage], tmp_path) == ["pack"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("engine.studio.reproduce.subprocess.run", stopped)
        carry_out([replace(stage, words=(*stage.words, "more"))], tmp_path)
    assert not done([stage], tmp_path)  # its files are half old, half new


def test_a_failed_stage_stops_everything_and_is_tried_again(tmp_path: Path) -> None:
    late = tmp_path / "late.zip"
    broken = Stage("broken", ("zipfile", "-l", str(tmp_path / "absent.zip")), "lists")
    with pytest.raises(BackendFailed, match="goes on from here"):
        carry_out([broken, works(tmp_path, "late", late)], tmp_path)
    assert not late.exists() and not done([broken], tmp_path)


def test_a_dry_run_prints_the_commands_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["studio", "all", "--assets", str(tmp_path / "assets"), "--work", str(tmp_path / "work"), "--dry-run"]
    assert main(words) == 0
    assert "python -m engine studio pairs" in capsys.readouterr().out
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
