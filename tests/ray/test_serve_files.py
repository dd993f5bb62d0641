"""The Serve files of docker/ray/: what they set exists, and Ray can read them."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from rheostat_server.settings import Settings
from tests.ray.cluster import SERVE_FILE

FILES: Final = sorted(SERVE_FILE.parent.glob("serve*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_in_it_exists_and_fits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [application] = yaml.safe_load(path.read_text())["applications"]
    given: dict[str, Any] = application["runtime_env"]["env_vars"]
    named = {name.removeprefix("RHEOSTAT_").lower() for name in given if name.startswith("RHEOSTAT_")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert Settings().model_fields_set == named


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_ray_can_read_it(path: Path) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="Ray is not installed")
    file = schema.ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    [application] = file.applications
    assert application.import_path == "rheostat_server.ray_serve.application:build"
    assert [deployment.name for deployment in application.deployments] == ["Rheostat"]
