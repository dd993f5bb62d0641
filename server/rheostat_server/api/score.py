"""`POST /v1/control/score`: what the server's scorers say of an answer that is given."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rheostat_server.api.body import read_json_object
from rheostat_server.api.chat_body import check_messages
from rheostat_server.api.disconnect import unless_disconnected
from rheostat_server.api.json_response import json_response
from rheostat_server.api.openapi import SCORE, SCORE_BODY
from rheostat_server.api.request_record import record_of
from rheostat_server.api.runtime import caller_with_room, runtime_of
from rheostat_server.callers import Caller
from rheostat_server.errors import InvalidField, NoScorers
from rheostat_server.modes.reranking import conversation
from rheostat_server.record import Record
from rheostat_server.reranking.track import Track
from rheostat_server.runtime import Runtime
from rheostat_server.scorers.panel import Judgement
from rheostat_server.time_limit import within

router = APIRouter()
FIELDS: Final = ("messages", "response")


@router.post("/v1/control/score", response_model=None, responses=SCORE, openapi_extra=SCORE_BODY)
async def score(request: Request) -> Response:
    """Levels of a response to a conversation; a dial that could not be judged is null.

    It counts as a request and as a candidate of the caller's rates.
    """
    runtime, record, caller = runtime_of(request), record_of(request), await caller_with_room(request)
    body = await read_json_object(request, max_bytes=runtime.settings.max_body_bytes)
    _check(body)
    if runtime.track is None:
        raise NoScorers
    panel = runtime.track.panel
    found = await unless_disconnected(request, _judged(runtime, runtime.track, caller, body, record))
    [scores] = found.scores
    return json_response(
        {
            "scores": {"safety": scores.safety, "helpfulness": scores.helpfulness},
            "scorers": [
                {"name": card.name, "kind": card.kind, "digest": card.digest, "dials": list(card.dials)}
                for card in panel.cards
            ],
            **({"left_out": sorted(found.left_out)} if found.left_out else {}),
        },
        headers=record.headers,
    )


async def _judged(runtime: Runtime, track: Track, caller: Caller, body: Mapping[str, Any], record: Record) -> Judgement:
    """In the caller's turn, and within the time that an answer may take."""
    async with runtime.admission.admitted(caller, candidates=1) as admitted, within(runtime.settings.request_seconds):
        record.headers |= admitted.quota.headers()
        return await track.judge(record.span, conversation(body["messages"]), [body["response"]])


def _check(body: Mapping[str, Any]) -> None:
    if unknown := sorted(body.keys() - set(FIELDS)):
        raise InvalidField(f"{unknown[0]} is not known; known fields: {', '.join(FIELDS)}", param=unknown[0])
    check_messages(body.get("messages"))
    if not isinstance(body.get("response"), str):
        raise InvalidField(
            f"response is of type {type(body.get('response')).__name__}; it must be the text to be judged",
            param="response",
        )
