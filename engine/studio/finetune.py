"""Fits the picture network to one person: the avatar's own way of opening, rounding and pressing the lips.

Place in the flow: avatar + video of the same person -> ``observe`` -> ``tune`` -> ``picture.safetensors``,
``picture.xml`` and ``picture.bin`` in the avatar's folder, which the built-in model uses for this avatar.
Command: ``python -m engine studio finetune --avatar NAME CLIP...``

Invariants:
    * the avatar's network stays as it is until a better one is complete;
    * only the part that draws the mouth learns; what the network sees in a face stays;
    * it stays near the network it started from for mouths that the video does not show;
    * the last 15 % of the video teach nothing: the result is kept only when it is better there.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from engine.avatar.bundle import avatar_folder, load_avatar
from engine.avatar.checks import FaceChoice
from engine.avatar.landmarks import FaceMesh
from engine.config_load import load_config
from engine.errors import ConfigInvalid, PortraitInvalid
from engine.lipsync.builtin import model as product
from engine.lipsync.builtin.crop import CROP_SIZE
from engine.option_docs import add_arguments as add_options
from engine.studio.cast import PORTRAITS
from engine.studio.finetune_data import GOOD_SECONDS, Observed, observe
from engine.studio.lip_map import FILE as LIP_MAP_FILE
from engine.studio.mouth import VISEMES, viseme_vector
from engine.studio.picture_export import export, load_weights
from engine.studio.picture_losses import edge_loss, window_picture
from engine.studio.picture_net import MOUTH_COLUMNS, MOUTH_ROWS, Layers, PictureNet, compose, lit

WEIGHTS_FILE = "picture.safetensors"
HELD_OUT_SHARE = 0.15

_PRODUCT = Path(product.__file__).parent
_LEARNING = ("coarse", "usual", "up_a", "mix_a", "tune_a", "fine_a", "last_a", "leave", "light")
_BATCH = 12
_PHOTO, _EDGE, _LIKE_FLOW, _LIKE_ALPHA = 10.0, 6.0, 0.25, 2.0
_SAVE_EVERY = 50
_LEAST_GAIN = 0.005
_SHOWN, _SHOWN_SIDE = 8, 192


@dataclass(frozen=True)
class Outcome:
    """What tuning brought, on the part of the video that was held out.

    Attributes:
        before, after: mean error of colours in the mouth window, grey levels of 255.
        resting: the same for the picture at rest, as if nobody spoke.
        kept: whether the new weights are worth keeping.
    """

    before: float
    after: float
    resting: float

    @property
    def kept(self) -> bool:
        return self.after < self.before * (1 - _LEAST_GAIN)


def split(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows to judge by: the last ``HELD_OUT_SHARE``."""
    first = round(count * (1 - HELD_OUT_SHARE))
    return np.arange(first), np.arange(first, count)


def tune(
    net: PictureNet,
    observed: Observed,
    steps: int,
    rate: float,
    state: Path | None = None,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> PictureNet:
    """A copy of the network, fitted to the first part of what was observed.

    Args:
        net: where to start from.
        observed: pairs of the person.
        steps: of ``_BATCH`` pairs each.
        rate: highest learning rate; falls to a tenth.
        state: file to go on from and to save to; None for none.
        progress: told the step and its loss.
    """
    tuned = copy.deepcopy(net).eval()
    frozen = copy.deepcopy(net).eval()
    learning = []
    for name, parameter in tuned.named_parameters():
        parameter.requires_grad_(name.startswith(_LEARNING))
        if parameter.requires_grad:
            learning.append(parameter)
    optimiser = torch.optim.Adam(learning, rate)
    done = 0
    if state is not None and state.exists():
        saved = torch.load(state, weights_only=True)
        tuned.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        done = saved["step"]
    rows, _ = split(len(observed.chosen))
    visemes = np.stack([viseme_vector(name) for name in VISEMES])
    for step in range(done, steps):
        rng = np.random.default_rng(step)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20) * (1 - 0.9 * step / steps)
        drawn = rng.choice(rows, min(_BATCH, len(rows)), replace=False)
        reference, target, inside, mouth, bend = _tensors(observed, drawn)
        picture = _window_of(reference, inside, _bent(tuned(reference, mouth), bend))
        wanted = target[:, :, MOUTH_ROWS, MOUTH_COLUMNS]
        importance = torch.ones_like(wanted[:, :1])
        loss = _PHOTO * (picture - wanted).abs().mean() + _EDGE * edge_loss(picture, wanted, importance)
        # Mouths that the person never made in the video must not be unlearned.
        pair = visemes[rng.integers(0, len(visemes), (2, len(drawn)))]
        share = rng.random((len(drawn), 1), np.float32)
        other = torch.from_numpy((pair[0] * share + pair[1] * (1 - share)).astype(np.float32))
        with torch.no_grad():
            taught = frozen(reference, other)
        made = tuned(reference, other)
        pixels = (made.flow - taught.flow).abs().mean() * (CROP_SIZE / 2)
        loss = loss + _LIKE_FLOW * pixels + _LIKE_ALPHA * (made.alpha - taught.alpha).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        progress(step + 1, float(loss.detach()))
        if state is not None and ((step + 1) % _SAVE_EVERY == 0 or step + 1 == steps):
            partial = state.with_suffix(".partial")
            torch.save({"net": tuned.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}, partial)
            partial.replace(state)
    return tuned


