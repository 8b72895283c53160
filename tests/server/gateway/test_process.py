"""Starting a process where the machine has nothing left to give."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.config import Config
from engine.errors import BackendFailed
from server.gateway import process
from server.gateway.process import Share, start


@pytest.mark.parametrize("pipes", [0, 1, 2])
async def test_what_cannot_be_started_says_so_and_leaves_no_files_open(tmp_path: Path, monkeypatch, pipes: int):
    made: list[int] = []

    class Machine:
        """The module ``os`` with so many pipes left."""

        def __getattr__(self, name: str):
            return getattr(os, name)

        def pipe(self) -> tuple[int, int]:
            if len(made) == 2 * pipes:
                raise OSError(24, "Too many open files")
            made.extend(os.pipe())
            return made[-2], made[-1]

    monkeypatch.setattr(process, "os", Machine())
    monkeypatch.setattr(process, "_COMMAND", (str(tmp_path / "no such program"),))
    with pytest.raises(BackendFailed) as refused:
        await start(Config(), "w1", tmp_path, Share(1, 1.0, 1, 1))
    assert refused.value.code == "worker_failed"
    assert len(made) == 2 * pipes
    for number in made:
        with pytest.raises(OSError):
            os.fstat(number)
