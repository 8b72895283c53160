"""The avatars that clients have had prepared, and what restorers left behind for their next pictures.

Place in the flow: a client's question -> ``Shelf.prepare`` -> handle -> ``Shelf.prepared`` with every job.

Invariants:
    * an avatar is loaded and prepared once for all clients, and kept as long as one of them needs it; a few stay;
    * it is the one the client has: both compare its fingerprint;
    * what a client held goes with the client.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.avatar.bundle import Avatar, load_avatar
from engine.avatar.fingerprint import fingerprint
from engine.avatar.pictures import FOLDER, PictureFiles
from engine.errors import BackendFailed, Busy, VisavisError
from engine.lipsync.base import LipSync, PreparedAvatar

PREPARED_LIMIT = 5
"""Prepared avatars that stay though nobody needs them."""
HANDLES_LIMIT = 1000
"""Of one client."""
TRACES_LIMIT = 2000
"""Of one client; the oldest go first, and pictures without one begin afresh."""

_log = logging.getLogger(__name__)

Key = tuple[str, str, str | None]


class Shelf:
    """What is kept for clients.

    Args:
        lipsync: prepares avatars.
        cache_dir: where decoded pictures are kept.
        made_dir: folders of avatars that people made here; what is made of those stays with them.
    """

    def __init__(self, lipsync: LipSync, cache_dir: Path, made_dir: Path) -> None:
        self._lipsync = lipsync
        self._cache_dir, self._made_dir = cache_dir, made_dir
        self._numbers = itertools.count(secrets.randbits(48) + 1)
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, PreparedAvatar] = OrderedDict()
        self._handles: dict[str, dict[int, Key]] = {}
        self._traces: dict[str, OrderedDict[int, object]] = {}

    def admit(self, client: str) -> None:
        """A client is there; only for those anything is kept."""
        with self._lock:
            self._handles.setdefault(client, {})
            self._traces.setdefault(client, OrderedDict())

    def prepare(self, client: str, members: dict[str, Any]) -> int:
        """Prepares an avatar for a client; takes seconds, one at a time.

        Returns:
            The handle.

        Raises:
            BackendFailed: the model cannot use it, or the folder holds another one.
            AvatarInvalid: the folder cannot be used.
            Busy: the client has too many.
        """
        if len(self._handles.get(client, ())) >= HANDLES_LIMIT:
            raise Busy("avatars_full", "This process holds too many avatars.")
        key: Key = (str(members["folder"]), str(members["fingerprint"]), members.get("picture_model"))
        with self._lock:
            prepared = self._kept.get(key)
        if prepared is None:
            avatar = self.load(members)
            try:
                prepared = self._lipsync.prepare(avatar)
            except VisavisError:
                raise
            except Exception as error:
                _log.exception("preparing avatar %s failed", avatar.name)
                raise BackendFailed("prepare_failed", f"The model cannot use the avatar {avatar.name!r}.") from error
        with self._lock:
            self._kept[key] = prepared
            self._kept.move_to_end(key)
            handle = next(self._numbers)
            if client in self._handles:
                self._handles[client][handle] = key
            self._tidy()
        return handle

    def load(self, members: dict[str, Any]) -> Avatar:
        """Loads the avatar that a client means. Raises AvatarInvalid; BackendFailed: ``avatar_changed``."""
        folder, model = Path(str(members["folder"])), members.get("picture_model")
        kept = folder if self._made_dir in folder.parents else self._cache_dir
        avatar = replace(
            load_avatar(folder, PictureFiles(kept / FOLDER)), picture_model=Path(model) if model else None
        )
        if fingerprint(avatar) != members["fingerprint"]:
            raise BackendFailed(
                "avatar_changed", f"The folder of avatar {avatar.name!r} has changed since it was loaded; restart the "
                "server to show the new one."
            )  # fmt: skip
        return avatar

    def prepared(self, client: str, handle: int) -> PreparedAvatar | None:
        """What a handle of a client means."""
        with self._lock:
            key = self._handles.get(client, {}).get(handle)
            return self._kept.get(key) if key is not None else None

    def keep_trace(self, client: str, trace: object | None) -> int:
        """Keeps what a restorer left behind; returns its number, 0 for nothing."""
        if trace is None:
            return 0
        with self._lock:
            traces = self._traces.get(client)
            if traces is None:
                return 0
            number = next(self._numbers)
            traces[number] = trace
            if len(traces) > TRACES_LIMIT:
                traces.popitem(last=False)
            return number

    def trace(self, client: str, number: int) -> object | None:
        """What was kept under a number, if it still is."""
        with self._lock:
            return self._traces[client].get(number) if client in self._traces else None

    def release(self, client: str, number: int) -> None:
        """A client needs an avatar or a trace no more."""
        with self._lock:
            if client in self._traces:
                self._traces[client].pop(number, None)
            if self._handles.get(client, {}).pop(number, None) is not None:
                self._tidy()

    def forget(self, client: str) -> None:
        """A client is gone, and what it held."""
        with self._lock:
            self._traces.pop(client, None)
            self._handles.pop(client, None)
            self._tidy()

    def counts(self) -> dict[str, int]:
        """How much is kept."""
        with self._lock:
            return {
                "avatars": len(self._kept),
                "handles": sum(len(handles) for handles in self._handles.values()),
                "traces": sum(len(traces) for traces in self._traces.values()),
            }

    def _tidy(self) -> None:
        """Lets the avatars go that nobody needs, but the last few."""
        needed = {key for handles in self._handles.values() for key in handles.values()}
        unneeded = [key for key in self._kept if key not in needed]
        for key in unneeded[: max(0, len(self._kept) - max(PREPARED_LIMIT, len(needed)))]:
            del self._kept[key]


