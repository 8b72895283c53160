"""``python -m server.scaling``: what so many sessions need, and what breaks first; a small model with measured figures.

Place in the flow: a person -> ``Demand`` -> ``plan`` with the figures of ``scaling.toml`` -> ``Plan``. Nothing of the
server is used; ``SCALING.md`` is written from it.

Invariant: every figure stands in ``scaling.toml``, beside the measured points that a test holds the model to.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import re
import shlex
import sys
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("scaling.toml")
FPS = 25
SPARE = 0.15
"""Share of places that stays free, so that the sessions of a lost machine have somewhere to go."""


_COMMAND = "python -m server.scaling"
_BLOCK = re.compile(rf"```\n\$ {re.escape(_COMMAND)}([^\n]*)\n.*?```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for.

    Attributes:
        sessions: at the same time, at the peak.
        talking_share: of them, in which the avatar speaks at one moment.
        session_minutes: how long one lasts.
        viewers: of broadcasts, all together; each broadcast is one talking session.
        broadcasts: how many.
        model, restorer: names of ``scaling.toml``; restorer empty for none.
        gpu: type of the machines' GPUs; empty for none.
    """

    sessions: int = 10
    talking_share: float = 0.3
    session_minutes: float = 10.0
    viewers: int = 0
    broadcasts: int = 0
    model: str = "builtin"
    restorer: str = ""
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What can be bought."""

    cores: int = 16
    memory_gb: float = 64.0
    network_gbit_s: float = 10.0
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What that needs.

    Attributes:
        cores: busy at the peak.
        memory_gb, network_gbit_s, relay_gbit_s: of all machines; through relays.
        gpus: busy ones.
        machines: to buy, the spare included.
        bound_by: what fills a machine first.
        workers, gateways: processes.
        openings_s: sessions that begin in a second.
        clusters: how many it should be split into, each with its own directory.
        estimated: whether figures behind it were never measured.
    """

    cores: float
    memory_gb: float
    network_gbit_s: float
    relay_gbit_s: float
    gpus: float
    machines: int
    bound_by: str
    workers: int
    gateways: int
    openings_s: float
    clusters: int
    estimated: bool
    filled: dict[str, float] = field(default_factory=dict)


def load_table(path: Path = TABLE) -> dict[str, Any]:
    """The figures."""
    return tomllib.loads(path.read_text("utf-8"))


def cores_of(table: dict[str, Any], talking: float, idle: float, viewers: float, model: str = "builtin") -> float:
    """Busy cores of so many sessions, the model on the processor included."""
    session = table["session"]
    talk = session["talking_cores"] + table["models"][model].get("cpu_cores", 0.0)
    return talking * talk + idle * session["idle_cores"] + viewers * session["viewer_cores"]


def plan(demand: Demand, machine: Machine, table: dict[str, Any]) -> Plan:
    """What a demand needs.

    Args:
        demand: what is asked for.
        machine: what it is to run on.
        table: figures.

    Raises:
        ValueError: the model cannot run on what was named.
    """
    session, process, limits = table["session"], table["process"], table["machine"]
    talking = demand.sessions * demand.talking_share + demand.broadcasts
    idle = demand.sessions * (1 - demand.talking_share)
    models = [name for name in (demand.model, demand.restorer) if name]
    on_gpu = [name for name in models if demand.gpu and demand.gpu in table["models"][name].get("gpu_ms", {})]
    for name in models:
        if name not in on_gpu and "cpu_cores" not in table["models"][name]:
            raise ValueError(f"{name} needs a GPU: --gpu {' or '.join(table['models'][name]['gpu_ms'])}")
    on_cpu = "builtin" if demand.model in on_gpu else demand.model
    cores = cores_of(table, talking, idle, demand.viewers, on_cpu)
    gpus = sum(talking * FPS * table["models"][name]["gpu_ms"][demand.gpu] / 1000 for name in on_gpu)
    mbit_s = (
        (talking + demand.viewers) * session["talking_mbit_s"]
        + idle * session["idle_mbit_s"]
        + demand.sessions * session["microphone_mbit_s"]
    )
    workers = max(1, math.ceil(cores / limits["used_share"] / process["worker_cores"]))
    memory_mb = (demand.sessions + demand.broadcasts) * session["memory_mb"] + workers * process["worker_mb"]

    filled = {
        "cores": cores / (machine.cores * limits["used_share"]),
        "memory": memory_mb / 1000 / (machine.memory_gb * 0.9),
        "network": mbit_s / 1000 / (machine.network_gbit_s * limits["network_share"]),
    }
    if gpus:
        if not machine.gpus:
            raise ValueError("the machines have no GPU: --machine-gpus")
        filled["gpu"] = gpus / (machine.gpus * limits["used_share"])
    bound_by = max(filled, key=lambda name: filled[name])
    needed = max(1, math.ceil(filled[bound_by]))
    # One machine alone has nowhere to go anyway; of more, one may be lost.
    machines = needed if needed == 1 else needed + max(1, math.ceil(SPARE * needed))
    openings_s = demand.sessions / (demand.session_minutes * 60)
    clusters = max(workers / process["cluster_workers"], openings_s / process["cluster_openings_s"])
    return Plan(
        cores=round(cores, 1),
        memory_gb=round((memory_mb + machines * process["ray_node_mb"]) / 1000, 1),
        network_gbit_s=round(mbit_s / 1000, 2),
        relay_gbit_s=round(2 * mbit_s / 1000 * session["relayed_share"], 2),
        gpus=round(gpus, 2),
        machines=machines,
        bound_by=bound_by,
        workers=workers,
        gateways=1 if machines == 1 else max(2, math.ceil(openings_s * process["gateway_opening_ms"] / 1000 / 0.5) + 1),
        openings_s=round(openings_s, 1),
        clusters=max(1, math.ceil(clusters)),
        estimated=any(table["models"][name].get("estimated", False) for name in models),
        filled={name: round(share, 2) for name, share in filled.items()},
    )


