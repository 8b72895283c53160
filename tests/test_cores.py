"""How many cores there are for this process: by where it may run, and by the quota of its control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import config, cores


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The control groups of a machine with 64 cores; none is limited."""
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "_LIMITS", tmp_path / "limits")
    return tmp_path


def limit(machine: Path, membership: str, **files: str) -> int:
    (machine / "groups").write_text(membership)
    for name, text in files.items():
        path = machine / "limits" / name.replace("__", "/").replace("_of_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cores.usable_cores()


def test_all_where_nothing_is_limited_or_told(machine: Path) -> None:
    assert cores.usable_cores() == 64
    assert limit(machine, "0::/\n") == 64
    assert limit(machine, "nonsense\n0::/a\n", cpu_of_max="max 100000\n", a__cpu_of_max="") == 64
    assert limit(machine, "1:cpu:/\n", cpu__cpu_of_cfs_quota_us="-1\n", cpu__cpu_of_cfs_period_us="100000\n") == 64


@pytest.mark.parametrize(
    ("quota", "usable"), [("800000 100000", 8), ("50000 100000", 1), ("390000 100000", 3), ("9900000 100000", 64)]
)
def test_a_containers_quota_counts_whole_cores_and_one_at_least(machine: Path, quota: str, usable: int) -> None:
    assert limit(machine, "0::/\n", cpu_of_max=quota + "\n") == usable
    assert config.usable_cores() == usable


def test_the_lowest_quota_of_all_groups_above_holds(machine: Path) -> None:
    membership = "0::/machine/pod/container\n"
    assert limit(machine, membership, machine__pod__container__cpu_of_max="max 100000\n") == 64
    assert limit(machine, membership, machine__cpu_of_max="600000 100000\n") == 6
    assert limit(machine, membership, machine__pod__cpu_of_max="400000 100000\n") == 4
    assert limit(machine, membership, elsewhere__cpu_of_max="100000 100000\n") == 4, "a group of others"


def test_a_container_that_knows_itself_by_the_machines_path_finds_its_own_quota(machine: Path) -> None:
    assert limit(machine, "0::/kubepods/pod7/c9\n", cpu_of_max="800000 100000\n") == 8


def test_quotas_of_version_1_count_too(machine: Path) -> None:
    files = {"cpu__docker__c9__cpu_of_cfs_quota_us": "250000\n", "cpu__docker__c9__cpu_of_cfs_period_us": "50000\n"}
    assert limit(machine, "4:memory:/docker/c9\n3:cpu,cpuacct:/docker/c9\n0::/\n", **files) == 5
    assert limit(machine, "3:cpuset:/docker/c9\n", **files) == 64, "a tree without processor time"
