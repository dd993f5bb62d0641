"""Blends in vLLM: made as files, and loaded under a number that is the same in every API server process."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError

from rheostat_server.engines import Part
from rheostat_server.engines.blend_files import BlendFiles
from rheostat_server.errors import EngineFailed, EngineUnavailable

FIRST_NUMBER: Final = 2**16
"""vLLM counts the adapters that it numbers itself from 1."""
NUMBERS: Final = 2**31 - FIRST_NUMBER
"""It keeps numbers in 32 bits, with a sign."""


@dataclass(frozen=True, slots=True)
class VllmBlends:
    """`models` is vLLM's OpenAIServingModels, which finds an adapter by a request's model.

    `room` is this process' share.
    """

    models: Any
    client: Any
    files: BlendFiles
    room: int

    async def load(self, address: str, parts: Sequence[Part]) -> None:
        """Raises EngineFailed, or EngineUnavailable where vLLM's engine is dead."""
        folder = await self.files.made(address, parts)
        request = LoRARequest(lora_name=address, lora_int_id=number_of(address), lora_path=str(folder))
        self._check_number(request)
        try:
            await self.client.add_lora(request)
        except EngineDeadError as exc:
            raise EngineUnavailable("vLLM's engine process is dead; its log says why") from exc
        except Exception as exc:  # vLLM's client raises no other for what its engine says
            with suppress(Exception):
                await self.client.remove_lora(request.lora_int_id)
            raise EngineFailed(
                f"vLLM does not load the blend {address}; the server's log says why",
                logged=f"vLLM does not load the blend {address}: {exc}",
            ) from exc
        self.models.lora_requests[address] = request

    async def unload(self, address: str) -> None:
        """One whose loading was given up may be there without being registered.

        Raises:
            EngineUnavailable: vLLM's engine is dead.
        """
        self.models.lora_requests.pop(address, None)
        try:
            await self.client.remove_lora(number_of(address))
        except EngineDeadError as exc:
            raise EngineUnavailable("vLLM's engine process is dead; its log says why") from exc

    def _check_number(self, request: LoRARequest) -> None:
        """Under one number vLLM would serve the one for the other."""
        for other in self.models.lora_requests.values():
            if other.lora_int_id == request.lora_int_id and other.lora_name != request.lora_name:
                raise EngineFailed(f"{request.lora_name} and {other.lora_name} have the same number in vLLM")


def number_of(address: str) -> int:
    """vLLM's number of a blend, by its content: API server processes share an engine, and count each for itself."""
    return FIRST_NUMBER + int.from_bytes(blake2b(address.encode(), digest_size=8).digest()) % NUMBERS