@torch.no_grad()
def judge(before: PictureNet, after: PictureNet, observed: Observed) -> Outcome:
    """Errors on the held-out part."""
    _, rows = split(len(observed.chosen))
    sums = np.zeros(3)
    for start in range(0, len(rows), _BATCH):
        drawn = rows[start : start + _BATCH]
        reference, target, inside, mouth, bend = _tensors(observed, drawn)
        wanted = target[:, :, MOUTH_ROWS, MOUTH_COLUMNS]
        made = [_window_of(reference, inside, _bent(net(reference, mouth), bend)) for net in (before, after)]
        made.append(reference[:, :, MOUTH_ROWS, MOUTH_COLUMNS])
        sums += [float((picture - wanted).abs().mean()) * len(drawn) for picture in made]
    figures = 255 * sums / len(rows)
    return Outcome(float(figures[0]), float(figures[1]), float(figures[2]))


@torch.no_grad()
def sheet(before: PictureNet, after: PictureNet, observed: Observed) -> np.ndarray:
    """Held-out moments as a picture: how they were, as drawn before, as drawn after; uint8 BGR."""
    _, rows = split(len(observed.chosen))
    # The widest mouth of each stretch: rests look the same in all rows.
    parts = np.array_split(rows, min(_SHOWN, len(rows)))
    drawn = np.array([part[int(observed.mouths[part].max(1).argmax())] for part in parts])
    reference, target, inside, mouth, bend = _tensors(observed, drawn)
    made = [compose(reference, inside, _bent(net(reference, mouth), bend)) for net in (before, after)]
    lines = []
    for name, line in zip(("real", "before", "after"), (target, *made), strict=True):
        tiles = [_tile(one, observed.gains) for one in line]
        for thickness, colour in ((3, (0, 0, 0)), (1, (255, 255, 255))):
            cv2.putText(tiles[0], name, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, thickness, cv2.LINE_AA)
        lines.append(np.hstack(tiles))
    return np.vstack(lines)


def _bent(layers: Layers, bend: Tensor) -> Layers:
    """The layers as the product shows them: bent, as (B, 2, s, s) says in grid units."""
    size = bend.shape[-1]
    ramp = (torch.arange(size, dtype=torch.float32) * 2 + 1) / size - 1
    y, x = torch.meshgrid(ramp, ramp, indexing="ij")
    grid = torch.stack([x + bend[:, 0], y + bend[:, 1]], -1)
    both = torch.cat([layers.flow, layers.alpha], 1)
    both = functional.grid_sample(both, grid, padding_mode="border", align_corners=False)
    return layers._replace(flow=both[:, :2] + bend, alpha=both[:, 2:])


def _window_of(reference: Tensor, inside: Tensor, layers: Layers) -> Tensor:
    light = lit(inside, layers.shade)
    flow, alpha, light = (x[:, :, MOUTH_ROWS, MOUTH_COLUMNS] for x in (layers.flow, layers.alpha, light))
    return window_picture(reference, flow, alpha, light)


