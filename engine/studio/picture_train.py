"""Trains the picture network on pairs of synthetic people, and measures it on people it has never seen.

Place in the flow: shards of ``pairs`` -> checkpoint -> ``picture_export`` -> ``engine.lipsync.builtin``.
Commands:
    ``python -m engine.studio.picture_train train --pairs DIR --checkpoint FILE --minutes 60``
    ``python -m engine.studio.picture_train measure --pairs DIR --checkpoint FILE`` (the figures of the model card)

Invariants:
    * people of seed 900 are for measuring only;
    * the checkpoint holds everything needed to go on, and is replaced in one step;
    * two runs may train one network together: each meets the other's last checkpoint half way whenever it saves;
    * what is exported and measured is the running average of the weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

from engine.lipsync.builtin.crop import CROP_SIZE
from engine.studio.picture_critic import Critic, critic_loss, maker_loss
from engine.studio.picture_data import Batch, Pairs
from engine.studio.picture_losses import pair_loss
from engine.studio.picture_net import COARSE_SIZE, PictureNet, compose, count_macs
from engine.types import MOUTH_SHAPES

CPU = torch.device("cpu")
_HELD_OUT = ("900-",)
_SEEN = tuple(f"{seed:03d}-" for seed in range(900))
_AVERAGE = 0.998
_CRITIC_RATE = 4e-4
_SAVE_EVERY_S = 60.0
_LOG_EVERY = 50
_MOUTHS = 4
_SUMS = ("hit", "base", "still", "region", "calm", "error", "size", "moving", "both", "either", "made", "real")


class Trainer:
    """One training run that can be stopped and gone on with."""

    def __init__(
        self,
        checkpoint: Path,
        rate: float,
        minutes: float,
        peer: Path | None = None,
        *,
        critic: bool = False,
        device: torch.device = CPU,
    ) -> None:
        """Starts a run, or loads it when the checkpoint exists.

        Args:
            checkpoint: file of the run.
            rate: highest learning rate.
            minutes: length of the whole run; the learning rate falls to nothing at its end.
            peer: checkpoint of another run of the same network that trains at the same time.
            critic: train against a critic too; worth it once the mouth opens at the right place.
            device: where networks and batches live.
        """
        self._checkpoint, self._rate, self._budget_s = checkpoint, rate, minutes * 60
        self._peer, self._met_s, self._device = peer, 0.0, device
        self.net = PictureNet().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.net)
        self._optimizer = torch.optim.AdamW(self.net.parameters(), lr=rate, weight_decay=1e-4)
        self._critic = Critic().to(device) if critic else None
        if self._critic is not None:
            self._critic_optimizer = torch.optim.Adam(self._critic.parameters(), _CRITIC_RATE, (0.5, 0.99))
        self.step, self.spent_s = 0, 0.0
        self.fresh = not checkpoint.exists()
        if checkpoint.exists():
            state = torch.load(checkpoint, map_location=device, weights_only=True)
            self.net.load_state_dict(state["net"])
            self.average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step, self.spent_s = state["step"], state["spent_s"]
            if self._critic is not None and "critic" in state:
                self._critic.load_state_dict(state["critic"])

    def run(self, pairs: Pairs, people: int) -> None:
        """Trains until the time is used up.

        Args:
            pairs: rasterised people.
            people: people in a step, ``_MOUTHS`` pictures each.
        """
        rng = np.random.default_rng([self.step, *self._checkpoint.name.encode()])
        if self.fresh:
            usual = usual_flow(pairs, rng)
            with torch.no_grad():
                self.net.usual.copy_(usual)
                self.average.usual.copy_(usual)
        begun, before = time.monotonic(), self.spent_s
        saved = begun
        sums: dict[str, float] = {}
        while self.spent_s < self._budget_s:
            self._set_rate()
            for name, value in self._train_on(pairs.batch(rng, people, _MOUTHS).to(self._device)).items():
                sums[name] = sums.get(name, 0.0) + value
            self.step += 1
            now = time.monotonic()
            self.spent_s = before + now - begun
            if self.step % _LOG_EVERY == 0:
                shown = " ".join(f"{name} {value / _LOG_EVERY:.4f}" for name, value in sums.items())
                print(f"step {self.step} {self.spent_s / 60:.1f} min {len(pairs)} people {shown}", flush=True)
                sums.clear()
            if now - saved > _SAVE_EVERY_S:
                self.save()
                pairs.refresh()
                saved = now
        self.save()

    def _set_rate(self) -> None:
        share = min(self.spent_s / self._budget_s, 1)
        warm = min(1.0, (self.step + 1) / 200)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))

    def _train_on(self, batch: Batch) -> dict[str, float]:
        reference = batch.reference[::_MOUTHS].contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16):
            # Looking at a person once serves all of their mouths.
            seen = [features.repeat_interleave(_MOUTHS, 0) for features in self.net.encode(reference)]
            layers = self.net.decode((seen[0], seen[1], seen[2], seen[3]), batch.mouth)
        loss, parts, windows = pair_loss(batch, layers)
        if self._critic is not None:
            judged = critic_loss(self._critic, windows.real, windows.made.detach(), windows.opened)
            self._critic_optimizer.zero_grad(set_to_none=True)
            judged.backward()
            self._critic_optimizer.step()
            made = maker_loss(self._critic, windows.real, windows.made, windows.opened)
            loss = loss + made
            parts |= {"critic": float(judged.detach()), "made": float(made.detach())}
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self._optimizer.step()
        decay = min(_AVERAGE, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, new in zip(self.average.state_dict().values(), self.net.state_dict().values(), strict=True):
                if kept.dtype.is_floating_point:
                    kept.lerp_(new, 1 - decay)
                else:
                    kept.copy_(new)
        return {"loss": float(loss.detach()), **parts}

    def save(self) -> None:
        """Writes the checkpoint."""
        partial = self._checkpoint.with_suffix(".partial")
        state: dict[str, object] = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "spent_s": self.spent_s,
        }
        if self._critic is not None:
            state["critic"] = self._critic.state_dict()
        torch.save(state, partial)
        partial.replace(self._checkpoint)
        if self._peer is not None:
            self._meet(self._peer)

    def _meet(self, peer: Path) -> None:
        """Goes half way to the other run's weights, if it saved new ones."""
        if not peer.exists() or peer.stat().st_mtime <= self._met_s:
            return
        self._met_s = peer.stat().st_mtime
        state = torch.load(peer, map_location=self._device, weights_only=True)
        with torch.no_grad():
            for net, name in ((self.net, "net"), (self.average, "average")):
                for key, value in net.state_dict().items():
                    if value.dtype.is_floating_point:
                        value.lerp_(state[name][key], 0.5)


