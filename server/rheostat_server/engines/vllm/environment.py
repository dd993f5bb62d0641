"""The environment that vLLM's processes inherit: which plugins they load, and our settings for the one that is ours."""

import json
from collections.abc import Iterable, MutableMapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

OURS: Final = "rheostat"
ENDPOINT_PLUGINS: Final = "vllm.endpoint_plugins"
Environment = MutableMapping[str, str]


def set_environment(
    environment: Environment,
    adapters: Iterable[Path],
    scorers: Path | None = None,
    policy: Path | None = None,
    *,
    blends: Iterable[Path] = (),
    allow_anonymous: bool = False,
) -> None:
    """Adds our plugin to those that vLLM loads, and hands it what was given on the command line."""
    environment["VLLM_PLUGINS"] = ",".join(_plugins(environment.get("VLLM_PLUGINS")))
    environment["RHEOSTAT_ADAPTERS"] = json.dumps([str(folder.resolve()) for folder in adapters])
    environment["RHEOSTAT_BLENDS"] = json.dumps([str(folder.resolve()) for folder in blends])
    if scorers is not None:
        environment["RHEOSTAT_SCORERS"] = str(scorers.resolve())
    if policy is not None:
        environment["RHEOSTAT_POLICY"] = str(policy.resolve())
    if allow_anonymous:
        environment["RHEOSTAT_ALLOW_ANONYMOUS"] = "true"


def _plugins(allowed: str | None) -> list[str]:
    """The operator's list and ours.

    Without a list, vLLM loads every plugin but those that add routes; one that named ours alone would put out the rest.
    """
    names = _all_but_endpoint_plugins() if allowed is None else [name for name in allowed.split(",") if name]
    return list(dict.fromkeys([*names, OURS]))


def _all_but_endpoint_plugins() -> list[str]:
    groups = {group for group in entry_points().groups if group.startswith("vllm.") and group != ENDPOINT_PLUGINS}
    return sorted({point.name for group in groups for point in entry_points(group=group)})
