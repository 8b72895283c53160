"""A face and the networks that see it, loaded once."""

from __future__ import annotations

import numpy as np
import pytest

from engine.avatar.bundle import load_avatar
from engine.avatar.landmarks import Face, FaceMesh
from engine.errors import BackendFailed
from tests.avatar.faces import AVATARS


@pytest.fixture(scope="session")
def mesh() -> FaceMesh:
    """Skipped where the face models are not installed."""
    try:
        return FaceMesh.load()
    except BackendFailed as error:
        pytest.skip(error.message)


@pytest.fixture(scope="session")
def idle_frames() -> np.ndarray:
    """(N, 512, 512, 3) pictures of a synthetic person at rest."""
    return load_avatar(AVATARS / "maya").frames


@pytest.fixture(scope="session")
def photo(idle_frames: np.ndarray) -> np.ndarray:
    """(512, 512, 3) a person with open eyes."""
    return idle_frames[0]


@pytest.fixture(scope="session")
def face(mesh: FaceMesh, photo: np.ndarray) -> Face:
    return mesh.find(photo)[0]
