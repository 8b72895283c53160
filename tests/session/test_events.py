from tests.fakes import tone
from tests.session.stage import Stage


async def test_state_speaking_and_viseme_events_follow_the_frames(stage: Stage) -> None:
    utterance_id = stage.session.play(tone(0.8), "file")
    await stage.run(40)
    assert stage.of("state") == [{"state": "speaking"}, {"state": "idle"}]
    assert stage.of("speaking") == [
        {"speaking": True, "utterance_id": utterance_id, "label": "file"},
        {"speaking": False, "utterance_id": utterance_id, "label": "file"},
    ]
    visemes = stage.of("viseme")
    assert len(visemes) == 11  # every second of 20 frames, and one at rest
    assert visemes[4]["mouth"]["jawOpen"] > 0.3 and not any(visemes[-1]["mouth"].values())


async def test_metrics_come_every_two_seconds(stage: Stage) -> None:
    await stage.run(150)
    assert len(stage.of("metrics")) == 3
