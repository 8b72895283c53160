"""The picture network, its loss and its data, on small made-up examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.lipsync.builtin.crop import CROP_SIZE
from engine.studio.picture_data import Pairs
from engine.studio.picture_losses import pair_loss, window_picture
from engine.studio.picture_net import (
    COARSE_SIZE,
    MOUTH_COLUMNS,
    MOUTH_ROWS,
    Layers,
    PictureNet,
    compose,
    count_macs,
    lit,
    warp,
)
from engine.studio.picture_train import Trainer, load_average, main, measure, usual_flow
from engine.types import MOUTH_SHAPES

MARGIN = 8
SIZE = CROP_SIZE + 2 * MARGIN


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shard(folder: Path, name: str, people: int = 2, mouths: int = 6) -> None:
    """People whose picture shifts by ten and six pixels per unit of jawOpen, with a hole that opens in the middle."""
    rng = np.random.default_rng(len(name))
    images = rng.integers(0, 256, (people, 1, SIZE, SIZE, 3), dtype=np.uint8).repeat(mouths, 1)
    weights = rng.uniform(0, 1, (people, mouths, len(MOUTH_SHAPES))).astype(np.float32)
    weights[:, 0] = 0
    flow = np.zeros((people, mouths, SIZE, SIZE, 2), np.float16)
    flow[..., 0] = 10 * weights[:, :, :1, None]
    flow[..., 1] = 6 * weights[:, :, :1, None]
    opened = np.zeros((people, mouths, SIZE, SIZE), np.uint8)
    opened[:, 1:, 60:70, 60:84] = 255
    path = folder / name
    path.mkdir()
    insides = rng.integers(0, 256, images.shape, dtype=np.uint8)
    arrays = {"images": images, "insides": insides, "mouths": weights, "flow": flow}
    arrays |= {"seen": 255 - opened, "opened": opened}
    for key, value in arrays.items():
        np.save(path / f"{key}.npy", value)


def random_layers(count: int) -> Layers:
    return Layers(
        torch.randn(count, 2, CROP_SIZE, CROP_SIZE) * 0.05,
        torch.rand(count, 1, CROP_SIZE, CROP_SIZE),
        torch.rand(count, 3, COARSE_SIZE, COARSE_SIZE) + 0.5,
    )


def test_a_mouth_at_rest_moves_and_opens_exactly_nothing() -> None:
    net = PictureNet().eval()
    for value in net.parameters():
        torch.nn.init.normal_(value, std=0.2)
    layers = net(torch.rand(2, 3, CROP_SIZE, CROP_SIZE), torch.zeros(2, len(MOUTH_SHAPES)))
    assert layers.flow.abs().max() == 0
    assert layers.alpha.abs().max() == 0


def test_detail_exists_only_in_the_window_and_fades_towards_its_border() -> None:
    net = PictureNet().eval()
    layers = net(torch.rand(1, 3, CROP_SIZE, CROP_SIZE), torch.ones(1, len(MOUTH_SHAPES)))
    outside = layers.alpha.clone()
    outside[:, :, MOUTH_ROWS, MOUTH_COLUMNS] = 0
    assert outside.max() == 0
    edge, middle = layers.alpha[0, 0, MOUTH_ROWS.start, 64], layers.alpha[0, 0, 56, 64]
    assert 0 < edge < 0.3 * middle


def test_looking_once_serves_several_mouths() -> None:
    net = PictureNet().eval()
    picture, mouths = torch.rand(1, 3, CROP_SIZE, CROP_SIZE), torch.rand(3, len(MOUTH_SHAPES))
    a, b, c, d = (x.expand(3, -1, -1, -1) for x in net.encode(picture))
    once = net.decode((a, b, c, d), mouths)
    each = net(picture.expand(3, -1, -1, -1), mouths)
    assert torch.allclose(once.flow, each.flow, atol=1e-5)
    assert torch.allclose(once.shade, each.shade, atol=1e-4)


def test_it_stays_within_its_budget() -> None:
    assert count_macs(PictureNet()) < 300e6


def test_a_flow_shifts_the_picture_in_grid_units() -> None:
    picture = torch.rand(1, 3, CROP_SIZE, CROP_SIZE)
    flow = torch.zeros(1, 2, CROP_SIZE, CROP_SIZE)
    assert torch.allclose(warp(picture, flow), picture, atol=1e-4)
    flow[:, 0] = 2 * 3 / CROP_SIZE
    assert torch.allclose(warp(picture, flow)[..., :-3], picture[..., 3:], atol=1e-3)


def test_the_light_inside_is_smooth_bounded_and_one_before_training() -> None:
    net = PictureNet().eval()
    picture, mouth = torch.rand(1, 3, CROP_SIZE, CROP_SIZE), torch.ones(1, len(MOUTH_SHAPES))
    assert torch.equal(net(picture, mouth).shade, torch.ones(1, 3, COARSE_SIZE, COARSE_SIZE))
    for value in net.light.parameters():
        torch.nn.init.normal_(value, std=5)
    shade = net(picture, mouth).shade
    assert shade.min() > 0.13 and shade.max() < 7.5
    steps = lit(torch.ones_like(picture), shade).diff(dim=3).abs().max()
    assert steps <= shade.diff(dim=3).abs().max() / 4 + 1e-5


def test_the_inside_shows_through_the_opening_alone() -> None:
    reference, inside = torch.rand(1, 3, CROP_SIZE, CROP_SIZE), torch.rand(1, 3, CROP_SIZE, CROP_SIZE)
    alpha = torch.zeros(1, 1, CROP_SIZE, CROP_SIZE)
    alpha[..., 60:70, 50:80] = 1
    layers = Layers(torch.zeros(1, 2, CROP_SIZE, CROP_SIZE), alpha, torch.full((1, 3, COARSE_SIZE, COARSE_SIZE), 0.5))
    picture = compose(reference, inside, layers)
    assert torch.allclose(picture[..., 60:70, 50:80], inside[..., 60:70, 50:80] / 2, atol=1e-5)
    assert torch.allclose(picture[..., :60, :], reference[..., :60, :], atol=1e-4)


def test_the_window_picture_is_a_part_of_the_whole_picture() -> None:
    reference, inside = torch.rand(2, 3, CROP_SIZE, CROP_SIZE), torch.rand(2, 3, CROP_SIZE, CROP_SIZE)
    layers = random_layers(2)
    flow, alpha, bright = (x[:, :, MOUTH_ROWS, MOUTH_COLUMNS] for x in (*layers[:2], lit(inside, layers.shade)))
    whole = compose(reference, inside, layers)[:, :, MOUTH_ROWS, MOUTH_COLUMNS]
    assert torch.allclose(window_picture(reference, flow, alpha, bright), whole, atol=1e-4)


def test_the_truth_has_the_least_loss(tmp_path: Path) -> None:
    shard(tmp_path, "001-0000")
    batch = Pairs(tmp_path, ("001-",)).exact(0, slice(1, None))
    light = torch.full((len(batch.mouth), 3, COARSE_SIZE, COARSE_SIZE), 0.8)
    truth = Layers(batch.flow, batch.opened, light)
    batch = replace(batch, target=compose(batch.reference, batch.inside, truth))
    best, parts, _ = pair_loss(batch, truth)
    assert parts["flow"] == 0
    for worse in (
        truth._replace(flow=batch.flow * 0),
        truth._replace(alpha=batch.opened * 0),
        truth._replace(shade=light * 2),
    ):
        assert pair_loss(batch, worse)[0] > best + 0.05


def test_measuring_tells_a_still_picture_from_one_that_opens(tmp_path: Path) -> None:
    shard(tmp_path, "900-0000")
    images = np.load(tmp_path / "900-0000" / "images.npy")
    images[:, 1:, 60:70, 60:84] //= 8
    np.save(tmp_path / "900-0000" / "images.npy", images)
    net = PictureNet().eval()
    torch.nn.init.zeros_(net.leave.weight)
    with torch.no_grad():
        net.leave.bias[:8], net.leave.bias[8:] = 0, -20  # neither moves nor opens
    figures = measure(net, Pairs(tmp_path, ("900-",)))
    assert figures["people"] == 2
    assert figures["rest_max_change"] < 0.1
    assert figures["opening_iou"] == 0
    assert figures["flow_error_px"] == pytest.approx(figures["flow_size_px"], rel=0.05)
    assert figures["inside_sharpness"] == pytest.approx(8, rel=0.15)
    assert figures["psnr_db"] == pytest.approx(figures["psnr_reference_db"], abs=0.1)


def test_mirrored_and_shifted_pairs_keep_picture_motion_and_opening_together(tmp_path: Path) -> None:
    shard(tmp_path, "001-0000")
    pairs = Pairs(tmp_path, ("001-",))
    rng = np.random.default_rng(4)
    for _ in range(6):
        batch = pairs.batch(rng, 2, 3)
        speed = (batch.flow[:, 0].flatten(1).mean(1) * CROP_SIZE / 2).abs()
        still = batch.mouth.abs().amax(1) == 0
        assert torch.allclose(speed[~still], 10 * batch.mouth[~still, 0], atol=0.05)
        down = batch.flow[:, 1].flatten(1).mean(1) * CROP_SIZE / 2
        assert torch.allclose(down[~still], 6 * batch.mouth[~still, 0], atol=0.05)
        assert torch.equal(batch.opened.amax((1, 2, 3)) > 0, ~still)
        assert (batch.opened + batch.seen).min() == 1
        assert torch.equal(batch.reference[0], batch.reference[1])


def test_shards_that_appear_later_are_found_and_unfinished_ones_are_not(tmp_path: Path) -> None:
    shard(tmp_path, "001-0000")
    (tmp_path / ".001-0001.partial").mkdir()
    (tmp_path / "900-0000").mkdir()
    pairs = Pairs(tmp_path, ("001-",))
    assert len(pairs) == 2
    shard(tmp_path, "001-0001")
    pairs.refresh()
    assert len(pairs) == 4


def test_the_usual_flow_finds_what_each_shape_does(tmp_path: Path) -> None:
    shard(tmp_path, "001-0000", people=6, mouths=9)
    usual = usual_flow(Pairs(tmp_path, ("001-",)), np.random.default_rng(0), batches=30) * CROP_SIZE / 2
    assert usual[0, 1].mean() == pytest.approx(6, abs=0.3)
    assert usual[0, 3::2].abs().max() < 0.5
    assert usual[0, 0::2].abs().max() < 5  # mirrored half of the time, motion to one side cancels out


def test_a_stopped_run_goes_on_and_two_runs_meet_half_way(tmp_path: Path) -> None:
    shard(tmp_path, "001-0000", people=6, mouths=6)
    pairs = Pairs(tmp_path, ("001-",))
    first = Trainer(tmp_path / "a.pt", 1e-3, minutes=0.02)
    first.run(pairs, people=2)
    assert first.step > 0
    again = Trainer(tmp_path / "a.pt", 1e-3, minutes=10)
    assert again.step == first.step
    own = {name: value.clone() for name, value in again.net.state_dict().items()}
    other = Trainer(tmp_path / "b.pt", 1e-3, minutes=10, peer=tmp_path / "a.pt")
    with torch.no_grad():
        for value in other.net.parameters():
            value.zero_()
    other.save()
    assert torch.allclose(other.net.state_dict()["usual"], own["usual"] / 2)
    assert torch.isfinite(load_average(tmp_path / "a.pt").usual).all()


def test_training_and_measuring_run_on_a_device_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("001-0000", "900-0000"):
        shard(tmp_path, name, people=2, mouths=6)
        images = np.load(tmp_path / name / "images.npy")
        images[:, 1:, 60:70, 60:84] //= 8
        np.save(tmp_path / name / "images.npy", images)
    common = ["--pairs", str(tmp_path), "--checkpoint", str(tmp_path / "a.pt"), "--device", "cpu"]
    assert main(["train", *common, "--minutes", "0.02", "--people", "2", "--critic"]) == 0
    assert main(["measure", *common]) == 0
    assert '"people": 2' in capsys.readouterr().out


def test_a_batch_moves_as_a_whole(tmp_path: Path) -> None:
    shard(tmp_path, "001-0000")
    batch = Pairs(tmp_path, ("001-",)).exact(0, slice(1, None))
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.weight, batch.weight)
    assert torch.equal(moved.mouth, batch.mouth)
