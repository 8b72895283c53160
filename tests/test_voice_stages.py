"""Changes of a voice by name: made once, few kept, and unknown ones refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.conversation.voice.base import VoiceChange
from engine.errors import ConfigInvalid, InvalidInput, NotFound
from engine.voice_stages import CONVERSIONS_KEPT, VoiceStages
from tests.conversation.voice.made_up import save_voice


async def test_no_change_needs_no_stage(tmp_path: Path):
    assert await VoiceStages(tmp_path).stage(VoiceChange()) is None


async def test_folders_of_weights_are_conversions(tmp_path: Path):
    save_voice(tmp_path, "singer")
    save_voice(tmp_path, ".new-half-done")
    (tmp_path / "wav2lip").mkdir()
    (tmp_path / "wav2lip" / "weights.toml").write_text('kind = "wav2lip"\n', "utf-8")
    assert VoiceStages(tmp_path).names == ["singer"]


@pytest.mark.parametrize("change", [VoiceChange(3, -2), VoiceChange(conversion="singer"), VoiceChange(3, -2, "singer")])
async def test_every_combination_keeps_the_length(tmp_path: Path, change: VoiceChange):
    save_voice(tmp_path, "singer")
    stage = await VoiceStages(tmp_path).stage(change)
    assert stage is not None
    stream = stage.open(24_000)
    samples = (np.sin(np.arange(30_000) / 20) * 9000).astype(np.int16)
    parts = [await stream.push(samples[:10_000]), await stream.push(samples[10_000:]), await stream.flush()]
    assert sum(map(len, parts)) == len(samples)


async def test_a_voice_is_loaded_once_and_few_are_kept(tmp_path: Path):
    stages = VoiceStages(tmp_path)
    for number in range(CONVERSIONS_KEPT + 2):
        save_voice(tmp_path, f"v{number}")
        await stages.stage(VoiceChange(conversion=f"v{number}"))
    loaded = dict(stages._conversions)
    assert list(loaded) == [f"v{number}" for number in range(2, CONVERSIONS_KEPT + 2)]
    await stages.stage(VoiceChange(1, conversion="v3"))
    assert stages._conversions["v3"] is loaded["v3"]


@pytest.mark.parametrize("name", ["nobody", "../singer", ".hidden"])
async def test_an_unknown_voice_is_refused_with_those_that_are_there(tmp_path: Path, name: str):
    save_voice(tmp_path, "singer")
    with pytest.raises(NotFound, match="there is singer") as caught:
        await VoiceStages(tmp_path).stage(VoiceChange(conversion=name))
    assert caught.value.code == "voice_conversion_unknown"


async def test_a_gpu_that_is_not_there_is_told_before_a_voice_is_asked_for(tmp_path: Path):
    save_voice(tmp_path, "singer")
    stages = VoiceStages(tmp_path, "gpu")
    with pytest.raises(ConfigInvalid) as caught:
        await stages.check()
    assert caught.value.code == "voice_gpu_missing"
    with pytest.raises(ConfigInvalid):
        await stages.stage(VoiceChange(conversion="singer"))
    await VoiceStages(tmp_path, "auto").check()


@pytest.mark.parametrize("semitones", [12.1, -13, float("nan"), float("inf")])
def test_a_change_is_an_octave_at_most(semitones: float):
    for change in ({"pitch": semitones}, {"formant": semitones}):
        with pytest.raises(InvalidInput) as caught:
            VoiceChange(**change)
        assert caught.value.code == "voice_change_invalid"
