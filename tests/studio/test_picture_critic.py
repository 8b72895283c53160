"""The critic and the two losses around it."""

from __future__ import annotations

import pytest
import torch

from engine.studio.picture_critic import Critic, critic_loss, maker_loss


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def window(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    opened = torch.zeros(count, 1, 64, 72)
    opened[:, :, 24:40, 20:52] = 1
    return torch.rand(count, 3, 64, 72), opened


def test_the_critic_learns_to_tell_stripes_from_their_mean() -> None:
    critic = Critic()
    optimizer = torch.optim.Adam(critic.parameters(), 4e-3, (0.5, 0.99))
    _, opened = window(4)
    stripes = (torch.arange(72) // 4 % 2).float().expand(4, 3, 64, 72).contiguous()
    grey = torch.full_like(stripes, 0.5)
    first = float(critic_loss(critic, stripes, grey, opened).detach())
    for _ in range(60):
        optimizer.zero_grad()
        loss = critic_loss(critic, stripes, grey, opened)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * first
    with torch.no_grad():
        assert maker_loss(critic, stripes, stripes, opened) < maker_loss(critic, stripes, grey, opened)


def test_what_happens_far_from_the_opening_does_not_count() -> None:
    critic = Critic()
    real, opened = window(2)
    changed = real.clone()
    changed[:, :, :4] = 0
    with torch.no_grad():
        assert critic_loss(critic, real, changed, opened) == pytest.approx(
            float(critic_loss(critic, real, real, opened)), abs=1e-5
        )


def test_a_closed_mouth_gives_the_critic_nothing_to_say() -> None:
    critic = Critic()
    real, opened = window(2)
    assert float(critic_loss(critic, real, real.flip(0), opened * 0).detach()) == 0
    assert float(maker_loss(critic, real, real.flip(0), opened * 0).detach()) == 0
