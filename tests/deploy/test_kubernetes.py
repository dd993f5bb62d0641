"""The Kubernetes manifests: valid, and each says of the others, and of the server, what is so."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute

from rheostat_server.api.health import router
from tests.deploy.files import LAST_SECONDS, MANIFESTS, ROOT, USER, documents
from tests.operations.exported import labels_by_sample

KUBECTL = shutil.which("kubectl")
FOLDER = ROOT / "kubernetes"
OVERLAYS = [FOLDER / "base", FOLDER / "overlays" / "gpu", FOLDER / "monitoring"]
OF_KUBERNETES = re.compile(r"(v1|apps/v1|policy/v1|autoscaling/v2|networking\.k8s\.io/v1)")
RELEASE = "1.32"
"""Of Kubernetes, by whose schemas manifests are checked."""


def one(name: str) -> dict[str, Any]:
    [document] = documents(FOLDER / "base" / f"{name}.yaml")
    return document


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = one("deployment")["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    [found] = pod()["containers"]
    assert isinstance(found, dict)
    return found


def literals(folder: Path) -> dict[str, str]:
    [document] = documents(folder / "kustomization.yaml")
    [generator] = document["configMapGenerator"]
    return dict(text.split("=", 1) for text in generator["literals"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_kubernetes_takes_it(path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="PyPI's kubernetes-validate checks manifests")
    for document in documents(path):
        if OF_KUBERNETES.fullmatch(document.get("apiVersion", "")) and path.parent.name != "gpu":
            validate.validate(document, RELEASE, strict=True)


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not on the PATH; it puts base and overlay together")
@pytest.mark.parametrize("folder", OVERLAYS, ids=lambda path: path.name)
def test_base_and_overlay_go_together_and_what_they_make_is_valid(folder: Path) -> None:
    made = subprocess.run([str(KUBECTL), "kustomize", str(folder)], capture_output=True, text=True, check=True).stdout
    validate = pytest.importorskip("kubernetes_validate", reason="PyPI's kubernetes-validate checks manifests")
    for document in yaml.safe_load_all(made):
        if OF_KUBERNETES.fullmatch(document["apiVersion"]):
            validate.validate(document, RELEASE, strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_manifest_belongs_to_a_kustomization_or_to_helm(path: Path) -> None:
    if path.name not in {"kustomization.yaml", "prometheus-adapter.yaml"}:
        [document] = documents(path.parent / "kustomization.yaml")
        listed = [*document["resources"], *(patch["path"] for patch in document.get("patches", ()))]
        assert path.name in listed


def test_nothing_runs_as_root_or_writes_its_root_or_gains_rights() -> None:
    of_pod, of_container = pod()["securityContext"], container()["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert (of_pod["runAsUser"], of_pod["seccompProfile"]) == (USER, {"type": "RuntimeDefault"})
    assert of_container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["automountServiceAccountToken"] is False


def test_probes_ask_paths_that_the_server_has_at_the_port_that_it_listens_on() -> None:
    known = {route.path for route in router.routes if isinstance(route, APIRoute)}
    [port] = container()["ports"]
    asked = {name: container()[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {each["path"] for each in asked.values()} <= known
    assert {each["port"] for each in asked.values()} == {port["name"]}
    assert asked["livenessProbe"]["path"] == "/health"
    [of_service] = one("service")["spec"]["ports"]
    assert of_service["targetPort"] == port["name"]


@pytest.mark.parametrize("folder", OVERLAYS[:2], ids=lambda path: path.name)
def test_a_pod_has_time_to_drain(folder: Path) -> None:
    [_, seconds] = container()["lifecycle"]["preStop"]["exec"]["command"]
    drain = float(literals(folder)["RHEOSTAT_DRAIN_SECONDS"])
    assert pod()["terminationGracePeriodSeconds"] > int(seconds) + drain + LAST_SECONDS


def test_the_autoscaler_asks_for_gauges_that_a_server_exports_and_the_adapter_knows() -> None:
    asked = [metric["pods"]["metric"]["name"] for metric in one("autoscaler")["spec"]["metrics"]]
    exported = labels_by_sample()
    assert {name: exported[name] for name in asked} == {name: set() for name in asked}
    [values] = documents(FOLDER / "monitoring" / "prometheus-adapter.yaml")
    rules = [rule["seriesQuery"].partition("{")[0] for rule in values["rules"]["custom"]]
    assert rules == asked


@pytest.mark.parametrize("folder", OVERLAYS[:2], ids=lambda path: path.name)
def test_a_pod_is_called_full_before_its_queue_begins(folder: Path) -> None:
    running = one("autoscaler")["spec"]["metrics"][0]["pods"]["target"]["averageValue"]
    assert 0.5 < float(running) / float(literals(folder)["RHEOSTAT_MAX_RUNNING"]) < 1


def test_what_is_selected_is_what_the_pods_are_labelled() -> None:
    labels = one("deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        one("deployment")["spec"]["selector"]["matchLabels"],
        one("service")["spec"]["selector"],
        one("disruption-budget")["spec"]["selector"]["matchLabels"],
        one("network-policy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert selectors == [labels] * 4
    assert one("autoscaler")["spec"]["scaleTargetRef"]["name"] == one("deployment")["metadata"]["name"]


def test_the_job_by_which_pods_are_read_is_that_of_the_alerts() -> None:
    [monitor] = documents(FOLDER / "monitoring" / "pod-monitor.yaml")
    [base] = documents(FOLDER / "base" / "kustomization.yaml")
    assert base["labels"][0]["pairs"][monitor["spec"]["jobLabel"]] == "rheostat"
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == container()["ports"][0]["name"]


def test_the_network_lets_through_what_the_settings_name() -> None:
    address = re.fullmatch(r"http://(\w+)\.(\w+):(\d+)/v1", literals(FOLDER / "base")["RHEOSTAT_UPSTREAM"])
    assert address
    ways = {
        (rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for rule in one("network-policy")["spec"]["egress"]
        for port in rule["ports"]
    }
    assert (address[2], int(address[3])) in ways


def test_secrets_are_named_and_never_held() -> None:
    kinds = {document.get("kind") for path in MANIFESTS for document in documents(path)}
    assert "Secret" not in kinds
    given = {each["name"]: each["valueFrom"] for each in container()["env"]}
    assert all("secretKeyRef" in each for each in given.values())


def test_a_file_that_is_mounted_lies_where_the_settings_look_for_it() -> None:
    mounts = {mount["mountPath"] for mount in container()["volumeMounts"]}
    for name, value in literals(FOLDER / "base").items():
        for path in re.findall(r"/[a-z][\w/.-]*", value) if name in {"RHEOSTAT_POLICY", "RHEOSTAT_ADAPTERS"} else ():
            assert any(path.startswith(f"{mount}/") for mount in mounts)
