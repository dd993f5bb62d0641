"""`GET /v1/models`: the base model, and each preset of it as a model of its own."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rheostat_server.api.json_response import json_response
from rheostat_server.api.openapi import MODEL, MODEL_NAME, MODELS
from rheostat_server.api.runtime import caller_of, runtime_of
from rheostat_server.callers import Caller
from rheostat_server.errors import UnknownModel
from rheostat_server.runtime import Runtime

router = APIRouter()


@router.get("/v1/models", response_model=None, responses=MODELS)
async def list_models(request: Request) -> Response:
    """Every name that a request may give as its model."""
    return json_response({"object": "list", "data": _models(runtime_of(request), await caller_of(request))})


@router.get("/v1/models/{name:path}", response_model=None, responses=MODEL, openapi_extra=MODEL_NAME)
async def show_model(request: Request) -> Response:
    """One of them."""
    name, models = request.path_params["name"], _models(runtime_of(request), await caller_of(request))
    for model in models:
        if model["id"] == name:
            return json_response(model)
    raise UnknownModel(name, [model["id"] for model in models])


def _models(runtime: Runtime, caller: Caller) -> list[dict[str, Any]]:
    """Those that the caller may name."""
    names = [name for name in runtime.engine.models() if caller.policy.envelope.may("models", name)]
    presets = [f"{name}:{preset}" for name in names for preset in caller.policy.permitted_presets]
    return [{"id": name, "object": "model", "created": 0, "owned_by": "rheostat"} for name in [*names, *presets]]
