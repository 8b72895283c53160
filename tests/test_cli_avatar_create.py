"""``avatar create`` on the command line: one line for every mistake, consent on the card, a preview that speaks."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import av
import numpy as np
import pytest

from engine import registry
from engine.__main__ import main
from engine.avatar.bundle import read_card
from engine.avatar.prepare import CreateOptions, Progress
from engine.cli import avatar_create
from engine.errors import BackendFailed
from tests.fakes import FakeLipSync, tiny_avatar


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Making pictures is tested elsewhere; here every source makes the tiny avatar."""

    def create(source: Path, options: CreateOptions, progress: Progress) -> object:
        progress("bringing it to life", 0.5)
        return dataclasses.replace(
            tiny_avatar(), name=options.name, consent=options.consent, synthetic=options.synthetic
        )

    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("VISAVIS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(avatar_create, "create_avatar", create)
    monkeypatch.setattr(registry, "create_lipsync", lambda backend, /, **options: FakeLipSync())


def create(*arguments: str) -> int:
    return main(["avatar", "create", "me.jpg", "--avatars-dir", "avatars", "--quiet", *arguments])


def test_consent_in_one_text_or_in_three_is_kept_with_the_avatar() -> None:
    assert create("--name", "one", "--consent", "Ada Example, 2026-11-21, greeting visitors, and no more") == 0
    parts = ("--consent-who", "Ada Example", "--consent-when", "2026-11-21", "--consent-scope", "greeting visitors")
    assert create("--name", "two", *parts) == 0
    assert read_card(Path("avatars/one")).consent == "Ada Example, 2026-11-21: greeting visitors, and no more"
    assert read_card(Path("avatars/two")).consent == "Ada Example, 2026-11-21: greeting visitors"


@pytest.mark.parametrize("consent", [["--consent", "she said yes"], ["--consent-who", "Ada"]])
def test_incomplete_consent_is_refused(consent: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert create("--name", "ada", *consent) == 2
    assert "who agreed, when, and to what" in capsys.readouterr().err
    assert not Path("avatars").exists()


def test_an_existing_avatar_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert create("--name", "ada", "--synthetic") == 0
    monkeypatch.setattr(avatar_create, "create_avatar", lambda *_: pytest.fail("worked for nothing"))
    assert create("--name", "ada", "--synthetic") == 2
    assert "--force" in capsys.readouterr().err


def test_preview_shows_the_avatar_resting_speaking_and_resting() -> None:
    arguments = ("--synthetic", "--preview", "ada.mp4", "--preview-text", "Hello.")
    assert create("--name", "ada", *arguments) == 0
    with av.open("ada.mp4") as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    loud = np.flatnonzero(np.abs(sound) > 0.02) / 48_000
    assert loud[0] > 1.4 and sound.size / 48_000 - loud[-1] > 2.0


def test_preview_must_be_an_mp4(capsys: pytest.CaptureFixture[str]) -> None:
    assert create("--name", "ada", "--synthetic", "--preview", "ada.gif") == 2
    assert "*.mp4" in capsys.readouterr().err and not Path("avatars").exists()


@pytest.mark.parametrize(
    "arguments", [("--preview", "nowhere/ada.mp4"), ("--preview", "ada.mp4", "--preview-text", "...")]
)
def test_a_preview_that_cannot_be_is_refused_before_any_work(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(avatar_create, "create_avatar", lambda *_: pytest.fail("worked for nothing"))
    assert create("--name", "ada", "--synthetic", *arguments) == 2
    assert capsys.readouterr().err and not Path("avatars").exists()


def test_a_preview_that_fails_leaves_the_avatar_that_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert create("--name", "ada", "--consent", "Ada Example, 2026-11-21, greeting visitors") == 0

    def away(*_: object, **__: object) -> None:
        raise BackendFailed("model_missing", "The lip-sync model is not installed.")

    monkeypatch.setattr(registry, "create_lipsync", away)
    assert create("--name", "ada", "--synthetic", "--force", "--preview", "ada.mp4", "--preview-text", "Hello.") != 0
    assert read_card(Path("avatars/ada")).consent == "Ada Example, 2026-11-21: greeting visitors"
    assert not Path("ada.mp4").exists()
