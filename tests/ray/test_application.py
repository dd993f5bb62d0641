"""What a Serve file may say, and what is refused before a replica is started."""

import re
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from rheostat_server.errors import CannotStart
from rheostat_server.settings import Settings
from tests.operations.exported import labels_by_sample
from tests.ray.cluster import SERVE_FILE

application = pytest.importorskip("rheostat_server.ray_serve.application", reason="Ray is not installed")


@pytest.mark.parametrize(("name", "value"), [("host", "0.0.0.0"), ("port", 8001)])
def test_an_address_is_refused_as_ray_listens(name: str, value: Any) -> None:
    with pytest.raises(CannotStart, match=f"{name} is set.*http_options"):
        application.check_on_ray(Settings(**{name: value}))


def test_without_a_policy_it_has_to_be_said_that_everyone_may(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotStart, match="RHEOSTAT_ALLOW_ANONYMOUS"):
        application.check_on_ray(Settings())
    monkeypatch.setenv("RHEOSTAT_ALLOW_ANONYMOUS", "true")
    application.check_on_ray(Settings())


def test_flags_are_for_vllm_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RHEOSTAT_ALLOW_ANONYMOUS", "true")
    with pytest.raises(CannotStart, match="takes no flags"):
        application.build(application.Arguments(flags=["--seed", "1"]))


def test_an_argument_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="flag"):
        application.Arguments.model_validate({"flag": []})


def test_a_drain_has_the_seconds_of_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RHEOSTAT_ALLOW_ANONYMOUS", "true")
    monkeypatch.setenv("RHEOSTAT_DRAIN_SECONDS", "90")
    built = application.build(application.Arguments())
    assert built._bound_deployment._deployment_config.graceful_shutdown_timeout_s == 95


def test_prometheus_gives_our_metrics_the_job_of_the_alerts() -> None:
    file = yaml.safe_load(SERVE_FILE.with_name("prometheus.yaml").read_text())
    assert file["scrape_configs"][0]["relabel_configs"] == [{"target_label": "job", "replacement": "rheostat"}]


def test_prometheus_gives_our_metrics_their_own_names_back() -> None:
    file = yaml.safe_load(SERVE_FILE.with_name("prometheus.yaml").read_text())
    [rule] = file["scrape_configs"][0]["metric_relabel_configs"]
    for name in labels_by_sample():
        [renamed] = re.fullmatch(rule["regex"], f"ray_{name}").groups()  # type: ignore[union-attr] # None fails it too
        assert (renamed, rule["replacement"], rule["target_label"]) == (name, "$1", "__name__")
