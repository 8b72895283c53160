"""What axe finds on every page of ours: nothing that keeps people out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
REPOSITORY = Path(__file__).resolve().parents[2]
VIOLATIONS = """axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => [id, ...nodes.map(({ html }) => html.slice(0, 160))]))"""


@pytest.fixture(scope="module")
def axe() -> str:
    """The script; tests are skipped where there is none."""
    finder = Path(__file__).with_name("find-axe.sh")
    found = subprocess.run(["sh", str(finder)], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    if found.returncode:
        pytest.skip("axe is not installed; make test gets it where there is npm")
    return (REPOSITORY / found.stdout.strip()).read_text("utf-8")


@pytest.mark.parametrize(("scheme", "screen"), [("light", DESKTOP), ("dark", PHONE)])
@pytest.mark.parametrize("path", ["", "?lang=zh", "studio", "doctor", "embed"])
def test_axe_finds_nothing_serious(visit, axe, path, scheme, screen):
    # Our own pages forbid scripts of others, so their policy is put aside for this one.
    visited = visit(path, viewport=screen, color_scheme=scheme, bypass_csp=True)
    # Pages fill in what they ask the server for; the doctor goes on asking.
    visited.page.wait_for_timeout(2000)
    visited.page.evaluate(axe)
    assert visited.js(VIOLATIONS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_settings(visit, axe, scheme):
    visited = visit(color_scheme=scheme, bypass_csp=True).alive()
    visited.page.click("#settings-button")
    visited.until("document.querySelector('#settings').matches(':popover-open')")
    visited.page.evaluate(axe)
    assert visited.js(VIOLATIONS) == []
