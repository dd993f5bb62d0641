"""`GET /health`: the process lives. `GET /ready`: it can answer."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rheostat_server.api.json_response import json_response
from rheostat_server.api.openapi import HEALTH, READY
from rheostat_server.api.runtime import runtime_of

router = APIRouter()


@router.get("/health", response_model=None, responses=HEALTH)
async def health() -> Response:
    """Always 200 while the process can answer anything; says nothing of the engine."""
    return json_response({"status": "alive"})


@router.get("/ready", response_model=None, responses=READY)
async def ready(request: Request) -> Response:
    """200 when the engine can answer a request now, else 503 with the reason."""
    runtime = runtime_of(request)
    runtime.admission.drain.check_ready()
    await runtime.engine.check_ready()
    return json_response({"status": "ready", "engine": runtime.engine.name, "models": list(runtime.engine.models())})
