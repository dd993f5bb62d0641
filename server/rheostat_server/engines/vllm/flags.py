"""The flags of `vllm serve`: the operator's, and ours where the operator's say nothing."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from vllm import envs
from vllm.config.lora import MaxLoRARanks
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser

from rheostat_server.adapters import Adapter, AdapterRefused, AdapterStore
from rheostat_server.api import cross_origin
from rheostat_server.blending.store import BlendStore
from rheostat_server.engines.plain_lora import greatest_rank
from rheostat_server.engines.vllm import guard
from rheostat_server.engines.vllm.ending import SPARE_SECONDS
from rheostat_server.errors import CannotStart
from rheostat_server.serve import NO_BLENDS, check_host, served_name
from rheostat_server.settings import Settings

GUARD: Final = f"{guard.__name__}.{guard.GateRequired.__name__}"
CROSS_ORIGIN: Final = f"{cross_origin.__name__}.{cross_origin.CrossOrigin.__name__}"
ANY: Final = "model"
"""Stands for any model where flags alone are read."""
# Adapters in one batch; each takes room beside the base model's weights.
MOST_AT_ONCE: Final = 8


def completed(
    settings: Settings, adapters: AdapterStore, flags: Sequence[str], *, blends: BlendStore = NO_BLENDS
) -> list[str]:
    """Our flags, then the operator's, of which vLLM takes the last word.

    Raises:
        CannotStart: the operator's flags start a server of vLLM's that knows no plugins, or that anyone can reach.
        AdapterRefused: the rank of an adapter or blend is beyond what vLLM serves.
    """
    theirs, defaults = parsed([ANY, *flags]), parsed([ANY])
    _refuse_other_servers(theirs)
    if theirs.uds is None:
        check_host(theirs.host or settings.host, settings)
    patience = math.ceil(settings.leave_seconds + settings.drain_seconds) + SPARE_SECONDS
    lora = _lora(adapters, blends, settings.blend_slots, theirs=len(theirs.lora_modules or ()))
    ours = {**_addresses(settings), **lora, "shutdown_timeout": patience}
    silent = {name: value for name, value in ours.items() if vars(theirs)[name] == vars(defaults)[name]}
    return [*_written(silent), "--middleware", GUARD, *_cross_origin(settings), *flags]


def parsed(command: Sequence[str]) -> Any:
    """What stands after `vllm serve`, the model first, as vLLM reads it, a `--config` file included."""
    parser = FlexibleArgumentParser()
    ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    arguments: Any = parser.parse_args([ServeSubcommand.name, *command])
    return arguments


def _refuse_other_servers(arguments: Any) -> None:
    if arguments.grpc:
        raise CannotStart("--grpc starts a server without HTTP, which Rheostat cannot control; leave it out")
    if envs.VLLM_USE_RUST_FRONTEND:
        raise CannotStart("VLLM_USE_RUST_FRONTEND starts a server that loads no plugins; unset it")


def _addresses(settings: Settings) -> dict[str, Any]:
    return {"host": settings.host, "port": settings.port, "served_model_name": served_name(settings)}


def _cross_origin(settings: Settings) -> list[str]:
    """Later middleware stands outside of vLLM's own for other origins, which lets none in unless it is told to."""
    return ["--middleware", CROSS_ORIGIN] if settings.cors_origins else []


def _lora(adapters: AdapterStore, blends: BlendStore, blend_slots: int, *, theirs: int) -> dict[str, Any]:
    """Room for adapters and blends: all in memory, as many as may be in one batch beside the model.

    `theirs` are adapters of the operator's flags.
    """
    count = len(adapters.adapters) + (blend_slots if blends.blends else 0)
    if not count:
        return {}
    count += theirs
    ranks = [*map(_rank, adapters.adapters), *(greatest_rank(blend.loras) for blend in blends.blends)]
    slots = slots_on_the_cpu(count) if current_platform.is_cpu() else min(count, MOST_AT_ONCE)
    return {
        "enable_lora": True,
        "max_loras": slots,
        "max_cpu_loras": max(count, slots),
        "max_lora_rank": _served_rank(max(ranks)),
    }


def slots_on_the_cpu(adapters: int) -> int:
    """One slot more than adapters, so that the last one stays empty.

    vLLM's CPU kernels add the last slot's adapter to a base-model request where an adapter's request is in the same
    batch (vllm-project/vllm#48421); an empty slot adds nothing.
    """
    return adapters + 1


def _rank(adapter: Adapter) -> int:
    config = json.loads((adapter.folder / "adapter_config.json").read_bytes())
    ranks: list[int] = [config["r"], *config.get("rank_pattern", {}).values()]
    return max(ranks)


def _served_rank(rank: int) -> int:
    """The smallest of vLLM's ranks that holds `rank`."""
    served: tuple[int, ...] = get_args(MaxLoRARanks)
    if fitting := [most for most in served if most >= rank]:
        return min(fitting)
    raise AdapterRefused(f"an adapter or blend has the rank {rank}; vLLM serves ranks up to {max(served)}")


def _written(values: Mapping[str, Any]) -> list[str]:
    flags: list[str] = []
    for name, value in values.items():
        if value is None:
            continue
        flags.append(f"--{name.replace('_', '-')}")
        if value is not True:
            flags.append(str(value))
    return flags
