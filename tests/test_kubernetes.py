"""The Kubernetes manifests: valid, and the same parts as the compose file's, by the same names."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import yaml

from bots.cli.commands import henji
from core.observe import metrics
from core.settings import Settings
from tests.optional import tool
from tests.test_docker import known_variables, services

DOCKER = Path(__file__).parents[1] / "docker"
FOLDER = DOCKER / "kubernetes"
MANIFESTS = sorted(
    path for path in FOLDER.glob("*.yaml") if "kind:" in path.read_text() and path.stem != "scrape"
)
Resource = dict[str, Any]


def resources(kind: str = "") -> list[Resource]:
    """Every resource of the folder, of one kind or of all."""
    texts = [path.read_text() for path in MANIFESTS if path.stem != "kustomization"]
    found = [document for text in texts for document in yaml.safe_load_all(text)]
    return [resource for resource in found if kind in ("", resource["kind"])]


WORKLOADS = {w["metadata"]["name"]: w for w in resources("Deployment") + resources("StatefulSet")}
OURS = sorted(set(WORKLOADS) - {"redis"})


def pod(name: str) -> Resource:
    found: Resource = WORKLOADS[name]["spec"]["template"]["spec"]
    return found


def container(name: str) -> Resource:
    (only,) = pod(name)["containers"]
    found: Resource = only
    return found


# -- valid --------------------------------------------------------------------------------------


def test_every_manifest_is_valid_by_the_published_schemas() -> None:
    files = [str(path) for path in MANIFESTS if path.stem != "kustomization"]
    ran = subprocess.run(
        [tool("kubernetes-validate"), "--strict", *files], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.count("passed for resource") == len(resources())


@pytest.mark.parametrize("with_all", [False, True])
def test_kustomize_puts_the_manifests_together(with_all: bool, tmp_path: Path) -> None:
    if which("kubectl") is None:
        pytest.skip("there is no kubectl here")
    for path in FOLDER.rglob("*.yaml"):
        text = path.read_text()
        if with_all and path == FOLDER / "kustomization.yaml":
            text = re.sub(r"(?m)^( *)# (- scaling|components)", r"\1\2", text)
        copy = tmp_path / path.relative_to(FOLDER)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(text)
    ran = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    made = list(yaml.safe_load_all(ran.stdout))
    assert ("HorizontalPodAutoscaler" in {resource["kind"] for resource in made}) == with_all
    assert ("nvidia.com/gpu" in ran.stdout) != with_all
    assert ("HENJI_DEVICE" in ran.stdout) == with_all
    assert {r["metadata"].get("namespace", "henji") for r in made} == {"henji"}


def test_every_manifest_is_listed() -> None:
    text = (FOLDER / "kustomization.yaml").read_text()
    listed = set(re.findall(r"- (\w+\.yaml)", text))
    applied = {path.name for path in MANIFESTS} - {"kustomization.yaml"}
    assert listed == applied


# -- names and ports ----------------------------------------------------------------------------


def test_every_selector_matches_pods() -> None:
    labels = [w["spec"]["template"]["metadata"]["labels"] for w in WORKLOADS.values()]
    selectors = [s["spec"]["selector"] for s in resources("Service")]
    selectors += [b["spec"]["selector"]["matchLabels"] for b in resources("PodDisruptionBudget")]
    policies = [p["spec"] for p in resources("NetworkPolicy")]
    selectors += [p["podSelector"]["matchLabels"] for p in policies]
    selectors += [
        source["podSelector"]["matchLabels"]
        for policy in policies for rule in policy["ingress"] for source in rule.get("from", ())
    ]  # fmt: skip
    assert len(selectors) > 9
    for selector in selectors:
        assert any(selector.items() <= there.items() for there in labels), selector
    for workload in WORKLOADS.values():
        selected = workload["spec"]["selector"]["matchLabels"]
        assert selected.items() <= workload["spec"]["template"]["metadata"]["labels"].items()


def test_services_and_policies_name_ports_that_their_pods_have() -> None:
    for service in resources("Service"):
        name = service["spec"]["selector"]["app.kubernetes.io/name"]
        ports = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    open_ = {p["containerPort"] for name in WORKLOADS for p in container(name)["ports"]}
    for policy in resources("NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= open_


def test_only_our_own_pods_reach_redis() -> None:
    clients = {
        name for name, workload in WORKLOADS.items()
        if workload["spec"]["template"]["metadata"]["labels"].get("henji/redis") == "client"
    }  # fmt: skip
    assert clients == set(OURS)


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_every_mount_is_a_volume_that_the_page_creates(name: str) -> None:
    page = (DOCKER / "README.md").read_text()
    made = set(re.findall(r"kubectl [^\n]*create (?:configmap|secret generic) ([\w-]+)", page))
    assert made == {"company", "redis-scripts", "henji"}
    volumes = {volume["name"]: volume for volume in pod(name)["volumes"]}
    claims = {
        c["metadata"]["name"] for c in WORKLOADS[name]["spec"].get("volumeClaimTemplates", ())
    }
    assert {mount["name"] for mount in container(name)["volumeMounts"]} == volumes.keys() | claims
    for volume in volumes.values():
        assert "emptyDir" in volume or {
            volume.get("configMap", {}).get("name"), volume.get("secret", {}).get("secretName")
        } & made  # fmt: skip


# -- the same parts as in the compose file ------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_a_pod_runs_a_command_with_settings_and_secrets_that_there_are(name: str) -> None:
    compose = services(DOCKER / "compose.yaml")[name]
    assert container(name)["args"] == compose["command"] == [name]
    assert name in henji.commands
    assert container(name)["image"] == compose["image"].partition(":")[0]
    given = {variable["name"]: variable["value"] for variable in container(name)["env"]}
    assert {key for key in given if not key.startswith("T")} <= known_variables()
    expected = {k: v for k, v in compose["environment"].items() if str(v).startswith("/")}
    assert {k: v for k, v in given.items() if v.startswith("/")} == expected
    (secrets,) = (v["secret"] for v in pod(name)["volumes"] if "secret" in v)
    assert [item["path"] for item in secrets["items"]] == compose["secrets"]
    assert all(item["key"] == item["path"] for item in secrets["items"])


@pytest.mark.parametrize("name", OURS)
def test_a_pod_is_probed_drained_and_limited(name: str) -> None:
    assert pod(name)["terminationGracePeriodSeconds"] > Settings().drain_seconds
    probes = {probe: container(name)[f"{probe}Probe"]["httpGet"]
              for probe in ("startup", "readiness", "liveness")}  # fmt: skip
    assert {probe["port"] for probe in probes.values()} == {"metrics"}
    assert probes["readiness"]["path"] == "/readyz"
    assert probes["startup"]["path"] == probes["liveness"]["path"] == "/healthz"
    (budget,) = (b for b in resources("PodDisruptionBudget") if b["metadata"]["name"] == name)
    assert budget["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_a_pod_can_do_no_more_than_it_needs(name: str) -> None:
    assert pod(name)["securityContext"]["runAsNonRoot"]
    assert not pod(name)["automountServiceAccountToken"]
    rights = container(name)["securityContext"]
    assert rights["readOnlyRootFilesystem"]
    assert not rights["allowPrivilegeEscalation"]
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert "memory" in container(name)["resources"]["limits"]


def test_redis_is_started_as_in_the_compose_file_within_the_same_limit() -> None:
    compose = services(DOCKER / "compose.yaml")["redis"]
    shell, *command = container("redis")["command"]
    assert (shell, command) == ("sh", compose["command"])
    assert container("redis")["resources"]["limits"]["memory"] == "2Gi"
    assert compose["deploy"]["resources"]["limits"]["memory"] == "2G"
    assert container("redis")["image"] == compose["image"]


def test_a_core_asks_for_a_gpu() -> None:
    assert container("core")["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_cores_are_scaled_on_a_metric_and_a_lane_that_there_are() -> None:
    (scaler,) = resources("HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    assert WORKLOADS[target["name"]]["kind"] == target["kind"]
    assert "replicas" not in WORKLOADS[target["name"]]["spec"]
    (external,) = (metric["external"] for metric in scaler["spec"]["metrics"])
    assert external["metric"]["name"] in metrics.names()
    assert external["metric"]["selector"]["matchLabels"].keys() <= set(
        metrics.JOBS_WAITING._labelnames
    )
    adapter = yaml.safe_load((FOLDER / "adapter-values.yaml").read_text())
    (rule,) = adapter["rules"]["external"]
    assert rule["seriesQuery"] == rule["name"]["as"] == external["metric"]["name"]


def test_prometheus_finds_the_jobs_that_the_alerts_name() -> None:
    (scrape,) = yaml.safe_load((FOLDER / "scrape.yaml").read_text())["scrape_configs"]
    (kept,) = (r["regex"] for r in scrape["relabel_configs"] if r.get("action") == "keep")
    assert all(kept in {port["name"] for port in container(name)["ports"]} for name in OURS)
    named = {
        r["source_labels"][0] for r in scrape["relabel_configs"] if r.get("target_label") == "job"
    }
    assert named == {"__meta_kubernetes_pod_label_app_kubernetes_io_name"}
    jobs = re.findall(r'job=~?"([\w|]+)"', (DOCKER / "monitoring/alerts.yaml").read_text())
    assert {job for names in jobs for job in names.split("|")} == set(OURS)
