"""``python -m engine render``: a sound file or a text becomes a video, through the pipeline that also runs live."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from engine import registry
from engine.audio.decode import decode_audio
from engine.audio.pcm import to_playout
from engine.avatar.bundle import Avatar, avatar_folder, default_avatar, list_avatars, load_avatar
from engine.config import Config
from engine.config_load import load_config
from engine.conversation.tts.base import is_speakable
from engine.errors import AudioInvalid, BackendFailed, InvalidInput, NotFound, TextInvalid, VisavisError
from engine.lipsync.base import LipSync
from engine.offline import render_offline
from engine.option_docs import add_arguments as add_options
from engine.persona import Persona
from engine.quality import MOST, OFF
from engine.recorder import Recorder
from engine.types import FPS, FRAME_SAMPLES, AvatarFrame
from engine.voice_choice import choose_voice

MAX_SOUND_S = 7200.0
"""Longest sound accepted; it is held in memory, 350 MB an hour. The limits of live sessions do not apply here."""
MAX_TEXT_CHARS = 100_000

_OPTIONS = ["avatar", "avatars_dir", "lipsync", "precision", "restorer", "weights_dir", "voice", "voice_name",
            "voice_rate"]  # fmt: skip
_ENCODER_LEAD_FRAMES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``render``."""
    parser.epilog = "An existing output file is replaced, but only once the new one is complete."
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("sound", nargs="?", type=Path, metavar="SOUND", help="wav, mp3, flac, ogg, opus, m4a or webm")
    source.add_argument("--text", help="speak this instead of a sound file")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="mp4 to write (default: SOUND.mp4, text.mp4)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no summary")
    parser.add_argument(
        "--quality", type=int, choices=range(MOST + 1), default=OFF, metavar="0-5",
        help="restore faces, 0 nothing to 5 the whole face in every picture; needs GFPGAN weights (default: 0)",
    )
    add_options(parser, _OPTIONS)


def run(args: argparse.Namespace) -> int:
    """Renders and writes the video.

    Raises:
        InvalidInput: the sound, the text, or the place to write to cannot be used.
        NotFound: no such avatar or model.
        AvatarInvalid: the avatar's folder is broken.
        ConfigInvalid: an option is wrong.
        BackendFailed: the voice, the model or the encoder failed.
    """
    config = load_config(vars(args))
    output = _output(args)
    avatar = load_avatar(avatar_folder(config.avatars_dir, config.avatar or first_avatar(config)))
    if args.sound is None:
        samples = asyncio.run(spoken(args.text, config, avatar.persona))
    else:
        samples = decode_audio(args.sound, MAX_SOUND_S)
    count = -(-samples.size // FRAME_SAMPLES)
    started_s = time.monotonic()
    with Recorder(output, avatar.size) as recorder:
        lipsync = registry.create_lipsync(config.lipsync, precision=config.precision, weights_dir=config.weights_dir)
        frames = _drawn(_frames(avatar, lipsync, samples, config, args))
        # tqdm shows nothing where standard error is no terminal.
        write_all(recorder, tqdm(frames, output.name, count, unit="frame", disable=True if args.quiet else None))
    if not args.quiet:
        took_s = time.monotonic() - started_s
        length_s = count / FPS
        print(f"{output}: {count} frames, {length_s:.2f} s, {length_s / took_s:.1f} x real time")
    return 0


def _frames(
    avatar: Avatar, lipsync: LipSync, samples: np.ndarray, config: Config, args: argparse.Namespace
) -> Iterator[AvatarFrame]:
    if args.quality == OFF:
        return render_offline(avatar, lipsync, samples)
    restorer = registry.create_restorer(config.restorer, weights_dir=config.weights_dir)
    if restorer is None:
        raise NotFound(
            "restorer_not_found", "There is no face restorer: `python -m engine weights get gfpgan` gets weights of "
            "one. --quality 0 needs none."
        )  # fmt: skip
    bar = tqdm(desc="restoring the avatar", total=avatar.picture_count, unit="picture", leave=False,
               disable=True if args.quiet else None)  # fmt: skip

    def show(done: int, of: int) -> None:
        bar.total = of
        bar.update(done - bar.n)
        if done >= of:
            bar.close()

    return render_offline(avatar, lipsync, samples, restorer=restorer, level=args.quality, progress=show)


def _drawn(frames: Iterable[AvatarFrame]) -> Iterator[AvatarFrame]:
    try:
        yield from frames
    except VisavisError:
        raise
    except Exception as error:
        raise BackendFailed("render_failed", f"The lip-sync model failed on a picture: {error}.") from error


def write_all(recorder: Recorder, frames: Iterable[AvatarFrame]) -> None:
    """Draws frames on this thread and encodes them on another, never more than a few apart."""
    with ThreadPoolExecutor(1, thread_name_prefix="visavis-encode") as encoder:
        waiting: deque[Future[None]] = deque()
        try:
            for frame in frames:
                waiting.append(encoder.submit(recorder.write, frame))
                if len(waiting) > _ENCODER_LEAD_FRAMES:
                    waiting.popleft().result()
            while waiting:
                waiting.popleft().result()
        except BaseException:
            encoder.shutdown(cancel_futures=True)
            raise


def _output(args: argparse.Namespace) -> Path:
    output: Path = args.output or Path("text.mp4" if args.sound is None else args.sound.with_suffix(".mp4").name)
    if output.suffix.lower() != ".mp4":
        raise InvalidInput("output_invalid", f"Cannot write {output}: the output must be named *.mp4.")
    if args.sound is not None and output.exists() and args.sound.exists() and output.samefile(args.sound):
        raise InvalidInput("output_invalid", f"{output} is the sound itself; name another output with -o.")
    return output


def first_avatar(config: Config) -> str:
    """Name of the avatar that is meant when none is named.

    Raises:
        NotFound: ``avatar_not_found`` when there is none at all.
    """
    names = list_avatars(config.avatars_dir)
    if not names:
        raise NotFound("avatar_not_found", f"There is no avatar in {config.avatars_dir}.")
    return default_avatar(names)


async def spoken(text: str, config: Config, persona: Persona | None = None) -> np.ndarray:
    """(N,) int16 mono 48 kHz of a spoken text. Args: persona: whose voice speaks it; nobody's own when None."""
    choice = choose_voice(persona or Persona(), config)
    if len(text) > MAX_TEXT_CHARS:
        raise TextInvalid("text_too_long", f"The text is longer than {MAX_TEXT_CHARS} characters.")
    if not is_speakable(text):
        raise TextInvalid("text_empty", "There is nothing to say: the text is empty.")
    voice = registry.create_voice(
        config.voice,
        url=config.voice_url,
        key=config.voice_key,
        model=config.voice_model,
        name=choice.name,
        rate_wpm=choice.rate_wpm,
        reference=config.voice_reference,
        reference_text=config.voice_reference_text,
    )
    try:
        # Parts of one sentence are joined before they are resampled, or every border would click.
        sentences: list[tuple[int, list[np.ndarray]]] = []
        async for piece in voice.speak(text):
            if piece.text or not sentences:
                sentences.append((piece.sample_rate, []))
            sentences[-1][1].append(piece.samples)
    finally:
        await voice.aclose()
    pieces = [to_playout(np.concatenate(parts), rate) for rate, parts in sentences]
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    if samples.size == 0:
        raise AudioInvalid("audio_empty", "The voice made no sound of this text; use words it can read.")
    return samples