def usual_flow(pairs: Pairs, rng: np.random.Generator, batches: int = 40) -> torch.Tensor:
    """The motion per mouth shape that fits everybody best: where the network starts from.

    Ridge regression of true coarse flow on mouth vectors, pixel by pixel, weighted by visibility.

    Returns:
        (1, 2 * shapes, COARSE_SIZE, COARSE_SIZE) grid units.
    """
    shapes = len(MOUTH_SHAPES)
    normal = torch.zeros(COARSE_SIZE**2, shapes, shapes)
    moment = torch.zeros(COARSE_SIZE**2, shapes, 2)
    for _ in range(batches):
        batch = pairs.batch(rng, 6, _MOUTHS)
        scale = CROP_SIZE // COARSE_SIZE
        seen = functional.avg_pool2d(batch.seen, scale).flatten(2)[:, 0]
        flow = functional.avg_pool2d(batch.flow * batch.seen, scale).flatten(2)
        normal += torch.einsum("bp,bi,bj->pij", seen, batch.mouth, batch.mouth)
        moment += torch.einsum("bi,bcp->pic", batch.mouth, flow)
    fields = torch.linalg.solve(normal + 1.0 * torch.eye(shapes), moment)
    return fields.permute(1, 2, 0).reshape(1, 2 * shapes, COARSE_SIZE, COARSE_SIZE)


def load_average(checkpoint: Path, device: torch.device = CPU) -> PictureNet:
    """The averaged network of a checkpoint, ready to predict on a device."""
    net = PictureNet()
    net.load_state_dict(torch.load(checkpoint, map_location=CPU, weights_only=True)["average"])
    return net.to(device).eval()


