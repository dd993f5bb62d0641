"""vLLM's app with our plugin in it, and its engine running, for a process that serves it by itself, as Ray's do.

vLLM's own command does the same and then listens. To be imported in the environment that `launch.prepared` leaves.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
from vllm.entrypoints.serve.utils.api_utils import cli_env_setup

from rheostat_server.engines.vllm.flags import parsed
from rheostat_server.engines.vllm.guard import REASON, has_gate
from rheostat_server.errors import CannotStart


@asynccontextmanager
async def vllm_app(command: Sequence[str]) -> AsyncGenerator[FastAPI, None]:
    """The app of `vllm serve COMMAND`, whose engine runs until the block ends.

    Raises:
        CannotStart: the plugin is not in it, and so vLLM's own routes would be open.
    """
    cli_env_setup()
    arguments = parsed(command)
    arguments.model = arguments.model_tag
    validate_parsed_serve_args(arguments)
    async with build_async_engine_client(arguments) as client:
        tasks = await client.get_supported_tasks()
        app: Any = build_app(arguments, tasks, client.model_config)
        if not has_gate(app):
            raise CannotStart(REASON)
        await init_app_state(client, app.state, arguments, tasks)
        app.state.server = None
        yield app
