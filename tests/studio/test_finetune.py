"""Fitting the picture network to a person: lips read right, learning that helps, and refusals that say what to do."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.__main__ import main  # noqa: E402
from engine.avatar.bundle import write_avatar  # noqa: E402
from engine.avatar.landmarks import Face, FaceMesh  # noqa: E402
from engine.avatar.source import VideoSource  # noqa: E402
from engine.avatar.video import encode_loop  # noqa: E402
from engine.errors import BackendFailed, PortraitInvalid  # noqa: E402
from engine.evaluate.lips import LIP_NUMBERS  # noqa: E402
from engine.lipsync.builtin.crop import CROP_SIZE  # noqa: E402
from engine.lipsync.builtin.model import BuiltinLipSync, BuiltinPrepared  # noqa: E402
from engine.studio import finetune, finetune_data  # noqa: E402
from engine.studio.finetune import HELD_OUT_SHARE, Outcome, judge, sheet, split, tune  # noqa: E402
from engine.studio.finetune_data import Observed  # noqa: E402
from engine.studio.likeness import LIMIT, Likeness  # noqa: E402
from engine.studio.likeness import fit as fit_likeness  # noqa: E402
from engine.studio.lip_map import LipMap, changes_from_rest, fit  # noqa: E402
from engine.studio.picture_net import Layers, PictureNet, compose  # noqa: E402
from engine.types import FPS, MOUTH_SHAPES  # noqa: E402
from tests.fakes import tiny_avatar  # noqa: E402

JAW = MOUTH_SHAPES.index("jawOpen")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def observed(count: int = 40) -> Observed:
    """A person whose lower face sinks by up to six pixels with the jaw."""
    rng = np.random.default_rng(1)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (CROP_SIZE, CROP_SIZE, 3), dtype=np.uint8), (0, 0), 3)
    mouths = np.zeros((count, len(MOUTH_SHAPES)), np.float32)
    mouths[:, JAW] = rng.uniform(0.2, 1, count)
    targets = np.stack([np.roll(texture, round(6 * jaw), 0) for jaw in mouths[:, JAW]])
    bends = np.zeros((count, 2, CROP_SIZE, CROP_SIZE), np.float16)
    chosen = np.zeros(count, np.int64)
    gains = np.array([1.5, 1.0, 1.0], np.float32)
    return Observed(texture[None], chosen, targets, np.zeros_like(targets), mouths, bends, gains, np.array(count / FPS))


def test_the_last_part_of_a_video_is_never_learned_from() -> None:
    learned, held_out = split(200)
    assert held_out[-1] == 199 and len(held_out) == round(200 * HELD_OUT_SHARE)
    assert learned.max() < held_out.min()


def test_learning_lessens_the_error_on_moments_that_were_held_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pairs, net = observed(), PictureNet().eval()
    state = tmp_path / "state.pt"
    steps: list[int] = []
    tuned = tune(net, pairs, 12, 3e-3, state, lambda step, loss: steps.append(step))
    outcome = judge(net, tuned, pairs)
    assert outcome.after < outcome.before
    assert steps == list(range(1, 13))
    again: list[int] = []
    tune(net, pairs, 12, 3e-3, state, lambda step, loss: again.append(step))
    assert again == []  # the saved state is the finished one


def test_learning_leaves_the_look_at_the_face_and_the_mouth_at_rest_alone() -> None:
    torch.manual_seed(0)
    pairs, net = observed(), PictureNet().eval()
    tuned = tune(net, pairs, 3, 3e-3)
    changed = {name.split(".")[0] for name, value in net.state_dict().items()
               if not torch.equal(value, tuned.state_dict()[name])}  # fmt: skip
    assert changed and not changed & {"enter", "down_b", "down_c", "down_d", "keep_b", "deep", "code"}
    picture = torch.rand(1, 3, CROP_SIZE, CROP_SIZE)
    with torch.no_grad():
        still = compose(picture, picture, tuned(picture, torch.zeros(1, len(MOUTH_SHAPES))))
    assert torch.allclose(still, picture, atol=1e-4)


def test_only_a_clear_gain_is_kept() -> None:
    assert Outcome(10.0, 9.0, 12.0).kept
    assert not Outcome(10.0, 9.99, 12.0).kept
    assert not Outcome(10.0, 11.0, 12.0).kept


def test_the_sheet_has_three_rows_of_moments_in_the_colours_of_the_avatar() -> None:
    net, pairs = PictureNet().eval(), observed(40)
    picture = sheet(net, net, pairs)
    assert picture.dtype == np.uint8 and picture.shape[0] == 3 * 192 and picture.shape[1] % 192 == 0
    real = picture[:192].reshape(-1, 3).mean(0)
    assert np.allclose(real * pairs.gains, pairs.targets.reshape(-1, 3).mean(0), atol=6)


def test_observations_are_read_back_as_they_were(tmp_path: Path) -> None:
    pairs = observed(4)
    pairs.save(tmp_path / "observed.npz")
    read = Observed.load(tmp_path / "observed.npz")
    assert all(np.array_equal(value, getattr(read, name)) for name, value in vars(pairs).items())


def test_a_face_is_laid_over_another_by_its_rigid_points() -> None:
    there = np.random.default_rng(2).uniform(0, 200, (468, 3))
    turn = np.array([[0.8, -0.3], [0.3, 0.8]])
    here = there.copy()
    here[:, :2] = there[:, :2] @ turn.T + (20, -5)
    matrix = finetune_data._laid_over(here, there)
    assert np.allclose(here[:, :2] @ matrix[:, :2].T + matrix[:, 2], there[:, :2], atol=1e-6)
    assert finetune_data._apart(here, there, matrix) < 1e-6


def test_the_map_recovers_what_lips_show_and_gives_rest_for_rest() -> None:
    rng = np.random.default_rng(3)
    mouths = np.zeros((400, len(MOUTH_SHAPES)), np.float32)
    mouths[:, JAW] = rng.uniform(0, 1, 400)
    changes = 0.2 * mouths[:, JAW : JAW + 1] * np.ones((1, LIP_NUMBERS)) + rng.normal(0, 0.01, (400, LIP_NUMBERS))
    fitted = fit(changes, mouths)
    made = fitted.mouths(changes, np.zeros(LIP_NUMBERS))
    assert np.corrcoef(made[:, JAW], mouths[:, JAW])[0, 1] > 0.97
    assert made[:, JAW].std() == pytest.approx(mouths[:, JAW].std(), rel=0.1)
    assert not LipMap.load().mouths(np.ones((1, LIP_NUMBERS)), np.ones(LIP_NUMBERS)).any()


def test_lips_that_touch_are_never_read_as_an_open_mouth() -> None:
    changes = np.random.default_rng(4).normal(0, 0.05, (50, LIP_NUMBERS))
    changes[:, 0] = 0.005
    assert not LipMap.load().mouths(changes, np.zeros(LIP_NUMBERS))[:, JAW].any()


def test_people_are_compared_with_themselves_at_rest() -> None:
    person = np.array([0, 0, 1, 1, 2])
    mouths = np.zeros((5, len(MOUTH_SHAPES)))
    mouths[[1, 3, 4], JAW] = 1
    shapes = np.arange(5.0)[:, None] * np.ones((1, LIP_NUMBERS))
    changes, rows = changes_from_rest(person, mouths, shapes)
    assert rows.tolist() == [0, 1, 2, 3]  # the third person was never seen at rest
    assert changes[:, 0].tolist() == [0, 1, 0, 1]


def test_a_damaged_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendFailed, match="absent"):
        LipMap.load(tmp_path / "absent.npz")


class Faces(FaceMesh):
    """Finds the same faces in every picture."""

    def __init__(self, faces: list[Face]) -> None:
        self._found = faces

    def find(self, image: np.ndarray) -> list[Face]:
        return self._found

    def follow(self, image: np.ndarray, before: Face) -> Face | None:
        return before


def face(scale: float = 1.0) -> Face:
    """The mean face of the studio on a tiny avatar; ``scale`` makes it longer, as nobody can by turning."""
    points = Likeness.load().face * (24, 24 * scale, 24) + (48, 50, 0)
    return Face(points.astype(np.float32), 1.0, np.array([10, 90, 10, 90], np.float32))


@pytest.fixture(scope="module")
def prepared() -> BuiltinPrepared:
    return BuiltinLipSync.load().prepare(tiny_avatar())


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "talk.mp4"
    encode_loop(path, np.repeat(tiny_avatar(1).frames, 30, 0), 20)
    return path


def refusal(prepared: BuiltinPrepared, clip: Path, mesh: FaceMesh, **options: bool) -> PortraitInvalid:
    with pytest.raises(PortraitInvalid) as refused:
        finetune_data.observe(prepared, [clip], mesh, **options)  # type: ignore[arg-type]
    return refused.value


def test_without_a_face_in_the_avatar_nothing_is_read(prepared: BuiltinPrepared, video: Path) -> None:
    assert refusal(prepared, video, Faces([])).code == "finetune_face_missing"


def test_a_missing_video_is_refused_before_the_avatar_is_looked_at(prepared: BuiltinPrepared, tmp_path: Path) -> None:
    assert refusal(prepared, tmp_path / "absent.mp4", Faces([])).code == "source_missing"


def test_company_is_refused_with_the_name_of_the_video(
    prepared: BuiltinPrepared, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_data, "_at_rest", lambda prepared, mesh: ([0], face().points[None]))
    refused = refusal(prepared, video, Faces([face(), face()]))
    assert refused.code == "several_faces" and video.name in refused.message


def test_a_stranger_is_refused_unless_told_otherwise(
    prepared: BuiltinPrepared, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_data, "_at_rest", lambda prepared, mesh: ([0], face().points[None]))
    stranger = Faces([face(1.4)])
    refused = refusal(prepared, video, stranger)
    assert refused.code == "finetune_other_person" and "--any-person" in refused.message
    assert refusal(prepared, video, stranger, any_person=True).code == "clip_too_short"
    assert refusal(prepared, video, Faces([face()])).code == "clip_too_short"


def test_a_mouth_that_does_not_move_teaches_nothing(
    prepared: BuiltinPrepared, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_data, "LEAST_SECONDS", 1.0)
    assert refusal(prepared, video, Faces([face()])).code == "finetune_still_mouth"


def test_a_video_comes_in_the_colours_in_which_the_network_sees_the_avatar() -> None:
    rng = np.random.default_rng(5)
    plain = rng.integers(40, 160, (CROP_SIZE, CROP_SIZE, 3), dtype=np.uint8)
    gains = np.array([1.5, 1.0, 0.9], np.float32)
    seen = np.rint(plain * gains).astype(np.uint8)
    for filmed in (plain, seen):  # with the avatar's cast, and by a camera without one
        made = finetune_data._in_colours(filmed, seen, gains)
        assert np.abs(made.astype(int) - seen).max() <= 2


def test_real_videos_of_other_people_are_refused_and_of_the_same_pass(shared_data: Path) -> None:
    try:
        mesh = FaceMesh.load()
    except BackendFailed:
        pytest.skip("face models are not installed")
    clips = ("grid_s1/bbaf2n.mpg", "grid_s1/lwwf7s.mpg", "grid/lbax4n.mpg")
    points = []
    for clip in clips:
        frames = list(VideoSource(shared_data / "faces" / clip).frames())[::9]
        points.append(np.stack([mesh.find(frame)[0].points for frame in frames]))
    likeness = Likeness.load()
    assert likeness.distance(points[0], points[1]) < LIMIT < likeness.distance(points[0], points[2])


def test_turning_moving_and_growing_a_face_changes_nobody() -> None:
    likeness = Likeness.load()
    there = np.random.default_rng(6).normal(0, 0.02, likeness.face.shape) + likeness.face
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    assert likeness.distance(there[None], (170 * there @ turn + (5, 9, -3))[None]) < 1e-3


def test_what_tells_people_apart_is_learned_against_what_changes_between_sittings() -> None:
    rng = np.random.default_rng(8)
    face_of = Likeness.load().face
    who, lens = rng.normal(0, 0.02, (2, *face_of.shape))
    person = np.repeat(np.arange(24), 3)
    traits = rng.normal(0, 1, 24)[person]
    shapes = face_of + traits[:, None, None] * who + rng.normal(0, 3, (72, 1, 1)) * lens
    shapes += rng.normal(0, 1e-4, shapes.shape)
    made = fit_likeness(person, shapes, face_of)
    across = np.linalg.norm(who.ravel() @ made.weights)
    assert across > 5 * np.linalg.norm(lens.ravel() @ made.weights)


def test_a_better_network_replaces_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "picture.xml").write_text("old")
    net = PictureNet().eval()

    def fails(made: PictureNet, folder: Path) -> dict[str, float]:
        (folder / "picture.xml").write_text("half")
        raise ValueError("differs")

    with monkeypatch.context() as patch, pytest.raises(ValueError, match="differs"):
        patch.setattr(finetune, "export", fails)
        finetune.install(net, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.xml"]
    assert (tmp_path / "picture.xml").read_text() == "old"
    finetune.install(net, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture.bin", "picture.safetensors", "picture.xml"]


def test_bent_layers_move_face_and_opening_together() -> None:
    flow, alpha = torch.zeros(1, 2, CROP_SIZE, CROP_SIZE), torch.zeros(1, 1, CROP_SIZE, CROP_SIZE)
    alpha[..., 60:70, 50:80] = 1
    bend = torch.zeros(1, 2, CROP_SIZE, CROP_SIZE)
    bend[:, 1] = 3 * 2 / CROP_SIZE  # what is shown is found three pixels further down
    layers = finetune._bent(Layers(flow, alpha, torch.ones(1, 3, 32, 32)), bend)
    assert torch.allclose(layers.alpha[..., 57:67, 50:80], torch.ones(1), atol=1e-4)
    assert torch.allclose(layers.flow, bend)


def test_wrong_words_are_one_line_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_avatar(tmp_path / "avatars" / "tiny", tiny_avatar())
    (tmp_path / "avatars" / "maya").mkdir()
    (tmp_path / "avatars" / "maya" / "avatar.toml").write_text("")
    clip = tmp_path / "noise.mp4"
    clip.write_bytes(bytes(100))
    (tmp_path / "avatars" / "broken").mkdir()
    (tmp_path / "avatars" / "broken" / "avatar.toml").write_text("title = 3")
    before = sorted(path for path in tmp_path.rglob("*"))
    for name, video, words in (
        ("broken", clip, "needs 'size'"),
        ("nobody", clip, "no avatar"),
        ("tiny", tmp_path / "absent.mp4", "There is no file"),
        ("maya", clip, "never filmed"),
        ("tiny", clip, "cannot be read as a video"),
    ):
        assert main(["studio", "finetune", "--avatar", name, "--avatars-dir", "avatars", str(video), "-q"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("visavis: ") and error.count("\n") == 1 and words in error
    assert sorted(path for path in tmp_path.rglob("*")) == before
