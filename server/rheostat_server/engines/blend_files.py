"""Blends as PEFT folders, for engines that load adapters by files."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from threading import Event

from rheostat_server.contract.digest import holds
from rheostat_server.engines import Part
from rheostat_server.engines.plain_lora import NotPlainLora
from rheostat_server.errors import EngineFailed


@dataclass(frozen=True, slots=True)
class BlendFiles:
    """Each blend is made once, and stays until the process ends: an engine may read its files again at any time."""

    folder: Path
    _ended: Event = field(default_factory=Event)

    @classmethod
    def within(cls, parent: Path | None, *, for_others: bool = False) -> "BlendFiles":
        """A new folder in `parent`, or a temporary one; `for_others` lets other users of the machine read it.

        Raises:
            OSError: there can be none.
        """
        folder = Path(mkdtemp(prefix="rheostat-blends-", dir=parent))
        if for_others:
            folder.chmod(0o755)
        return cls(folder.resolve())

    async def made(self, address: str, parts: Sequence[Part]) -> Path:
        """The folder of a blend.

        Raises:
            EngineFailed: it cannot be made, or a part is no longer what it was when the server started.
        """
        folder = self.folder / address
        try:
            await asyncio.to_thread(self._make, parts, folder)
        except (OSError, ValueError, LookupError, RuntimeError) as exc:
            raise EngineFailed(
                f"the blend {address} cannot be made; the server's log says why",
                logged=f"the blend {address} cannot be made: {exc}",
            ) from exc
        return folder

    def remove(self) -> None:
        """What is being made meanwhile is removed once it is made."""
        self._ended.set()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make(self, parts: Sequence[Part], folder: Path) -> None:
        try:
            _make(parts, folder)
        finally:
            if self._ended.is_set():
                self.remove()


def _make(parts: Sequence[Part], folder: Path) -> None:
    if folder.is_dir():
        return
    for part in parts:
        if not holds(part.folder, part.id):
            raise NotPlainLora(f"{part.folder} no longer holds {part.id}; put it back, or start the server anew")
    # Nothing else in a server in front of an upstream needs torch.
    from rheostat_server.engines.concatenated import write_concatenated

    write_concatenated(parts, folder)
