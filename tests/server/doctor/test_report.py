"""A report tells everything that was found, and no secret."""

from __future__ import annotations

import json
from pathlib import Path

from engine.config import Config
from server.doctor.report import Finding, Secrets, line, summary, to_json, worst


def finding(verdict, said="It is so.", change=""):
    return Finding("thing", "machine", verdict, said, change)


def test_the_worst_verdict_counts():
    assert worst([]) == "ok"
    assert worst([finding("note"), finding("ok")]) == "note"
    assert worst([finding("warning"), finding("problem"), finding("note")]) == "problem"


def test_secrets_and_the_home_folder_are_hidden_wherever_they_stand():
    config = Config(
        llm_key="sk-secret", voice_key="sk-secret-longer", asr_key="third", turn_secret="shared",
        ice_servers=[{"urls": "turn:t.example", "username": "bob", "credential": "pass"}],
    )  # fmt: skip
    said = f"sk-secret-longer sk-secret third shared pass {Path.home()}/models"
    hidden = Secrets(config).hide(finding("ok", said, said))
    for text in (hidden.said, hidden.change):
        assert text == "*** *** *** *** *** ~/models"


def test_without_secrets_nothing_is_changed():
    same = finding("ok", "As it was.", "Do nothing.")
    assert Secrets(Config()).hide(same) == same


def test_what_to_change_stands_below_what_was_found():
    assert line(finding("problem", "It fails.", "Mend it.")).splitlines() == [
        "  problem  It fails.",
        "           → Mend it.",
    ]


def test_the_last_words_count():
    assert summary([finding("ok")]) == "All is well."
    assert summary([finding("note"), finding("warning")]) == "All that is needed works: 1 warning, 1 note."
    assert "2 problems, 1 warning" in summary([finding("problem"), finding("problem"), finding("warning")])


def test_json_has_verdict_counts_and_all_members():
    report = json.loads(json.dumps(to_json([finding("ok"), finding("warning", change="Do it.")], "1.2.3")))
    assert report["version"] == "1.2.3" and report["verdict"] == "warning"
    assert report["counts"] == {"ok": 1, "note": 0, "warning": 1, "problem": 0}
    assert report["findings"][1] == {
        "check": "thing", "group": "machine", "verdict": "warning", "said": "It is so.", "change": "Do it.",
        "figures": {},
    }  # fmt: skip
