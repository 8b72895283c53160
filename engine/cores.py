"""How many processors this process may keep busy: those it may run on, and what of them a container grants it.

Place in the flow: the machine and a container's limits -> ``usable_cores`` -> automatic options, ``server.capacity``.

Invariants:
    * never more than there are, and never less than one;
    * a machine that tells of no limit has none.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_LIMITS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """CPU cores this process may keep busy: it may run on them, and its control group's quota lasts for them.

    A broken core is left out: who has used up a quota stands still until the next period, in the midst of a picture.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, _granted())))


def _granted() -> float:
    """Cores' worth of time that the control groups grant (``docker run --cpus``, ``limits.cpu``, ``CPUQuota``)."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = _GROUPS.read_text("utf-8", "replace").splitlines()
    granted = math.inf
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        # Version 2 has one tree and names no controller, version 1 a tree for each.
        if not controllers or "cpu" in controllers.split(","):
            top = _LIMITS / "cpu" if controllers else _LIMITS
            own = top / path.lstrip("/")
            # A limit is one for everything below. Where a container sees its own folder as the top, the path may be
            # one that only the machine knows, and the top alone is found.
            for folder in (own, *own.parents):
                if folder.is_relative_to(top):
                    granted = min(granted, _quota(folder))
    return granted


def _quota(folder: Path) -> float:
    """What one control group grants, by the file of version 2 (``400000 100000``, ``max 100000``) or the two of 1."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            quota_us, period_us = (int(word) for name in names for word in (folder / name).read_text("ascii").split())
            if quota_us > 0 and period_us > 0:
                return quota_us / period_us
    return math.inf
