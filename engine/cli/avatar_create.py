"""``python -m engine avatar create``: a photo or a video becomes an avatar, with a preview of it speaking.

Place in the flow: arguments -> ``engine.avatar.prepare`` (-> preview video) -> folder of avatars.

Invariant: with any mistake, on Ctrl-C, and after a failure, the avatars are as they were before.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import numpy as np
from tqdm import tqdm

from engine import registry
from engine.avatar.bundle import Avatar
from engine.avatar.prepare import CreateOptions, check_free, create_avatar, install_avatar
from engine.cli.render import spoken, write_all
from engine.config import Config
from engine.config_load import load_config
from engine.errors import InvalidInput, PortraitInvalid
from engine.offline import render_offline
from engine.option_docs import add_arguments as add_options
from engine.recorder import Recorder
from engine.types import PLAYOUT_RATE

PREVIEW_TEXT = "Hello! This is how I look when I speak. Most people prefer to meet a friendly face."

_IDLE_BEFORE_S = 1.6
_IDLE_AFTER_S = 2.4
_BAR_STEPS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``avatar create``."""
    parser.epilog = (
        "A photo is brought to life: it breathes, blinks and moves a little. A video (10 to 60 s of one person who "
        "looks into the camera, lips closed, is best) keeps its own movement; if the person talks, the mouth is "
        "brought to rest. Real people have to agree: their consent is kept with the avatar."
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="photo (jpg, png, webp) or video of one person")
    parser.add_argument("--name", required=True, help="name of the new avatar: a-z, 0-9, '-', '_'")
    parser.add_argument("--title", default="", help="name shown to people (default: made from --name)")
    consent = parser.add_argument_group("consent (one of these is required)")
    consent.add_argument("--consent", metavar="TEXT", help="'WHO, WHEN, SCOPE' in one text")
    consent.add_argument("--consent-who", metavar="WHO", help="who is shown and agreed")
    consent.add_argument("--consent-when", metavar="WHEN", help="when, e.g. 2026-11-21")
    consent.add_argument("--consent-scope", metavar="SCOPE", help="to what, e.g. 'greeting visitors of our website'")
    consent.add_argument("--synthetic", action="store_true", help="no real person is shown")
    parser.add_argument("--licence", default=CreateOptions.licence, help="of the pictures (default: %(default)s)")
    parser.add_argument("--size", type=int, default=CreateOptions.size, help="side in pixels (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=CreateOptions.seconds, help="length of the idle loop (default: %(default)s)"
    )
    parser.add_argument(
        "--face", choices=("only", "largest"), default=CreateOptions.face, help="what to do about several faces"
    )
    parser.add_argument("--preview", type=Path, metavar="FILE", help="mp4 to write in which the avatar speaks")
    parser.add_argument("--preview-text", default=PREVIEW_TEXT, metavar="TEXT", help="what it says there")
    parser.add_argument("--force", action="store_true", help="replace an avatar of the same name")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no summary")
    add_options(parser, ["avatars_dir", "lipsync", "precision", "weights_dir", "voice", "voice_name", "voice_rate"])


def run(args: argparse.Namespace) -> int:
    """Makes, previews and installs an avatar.

    Raises:
        PortraitInvalid: the source cannot or may not be used; says why and what to do.
        AvatarInvalid: the name is unusable.
        InvalidInput: the preview cannot be written, or its text not be spoken.
        ConfigInvalid: an option is wrong.
        BackendFailed: the face models are not installed, or the preview failed.
    """
    config = load_config(vars(args))
    options = CreateOptions(
        args.name, args.title, consent_text(args), args.synthetic, args.licence, args.size, args.seconds, args.face
    )
    # Before minutes of work, not after them.
    check_free(config.avatars_dir, args.name, force=args.force)
    speech = None if args.preview is None else _preview_speech(args.preview, args.preview_text, config)
    with tqdm(total=_BAR_STEPS, bar_format="{desc:<28}{bar} {percentage:3.0f}% {elapsed}",
              disable=True if args.quiet else None) as bar:  # fmt: skip

        def progress(stage: str, share: float) -> None:
            bar.set_description_str(stage, refresh=False)
            bar.update(max(0, round(share * _BAR_STEPS) - bar.n))

        avatar = create_avatar(args.source, options, progress)
    # A preview that fails leaves the avatars as they were.
    if speech is not None:
        _preview(args.preview, speech, avatar, config)
    folder = install_avatar(config.avatars_dir, avatar, force=args.force)
    if not args.quiet:
        size, seconds = avatar.size[0], len(avatar.frames) / avatar.fps
        print(f"{folder}: {size}x{size}, {seconds:.1f} s loop")
        if speech is not None:
            print(f"{args.preview}: the avatar speaking")
    return 0


def consent_text(args: argparse.Namespace) -> str:
    """The consent as the card keeps it: ``who, when: scope``; empty when none is given.

    Raises:
        PortraitInvalid: ``consent_incomplete``: who, when or scope is missing.
    """
    parts: list[str | None] = [args.consent_who, args.consent_when, args.consent_scope]
    if args.consent is not None:
        parts = [*args.consent.split(",", 2), "", ""][:3]
    if args.consent is None and not any(parts):
        return ""
    who, when, scope = ((part or "").strip() for part in parts)
    if not (who and when and scope):
        raise PortraitInvalid(
            "consent_incomplete",
            "A consent says who agreed, when, and to what: --consent 'Ada Example, 2026-11-21, greeting our visitors', "
            "or --consent-who, --consent-when and --consent-scope.",
        )
    return f"{who}, {when}: {scope}"


def _preview_speech(path: Path, text: str, config: Config) -> np.ndarray:
    """(N,) int16 mono 48 kHz of what is said in the preview, once it is sure that there is a place for it."""
    if path.suffix.lower() != ".mp4":
        raise InvalidInput("output_invalid", f"Cannot write {path}: the preview must be named *.mp4.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InvalidInput("output_invalid", f"Cannot write {path}: it is a folder, or its folder does not exist.")
    return asyncio.run(spoken(text, config))


def _preview(path: Path, speech: np.ndarray, avatar: Avatar, config: Config) -> None:
    """Writes a video in which the avatar rests, speaks and rests again."""
    before, after = (np.zeros(round(seconds * PLAYOUT_RATE), np.int16) for seconds in (_IDLE_BEFORE_S, _IDLE_AFTER_S))
    lipsync = registry.create_lipsync(config.lipsync, precision=config.precision, weights_dir=config.weights_dir)
    with Recorder(path, avatar.size) as recorder:
        write_all(recorder, render_offline(avatar, lipsync, np.concatenate([before, speech, after])))
