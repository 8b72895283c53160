"""What a worker wants to survive it: sent once, again when a report is lost, and all of it to a new directory."""

from __future__ import annotations

from server.cluster.worker_memory import WorkerMemory


async def _nowhere(session_id: str) -> bytes | None:
    return b'{"of": "another"}' if session_id == "other-x" else None


async def test_only_what_changed_is_told() -> None:
    memory = WorkerMemory(_nowhere)
    await memory.keep("w-a", {"lines": 1})
    await memory.keep("w-b", {"lines": 1})
    assert memory.news.is_set() and set(memory.changes()) == {"w-a", "w-b"}
    await memory.keep("w-a", {"lines": 1})
    assert not memory.news.is_set() and memory.changes() == {}
    await memory.keep("w-a", {"lines": 2})
    await memory.forget("w-b")
    assert memory.changes() == {"w-a": b'{"lines":2}', "w-b": None}


async def test_a_lost_report_is_told_again_and_the_latest_word_counts() -> None:
    memory = WorkerMemory(_nowhere)
    await memory.keep("w-a", {"lines": 1})
    lost = memory.changes()
    await memory.keep("w-a", {"lines": 2})
    memory.give_back(lost)
    assert memory.changes() == {"w-a": b'{"lines":2}'}


async def test_a_new_directory_is_told_everything() -> None:
    memory = WorkerMemory(_nowhere)
    await memory.keep("w-a", {})
    memory.changes()
    assert memory.everything() == {"w-a": b"{}"}


async def test_sessions_of_others_are_asked_for() -> None:
    memory = WorkerMemory(_nowhere)
    await memory.keep("w-a", {"mine": True})
    assert await memory.recall("w-a") == {"mine": True}
    assert await memory.recall("other-x") == {"of": "another"}
    assert await memory.recall("nobody-x") is None