def _tensors(observed: Observed, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Reference, target, inside (B, 3, s, s) in [0, 1], mouth (B, 10) and bend (B, 2, s, s)."""
    pictures = (observed.references[observed.chosen[rows]], observed.targets[rows], observed.insides[rows])
    reference, target, inside = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255 for x in pictures)
    mouth, bend = torch.from_numpy(observed.mouths[rows]), torch.from_numpy(observed.bends[rows]).float()
    return reference, target, inside, mouth, bend


def _tile(one: Tensor, gains: np.ndarray) -> np.ndarray:
    """A (3, s, s) picture of the network's as a tile in the avatar's own colours."""
    picture = one.permute(1, 2, 0).numpy() * 255 / gains
    tile = cv2.resize(picture, (_SHOWN_SIDE, _SHOWN_SIDE), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.rint(tile), 0, 255).astype(np.uint8)


def _key(folder: Path, clips: Sequence[Path]) -> str:
    """Names what a saved state belongs to: the avatar, the clips and the model as they are now."""
    digest = hashlib.sha256()
    for path in (folder / "idle.mp4", *clips):
        size = path.stat().st_size if path.is_file() else 0
        digest.update(f"{path.resolve()} {size}\n".encode())
    for path in (_PRODUCT / WEIGHTS_FILE, _PRODUCT / "mouth_inside.npz", LIP_MAP_FILE):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def check_folder(folder: Path, name: str) -> None:
    """Refuses avatars that nobody can have filmed, and folders that cannot be written to.

    Args:
        folder: of the avatar.
        name: of the avatar.

    Raises:
        PortraitInvalid: ``finetune_shipped``.
        ConfigInvalid: ``folder_read_only``.
    """
    if name in PORTRAITS:
        raise PortraitInvalid(
            "finetune_shipped",
            f"{PORTRAITS[name].title} is drawn, comes with Visavis, and was never filmed. Make an avatar of the person "
            "in the video first: python -m engine avatar create.",
        )
    _check_writable(folder, "Copy the avatar, or change its owner.")


def _check_writable(folder: Path, remedy: str) -> None:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigInvalid("folder_read_only", f"Nothing can be written to {existing}. {remedy}")


def install(net: PictureNet, folder: Path) -> None:
    """Puts a network into an avatar's folder: written and checked beside the old one, then exchanged.

    Args:
        net: in evaluation mode.
        folder: of the avatar.

    Raises:
        ValueError: the exported network computes something else; the old one is still there.
    """
    with tempfile.TemporaryDirectory(prefix=".finetune-", dir=folder) as made:
        export(net, Path(made))
        for name in (WEIGHTS_FILE, "picture.bin", "picture.xml"):
            (Path(made) / name).replace(folder / name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line, see the module's docstring.

    Raises:
        NotFound: no such avatar.
        AvatarInvalid: its folder is broken.
        PortraitInvalid: a video cannot be used, is too short, or shows somebody else; the avatar is a shipped one.
        ConfigInvalid: the avatar's folder or the one for what is between is read-only.
        BackendFailed: the face models are not installed.
    """
    parser = argparse.ArgumentParser(prog="python -m engine studio finetune", description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="1 to 5 minutes of the person talking")
    parser.add_argument("--avatar", required=True, help="whose person it is")
    parser.add_argument("--face", choices=("only", "largest"), default="only", help="which of several faces")
    parser.add_argument("--any-person", action="store_true", help="do not compare the face with the avatar's")
    parser.add_argument("--work", type=Path, help="directory for what is between (default: finetune-AVATAR)")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    add_options(parser, ["avatars_dir"])
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    folder = avatar_folder(load_config(vars(options)).avatars_dir, options.avatar)
    check_folder(folder, options.avatar)
    shown = True if options.quiet else None  # tqdm shows nothing where standard error is no terminal
    work, observed = _observed(folder, options, shown)
    if observed.seconds < GOOD_SECONDS:
        print(
            f"Only {observed.seconds:.0f} s of the video can be used; with {GOOD_SECONDS:.0f} s or more it gets better."
        )
    own = folder / WEIGHTS_FILE
    before = load_weights(own if own.exists() else _PRODUCT / WEIGHTS_FILE)
    with tqdm(total=options.steps, desc="learning", unit="step", disable=shown) as bar:
        after = tune(
            before, observed, options.steps, options.rate, work / "state.pt", lambda step, _: _advance(bar, step)
        )
    outcome = judge(before, after, observed)
    cv2.imwrite(str(work / "sheet.png"), sheet(before, after, observed))
    print(
        f"{len(observed.chosen)} pictures; on those held out the mouth was {outcome.before:.2f} grey levels off, now "
        f"{outcome.after:.2f} (a mouth at rest: {outcome.resting:.2f})\n{work / 'sheet.png'}: real, before, after"
    )
    if not outcome.kept:
        print(f"No better than before: {options.avatar} keeps its network.")
        return 0
    install(after, folder)
    print(f"{options.avatar} now has a network of its own in {folder}.")
    return 0


def _observed(folder: Path, options: argparse.Namespace, shown: bool | None) -> tuple[Path, Observed]:
    """Directory for what is between, and the pairs: read back, or made of the clips; leaves nothing when refused."""
    for clip in options.clips:
        if not clip.is_file():
            raise PortraitInvalid("source_missing", f"There is no file {clip}.")
    work = (options.work or Path(f"finetune-{options.avatar}")) / _key(folder, options.clips)
    _check_writable(work, "Name another place: --work DIR.")
    seen = work / "observed.npz"
    if seen.exists():
        return work, Observed.load(seen)
    prepared = product.BuiltinLipSync.load().prepare(load_avatar(folder))
    face: FaceChoice = options.face
    with tqdm(total=100, desc="reading", unit="%", disable=shown) as bar:
        observed = observe(
            prepared, options.clips, FaceMesh.load(), face=face, any_person=options.any_person,
            progress=lambda _, share: _advance(bar, 100 * share),
        )  # fmt: skip
    work.mkdir(parents=True, exist_ok=True)
    observed.save(seen)
    return work, observed


def _advance(bar: tqdm[None], position: float) -> None:
    bar.update(position - bar.n)


if __name__ == "__main__":
    raise SystemExit(main())
