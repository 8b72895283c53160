"""Makes an avatar of a photo or a video, from the file to pictures with landmarks.

Place in the flow: file + options -> ``create_avatar`` -> ``Avatar`` -> ``install_avatar`` -> folder; the command line
and a server's job call the same two functions.

Invariants:
    * a real person needs a recorded consent before anything is read;
    * landmarks are as still as the head: measured once and bent along (photo), or smoothed around the loop (video);
    * a folder appears complete or not at all, and an old one is kept until then.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.avatar.bundle import Avatar, load_avatar, write_avatar
from engine.avatar.card import NAME_PATTERN
from engine.avatar.checks import FaceChoice, check_light, check_mouth, check_place, choose_face
from engine.avatar.eyes import EyeFinder
from engine.avatar.landmarks import Face, FaceMesh, five_landmarks, lip_opening
from engine.avatar.lips import CLOSED_OPENING, close_lips
from engine.avatar.living import LivingPortrait
from engine.avatar.morph import between
from engine.avatar.portrait_crop import cut_portrait, portrait_square
from engine.avatar.quiet_loop import LoopPlan, Survey, plan_loop, survey
from engine.avatar.rest_mouth import RestMouth
from engine.avatar.silhouette import Silhouette
from engine.avatar.smoothing import smooth
from engine.avatar.source import VideoSource, is_photo, read_photo
from engine.errors import AvatarInvalid, Cancelled, PortraitInvalid
from engine.types import FPS

Progress = Callable[[str, float], None]
"""Told the name of a stage and the share done of everything, in [0, 1]."""

SIZES = (256, 1024)
SECONDS = (4.0, 20.0)

_POINTS_SIGMA_FRAMES = 1.0
_LANDMARKS_SIGMA_FRAMES = 1.5
_BOXES_SIGMA_FRAMES = 3.0


@dataclass(frozen=True)
class CreateOptions:
    """What to make.

    Attributes:
        name: of the avatar and its folder.
        title: for people; the name when empty.
        consent: who agreed, when, and to what; required unless ``synthetic``.
        synthetic: True when the source shows no real person.
        licence: of the pictures.
        size: side of the pictures, pixels, even.
        seconds: length of the loop; of a video, at most about this.
        face: ``only`` refuses several faces, ``largest`` takes the largest.
    """

    name: str
    title: str = ""
    consent: str = ""
    synthetic: bool = False
    licence: str = "all rights reserved"
    size: int = 512
    seconds: float = 8.0
    face: FaceChoice = "only"


def create_avatar(
    source: Path,
    options: CreateOptions,
    progress: Progress = lambda stage, share: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Avatar:
    """An avatar made of a photo or a video; writes nothing.

    Args:
        source: jpg, png, webp, or a video.
        options: what to make.
        progress: called on this thread.
        cancelled: asked often, on this thread.

    Returns:
        Avatar, complete and consistent; ``install_avatar`` writes it.

    Raises:
        PortraitInvalid: the source cannot be used, or may not be; says why and what to do.
        AvatarInvalid: the name is unusable, or the source's pictures do not make an avatar.
        BackendFailed: the face models are not installed.
        Cancelled: when asked to.
    """
    _check_options(options)
    source = Path(source)
    progress("reading", 0.0)
    if is_photo(source):
        frames, points = _from_photo(source, options, progress, cancelled)
        kind, sigma = "photo", 0.0
    else:
        frames, points = _from_video(source, options, progress, cancelled)
        kind, sigma = "video", _LANDMARKS_SIGMA_FRAMES
    landmarks = smooth(five_landmarks(points), sigma, cyclic=True)
    size = options.size
    progress("done", 1.0)
    return Avatar(
        name=options.name,
        title=options.title.strip() or options.name.replace("-", " ").replace("_", " ").title(),
        size=(size, size),
        licence=options.licence,
        source=f"Made from the {kind} {source.name}.",
        synthetic=options.synthetic,
        consent=options.consent.strip(),
        frames=frames,
        landmarks=np.clip(landmarks, 0, size - 1),
        boxes=_face_boxes(points),
    )


def install_avatar(directory: Path, avatar: Avatar, *, force: bool = False) -> Path:
    """Writes an avatar's folder below ``directory``, checked by loading it; whole or not at all.

    Args:
        directory: of all avatars; made when missing.
        avatar: its name is the folder's.
        force: replace an avatar of that name.

    Returns:
        The folder.

    Raises:
        PortraitInvalid: ``avatar_exists``, or ``output_invalid`` when nothing can be written there.
        AvatarInvalid: the avatar would not load.
    """
    check_free(directory, avatar.name, force=force)
    goal = directory / avatar.name
    # The dot keeps it off every list, and one directory keeps the renames on one file system.
    work = directory / f".new-{secrets.token_hex(4)}"
    old = work / "old"
    try:
        (work / avatar.name).mkdir(parents=True)
        write_avatar(work / avatar.name, avatar)
        load_avatar(work / avatar.name)
        if goal.exists():
            goal.rename(old)
        try:
            (work / avatar.name).rename(goal)
        except OSError:
            if old.exists():
                old.rename(goal)
            raise
    except OSError as error:
        raise PortraitInvalid("output_invalid", f"Cannot write to {directory}: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(work)
    return goal


def check_free(directory: Path, name: str, *, force: bool) -> None:
    """Refuses a name that is unusable or taken.

    Raises:
        AvatarInvalid: ``avatar_name_invalid``.
        PortraitInvalid: ``avatar_exists``.
    """
    _check_name(name)
    if (directory / name).exists() and not force:
        raise PortraitInvalid(
            "avatar_exists", f"There is an avatar {name!r} already. Choose another name, or replace it with --force."
        )


def _check_name(name: str) -> None:
    if not NAME_PATTERN.fullmatch(name):
        raise AvatarInvalid(
            "avatar_name_invalid",
            f"The name {name!r} is not usable: a-z, 0-9, '-' and '_', a letter or digit first, at most 64 characters.",
        )


def _check_options(options: CreateOptions) -> None:
    _check_name(options.name)
    if not options.synthetic and not options.consent.strip():
        raise PortraitInvalid(
            "consent_missing",
            "An avatar of a real person needs a consent: who agreed, when, and to what "
            "(--consent-who, --consent-when, --consent-scope). A picture of nobody real is --synthetic.",
        )
    if options.size % 2 or not SIZES[0] <= options.size <= SIZES[1]:
        raise PortraitInvalid("size_invalid", f"The size must be even and within {SIZES[0]} to {SIZES[1]} pixels.")
    if not SECONDS[0] <= options.seconds <= SECONDS[1]:
        raise PortraitInvalid("seconds_invalid", f"The loop must last {SECONDS[0]:.0f} to {SECONDS[1]:.0f} seconds.")


def _from_photo(
    source: Path, options: CreateOptions, progress: Progress, cancelled: Callable[[], bool]
) -> tuple[np.ndarray, np.ndarray]:
    """(N, size, size, 3) uint8 pictures and their (N, 468, 2) meshes."""
    image = read_photo(source)
    mesh = FaceMesh.load()
    progress("finding the face", 0.02)
    face = choose_face(mesh.find(image), options.face)
    _check_face(image, face)
    check_mouth(image, face)
    square = portrait_square(image.shape[1], image.shape[0], face.box)
    picture = cut_portrait(image, square, options.size)
    points = square.to_crop(face.points, options.size)
    if float(lip_opening(points)) > CLOSED_OPENING:
        picture = close_lips(picture, points)
        closed = mesh.follow(picture, Face(points, 1.0, face.box))
        points = points if closed is None else closed.points
    progress("outlining head and eyes", 0.05)
    portrait = LivingPortrait(
        picture, points, Silhouette()(picture, points), EyeFinder()(picture, points), zlib.crc32(options.name.encode())
    )
    count = round(options.seconds * FPS)
    frames = np.empty((count, options.size, options.size, 3), np.uint8)
    meshes = np.empty((count, len(points), 2), np.float32)
    for number, living in enumerate(portrait.frames(count)):
        _stop_if(cancelled)
        frames[number], meshes[number] = living.picture, living.points
        progress("bringing it to life", 0.08 + 0.9 * (number + 1) / count)
    return frames, meshes


def _from_video(
    source: Path, options: CreateOptions, progress: Progress, cancelled: Callable[[], bool]
) -> tuple[np.ndarray, np.ndarray]:
    """(N, size, size, 3) uint8 pictures and their (N, 468, 2) meshes."""
    video = VideoSource(source)
    clip = survey(
        video, FaceMesh.load(), options.face, lambda share: progress("following the face", 0.5 * share), cancelled
    )
    plan = plan_loop(clip, round(options.seconds * FPS))
    pictures, points = _cut_clip(video, clip, plan, options.size, lambda share: progress("cutting", 0.5 + 0.2 * share))
    _stop_if(cancelled)
    if not plan.quiet or float(lip_opening(points[plan.rest])) > CLOSED_OPENING:
        mouth = _rest_mouth(pictures[plan.rest], points[plan.rest])
        for number, frame in enumerate(pictures):
            _stop_if(cancelled)
            pictures[frame] = mouth.draw(pictures[frame], points[frame])
            points[frame] = mouth.pose(points[frame])
            progress("bringing the mouth to rest", 0.7 + 0.15 * (number + 1) / len(pictures))
    frames = np.empty((len(plan.first), options.size, options.size, 3), np.uint8)
    for number, (first, second, share) in enumerate(zip(plan.first, plan.second, plan.share, strict=True)):
        _stop_if(cancelled)
        frames[number] = between(pictures[first], pictures[second], float(share))
        progress("closing the loop", 0.85 + 0.13 * (number + 1) / len(frames))
    return frames, plan.mixed(points)[..., :2]


def _cut_clip(
    video: VideoSource, clip: Survey, plan: LoopPlan, size: int, progress: Callable[[float], None]
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """The pictures a plan needs, by frame, cut by one square; and the meshes of all frames in them, smoothed."""
    wanted = set(plan.first.tolist()) | set(plan.second.tolist()) | {plan.rest}
    typical = np.median(clip.points[sorted(wanted)], 0)
    (x1, y1), (x2, y2) = typical[:, :2].min(0), typical[:, :2].max(0)
    square = portrait_square(*clip.size, np.array([y1, y2, x1, x2]))
    pictures: dict[int, np.ndarray] = {}
    for number, image in enumerate(video.frames()):
        if number == plan.rest:
            points = clip.points[number]
            (left, top), (right, bottom) = points[:, :2].min(0), points[:, :2].max(0)
            _check_face(image, Face(points, 1.0, np.array([top, bottom, left, right], np.float32)))
        if number in wanted:
            pictures[number] = cut_portrait(image, square, size)
            progress(len(pictures) / len(wanted))
        if len(pictures) == len(wanted):
            break
    return pictures, square.to_crop(smooth(clip.points, _POINTS_SIGMA_FRAMES, cyclic=False), size)


def _rest_mouth(picture: np.ndarray, points: np.ndarray) -> RestMouth:
    if float(lip_opening(points)) > CLOSED_OPENING:
        picture = close_lips(picture, points)
    return RestMouth(picture, points)


def _check_face(image: np.ndarray, face: Face) -> None:
    check_place(face, image.shape[1], image.shape[0])
    check_light(image, face)


def _face_boxes(points: np.ndarray) -> np.ndarray:
    """(N, 4) float32 y1, y2, x1, x2 of one size, moving as smoothly as the head."""
    low, high = points.min(1), points.max(1)
    middle = smooth((low + high) / 2, _BOXES_SIGMA_FRAMES, cyclic=True)
    half = np.median(high - low, 0) / 2
    first, last = middle - half, middle + half
    return np.stack([first[:, 1], last[:, 1], first[:, 0], last[:, 0]], 1).astype(np.float32)


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled("cancelled", "Making the avatar was cancelled.")
