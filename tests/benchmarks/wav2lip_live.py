"""``python -m tests.benchmarks.wav2lip_live``: a live session of a Wav2Lip checkpoint on a shipped face, in Chromium.

Place in the flow: server process with ``--lipsync`` <-> Chromium <-> measures -> ``.bench/wav2lip-live.json`` and a
picture of the page.

Invariants: the measurement is that of ``make bench-live`` (see README.md): speech goes in at the browser's microphone
and is spoken by the face; goals are printed beside the figures and decide nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser
from playwright.sync_api import Error as BrowserError

from engine.config_load import load_config
from tests.benchmarks import measures, sounds
from tests.benchmarks.analysis import Unmeasurable
from tests.benchmarks.browser import BrowserMissing, open_browser
from tests.benchmarks.face import mouth_region
from tests.benchmarks.measures import FULL, SAY
from tests.benchmarks.models import own_weights, weights_96
from tests.benchmarks.serving import REPOSITORY, ServerFailed, ServerProcess

OUTPUT = REPOSITORY / ".bench" / "wav2lip-live.json"
LEAST_FPS = 24.5
_HELD, _SPEAKING = 'visavis_frames_total{kind="held"}', 'visavis_frames_total{kind="speaking"}'
_LOOK_AFTER_MS = 4000


def photograph(server: ServerProcess, browser: Browser, out: Path) -> None:
    """A picture of the product's own page in the middle of a sentence."""
    context = browser.new_context(viewport={"width": 900, "height": 900})
    try:
        page = context.new_page()
        page.goto(server.url)
        page.wait_for_selector("#status[data-state=live]")
        page.fill("#text", SAY)
        page.press("#text", "Enter")
        page.wait_for_timeout(_LOOK_AFTER_MS)
        page.screenshot(path=out)
        page.goto("about:blank")
    finally:
        context.close()


def measure(arguments: tuple[str, ...], seconds: float, picture: Path) -> dict[str, Any]:
    """One session.

    Args:
        arguments: of the server.
        seconds: of speech.
        picture: PNG to write.

    Returns:
        What ``measures.stability`` gives, and ``held_frames`` and ``speaking_frames`` counted by the server.
    """
    lengths = replace(FULL, stability_s=seconds)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="visavis-bench-") as scratch:
        folder = Path(scratch)
        speech = sounds.speech(sounds.load_sources(), measures.SETTLE_S + seconds + 5)
        microphone = sounds.write_wav(folder / "speech.wav", speech)
        with ServerProcess(folder / "server.log", arguments=arguments) as server, open_browser(microphone) as browser:
            found = measures.stability(server, browser, mouth_region(server), lengths)
            photograph(server, browser, picture)
    counted = found["server_counted"]
    frames = {"held_frames": counted.get(_HELD, 0), "speaking_frames": counted.get(_SPEAKING, 0)}
    return {**found, **frames, "server_start_s": round(server.start_s, 2), "load_before": round(load, 2)}


def main() -> int:
    """Measures and reports; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.wav2lip_live")
    parser.add_argument("--avatar", default="", help="the face; the server's own choice when left out")
    parser.add_argument("--precision", default="bf16", help="f32, bf16 (default), int8 or auto")
    parser.add_argument("--seconds", type=float, default=30.0, help="of speech (default: 30)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the figures go, and beside them the picture")
    args = parser.parse_args()
    weights_dir, name = weights_96(load_config(warn=lambda _text: None).weights_dir) or own_weights()
    face = ("--avatar", args.avatar) if args.avatar else ()
    arguments = ("--lipsync", name, "--weights-dir", str(weights_dir), "--precision", args.precision, *face)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    picture = args.output.with_suffix(".png")
    try:
        found = measure(arguments, args.seconds, picture)
    except (BrowserMissing, BrowserError, ServerFailed, Unmeasurable) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    args.output.write_text(json.dumps({"lipsync": name, "precision": args.precision, **found}, indent=2) + "\n")
    reached = "reached" if found["decoded_fps"] >= LEAST_FPS else "missed"
    print(f"{found['decoded_fps']:.2f} fps decoded over {found['seconds']:.0f} s (>= {LEAST_FPS:g}: {reached})")
    print(f"{found['freezes']} freezes; {found['held_frames']:.0f} held of {found['speaking_frames']:.0f} frames")
    print(f"server: {found['server_cpu_percent']:.0f} % of a core, {found['rss_mb']:.0f} MB")
    print(f"load before: {found['load_before']}")
    print(f"written to {args.output} and {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
