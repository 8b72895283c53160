"""What the deployment files say is what the code knows: options, versions, times."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config
from engine.config_load import load_config
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


def kubernetes() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((SERVER / "kuberay.yaml").read_text("utf-8")))


def gateways() -> dict[str, Any]:
    cluster = next(it for it in kubernetes() if it["kind"] == "RayCluster")["spec"]
    group = next(it for it in cluster["workerGroupSpecs"] if it["groupName"] == "gateways")
    (container,) = group["template"]["spec"]["containers"]
    return container


def test_workers_may_be_evicted_although_their_owner_has_no_scale() -> None:
    (budget,) = (it["spec"] for it in kubernetes() if it["kind"] == "PodDisruptionBudget")
    # A number that may be missing, and a share, are of a number that only the owner's /scale would tell.
    assert "maxUnavailable" not in budget and isinstance(budget["minAvailable"], int)


def test_gateways_are_not_restarted_for_missing_workers() -> None:
    container = gateways()
    for name in ("startupProbe", "livenessProbe"):
        assert container[name]["tcpSocket"] == {"port": 8080} and "httpGet" not in container[name]
    # A first worker may need a machine that must be added before, and its image loaded.
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 1200
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"


def test_the_operator_is_one_whose_probes_the_image_can_answer() -> None:
    assert "KubeRay 1.6 or newer" in (SERVER / "kuberay.yaml").read_text("utf-8").splitlines()[0]
    assert re.search(r"KubeRay\]\(\S+\) operator, 1\.6 or newer", (SERVER / "DEPLOY.md").read_text("utf-8"))


def test_the_relay_is_reached_over_tcp_too() -> None:
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((SERVER / "compose.yaml").read_text("utf-8"))
    of_compose = compose["services"]["gateway"]["environment"]["VISAVIS_TURN_URLS"]
    of_compose = re.sub(r"\$\{VISAVIS_ADDRESS[^}]*\}", "203.0.113.7", of_compose)
    (of_kubernetes,) = (it["value"] for it in gateways()["env"] if it["name"] == "VISAVIS_TURN_URLS")
    for said, host in ((of_compose, "203.0.113.7"), (of_kubernetes, "turn.visavis.example")):
        urls = load_config(env={"VISAVIS_TURN_URLS": said}).turn_urls
        assert urls == (f"turn:{host}:3478", f"turn:{host}:3478?transport=tcp")


def test_ports_of_the_relay_are_those_that_are_documented() -> None:
    text = (SERVER / "compose.yaml").read_text("utf-8")
    low, high = re.search(r"--min-port=(\d+)", text), re.search(r"--max-port=(\d+)", text)
    assert low is not None and high is not None
    assert f"{low[1]}–{high[1]}" in (SERVER / "DEPLOY.md").read_text("utf-8")
