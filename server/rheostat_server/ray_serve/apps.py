"""The app of a replica for each engine, made in the event loop that serves it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from fastapi import FastAPI

from rheostat_server.app import create_app
from rheostat_server.serve import (
    Loaded,
    check_vllm,
    closed_on_failure,
    connect_remote,
    load_embedded,
    make_runtime,
    scorers_file,
)
from rheostat_server.settings import EngineName, Settings

MakeApp = Callable[[Settings, Sequence[str]], AbstractAsyncContextManager[FastAPI]]


def app_with(load: Callable[[Settings], Loaded]) -> MakeApp:
    """An app of our own. Its lifespan closes the engine."""

    @asynccontextmanager
    async def make(settings: Settings, flags: Sequence[str]) -> AsyncGenerator[FastAPI, None]:
        engine, adapters, blends = await asyncio.to_thread(load, settings)
        scorers = scorers_file(settings)
        async with closed_on_failure(engine):
            runtime = await asyncio.to_thread(make_runtime, engine, adapters, settings, scorers, blends=blends)
        yield create_app(runtime)

    return make


@asynccontextmanager
async def app_in_vllm(settings: Settings, flags: Sequence[str]) -> AsyncGenerator[FastAPI, None]:
    """vLLM's app with our routes. The engine ends with the block."""
    check_vllm()
    from rheostat_server.engines.vllm.launch import prepared

    command = prepared(settings, flags)
    from rheostat_server.engines.vllm.in_process import vllm_app

    async with vllm_app(command) as app:
        yield app


APPS: Final[Mapping[EngineName, MakeApp]] = {
    "embedded": app_with(load_embedded),
    "remote": app_with(connect_remote),
    "vllm": app_in_vllm,
}
