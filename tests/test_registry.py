import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import NotFound
from engine.registry import create_lipsync, create_voice


@pytest.mark.parametrize("create", [create_lipsync, create_voice])
def test_unknown_name_says_which_there_are(create) -> None:
    with pytest.raises(NotFound, match="there is"):
        create("no-such-backend")


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