def measure(net: PictureNet, pairs: Pairs) -> dict[str, float]:
    """Figures on held-out people, all their mouths but rest.

    Returns:
        ``psnr_db`` and ``psnr_reference_db`` of the region that moves or opens (prediction, untouched reference);
        ``psnr_still_db`` of the rest; ``flow_error_px`` and ``flow_size_px`` where motion exceeds half a pixel;
        ``opening_iou`` of alpha > 0.5 against the true opening; ``inside_sharpness``, contrast between neighbouring
        pixels inside the true opening relative to the truth's; ``rest_max_change`` of mouth 0, grey levels of 255.
    """
    sums = dict.fromkeys(_SUMS, 0.0)
    rest = 0.0
    device = net.usual.device
    with torch.inference_mode():
        for person in range(len(pairs)):
            batch = pairs.exact(person, slice(1, None)).to(device)
            layers = net(batch.reference, batch.mouth)
            picture = compose(batch.reference, batch.inside, layers)
            region = (batch.weight > 0.3).float()
            squared = (picture - batch.target).square().mean(1, keepdim=True)
            sums["hit"] += float((squared * region).sum())
            sums["base"] += float(((batch.reference - batch.target).square().mean(1, keepdim=True) * region).sum())
            sums["region"] += float(region.sum())
            sums["still"] += float((squared * (1 - region)).sum())
            sums["calm"] += float((1 - region).sum())
            size = (batch.flow * CROP_SIZE / 2).norm(dim=1, keepdim=True)
            moving = (size > 0.5).float() * (batch.seen > 0.99)
            error = ((layers.flow - batch.flow) * CROP_SIZE / 2).norm(dim=1, keepdim=True)
            sums["error"] += float((error * moving).sum())
            sums["size"] += float((size * moving).sum())
            sums["moving"] += float(moving.sum())
            open_here, open_true = layers.alpha > 0.5, batch.opened > 0.5
            sums["both"] += float((open_here & open_true).sum())
            sums["either"] += float((open_here | open_true).sum())
            sums["made"] += _contrast(picture, batch.opened)
            sums["real"] += _contrast(batch.target, batch.opened)
            rest_layers = net(batch.reference[:1], torch.zeros_like(batch.mouth[:1]))
            still = compose(batch.reference[:1], batch.inside[:1], rest_layers)
            rest = max(rest, float((still - batch.reference[:1]).abs().max()) * 255)
    return {
        "people": len(pairs),
        "psnr_db": -10 * math.log10(sums["hit"] / sums["region"]),
        "psnr_reference_db": -10 * math.log10(sums["base"] / sums["region"]),
        "psnr_still_db": -10 * math.log10(sums["still"] / sums["calm"]),
        "flow_error_px": sums["error"] / sums["moving"],
        "flow_size_px": sums["size"] / sums["moving"],
        "opening_iou": sums["both"] / sums["either"],
        "inside_sharpness": sums["made"] / sums["real"],
        "rest_max_change": rest,
        "parameters": sum(p.numel() for p in net.parameters()),
        "macs": count_macs(net),
    }


def _contrast(picture: torch.Tensor, opened: torch.Tensor) -> float:
    """Sum of steps between horizontal neighbours inside the opening: what separates tooth from tooth."""
    inside = (opened > 0.5).float()
    return float((picture.diff(dim=3).abs() * inside[..., 1:] * inside[..., :-1]).sum())


def main(argv: list[str] | None = None) -> int:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m engine.studio.picture_train", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("train", "measure"))
    parser.add_argument("--pairs", type=Path, required=True, help="folder with the shards")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--peer", type=Path, help="checkpoint of a run to train together with")
    parser.add_argument("--critic", action="store_true", help="train against a critic")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--people", type=int, default=6, help="people in a step")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shards", nargs="+", help="beginnings of shard names (else by seed: 900 is for measuring)")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    device = torch.device(wanted)
    if options.command == "train":
        trainer = Trainer(
            options.checkpoint, options.rate, options.minutes, options.peer, critic=options.critic, device=device
        )
        trainer.run(Pairs(options.pairs, tuple(options.shards or _SEEN)), options.people)
    else:
        net = load_average(options.checkpoint, device)
        figures = measure(net, Pairs(options.pairs, tuple(options.shards or _HELD_OUT)))
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
