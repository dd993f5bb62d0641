"""Blends on an upstream vLLM: written to a folder that it sees too, and loaded by its own API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from rheostat_server.engines import Part
from rheostat_server.engines.blend_files import BlendFiles
from rheostat_server.engines.remote.catalog import load_adapter, read_catalog, unload_adapter
from rheostat_server.engines.remote.upstream import Upstream
from rheostat_server.errors import CannotStart, EngineUnavailable


@dataclass(slots=True)
class UpstreamBlends:
    """At most `room` blends, in a folder that the upstream reads under the same path."""

    files: BlendFiles
    room: int
    loaded: dict[str, Path] = field(default_factory=dict)

    async def load(self, client: httpx.AsyncClient, upstream: Upstream, address: str, parts: Sequence[Part]) -> None:
        """One of that address which is there already is another server's, whose files may go with it.

        Raises:
            EngineFailed: it cannot be made.
            EngineUnavailable: the upstream does not take it.
        """
        await self._tell(client, upstream, address, await self.files.made(address, parts))

    async def try_out(
        self, client: httpx.AsyncClient, upstream: Upstream, trials: Mapping[str, Sequence[Part]]
    ) -> None:
        """Loads each once, to see that the upstream takes it."""
        for address, parts in trials.items():
            await self.load(client, upstream, address, parts)
            await self.unload(client, upstream, address)

    async def unload(self, client: httpx.AsyncClient, upstream: Upstream, address: str) -> None:
        """Raises EngineUnavailable where the upstream does not answer."""
        if address in self.loaded:
            await unload_adapter(client, upstream, address)
            del self.loaded[address]

    async def restore(self, client: httpx.AsyncClient, upstream: Upstream) -> None:
        """Loads those again that the upstream has lost, as one that was started anew has."""
        catalog = await read_catalog(client, upstream)
        for address in catalog.lacks(list(self.loaded)):
            await self._tell(client, upstream, address, self.loaded[address])

    async def _tell(self, client: httpx.AsyncClient, upstream: Upstream, address: str, folder: Path) -> None:
        await unload_adapter(client, upstream, address)
        try:
            await load_adapter(client, upstream, address, folder, otherwise="let it see that folder")
        except CannotStart as exc:
            raise EngineUnavailable(f"the upstream server does not load the blend {address}", logged=str(exc)) from exc
        self.loaded[address] = folder
