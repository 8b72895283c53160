"""How an avatar is named to the process that runs the models, which loads it by itself.

Place in the flow: Avatar -> ``prepare_members`` -> ``model_host``.
"""

from __future__ import annotations

from typing import Any

from engine.avatar.bundle import Avatar
from engine.avatar.fingerprint import fingerprint
from engine.errors import BackendFailed


def prepare_members(avatar: Avatar) -> dict[str, Any]:
    """The members of a message about an avatar: where it is, what it must be, and its own network.

    Raises:
        BackendFailed: ``avatar_not_on_disk``.
    """
    if avatar.folder is None:
        raise BackendFailed(
            "avatar_not_on_disk",
            f"The avatar {avatar.name!r} exists in memory only, where a model process cannot see it: keep it in a "
            "folder, or use --model-process off.",
        )
    model = avatar.picture_model
    return {
        "folder": str(avatar.folder.resolve()),
        "fingerprint": fingerprint(avatar),
        "picture_model": str(model.resolve()) if model is not None else None,
    }
