"""The compose files: valid, closed to the world, hardened, and given time to drain."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rheostat_server.adapters import load_adapters
from rheostat_server.demo import adapter_folder
from rheostat_server.settings import Settings
from tests.deploy.files import COMPOSE_FILES, LAST_SECONDS, ROOT, environment, ours, said, services

COMPOSE = shutil.which("docker-compose")
HAPROXY = shutil.which("haproxy")
PROMTOOL = shutil.which("promtool")
SCALE = ROOT / "docker" / "scale"
ALL = [(path, name) for path in COMPOSE_FILES for name in services(path)]
VARIABLES = dict.fromkeys(("MODEL", "ADAPTER", "ADAPTER_ADDRESS", "POLICY", "GRAFANA_PASSWORD"), "./x")


def service(path: Path, name: str) -> dict[str, Any]:
    return services(path)[name]


@pytest.mark.skipif(COMPOSE is None, reason="docker-compose is not on the PATH; Debian's package of that name has it")
@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_docker_compose_takes_it(path: Path) -> None:
    command = [str(COMPOSE), "-f", str(path), "config", "--quiet"]
    ended = subprocess.run(command, env=VARIABLES, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(("path", "name"), ALL)
def test_a_port_is_published_on_this_machine_alone(path: Path, name: str) -> None:
    for port in service(path, name).get("ports", ()):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize(("path", "name"), ALL)
def test_a_service_can_neither_write_its_root_nor_gain_rights(path: Path, name: str) -> None:
    said = service(path, name)
    assert said["read_only"] is True
    assert said["cap_drop"] == ["ALL"]
    assert said["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize(("path", "name"), ALL)
def test_an_image_is_named_by_its_version(path: Path, name: str) -> None:
    assert re.search(r":v?\d+\.\d+", service(path, name)["image"])


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_our_servers_have_time_to_drain(path: Path) -> None:
    for each in ours(path).values():
        leave, drain = (
            float(environment(each).get(f"RHEOSTAT_{name.upper()}", Settings.model_fields[name].default))
            for name in ("leave_seconds", "drain_seconds")
        )
        assert int(each["stop_grace_period"].removesuffix("s")) > leave + drain + LAST_SECONDS


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_our_servers_have_a_policy_or_say_that_they_have_none(path: Path) -> None:
    for each in ours(path).values():
        said = environment(each)
        assert ("RHEOSTAT_POLICY" in said) != (said.get("RHEOSTAT_ALLOW_ANONYMOUS") == "true")


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_our_images_are_built_from_dockerfiles_and_targets_that_are_there(path: Path) -> None:
    for each in ours(path).values():
        build = each["build"]
        dockerfile = ROOT / build["dockerfile"]
        stages = [text.partition(" AS ")[2] for text in said(dockerfile, "FROM")]
        assert build.get("target", stages[-1]) in stages


@pytest.mark.parametrize(("path", "name"), ALL)
def test_files_that_are_mounted_from_the_repository_are_there(path: Path, name: str) -> None:
    for volume in service(path, name).get("volumes", ()):
        source = volume.partition(":")[0]
        assert not source.startswith("./") or (ROOT / source).exists()


def test_the_gateways_ask_the_port_at_which_haproxy_stands_before_vllm() -> None:
    config = (SCALE / "haproxy.cfg").read_text()
    gateway = environment(service(ROOT / "compose.scale.yaml", "gateway"))
    assert gateway["RHEOSTAT_UPSTREAM"] == "http://haproxy:8001/v1"
    [part] = re.findall(r"frontend gateways_of_ours\n(.*?)\n\n", config, re.DOTALL)
    assert "bind :8001" in part
    assert "default_backend vllm" in part


def test_the_page_tells_the_address_that_the_gateways_want() -> None:
    [code] = re.findall(r"python rheostat-gateway\S+ -c \\\n +'(.+)'\n", (ROOT / "docs" / "deploy.md").read_text())
    command = [sys.executable, "-c", code.replace("/a", str(adapter_folder()))]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [ended.stdout.strip()] == load_adapters([adapter_folder()], base_digest=None).ids


def test_haproxy_knows_every_vllm_server_and_asks_paths_that_exist() -> None:
    config = (SCALE / "haproxy.cfg").read_text()
    there = {name for name in services(ROOT / "compose.scale.yaml") if name.startswith("vllm-")}
    assert {*re.findall(r"server (vllm-\d+) ", config)} == there
    assert re.findall(r"http-check send meth GET uri (\S+)", config) == ["/ready", "/health"]


def test_metrics_are_kept_from_callers() -> None:
    config = (SCALE / "haproxy.cfg").read_text()
    [part] = re.findall(r"frontend callers\n(.*?)\n\n", config, re.DOTALL)
    assert "http-request deny deny_status 404 if { path,url_dec /metrics }" in part


def test_prometheus_reads_services_that_exist_under_the_job_of_the_alerts() -> None:
    config = yaml.safe_load((SCALE / "prometheus.yaml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert 'job="rheostat"' in (ROOT / "operations" / "prometheus" / "alerts.yaml").read_text()
    [names] = [each["names"] for each in jobs["rheostat"]["dns_sd_configs"]]
    targets = [target for job in jobs.values() for part in job.get("static_configs", ()) for target in part["targets"]]
    hosts = {target.partition(":")[0] for target in targets} | {*names}
    assert hosts <= {*services(ROOT / "compose.scale.yaml")}


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not on the PATH; Debian's package of that name has it")
def test_haproxy_takes_its_file() -> None:
    ended = subprocess.run([str(HAPROXY), "-c", "-f", str(SCALE / "haproxy.cfg")], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on the PATH; Debian's package prometheus has it")
def test_promtool_takes_the_file_of_prometheus(tmp_path: Path) -> None:
    config = yaml.safe_load((SCALE / "prometheus.yaml").read_text())
    config["rule_files"] = [str(ROOT / "operations" / "prometheus" / "alerts.yaml")]
    path = tmp_path / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    ended = subprocess.run([str(PROMTOOL), "check", "config", str(path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
