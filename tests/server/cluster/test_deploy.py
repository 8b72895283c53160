"""What the deployment files say is what the code knows: options, versions, times."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.config import Config
from engine.option_words import env_of

SERVER = Path(__file__).resolve().parents[3] / "server"
FILES = ("compose.yaml", "kuberay.yaml", "DEPLOY.md")
OF_COMPOSE = {"VISAVIS_ADDRESS"}
"""Variables of the compose file itself."""


@pytest.mark.parametrize("name", FILES)
def test_every_variable_is_an_option(name: str) -> None:
    known = {env_of(option) for option in Config.model_fields} | OF_COMPOSE
    said = set(re.findall(r"VISAVIS_[A-Z_]+[A-Z]", (SERVER / name).read_text("utf-8")))
    assert said and said <= known


def test_files_can_be_read_and_agree() -> None:
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((SERVER / "compose.yaml").read_text("utf-8"))
    assert set(compose["services"]) == {"head", "worker", "gateway", "coturn"}
    documents = list(yaml.safe_load_all((SERVER / "kuberay.yaml").read_text("utf-8")))
    cluster = next(it for it in documents if it["kind"] == "RayCluster")["spec"]
    version = re.search(r"ray\[default\]==([\d.]+)", (SERVER / "cluster" / "requirements.txt").read_text("utf-8"))
    assert version is not None and cluster["rayVersion"] == version[1]
    workers = next(it for it in cluster["workerGroupSpecs"] if it["groupName"] == "workers")["template"]["spec"]
    (container,) = workers["containers"]
    words = container["lifecycle"]["preStop"]["exec"]["command"]
    assert words[:4] == ["python", "-m", "server.cluster", "drain"]
    assert Config().max_session_s < float(words[-1]) < workers["terminationGracePeriodSeconds"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert "KUBERAY_GEN_RAY_START_CMD" in group["template"]["spec"]["containers"][0]["args"][0]


def test_ports_of_the_relay_are_those_that_are_documented() -> None:
    text = (SERVER / "compose.yaml").read_text("utf-8")
    low, high = re.search(r"--min-port=(\d+)", text), re.search(r"--max-port=(\d+)", text)
    assert low is not None and high is not None
    assert f"{low[1]}–{high[1]}" in (SERVER / "DEPLOY.md").read_text("utf-8")
