"""What the upstream server has: its base models, and our adapters by their addresses."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Final

import httpx
import structlog

from rheostat_server.contract.digest import holds
from rheostat_server.engines.remote.answers import read_json
from rheostat_server.engines.remote.refusals import network_errors_as_ours, refusal_error
from rheostat_server.engines.remote.upstream import Upstream
from rheostat_server.errors import CannotStart, EngineFailed, EngineUnavailable

log = structlog.get_logger(__name__)

Adapters = Mapping[str, Path]
"""Absolute folders by address, `name@digest`."""

PROBE_SECONDS: Final = 5.0
"""For how long an answer about the server itself, which needs no model, is waited for."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The names that `GET /v1/models` lists. vLLM gives a LoRA its base model as `parent`, and says whose they are."""

    parents: Mapping[str, str | None]
    owners: frozenset[str] = frozenset()

    @property
    def is_vllm(self) -> bool:
        return "vllm" in self.owners

    def bases(self, adapters: Adapters) -> list[str]:
        return [name for name, parent in self.parents.items() if parent is None and name not in adapters]

    def lacks(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in self.parents]


async def read_catalog(client: httpx.AsyncClient, upstream: Upstream) -> Catalog:
    """Asks the upstream which models it has.

    Raises:
        EngineUnavailable, EngineFailed, EngineRejected: it does not say.
    """
    with network_errors_as_ours():
        response = await client.get(f"{upstream.api}/models", timeout=PROBE_SECONDS)
    if response.status_code != 200:
        raise refusal_error(response, response.content, upstream)
    body = read_json(response)
    cards = body.get("data") if isinstance(body, dict) else None
    if not isinstance(cards, list) or not all(isinstance(card, dict) and "id" in card for card in cards):
        raise EngineFailed(f"{upstream.api}/models answered with something that is no list of models")
    owners = frozenset(str(card.get("owned_by")) for card in cards)
    return Catalog({card["id"]: card.get("parent") for card in cards}, owners)


async def check_alive(client: httpx.AsyncClient, upstream: Upstream) -> None:
    """Raises EngineUnavailable if the upstream's `/health` tells of a failure; a server may have no such route."""
    if upstream.health is None:
        return
    with network_errors_as_ours():
        response = await client.get(upstream.health, timeout=PROBE_SECONDS)
    if response.status_code >= 500:
        raise EngineUnavailable(f"the upstream server's /health answers with status {response.status_code}")


def served_models(catalog: Catalog, model: str | None, adapters: Adapters) -> list[str]:
    """The base models to serve: the one that is named, else all that the upstream has.

    Raises:
        CannotStart: the upstream has not the one that is named, or it is not clear whose the adapters are.
    """
    bases = catalog.bases(adapters)
    known = ", ".join(bases) or "none"
    if model is not None and model not in bases:
        raise CannotStart(f"the upstream server has no model {model!r}; its models: {known}")
    if not bases:
        raise CannotStart("the upstream server lists no models")
    if model is None and adapters and len(bases) > 1:
        raise CannotStart(f"the upstream server has several models: {known}; name the one that the adapters are for")
    return [model] if model is not None else bases


async def ensure_adapters(
    client: httpx.AsyncClient, upstream: Upstream, catalog: Catalog, adapters: Adapters, *, load: bool
) -> None:
    """Checks that the upstream has every adapter, or loads those it lacks.

    Raises:
        CannotStart: it lacks one, or refuses to load it; the message says how to start it.
    """
    missing = {name: adapters[name] for name in catalog.lacks(list(adapters))}
    if missing and not load:
        raise CannotStart(
            f"the upstream server lacks the adapter {', '.join(missing)}; start it with {_flags(adapters)}, or let "
            "this server load it with RHEOSTAT_UPSTREAM_LOAD_ADAPTERS=true"
        )
    for name, folder in missing.items():
        await load_adapter(client, upstream, name, folder, otherwise=f"start it with {_flags(adapters)}")


async def restore_adapters(client: httpx.AsyncClient, upstream: Upstream, adapters: Adapters) -> None:
    """Loads those that the upstream has lost, as one that was started anew has.

    Raises:
        EngineUnavailable: it does not take them, or a folder no longer holds what it held when this server was started.
    """
    catalog = await read_catalog(client, upstream)
    lost = catalog.lacks(list(adapters))
    for name in lost:
        if not await asyncio.to_thread(holds, adapters[name], name):
            raise EngineUnavailable(
                f"the upstream server has lost the adapter {name}, and {adapters[name]} no longer holds it; put it "
                "back, or start this server anew"
            )
    try:
        await ensure_adapters(client, upstream, catalog, adapters, load=True)
    except CannotStart as exc:
        raise EngineUnavailable(str(exc), logged="the upstream server does not load an adapter it had lost") from exc
    if lost:
        log.warning("the upstream server had lost adapters, and has them again", adapters=lost)


async def load_adapter(
    client: httpx.AsyncClient, upstream: Upstream, name: str, folder: Path, *, otherwise: str
) -> None:
    """The upstream's own reason is told: it was asked about an adapter, and of nothing that people wrote.

    Raises:
        CannotStart: it does not take the adapter; `otherwise` is what may be done then.
    """
    body = {"lora_name": name, "lora_path": str(folder)}
    with network_errors_as_ours():
        response = await client.post(f"{upstream.api}/load_lora_adapter", json=body)
    if response.status_code != 200:
        reason = refusal_error(response, response.content, upstream).message
        raise CannotStart(
            f"the upstream server does not load the adapter {name}: {reason}; vLLM needs --enable-lora and "
            f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, or {otherwise}"
        )


async def unload_adapter(client: httpx.AsyncClient, upstream: Upstream, name: str) -> None:
    """Takes an adapter from the upstream's list; one that it has not, it need not lose."""
    with network_errors_as_ours():
        response = await client.post(f"{upstream.api}/unload_lora_adapter", json={"lora_name": name})
    if response.status_code not in (200, 404):
        raise refusal_error(response, response.content, upstream)


def _flags(adapters: Adapters) -> str:
    """With one slot more than adapters: on the CPU, vLLM answers rightly for the base model only if one is empty."""
    modules = " ".join(quote(f"{name}={folder}") for name, folder in adapters.items())
    return f"--enable-lora --max-loras {len(adapters) + 1} --lora-modules {modules}"
