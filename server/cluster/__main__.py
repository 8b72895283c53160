"""``python -m server.cluster``: looks at a cluster, drains parts of it, gives it other options, or starts one here.

Place in the flow: a person, a deployment's script or a hook of Kubernetes -> the directory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

from engine.config_load import load_config
from engine.errors import VisavisError
from engine.option_docs import add_arguments
from server.cluster import ray_node
from server.cluster.ray_fleet import DirectoryClient
from server.cluster.settings import Settings

LOOK_S = 1.0


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m server.cluster", description="Visavis on many machines.")
    commands = parser.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help="the workers, as JSON")
    drain = commands.add_parser("drain", help="let a worker, or all of a machine, finish and leave")
    drain.add_argument("target", nargs="?", default="", help="name of a worker, or id of a node (its beginning)")
    drain.add_argument("--this-node", action="store_true", help="the machine that this runs on")
    drain.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="until they have left")
    rollout = commands.add_parser("rollout", help="replace all workers, with the options that are set now")
    rollout.add_argument("--at-once", type=int, default=1, metavar="N", help="so many at the same time")
    rollout.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="until all are replaced")
    local = commands.add_parser("local", help="a cluster of several nodes on this machine, to try it out")
    local.add_argument("--nodes", type=int, default=2, metavar="N")
    local.add_argument("--gateways", type=int, default=1, metavar="N", help="on this port and those after it")
    for command in (status, drain, rollout, local):
        add_arguments(command)
    words = vars(parser.parse_args(argv))
    ours = ("command", "target", "this_node", "wait", "at_once", "nodes", "gateways")
    own: dict[str, Any] = {name: words.pop(name) for name in ours if name in words}
    try:
        config = load_config(words)
        if own["command"] == "local":
            from server.cluster.local import run

            return run(config, own["nodes"], own["gateways"])
        settings = Settings.of(config)
        node = ray_node.join(config.cluster or "auto")
        try:
            return asyncio.run(_carry_out(own, settings))
        finally:
            node.leave()
    except VisavisError as error:
        print(error.message, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


async def _carry_out(own: dict[str, Any], settings: Settings) -> int:
    client = DirectoryClient()
    if own["command"] == "status":
        print(json.dumps(await client.call("status"), indent=1))
        return 0
    until_s = time.monotonic() + own["wait"]
    if own["command"] == "rollout":
        number = await client.call("rollout", settings, max(1, own["at_once"]))
        print(f"{number} workers are being replaced.")
        while (await client.call("status"))["rollout"] is not None:
            if time.monotonic() >= until_s:
                return 0 if not own["wait"] else 2
            await asyncio.sleep(LOOK_S)
        print("All workers have the new options.")
        return 0
    target = ray_node.load_ray().get_runtime_context().get_node_id() if own["this_node"] else own["target"]
    if not target:
        print("Say which: the name of a worker, the id of a node, or --this-node.", file=sys.stderr)
        return 1
    names = set(await client.call("drain", target))
    print(f"Draining {len(names)} workers." if names else "There is no such worker, and none on such a node.")
    while own["wait"] and names & {worker["name"] for worker in (await client.call("status"))["workers"]}:
        if time.monotonic() >= until_s:
            return 2
        await asyncio.sleep(LOOK_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
