"""The command line: a video of exact length, the same pictures as the pipeline, and one line for every mistake."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from engine import registry
from engine.__main__ import main
from engine.audio.decode import decode_audio
from engine.conversation.tts.base import SpeechPiece
from engine.offline import render_offline
from engine.types import FRAME_SAMPLES
from tests.fakes import FakeLipSync, babble, mouth_height, tiny_avatar, tone

REPOSITORY = Path(__file__).resolve().parent.parent

_CREATE_VOICE = registry.create_voice


class _BeepingVoice:
    """Says every word as 200 ms of tone."""

    closed = False

    async def speak(self, text: str):
        for sentence in text.split("."):
            if sentence.strip():
                yield SpeechPiece(tone(0.2 * len(sentence.split()))[::3], 16_000, sentence)

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _fakes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("VISAVIS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(registry, "create_lipsync", lambda backend, /, **options: FakeLipSync())
    monkeypatch.setattr(registry, "create_voice", lambda backend, /, **options: _BeepingVoice())


def _wav(path: Path, samples: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def _render(avatars_dir: Path, *arguments: str | Path) -> int:
    return main(["render", "--avatars-dir", str(avatars_dir), *map(str, arguments)])


def _refusal(capsys, code: int) -> str:
    assert code == 2
    said = capsys.readouterr().err
    assert said.startswith("visavis: ") and len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize("length", [1, FRAME_SAMPLES, FRAME_SAMPLES + 1, 80_000])
def test_the_video_is_as_long_as_the_sound_rounded_up_to_a_frame(avatars_dir, tmp_path, length):
    speech = _wav(tmp_path / "speech.wav", babble(2)[:length])
    assert _render(avatars_dir, "--avatar", "tiny", speech, "-o", "out.mp4") == 0
    frames = -(-length // FRAME_SAMPLES)
    with av.open("out.mp4") as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert video.frames == frames
        assert video.start_time == audio.start_time == 0
        assert float(audio.duration * audio.time_base) == pytest.approx(frames * 0.04, abs=1024 / 48_000)


def test_pictures_are_those_of_the_pipeline(avatars_dir, tmp_path):
    samples = babble(2)
    assert _render(avatars_dir, _wav(tmp_path / "speech.wav", samples)) == 0
    expected = [mouth_height(f.image) for f in render_offline(tiny_avatar(), FakeLipSync(), samples)]
    with av.open("speech.mp4") as file:
        got = [mouth_height((p.to_ndarray(format="bgr24") > 40) * np.uint8(255)) for p in file.decode(video=0)]
    assert max(expected) > 10 and min(expected) < 5
    assert np.abs(np.array(got) - expected).max() <= 2
    assert np.corrcoef(decode_audio("speech.mp4", 60)[: samples.size], samples)[0, 1] > 0.8


def test_a_text_is_spoken(avatars_dir, capsys):
    assert _render(avatars_dir, "--text", "one two. three") == 0
    with av.open("text.mp4") as file:
        assert file.streams.video[0].frames == 15
    assert "text.mp4: 15 frames, 0.60 s" in capsys.readouterr().out


def test_the_built_in_voice_speaks_with_the_options_given(avatars_dir, monkeypatch):
    monkeypatch.setattr(registry, "create_voice", _CREATE_VOICE)
    lengths = []
    for rate in ("120", "240"):
        options = ["--voice-name", "en-gb", "--voice-rate", rate, "-o", "out.mp4"]
        assert _render(avatars_dir, "--text", "Good morning to all of you.", *options) == 0
        with av.open("out.mp4") as file:
            lengths.append(file.streams.video[0].frames)
    assert lengths[0] > 1.5 * lengths[1] > 25


def test_an_avatar_speaks_with_its_own_voice_unless_another_is_asked_for(avatars_dir, tmp_path, monkeypatch):
    made = []

    def create(backend, /, **options):
        made.append((options["name"], options["rate_wpm"]))
        return _BeepingVoice()

    monkeypatch.setattr(registry, "create_voice", create)
    folder = Path(shutil.copytree(avatars_dir, tmp_path / "mine"))
    card = folder / "tiny" / "avatar.toml"
    card.write_text(card.read_text() + '\n[persona]\nrate = 150\n[persona.voices]\nespeak = "en-us+m7"\n')
    assert _render(folder, "--text", "hello", "-q") == 0
    assert _render(folder, "--text", "hello", "-q", "--voice-name", "de") == 0
    assert made == [("en-us+m7", 150), ("de", 150)]


def test_quiet_means_quiet(avatars_dir, capsys):
    assert _render(avatars_dir, "--text", "hello", "-q") == 0
    said = capsys.readouterr()
    assert said.out == said.err == ""


@pytest.mark.parametrize(
    "content,expected",
    [(b"", "0 bytes"), (b"dear diary " * 900, "no sound file"), (None, "No such file")],
    ids=["empty", "text", "missing"],
)
def test_a_sound_that_is_none_is_one_line_and_leaves_the_old_video(avatars_dir, tmp_path, capsys, content, expected):
    if content is not None:
        (tmp_path / "speech.wav").write_bytes(content)
    (tmp_path / "out.mp4").write_bytes(b"old")
    assert expected in _refusal(capsys, _render(avatars_dir, "speech.wav", "-o", "out.mp4"))
    assert (tmp_path / "out.mp4").read_bytes() == b"old"


def test_mistakes_are_one_line_each(avatars_dir, tmp_path, capsys):
    speech = _wav(tmp_path / "speech.wav", tone(0.1))
    for arguments, expected in (
        ([speech, "--avatar", "nobody"], "known avatars: tiny"),
        ([speech, "--avatar", "../tiny"], "flag --avatar"),
        ([speech, "-o", "out.avi"], "must be named *.mp4"),
        ([speech, "-o", "nowhere/out.mp4"], "No such file or directory"),
        (["--text", "  "], "nothing to say"),
        (["--text", "\u200b"], "nothing to say"),
        (["--text", "x", "--voice-rate", "fast"], "flag --voice-rate: 'fast' cannot be used"),
        (["--text", "x", "--config", "nowhere.toml"], "nowhere.toml"),
    ):
        assert expected in _refusal(capsys, _render(avatars_dir, *arguments))
    assert list(tmp_path.glob("*.mp4")) == []


def test_no_avatars_at_all_is_one_line(tmp_path, capsys):
    _refusal(capsys, _render(tmp_path, "--text", "hello"))
    _refusal(capsys, main(["avatar", "list", "--avatars-dir", str(tmp_path)]))


def test_a_video_is_never_written_over_its_own_sound(avatars_dir, tmp_path, capsys):
    assert _render(avatars_dir, "--text", "hello", "-o", "talk.mp4") == 0
    assert "is the sound itself" in _refusal(capsys, _render(avatars_dir, "talk.mp4"))


def test_a_failing_model_is_exit_code_one_and_leaves_no_video(avatars_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "create_lipsync", lambda backend, /, **options: FakeLipSync(failing=True))
    assert _render(avatars_dir, _wav(tmp_path / "speech.wav", babble(1)), "-o", "out.mp4") == 1
    assert capsys.readouterr().err.startswith("visavis: ")
    assert not (tmp_path / "out.mp4").exists()


def test_avatars_are_listed_and_checked(avatars_dir, tmp_path, capsys):
    assert main(["avatar", "list", "--avatars-dir", str(avatars_dir)]) == 0
    assert "tiny" in capsys.readouterr().out
    assert main(["avatar", "check", "--avatars-dir", str(avatars_dir)]) == 0
    assert "tiny: usable, 96x96" in capsys.readouterr().out
    broken = tmp_path / "mine" / "broken"
    broken.mkdir(parents=True)
    (broken / "avatar.toml").write_text("title = 1")
    assert main(["avatar", "check", "--avatars-dir", str(tmp_path / "mine")]) == 2
    assert "broken: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "missing", "remedy"), [("evaluate", "engine.studio", "complete copy"), ("render", "av", "with pip")]
)
def test_a_part_that_is_not_installed_is_one_line(command, missing, remedy):
    code = f"import sys, engine.__main__ as tool; sys.modules[{missing!r}] = None; sys.exit(tool.main([{command!r}]))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert said.returncode == 2 and said.stdout == "" and said.stderr.count("\n") == 1
    assert said.stderr.startswith(f"visavis: python -m engine {command} needs {missing}") and remedy in said.stderr


def test_rendering_imports_neither_torch_nor_librosa():
    code = (
        "import sys, engine.cli.render; from engine.registry import create_lipsync, create_voice;"
        "print(sorted(m for m in ('torch', 'librosa', 'scipy', 'aiortc', 'aiohttp') if m in sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert said.stdout.strip() == "[]"


@pytest.mark.skipif(not any((REPOSITORY / "avatars").glob("*/avatar.toml")), reason="no avatar is shipped yet")
def test_what_is_shipped_speaks_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "engine", "render", "--text", "Bob, who are you?", "-o", str(tmp_path / "out.mp4")]
    said = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert said.returncode == 0 and said.stderr == ""
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.streams.video[0].frames > 15
        assert file.streams.audio[0].start_time == 0
