"""`POST /v1/chat/completions`: OpenAI's chat, with dials."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rheostat_server import pipeline
from rheostat_server.api.chat_body import read_chat_request
from rheostat_server.api.disconnect import unless_disconnected
from rheostat_server.api.event_stream import EventStream
from rheostat_server.api.json_response import json_response
from rheostat_server.api.openapi import CHAT, CHAT_BODY
from rheostat_server.api.request_record import record_of
from rheostat_server.api.runtime import caller_with_room, runtime_of
from rheostat_server.telemetry import unplanned

router = APIRouter()


@router.post("/v1/chat/completions", response_model=None, responses=CHAT, openapi_extra=CHAT_BODY)
async def chat_completions(request: Request) -> Response:
    """Answers a conversation at the dials in force, whole or as a stream, with the receipt in `control`."""
    runtime, record = runtime_of(request), record_of(request)
    with unplanned():
        chat = await read_chat_request(request, runtime, await caller_with_room(request))
    if chat.wants_stream:
        events = pipeline.stream(chat, runtime, record)
        return await EventStream.begun(request, events, record, patience=runtime.settings.reader_seconds)
    completion = await unless_disconnected(request, pipeline.answer(chat, runtime, record))
    return json_response(completion, headers=record.headers)
