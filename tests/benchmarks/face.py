"""Where the mouth is in the pictures of a server: the region that the measuring page looks at.

Place in the flow: GET /avatars and the avatar's landmarks -> Region -> page.
"""

from __future__ import annotations

import json
import urllib.request

import numpy as np

from engine.avatar.bundle import FACES_FILE
from engine.config_load import load_config
from tests.benchmarks.recording import Region
from tests.benchmarks.serving import ServerProcess

GRID = (28, 24)
"""Columns and rows of grey values that the region is reduced to."""


def mouth_region(server: ServerProcess) -> Region:
    """The mouth of the face that a server shows when none is asked for, by the landmarks in its folder."""
    with urllib.request.urlopen(f"{server.url}/avatars", timeout=5) as response:
        card = json.load(response)["avatars"][0]
    faces = load_config(warn=lambda _text: None).avatars_dir / card["name"] / FACES_FILE
    landmarks = np.load(faces, allow_pickle=False)["landmarks"]
    return region_of(landmarks, (card["width"], card["height"]))


def region_of(landmarks: np.ndarray, size: tuple[int, int]) -> Region:
    """The part of the picture in which lips and chin move.

    Args:
        landmarks: (N, 5, 2) pixels of an idle loop; eyes first, mouth corners last.
        size: width and height of the picture.
    """
    points = np.median(landmarks, axis=0)
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    unit = float(np.linalg.norm(mouth - eyes))
    left, top = float(mouth[0]) - 0.55 * unit, float(mouth[1]) - 0.3 * unit
    width, height = size
    return Region(left / width, top / height, 1.1 * unit / width, 0.9 * unit / height, *GRID)
