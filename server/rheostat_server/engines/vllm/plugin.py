"""Our routes in vLLM's server, by its entry point `vllm.endpoint_plugins`; vLLM's own are closed.

1. vLLM builds its app and calls `attach_router`: our routes go in, the gate closes the rest.
2. vLLM's engine is ready and it calls `init_state`: adapters are verified and loaded, and the Runtime is set.
3. A request passes vLLM's middleware, the gate, our routes, the pipeline, and reaches `engine.VllmEngine`.

Settings come from the environment, as vLLM may run several API server processes.
"""

from argparse import Namespace
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.datastructures import State

from rheostat_server.adapters import AdapterRefused, AdapterStore, load_adapters
from rheostat_server.app import add_routes
from rheostat_server.blending.store import BlendStore, load_blends
from rheostat_server.engines.vllm.blends import VllmBlends
from rheostat_server.engines.vllm.ending import drain_at_the_end
from rheostat_server.engines.vllm.engine import VllmEngine
from rheostat_server.engines.vllm.gate import close_all_but
from rheostat_server.engines.vllm.lora import check_numbers, load_into_vllm, room_for_blends
from rheostat_server.engines.vllm.weights import served_model_digest
from rheostat_server.errors import CannotStart, RheostatError
from rheostat_server.log import configure_logging
from rheostat_server.serve import blend_files, check_host, closed_on_failure, make_runtime
from rheostat_server.settings import Settings

log = structlog.get_logger(__name__)


class RheostatPlugin:
    """vLLM's `EndpointPlugin`.

    `required_tasks` is None: where it named tasks that the model has not, vLLM would leave us out and serve bare.
    """

    name = "rheostat"
    required_tasks = None

    def attach_router(self, app: FastAPI) -> None:
        before = list(app.routes)
        add_routes(app)
        drain_at_the_end(app)
        close_all_but([route for route in app.routes if route not in before], app)

    async def init_state(self, engine_client: Any, state: State, args: Namespace) -> None:
        _check(engine_client, state)
        settings = Settings()
        configure_logging(settings.log_level)
        if args.uds is None:
            check_host(args.host, settings)
        adapters, blends = _verified(settings, state)
        await load_into_vllm(adapters, state.openai_serving_models, args)
        engine = VllmEngine(state, _blends(blends, settings, state, args))
        async with closed_on_failure(engine):
            await _try_out(engine, blends)
            state.rheostat = make_runtime(engine, adapters, settings, settings.scorers, blends=blends)
        log.info("rheostat serves in vLLM", adapters=adapters.ids, blends=blends.ids)


def _check(engine_client: Any, state: State) -> None:
    if engine_client is None:
        raise CannotStart("vLLM runs without an engine; Rheostat needs `vllm serve` with one")
    if state.openai_serving_chat is None:
        raise CannotStart(f"model {state.args.model!r} does not generate text; Rheostat needs one that does")


def _verified(settings: Settings, state: State) -> tuple[AdapterStore, BlendStore]:
    if not (settings.adapters or settings.blends):
        return AdapterStore(), BlendStore()
    digest = served_model_digest(state.vllm_config.model_config)
    adapters = load_adapters(settings.adapters, base_digest=digest)
    return adapters, load_blends(settings.blends, base_digest=digest, taken=adapters.names)


def _blends(blends: BlendStore, settings: Settings, state: State, args: Namespace) -> VllmBlends | None:
    """Where there are any: their room beside all that vLLM has loaded by now.

    Raises:
        AdapterRefused: vLLM has no room for them.
    """
    if not blends.blends:
        return None
    processes = int(state.vllm_config.parallel_config._api_process_count)
    room = room_for_blends(state.openai_serving_models.lora_requests, args, processes=processes)
    check_numbers([point.address for blend in blends.blends for point in blend.points()])
    return VllmBlends(state.openai_serving_models, state.engine_client, blend_files(settings), room)


async def _try_out(engine: VllmEngine, blends: BlendStore) -> None:
    """Loads some once; raises AdapterRefused where vLLM cannot."""
    try:
        for address, parts in blends.trials().items():
            await engine.load_blend(address, parts)
            await engine.unload_blend(address)
    except RheostatError as exc:
        raise AdapterRefused(exc.logged) from exc
