"""What is left of sessions is bounded, whatever is kept."""

from __future__ import annotations

from server.gateway.memory import LocalMemory


async def test_a_session_that_is_over_when_it_is_kept_costs_nobody_anything():
    memory = LocalMemory(lambda: 1000.0)
    await memory.keep("w1-a", {"end_at_s": 1000.0})
    assert await memory.recall("w1-a") is None
    await memory.keep("w1-b", {"end_at_s": 1001.0})
    await memory.keep("w1-a", {"end_at_s": 999.0})
    assert await memory.recall("w1-b") is not None and await memory.recall("w1-a") is None


async def test_memory_is_bounded_by_time_and_number(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("server.gateway.memory.MAX_SESSIONS", 2)
    memory = LocalMemory(lambda: now[0])
    for name in ("a", "b", "c"):
        await memory.keep(name, {"end_at_s": 1100.0})
    assert await memory.recall("a") is None and await memory.recall("b") is not None
    now[0] = 1101.0
    assert await memory.recall("c") is None
