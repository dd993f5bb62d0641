"""`POST /v1/admin/policy/reload`: the policy file is read anew, while requests run."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rheostat_server.api.json_response import json_response
from rheostat_server.api.openapi import RELOAD
from rheostat_server.api.runtime import caller_of, runtime_of
from rheostat_server.callers.file import PolicyError
from rheostat_server.errors import NotAdmin, PolicyRefused

router = APIRouter()


@router.post("/v1/admin/policy/reload", response_model=None, responses=RELOAD)
async def reload_policy(request: Request) -> Response:
    """Takes the file's policy for all requests that come from now on; one that does not fit changes nothing."""
    caller, shelf = await caller_of(request), runtime_of(request).shelf
    if shelf is None or not caller.admin:
        raise NotAdmin
    try:
        book = await shelf.reload()
    except PolicyError as exc:
        raise PolicyRefused(str(exc)) from exc
    return json_response(
        {"keys": len(book.keys), "envelopes": sorted(book.policies), "digest": f"sha256:{book.digest}"}
    )
