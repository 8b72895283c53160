"""Makes a shipped avatar from the assets: draws idle loop and clips, writes the avatar folder; draws mouth truth.

Place in the flow: ``PORTRAITS`` + assets -> path tracer in a process of its own -> ``avatars/<name>/``.

Invariants:
    * work can stop and go on: what is drawn stays in the work directory and is not drawn again;
    * the path tracer runs in another interpreter, so the studio itself needs no ``bpy``.

Run: ``python -m engine.studio.portrait avatar maya --assets DIR --work DIR --bpy-python PYTHON --out avatars``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import engine
from engine.avatar.bundle import Avatar, write_avatar
from engine.avatar.footage import Clip
from engine.errors import BackendFailed
from engine.studio.assets import Assets
from engine.studio.cast import PORTRAITS
from engine.studio.human import Human
from engine.studio.idle_motion import Moment, quick_frames
from engine.studio.inbetween import complete_loop
from engine.studio.portrait_scene import Stage
from engine.studio.portrait_truth import collect_truth, pose_boxes, read_picture, truth_mouths, truth_scene
from engine.studio.scene import Scene

SOURCE = (
    "Synthetic person rendered by engine/studio from CC0 assets of the MakeHuman community "
    "(makehumancommunity/makehuman, extra-targets, makehuman-assets); shows no real person."
)

_EYE_STRIP_MARGINS = (23.5, 20, 29, 35)
"""Pixels at 512 that the strip of the eyes reaches beyond them: left, above, right, below."""
_CRF = 9
_FACE_ABOVE_EYES, _FACE_BELOW_MOUTH, _FACE_HALF_WIDTH = 0.95, 0.95, 1.15


@dataclass(frozen=True)
class Tracer:
    """How the path tracer is started.

    Attributes:
        python: interpreter that has ``bpy``.
        size: side of the picture, pixels.
        samples: light paths per pixel.
        threads: processor threads.
    """

    python: Path
    size: int = 512
    samples: int = 6
    threads: int = 2

    def draw(self, scene: Scene, pictures: Path, frames: Sequence[int]) -> None:
        """Draw frames of a scene to ``pictures/<frame>.png``; those that exist are kept.

        Raises:
            BackendFailed: the tracer ended with an error.
        """
        if all((pictures / f"{frame:04d}.png").is_file() for frame in frames):
            return
        pictures.mkdir(parents=True, exist_ok=True)
        path = pictures.with_suffix(".npz")
        scene.save(path)
        options = {"--size": self.size, "--samples": self.samples, "--threads": self.threads}
        command = [str(self.python), "-m", "engine.studio.path_tracer", str(path), str(pictures)]
        for option, value in options.items():
            command += [option, str(value)]
        command += ["--frames", ",".join(str(frame) for frame in frames)]
        root = Path(engine.__file__).parent.parent
        finished = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(root)}, check=False)
        path.unlink()
        if finished.returncode:
            raise BackendFailed("path_tracer_failed", f"The path tracer ended with status {finished.returncode}.")


def face_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Face boxes from brow to chin with a margin.

    Args:
        landmarks: (N, 5, 2) pixels.

    Returns:
        (N, 4) float32 y1, y2, x1, x2.
    """
    eyes, mouth = landmarks[:, :2].mean(axis=1), landmarks[:, 3:].mean(axis=1)
    distance = np.linalg.norm(mouth - eyes, axis=1)
    middle = (eyes[:, 0] + mouth[:, 0]) / 2
    return np.stack(
        [
            eyes[:, 1] - _FACE_ABOVE_EYES * distance,
            mouth[:, 1] + _FACE_BELOW_MOUTH * distance,
            middle - _FACE_HALF_WIDTH * distance,
            middle + _FACE_HALF_WIDTH * distance,
        ],
        axis=1,
    ).astype(np.float32)


