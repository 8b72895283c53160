import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import InvalidInput, NotFound, VisavisError
from engine.registry import create_lipsync, create_restorer, create_voice


@pytest.mark.parametrize("create", [create_lipsync, create_voice])
def test_unknown_name_says_which_there_are(create) -> None:
    with pytest.raises(NotFound, match="there is"):
        create("no-such-backend")


def add_weights(root: Path, name: str, kind: str) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "weights.toml").write_text(f'kind = "{kind}"\n')


@pytest.mark.parametrize(
    "create,code", [(create_lipsync, "lipsync_not_found"), (create_restorer, "restorer_not_found")]
)
def test_missing_weights_are_named_with_those_there_are_and_how_to_add_some(create, code: str, tmp_path: Path) -> None:
    for name, kind in [("mine", "wav2lip"), ("sharp", "gfpgan"), (".new-x", "wav2lip")]:
        add_weights(tmp_path, name, kind)
    (tmp_path / "empty").mkdir()
    there = {create_lipsync: "there is builtin, mine[.]", create_restorer: "there is none, sharp[.]"}[create]
    for name in ("other", "empty", ".new-x", "../mine", "sharp" if create is create_lipsync else "mine"):
        with pytest.raises(NotFound, match=f"{there} .*python -m engine weights add FILE.*get NAME") as caught:
            create(name, weights_dir=tmp_path)
        assert caught.value.code == code


def test_broken_card_is_on_no_list(tmp_path: Path) -> None:
    add_weights(tmp_path, "mine", "wav2lip")
    (tmp_path / "mine" / "weights.toml").write_text("kind = ")
    with pytest.raises(NotFound, match=r"there is builtin\."):
        create_lipsync("mine", weights_dir=tmp_path)


def test_no_restorer_where_none_is_wanted_or_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert create_restorer("auto", weights_dir=tmp_path / "nowhere") is None
    add_weights(tmp_path, "gfpgan", "gfpgan")
    assert create_restorer("none", weights_dir=tmp_path) is None and not caplog.records


def test_weights_that_do_not_load_stop_nobody_who_did_not_ask_for_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_weights(tmp_path, "gfpgan", "gfpgan")
    assert create_restorer("auto", weights_dir=tmp_path) is None and "faces are not restored" in caplog.text
    with pytest.raises(VisavisError):
        create_restorer("gfpgan", weights_dir=tmp_path)


def test_builtin_model_has_no_int8() -> None:
    with pytest.raises(InvalidInput, match="f32 or bf16"):
        create_lipsync("builtin", precision="int8")


async def test_espeak_voice_speaks() -> None:
    voice = create_voice("espeak")
    pieces = [piece async for piece in voice.speak("Hello there.")]
    await voice.aclose()
    assert len(pieces) == 1 and len(pieces[0].samples) > pieces[0].sample_rate // 4


def test_backend_is_imported_only_when_asked_for() -> None:
    code = "import sys, engine.registry; print([m for m in sys.modules if 'espeak' in m or 'builtin.model' in m])"
    root = Path(__file__).resolve().parents[1]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"
