"""Fitting the picture network to a person: lips read right, learning that helps, and refusals that say what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.__main__ import main  # noqa: E402
from engine.avatar.bundle import write_avatar  # noqa: E402
from engine.avatar.landmarks import FaceMesh, five_landmarks  # noqa: E402
from engine.avatar.source import VideoSource  # noqa: E402
from engine.errors import BackendFailed, PortraitInvalid  # noqa: E402
from engine.evaluate.lips import LIP_NUMBERS  # noqa: E402
from engine.lipsync.builtin.crop import CROP_SIZE  # noqa: E402
from engine.lipsync.builtin.mouth_inside import MouthInside  # noqa: E402
from engine.studio import finetune, finetune_data  # noqa: E402
from engine.studio.finetune import HELD_OUT_SHARE, Outcome, judge, sheet, split, tune  # noqa: E402
from engine.studio.finetune_data import Observed  # noqa: E402
from engine.studio.lip_map import LipMap, changes_from_rest, fit  # noqa: E402
from engine.studio.picture_net import PictureNet, compose  # noqa: E402
from engine.types import MOUTH_SHAPES  # noqa: E402
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
    return Observed(texture[None], np.zeros(count, np.int64), targets, np.zeros_like(targets), mouths)


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


def test_the_sheet_has_three_rows_of_moments() -> None:
    net = PictureNet().eval()
    picture = sheet(net, net, observed(40))
    assert picture.dtype == np.uint8 and picture.shape[0] == 3 * 192 and picture.shape[1] % 192 == 0


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


def test_without_a_face_in_the_avatar_nothing_is_read() -> None:
    class Blind(FaceMesh):
        def __init__(self) -> None: ...

        def find(self, image: np.ndarray) -> list:
            return []

    with pytest.raises(PortraitInvalid) as refused:
        finetune_data.observe(tiny_avatar(), [Path("absent.mp4")], Blind(), None)  # type: ignore[arg-type]
    assert refused.value.code == "finetune_face_missing"


def test_a_video_that_is_too_short_is_refused_with_the_length_needed(shared_data: Path, tmp_path: Path) -> None:
    try:
        mesh = FaceMesh.load()
    except BackendFailed:
        pytest.skip("face models are not installed")
    clip = next(iter(sorted((shared_data / "faces" / "grid").glob("*.mpg"))))
    frame = next(iter(VideoSource(clip).frames()))
    landmarks = np.repeat(five_landmarks(mesh.find(frame)[0].points)[None], 25, 0)
    height, width = frame.shape[:2]
    avatar = replace(tiny_avatar(), size=(width, height), frames=np.repeat(frame[None], 25, 0), landmarks=landmarks)
    inside = MouthInside.load(finetune._PRODUCT / "mouth_inside.npz")
    with pytest.raises(PortraitInvalid, match="1 to 5 minutes") as refused:
        finetune_data.observe(avatar, [clip], mesh, inside)
    assert refused.value.code == "clip_too_short"


def test_an_unknown_avatar_and_a_missing_video_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["studio", "finetune", "--avatar", "nobody", "--avatars-dir", str(tmp_path), "absent.mp4"]) == 2
    assert "no avatar" in capsys.readouterr().err
    write_avatar(tmp_path / "tiny", tiny_avatar())
    assert main(["studio", "finetune", "--avatar", "tiny", "--avatars-dir", str(tmp_path), "absent.mp4"]) in (1, 2)
    assert capsys.readouterr().err.startswith("visavis: ")
