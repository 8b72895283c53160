import itertools

import numpy as np
import pytest

from engine.studio.coarticulation import frame_times_s, mouth_track
from engine.studio.mouth import VISEMES, viseme_vector
from engine.studio.phones import (
    ARPABET,
    ESPEAK,
    Gesture,
    arpabet_visemes,
    espeak_visemes,
    gestures_from_arpabet,
    gestures_from_espeak,
)
from engine.studio.speech_data import SpeechClip, make_clip, read_shard, write_shard
from engine.studio.speech_text import sentence
from engine.types import MOUTH_SHAPES

JAW, PRESS = MOUTH_SHAPES.index("jawOpen"), MOUTH_SHAPES.index("mouthPress")


def test_every_phone_of_the_tables_has_known_visemes():
    assert {viseme for table in (ARPABET, ESPEAK) for visemes in table.values() for viseme in visemes} <= set(VISEMES)


@pytest.mark.parametrize(
    ("name", "visemes"),
    [("p", ("PP",)), ("'m", ("PP",)), ("tS", ("CH",)), ("'eI", ("E", "I")), (",u:", ("U",)), ("_:", ("sil",)),
     ("w", ("U",)), ("@L", ("ax", "L")), ("i:3x", ("I",)), ("\u0283", ("ax",)), ("", ("sil",))],
)  # fmt: skip
def test_espeak_phonemes_become_visemes(name, visemes):
    assert espeak_visemes(name) == visemes


@pytest.mark.parametrize(
    ("name", "visemes"), [("AH0", ("aa",)), ("B", ("PP",)), ("ow1", ("O", "U")), ("y", ("I",)), ("<sil>", ("sil",))]
)
def test_arpabet_phones_become_visemes(name, visemes):
    assert arpabet_visemes(name) == visemes


def test_a_voiceless_stop_is_closed_before_the_burst_that_espeak_reports():
    gestures = gestures_from_espeak([("a", 0.0, 0.3), ("p", 0.3, 0.34), ("a", 0.34, 0.6)])
    (closure,) = [g for g in gestures if g.viseme == "PP"]
    assert closure.start_s == pytest.approx(0.255)
    assert closure.end_s == pytest.approx(0.308)
    assert all(a.end_s == pytest.approx(b.start_s) for a, b in itertools.pairwise(gestures))


def test_an_aligned_stop_is_closed_in_its_first_part():
    gestures = gestures_from_arpabet([("AA", 0.0, 0.3), ("P", 0.3, 0.4), ("AA", 0.4, 0.6)])
    assert [g.viseme for g in gestures] == ["aa", "PP", "hh", "aa"]
    assert gestures[1].end_s == pytest.approx(0.36)


def test_lips_shut_for_a_frame_however_short_the_sound():
    for start_s in np.linspace(0.30, 0.34, 9):
        gestures = [Gesture("aa", 0, start_s), Gesture("PP", start_s, start_s + 0.03), Gesture("aa", start_s + 0.03, 1)]
        track = mouth_track(gestures, frame_times_s(1.0))
        shut = track[:, PRESS] > 0.99
        assert 1 <= shut.sum() <= 3
        assert track[shut, JAW].max() == 0
        assert track[4, JAW] > 0.4 and track[14, JAW] > 0.4


def test_long_sounds_reach_their_viseme_and_silence_is_the_rest_face():
    for viseme in VISEMES:
        track = mouth_track([Gesture(viseme, 0.2, 1.2)], frame_times_s(2.4))
        assert np.abs(track[16] - viseme_vector(viseme)).max() < 0.03
        assert track[-1].max() < 0.02
    assert mouth_track([], frame_times_s(1.0)).max() == 0


def test_rounding_begins_before_the_vowel_sounds():
    track = mouth_track([Gesture("DD", 0.2, 0.4), Gesture("U", 0.4, 0.7)], frame_times_s(1.0))
    pucker = track[:, MOUTH_SHAPES.index("mouthPucker")]
    assert pucker[8] > 0.1  # the frame before 0.36 s


def test_clips_survive_being_written_and_read(tmp_path):
    rng = np.random.default_rng(0)
    clips = [make_clip(rng) for _ in range(3)]
    write_shard(tmp_path / "a.npz", clips)
    for before, after in zip(clips, read_shard(tmp_path / "a.npz"), strict=True):
        assert np.array_equal(before.samples, after.samples)
        assert (before.voice, before.text) == (after.voice, after.text)
        assert [g.viseme for g in before.gestures] == [g.viseme for g in after.gestures]
        assert before.gestures[-1].end_s == pytest.approx(after.gestures[-1].end_s, abs=1e-4)


def test_a_clip_is_covered_by_its_gestures():
    rng = np.random.default_rng(1)
    for _ in range(4):
        clip = make_clip(rng, held_out=True)
        assert isinstance(clip, SpeechClip)
        assert clip.gestures[0].start_s == 0
        assert clip.gestures[-1].end_s == pytest.approx(clip.duration_s, abs=1e-3)
        assert np.abs(clip.samples.astype(int)).max() > 1000


def test_held_out_sentences_use_other_words():
    rng = np.random.default_rng(2)
    words = [
        {word.strip(".,?!;") for _ in range(600) for word in sentence(rng, held_out).split()}
        for held_out in (False, True)
    ]
    assert {"baby", "annoy"} <= words[0] and not {"boat", "avoid"} & words[0]
    assert {"boat", "avoid"} <= words[1] and not {"baby", "annoy"} & words[1]
