"""Loads verified adapters into vLLM under their addresses, `name@digest`, and finds the room that is left to blends."""

from argparse import Namespace
from collections.abc import Collection, Sequence
from typing import Any

from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest
from vllm.platforms import current_platform

from rheostat_server.adapters import Adapter, AdapterRefused, AdapterStore
from rheostat_server.engines.vllm.blends import number_of
from rheostat_server.engines.vllm.flags import slots_on_the_cpu


async def load_into_vllm(store: AdapterStore, serving_models: Any, args: Namespace) -> None:
    """Registers every adapter, in the same order in each API server process, as vLLM numbers them by it.

    Raises:
        AdapterRefused: vLLM was started without LoRA or with too little room, or cannot load an adapter.
    """
    _check_room(store, args)
    for adapter in store.adapters:
        await _load(adapter, serving_models)


def _check_room(store: AdapterStore, args: Namespace) -> None:
    """Every adapter must stay in vLLM's memory: one that was put out is read again, from files changed meanwhile."""
    if not store.adapters:
        return
    if not args.enable_lora:
        raise AdapterRefused("adapters are given and vLLM was started without --enable-lora")
    count = len(store.adapters)
    needed = slots_on_the_cpu(count)
    if current_platform.is_cpu() and args.max_loras < needed:
        raise AdapterRefused(
            f"{count} adapters are given and --max-loras is {args.max_loras}; on the CPU it must be {needed} at least, "
            "or vLLM mixes adapters into answers of the base model"
        )
    room = args.max_cpu_loras or args.max_loras
    if count > room:
        raise AdapterRefused(f"{count} adapters are given, and vLLM keeps {room}; raise --max-cpu-loras")


async def _load(adapter: Adapter, serving_models: Any) -> None:
    answer = await serving_models.load_lora_adapter(
        LoadLoRAAdapterRequest(lora_name=adapter.id, lora_path=str(adapter.folder.resolve()))
    )
    if isinstance(answer, ErrorResponse):
        raise AdapterRefused(f"vLLM cannot load {adapter.id} from {adapter.folder}: {answer.error.message}")


def check_numbers(addresses: Sequence[str]) -> None:
    """Raises AdapterRefused where two blends would have one number, in whichever process."""
    seen: dict[int, str] = {}
    for address in addresses:
        if (other := seen.setdefault(number_of(address), address)) != address:
            raise AdapterRefused(f"{address} and {other} would have one number in vLLM; rename one of their blends")


def room_for_blends(there: Collection[str], args: Namespace, *, processes: int) -> int:
    """How many blends each API server process may have loaded beside the adapters that are there.

    These are ours, and those of vLLM's own flags. On the CPU one slot stays empty, see `flags.slots_on_the_cpu`.

    Raises:
        AdapterRefused: vLLM was started without LoRA or with too little room.
    """
    if not args.enable_lora:
        raise AdapterRefused("blends are given and vLLM was started without --enable-lora")
    most = args.max_loras - 1 if current_platform.is_cpu() else args.max_cpu_loras or args.max_loras
    room: int = (most - len(there)) // processes
    if room < 1:
        raise AdapterRefused(
            f"vLLM keeps {most} adapters, {len(there)} of them are given, and each of {processes} API servers needs "
            "room for a blend; raise --max-loras and --max-cpu-loras"
        )
    return room
