"""The picture network, its loss and its data, on small made-up examples."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.lipsync.builtin.crop import CROP_SIZE
from engine.studio.picture_data import Batch, Pairs, joined
from engine.studio.picture_losses import pair_loss, window_picture
from engine.studio.picture_net import MOUTH_COLUMNS, MOUTH_ROWS, Layers, PictureNet, compose, count_macs, warp
from engine.studio.picture_train import Trainer, load_average, usual_flow
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
    arrays = {"images": images, "mouths": weights, "flow": flow, "seen": 255 - opened, "opened": opened}
    for key, value in arrays.items():
        np.save(path / f"{key}.npy", value)


def random_layers(count: int) -> Layers:
    return Layers(
        torch.randn(count, 2, CROP_SIZE, CROP_SIZE) * 0.05,
        torch.rand(count, 3, CROP_SIZE, CROP_SIZE),
        torch.rand(count, 1, CROP_SIZE, CROP_SIZE),
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
    assert torch.allclose(once.interior, each.interior, atol=1e-4)


def test_it_stays_within_its_budget() -> None:
    assert count_macs(PictureNet()) < 300e6


def test_a_flow_shifts_the_picture_in_grid_units() -> None:
    picture = torch.rand(1, 3, CROP_SIZE, CROP_SIZE)
    flow = torch.zeros(1, 2, CROP_SIZE, CROP_SIZE)
    assert torch.allclose(warp(picture, flow), picture, atol=1e-4)
    flow[:, 0] = 2 * 3 / CROP_SIZE
    assert torch.allclose(warp(picture, flow)[..., :-3], picture[..., 3:], atol=1e-3)


def test_the_window_picture_is_a_part_of_the_whole_picture() -> None:
    reference, layers = torch.rand(2, 3, CROP_SIZE, CROP_SIZE), random_layers(2)
    cut = Layers(*(x[:, :, MOUTH_ROWS, MOUTH_COLUMNS] for x in layers))
    whole = compose(reference, layers)[:, :, MOUTH_ROWS, MOUTH_COLUMNS]
    assert torch.allclose(window_picture(reference, cut), whole, atol=1e-4)


def test_the_truth_has_the_least_loss(tmp_path: Path) -> None:
    shard(tmp_path, "001-0000")
    batch = Pairs(tmp_path, ("001-",)).exact(0, slice(1, None))
    truth = Layers(batch.flow, batch.target, batch.opened)
    target = compose(batch.reference, truth)
    batch = Batch(batch.reference, target, batch.mouth, batch.flow, batch.seen, batch.opened)
    best, parts, _ = pair_loss(batch, Layers(batch.flow, target, batch.opened))
    assert parts["flow"] == 0
    for worse in (Layers(batch.flow * 0, target, batch.opened), Layers(batch.flow, target, batch.opened * 0)):
        assert pair_loss(batch, worse)[0] > best + 0.05


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
    first.run(pairs, None, people=2)
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


def test_batches_of_two_sources_are_joined_field_by_field(tmp_path: Path) -> None:
    shard(tmp_path, "001-0000")
    pairs = Pairs(tmp_path, ("001-",))
    one, two = pairs.exact(0, slice(0, 2)), pairs.exact(1, slice(0, 3))
    both = joined(one, two)
    for field in fields(Batch):
        assert len(getattr(both, field.name)) == 5
        assert torch.equal(getattr(both, field.name)[2:], getattr(two, field.name))
