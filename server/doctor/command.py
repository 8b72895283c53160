"""``python -m server doctor``: looks at this machine and the options, and says what to change.

Place in the flow: command line -> ``examine`` -> text, or JSON; a running server starts it for ``GET /doctor.json``.

Exit code: 0 when there is no problem, 1 when there is one, or when the options themselves cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from engine.config import Config
from engine.config_load import load_config
from engine.errors import ConfigInvalid, VisavisError
from engine.option_docs import add_arguments
from server.doctor.examine import examine
from server.doctor.report import GROUPS, Finding, line, summary, to_json, worst

_NICENESS = 10
"""Asked by a running server, the sessions it has are more important."""


def main(argv: Sequence[str], version: str) -> int:
    """Runs the command; returns the exit code.

    Args:
        argv: words after ``doctor``.
        version: of this server.
    """
    parser = argparse.ArgumentParser(
        prog="python -m server doctor",
        description="Looks at everything a talking head needs, with the options of the server, and says what to change."
        " Configured services are asked for a word each.",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--running", action="store_true", help=argparse.SUPPRESS)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        config = _told_by_server() if arguments.running else load_config(vars(arguments))
    except VisavisError as error:
        return _without_options(error, arguments.json, version)
    # What checks find is in the report; the log would say it again.
    logging.basicConfig(level=logging.DEBUG if config.log_level == "debug" else logging.CRITICAL)
    findings = asyncio.run(_run(config, arguments.running, arguments.json))
    if arguments.json:
        print(json.dumps(to_json(findings, version), indent=2, ensure_ascii=False))
    else:
        print(f"\n{summary(findings)}")
    return int(worst(findings) == "problem")


async def _run(config: Config, running: bool, silent: bool) -> list[Finding]:
    findings: list[Finding] = []
    group = ""
    async for finding in examine(config, running=running):
        findings.append(finding)
        if silent:
            continue
        if finding.group != group:
            print(f"{'' if not group else chr(10)}{GROUPS[finding.group]}")
            group = finding.group
        print(line(finding), flush=True)
    return findings


def _told_by_server() -> Config:
    """The options of the server that asks, from standard input: keys must not stand in a list of processes.

    Raises:
        ConfigInvalid: ``config_invalid``.
    """
    os.nice(_NICENESS)
    try:
        return Config.model_validate_json(sys.stdin.buffer.read())
    except ValidationError:
        raise ConfigInvalid("config_invalid", "--running is for a server that tells its options.") from None


def _without_options(error: VisavisError, as_json: bool, version: str) -> int:
    change = "python -m server --help tells what is allowed."
    finding = Finding("options", "installation", "problem", error.message, change)
    if as_json:
        print(json.dumps(to_json([finding], version), indent=2, ensure_ascii=False))
    else:
        print(f"{line(finding)}\n\n{summary([finding])}")
    return 1
