"""A contact sheet of every viseme on an avatar or a photograph: the quickest way to see what the built-in model does.

Place in the flow: avatar folder, or picture with five landmarks -> ``BuiltinLipSync.draw`` -> PNG to look at.
Commands:
    ``python -m engine.studio.picture_sheet avatars/NAME -o sheet.png``
    ``python -m engine.studio.picture_sheet photo.jpg --landmarks x,y x,y x,y x,y x,y -o sheet.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from engine.avatar.bundle import Avatar, load_avatar
from engine.compose import paste
from engine.errors import NotFound
from engine.lipsync.builtin import BuiltinLipSync
from engine.lipsync.builtin.crop import eye_mouth_distance, mouth_square
from engine.studio.mouth import VISEMES, viseme_vector

_COLUMNS = 6
_TILE_PIXELS = 256
_AROUND = 1.45
"""Side of a tile per side of the mouth square."""


def photo_avatar(path: Path, landmarks: np.ndarray) -> Avatar:
    """A still picture as an avatar, for looking at it only.

    Args:
        path: image file.
        landmarks: (5, 2) pixels: eyes, nose tip, mouth corners, image left before image right.

    Raises:
        NotFound: the file is no picture.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise NotFound("picture_unreadable", f"{path} is no picture that can be read.")
    height, width = image.shape[:2]
    points = landmarks.astype(np.float32)[None]
    box = np.array([[0, height, 0, width]], np.float32)
    return Avatar(path.stem, path.stem, (width, height), "", str(path), False, "", image[None], points, box)


def sheet(lips: BuiltinLipSync, avatar: Avatar, frame_index: int = 0, strength: float = 1.0) -> np.ndarray:
    """Every viseme of ``engine.studio.mouth`` as a tile, named; the first is rest.

    Args:
        lips: the model.
        avatar: whose face.
        frame_index: idle frame.
        strength: factor on the mouth vectors.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    prepared = lips.prepare(avatar)
    points = avatar.landmarks[frame_index]
    centre, side = mouth_square(points, eye_mouth_distance(points))
    tiles = []
    for name in VISEMES:
        mouth = viseme_vector(name) * np.float32(strength)
        image = paste(avatar.frames[frame_index], lips.draw(prepared, frame_index, mouth))
        scale = _TILE_PIXELS / (float(side) * _AROUND)
        corner = _TILE_PIXELS / 2 - scale * centre
        move = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
        way = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        tile = cv2.warpAffine(image, move, (_TILE_PIXELS, _TILE_PIXELS), flags=way, borderMode=cv2.BORDER_REPLICATE)
        for thickness, colour in ((3, (0, 0, 0)), (1, (255, 255, 255))):
            cv2.putText(tile, name, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, thickness, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % _COLUMNS)
    return np.vstack([np.hstack(tiles[i : i + _COLUMNS]) for i in range(0, len(tiles), _COLUMNS)])


def main(argv: list[str] | None = None) -> int:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m engine.studio.picture_sheet", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="avatar folder or picture")
    parser.add_argument("--landmarks", nargs=5, metavar="X,Y", help="of a picture: eyes, nose tip, mouth corners")
    parser.add_argument("--frame", type=int, default=0, help="idle frame of an avatar")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(argv)
    if options.landmarks:
        points = np.array([[float(value) for value in pair.split(",")] for pair in options.landmarks])
        avatar = photo_avatar(options.source, points)
    else:
        avatar = load_avatar(options.source)
    cv2.imwrite(str(options.output), sheet(BuiltinLipSync.load(), avatar, options.frame, options.strength))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