def eye_strip(landmarks: np.ndarray, size: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 pixels of a strip that holds both eyes in every frame of a loop."""
    scale = size / 512
    left, above, right, below = (margin * scale for margin in _EYE_STRIP_MARGINS)
    eyes = landmarks[:, :2].reshape(-1, 2)
    low, high = eyes.min(axis=0), eyes.max(axis=0)
    return int(low[0] - left), int(low[1] - above), int(high[0] + right), int(high[1] + below)


def draw_idle(stage: Stage, tracer: Tracer, work: Path) -> None:
    """Draw what the idle loop needs: its key frames, and the eyes where lids or gaze move between them."""
    idle = stage.portrait.idle
    keys = range(0, idle.frames, stage.portrait.key_every)
    quick = quick_frames(idle.frames, idle.blinks, idle.fixations, keys)
    _draw(stage, tracer, stage.idle_moments(), keys, quick, work / "loop", work / "eyes")


def draw_action(stage: Stage, tracer: Tracer, name: str, work: Path) -> None:
    """Draw what a clip needs; its first picture is the idle loop's."""
    action = stage.portrait.actions[name]
    quick = quick_frames(action.frames, action.blinks, action.fixations, action.keys)
    moments = stage.action_moments(action)
    _draw(stage, tracer, moments, action.keys[1:], quick, work / name, work / f"{name}_eyes")


def _draw(
    stage: Stage,
    tracer: Tracer,
    moments: Sequence[Moment],
    keys: Sequence[int],
    quick: Sequence[int],
    whole: Path,
    eyes: Path,
) -> None:
    tracer.draw(stage.scene(moments), whole, keys)
    if not quick:
        return
    strip = np.array(eye_strip(stage.landmarks(moments, tracer.size), tracer.size), np.float32)
    borders = np.tile(strip / tracer.size, (len(moments), 1))
    scene = stage.scene(moments, borders)
    seen = [part for part in scene.parts if part.name not in ("clothes", "teeth", "tongue")]
    tracer.draw(replace(scene, parts=seen), eyes, quick)


def build_avatar(stage: Stage, name: str, size: int, work: Path, out: Path) -> Avatar:
    """Write the avatar folder from what was drawn; clips of which nothing was drawn are left out.

    Returns:
        The avatar.
    """
    moments = stage.idle_moments()
    landmarks = stage.landmarks(moments, size)
    drawn = _pictures(work / "loop", len(moments))
    frames = _complete(stage, moments, landmarks, drawn, work / "eyes")
    clips = {}
    for action_name, action in stage.portrait.actions.items():
        keys = _pictures(work / action_name, action.frames)
        if len(keys) < len(action.keys) - 1:
            continue
        acted = stage.action_moments(action)
        points = stage.landmarks(acted, size)
        pictures = _complete(stage, acted, points, {0: drawn[0], **keys}, work / f"{action_name}_eyes")
        clips[action_name] = Clip(pictures, points, face_boxes(points), action.loop)
    avatar = Avatar(
        name=name,
        title=stage.portrait.title,
        size=(size, size),
        licence="CC0-1.0",
        source=SOURCE,
        synthetic=True,
        consent="",
        frames=frames,
        landmarks=landmarks,
        boxes=face_boxes(landmarks),
        clips=clips,
    )
    # Finer than the default: the step from the last picture to the loop's first, a key picture, is seen least so.
    write_avatar(out / name, avatar, crf=_CRF)
    return avatar


def _complete(
    stage: Stage, moments: Sequence[Moment], landmarks: np.ndarray, drawn: dict[int, np.ndarray], eyes: Path
) -> np.ndarray:
    size = next(iter(drawn.values())).shape[0]
    corner = eye_strip(landmarks, size)[:2]
    return complete_loop(drawn, stage.visible_points(moments, size), _pictures(eyes, len(moments)), corner)


def draw_truth(stage: Stage, tracer: Tracer, work: Path, out: Path, poses: int, mouths: int) -> None:
    """Draw mouths in some poses of the idle loop to ``out/pose<k>.npz``; see ``portrait_truth``."""
    moments = stage.idle_moments()
    landmarks, boxes = pose_boxes(stage, moments, tracer.size)
    vectors = truth_mouths(poses, mouths, seed=3)
    for pose in range(poses):
        target = out / f"pose{pose:02d}.npz"
        if target.is_file():
            continue
        frame = (pose * len(moments)) // poses + 5
        scene = truth_scene(stage, moments[frame], boxes[frame], vectors[pose], tracer.size)
        pictures = work / f"truth{pose:02d}"
        tracer.draw(scene, pictures, range(len(vectors[pose])))
        collect_truth(pictures, target, vectors[pose], boxes[frame], landmarks[frame])


def _pictures(folder: Path, count: int) -> dict[int, np.ndarray]:
    paths = {number: folder / f"{number:04d}.png" for number in range(count)}
    return {number: read_picture(path) for number, path in paths.items() if path.is_file()}


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module docstring and ``README.md``."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.studio.portrait", description="Make a shipped avatar from the assets."
    )
    parser.add_argument("what", choices=("avatar", "assemble", "truth"))
    parser.add_argument("name", choices=sorted(PORTRAITS))
    parser.add_argument("--assets", type=Path, required=True, help="unpacked assets directory")
    parser.add_argument("--work", type=Path, required=True, help="directory for drawn pictures")
    parser.add_argument("--out", type=Path, required=True, help="avatars directory, or directory of the truth")
    parser.add_argument("--bpy-python", type=Path, default=Path("python3"), help="interpreter that has bpy")
    parser.add_argument("--size", type=int, default=512, help="side of the picture, pixels")
    parser.add_argument("--samples", type=int, default=6, help="light paths per pixel")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clips", default="greeting,listening,nod,thinking", help="avatar: clips to draw, with commas; empty for none"
    )
    parser.add_argument("--poses", type=int, default=12, help="truth: poses")
    parser.add_argument("--mouths", type=int, default=12, help="truth: mouths per pose")
    options = parser.parse_args(argv)
    stage = Stage(Human(Assets.open(options.assets)), PORTRAITS[options.name])
    tracer = Tracer(options.bpy_python, options.size, options.samples, options.threads)
    if options.what == "truth":
        draw_truth(stage, tracer, options.work, options.out, options.poses, options.mouths)
        return 0
    if options.what == "avatar":
        draw_idle(stage, tracer, options.work)
        for action in options.clips.split(",") if options.clips else ():
            draw_action(stage, tracer, action, options.work)
    avatar = build_avatar(stage, options.name, options.size, options.work, options.out)
    print(f"{options.out / options.name}: {len(avatar.frames)} frames")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
