"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.option_docs import readme_table

ROOT = Path(__file__).resolve().parents[1]


def test_the_readme_lists_every_option_as_the_code_knows_it():
    listed = re.search(r"<!-- options -->\n(.*)\n<!-- /options -->", (ROOT / "README.md").read_text("utf-8"), re.S)

    assert listed is not None
    assert listed.group(1) == readme_table().strip()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "engine/README.md", "server/README.md"])
def test_links_between_documents_lead_somewhere(page: str):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), f"{page} links to {target}"


def test_ci_runs_exactly_the_test_command_of_the_readme():
    assert "make test" in (ROOT / "README.md").read_text("utf-8")
    assert (ROOT / ".ci" / "run").read_text("utf-8").strip().endswith("exec make test")
