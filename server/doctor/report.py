"""What the doctor found: one verdict and one sentence for each check, and what to change where something is wrong.

Place in the flow: checks -> ``Finding`` -> text for a terminal, JSON for programs and the page.

Invariants:
    * no secret of the options is in a report, whatever a check or a library wrote into its sentence;
    * names of checks are stable, sentences are for people;
    * a report is good when nothing in it is a problem.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from engine.config import Config

Verdict = Literal["ok", "note", "warning", "problem"]
VERDICTS: tuple[Verdict, ...] = ("ok", "note", "warning", "problem")
"""From good to bad: a note is worth knowing, a warning works worse than it could, a problem does not work."""

GROUPS = {
    "installation": "Installation",
    "face": "Face",
    "machine": "Machine",
    "conversation": "Conversation",
    "address": "Address and access",
    "network": "Network",
}
"""Groups of checks in the order in which they are told."""

Figures = dict[str, float | int | str]
"""What was measured, by names with units."""

_HIDDEN = "***"
_SHORTEST = 4
"""What is shorter is no secret, and would be found in every other word."""
_WIDTH = 9


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: its stable name, such as ``turn``.
        group: one of ``GROUPS``.
        verdict: how good it is.
        said: one sentence for a person.
        change: what to do about it; empty where nothing needs to be done.
        figures: what was measured, by names with units.
    """

    check: str
    group: str
    verdict: Verdict
    said: str
    change: str = ""
    figures: Figures = field(default_factory=dict)


class Secrets:
    """Hides what nobody else may read."""

    def __init__(self, config: Config) -> None:
        """Args: config: its keys, secrets and credentials are what is hidden."""
        found = {config.voice_key, config.asr_key, config.llm_key, config.turn_secret}
        found |= {server.credential or "" for server in config.ice_servers}
        found |= {secret or "" for target in config.publish for secret in (target.url, target.token)}
        long_enough = (secret.strip() for secret in found if len(secret.strip()) >= _SHORTEST)
        # The longest first: one may begin with another.
        self._secrets = sorted(long_enough, key=len, reverse=True)
        self._home = str(Path.home())

    def hide(self, finding: Finding) -> Finding:
        """The same finding without secrets, and without the name of whoever's home it is."""
        return replace(finding, said=self._clean(finding.said), change=self._clean(finding.change))

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text.replace(self._home + os.sep, "~" + os.sep) if self._home != os.sep else text


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict; ``ok`` when there is none."""
    return max((finding.verdict for finding in findings), key=VERDICTS.index, default="ok")


def to_json(findings: Collection[Finding], version: str) -> dict[str, Any]:
    """The report for programs.

    Args:
        findings: all of them.
        version: of this server.
    """
    return {
        "version": version,
        "verdict": worst(findings),
        "counts": {verdict: sum(found.verdict == verdict for found in findings) for verdict in VERDICTS},
        "findings": [asdict(finding) for finding in findings],
    }


def line(finding: Finding) -> str:
    """A finding as text: the verdict and what was found, and below it what to change."""
    text = f"  {finding.verdict:<{_WIDTH}}{finding.said}"
    return text + (f"\n  {'':<{_WIDTH}}→ {finding.change}" if finding.change else "")


def summary(findings: Collection[Finding]) -> str:
    """The last words: what has to be done, or that nothing has."""
    counts = {verdict: sum(found.verdict == verdict for found in findings) for verdict in VERDICTS}
    parts = [_count(counts["problem"], "problem"), _count(counts["warning"], "warning"), _count(counts["note"], "note")]
    told = ", ".join(part for part in parts if part)
    if counts["problem"]:
        return f"Something does not work yet: {told}. Lines with → say what to change."
    return f"All that is needed works: {told}." if told else "All is well."


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}" if number else ""
