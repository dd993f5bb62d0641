"""Blends on an upstream vLLM: written to a folder that it sees too, and loaded by its own API."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from rheostat_server.engines import Part
from rheostat_server.engines.blend_files import BlendFiles
from rheostat_server.engines.remote.catalog import load_adapter, read_catalog, unload_adapter
from rheostat_server.engines.remote.upstream import Upstream
from rheostat_server.errors import CannotStart, EngineUnavailable, RheostatError

LAST_SECONDS: Final = 5.0
"""For the upstream to unload all that it has of ours, at the end."""


@dataclass(slots=True)
class UpstreamBlends:
    """At most `room` blends, in a folder that the upstream reads under the same path.

    `loaded` are those that the upstream may have: one is there before it is told, and until it has surely none. The
    upstream is told one thing at a time.
    """

    files: BlendFiles
    room: int
    loaded: dict[str, Path] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def load(self, client: httpx.AsyncClient, upstream: Upstream, address: str, parts: Sequence[Part]) -> None:
        """One of that address which is there already is another server's, whose files may go with it.

        Raises:
            EngineFailed: it cannot be made.
            EngineUnavailable: the upstream does not take it.
        """
        async with self._turn:
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
        async with self._turn:
            if address in self.loaded:
                await unload_adapter(client, upstream, address)
                del self.loaded[address]

    async def restore(self, client: httpx.AsyncClient, upstream: Upstream, address: str) -> None:
        """Loads one again that the upstream has lost, as one that was started anew has.

        Whoever calls uses it. Others that were lost come back when they are used.
        """
        async with self._turn:
            if folder := self.loaded.get(address):
                catalog = await read_catalog(client, upstream)
                if catalog.lacks([address]):
                    await self._tell(client, upstream, address, folder)

    async def close(self, client: httpx.AsyncClient, upstream: Upstream) -> None:
        """Has the upstream forget all of ours, where it answers, and removes their files."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS), self._turn:
                for address in self.loaded:
                    with suppress(RheostatError):
                        await unload_adapter(client, upstream, address)
        self.loaded.clear()
        self.files.remove()

    async def _tell(self, client: httpx.AsyncClient, upstream: Upstream, address: str, folder: Path) -> None:
        await unload_adapter(client, upstream, address)
        self.loaded[address] = folder
        try:
            await load_adapter(client, upstream, address, folder, otherwise="let it see that folder")
        except CannotStart as exc:
            del self.loaded[address]
            raise EngineUnavailable(f"the upstream server does not load the blend {address}", logged=str(exc)) from exc
