"""`POST /v1/chat/completions`: OpenAI's chat, with dials."""

from collections.abc import AsyncGenerator

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rheostat_server import pipeline
from rheostat_server.api.chat_body import read_chat_request
from rheostat_server.api.disconnect import unless_disconnected
from rheostat_server.api.errors import error_body
from rheostat_server.api.event_stream import EventStream
from rheostat_server.api.json_response import json_response
from rheostat_server.api.openapi import CHAT_BODY
from rheostat_server.api.runtime import runtime_of
from rheostat_server.engines import DONE
from rheostat_server.errors import RheostatError
from rheostat_server.sse import event

router = APIRouter()
log = structlog.get_logger(__name__)


@router.post("/v1/chat/completions", response_model=None, openapi_extra=CHAT_BODY)
async def chat_completions(request: Request) -> Response:
    """Answers a conversation at the dials in force, whole or as a stream, with the receipt in `control`."""
    runtime = runtime_of(request)
    chat = await read_chat_request(request, runtime)
    headers = {"X-Request-ID": chat.request_id}
    if chat.wants_stream:
        events = pipeline.stream(chat, runtime)
        first = await unless_disconnected(request, anext(events))
        return EventStream(_until_error(first, events), headers, source=events)
    completion = await unless_disconnected(request, pipeline.answer(chat, runtime))
    return json_response(completion, headers=headers)


async def _until_error(first: bytes, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The events; one that fails midway ends with an error event, as the status has long been sent."""
    yield first
    try:
        async for chunk in events:
            yield chunk
    except RheostatError as exc:
        log.warning("stream failed", code=exc.code, reason=exc.message)
        yield event(error_body(exc))
        yield DONE