def main(argv: list[str] | None = None) -> int:
    """Prints a plan; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m server.scaling", description="What so many sessions need.")
    ask = Demand()
    has = Machine()
    parser.add_argument("--sessions", type=int, default=ask.sessions, help="at the same time, at the peak")
    parser.add_argument("--talking-share", type=float, default=ask.talking_share, help="of sessions, at one moment")
    parser.add_argument("--session-minutes", type=float, default=ask.session_minutes, help="how long one lasts")
    parser.add_argument("--viewers", type=int, default=ask.viewers, help="of all broadcasts")
    parser.add_argument("--broadcasts", type=int, default=ask.broadcasts)
    parser.add_argument("--model", default=ask.model, help="builtin, wav2lip-96, wav2lip-256")
    parser.add_argument("--restorer", default=ask.restorer, help="gfpgan; none when left out")
    parser.add_argument("--gpu", default=ask.gpu, help="l4, a100, h100; none when left out")
    parser.add_argument("--machine-cores", type=int, default=has.cores)
    parser.add_argument("--machine-memory-gb", type=float, default=has.memory_gb)
    parser.add_argument("--machine-network-gbit-s", type=float, default=has.network_gbit_s)
    parser.add_argument("--machine-gpus", type=int, default=has.gpus)
    parser.add_argument("--table", type=Path, default=TABLE, help="other figures than these")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--refresh", type=Path, metavar="FILE", help="write what the commands in a document print now")
    said = parser.parse_args(argv)
    if said.refresh:
        said.refresh.write_text(refreshed(said.refresh.read_text("utf-8")), "utf-8")
        return 0
    demand = Demand(
        said.sessions, said.talking_share, said.session_minutes, said.viewers, said.broadcasts, said.model,
        said.restorer, said.gpu,
    )  # fmt: skip
    machine = Machine(said.machine_cores, said.machine_memory_gb, said.machine_network_gbit_s, said.machine_gpus)
    try:
        found = plan(demand, machine, load_table(said.table))
    except (KeyError, ValueError) as error:
        print(f"There is no plan for that: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(found), indent=1) if said.json else _told(found, machine))
    return 0


def refreshed(text: str) -> str:
    """A document with what its commands print now: blocks that begin with ``$ python -m server.scaling``."""
    return _BLOCK.sub(lambda block: f"```\n$ {_COMMAND}{block[1]}\n{_printed(block[1])}```", text)


def _printed(words: str) -> str:
    into = io.StringIO()
    with contextlib.redirect_stdout(into):
        main(shlex.split(words))
    return into.getvalue()


def _told(found: Plan, machine: Machine) -> str:
    lines = [
        f"machines: {found.machines}, of {machine.cores} cores, {machine.memory_gb:g} GB,"
        f" {machine.network_gbit_s:g} Gbit/s" + (f", {machine.gpus} GPUs" if machine.gpus else ""),
        f"filled first: {found.bound_by}  (machines full of "
        + ", ".join(f"{name}: {share:.2f}" for name, share in found.filled.items()) + ")",
        f"busy cores {found.cores:g}, memory {found.memory_gb:g} GB, network {found.network_gbit_s:g} Gbit/s,"
        f" of it through relays {found.relay_gbit_s:g} Gbit/s in and out"
        + (f", GPUs {found.gpus:g}" if found.gpus else ""),
        f"workers: {found.workers}, gateways: {found.gateways}, clusters: {found.clusters};"
        f" sessions that begin in a second: {found.openings_s:g}",
    ]
    if found.estimated:
        lines.append("Some of the figures behind this are estimates: see scaling.toml.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
