"""`POST /v1/control/sweep`: one conversation answered at a grid of dials."""

import reprlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from rheostat_server.api.chat_body import read_chat_request
from rheostat_server.api.disconnect import unless_disconnected
from rheostat_server.api.errors import error_body
from rheostat_server.api.event_stream import EventStream
from rheostat_server.api.json_response import json_response
from rheostat_server.api.openapi import SWEEP, SWEEP_BODY
from rheostat_server.api.request_record import record_of
from rheostat_server.api.runtime import caller_with_room, runtime_of
from rheostat_server.chat_request import ChatRequest
from rheostat_server.contract.dials import DIAL_NAMES, DialName, Level
from rheostat_server.engines import DONE
from rheostat_server.errors import InvalidField
from rheostat_server.policy import DialRange
from rheostat_server.record import Record
from rheostat_server.runtime import Runtime
from rheostat_server.sse import event
from rheostat_server.sweep import Reached, Sweep, as_json, grid

ROUTE: Final = "/v1/control/sweep"
router = APIRouter()

_RIGHT: Final[Mapping[Any, str]] = {
    **dict.fromkeys(DIAL_NAMES, "a list of numbers from 0 to 1, at least one"),
    "scores": "true or false",
}
"""What each field of the block must be."""

Levels = Annotated[list[Level], Field(min_length=1)]


class SweepBlock(BaseModel):
    """The `sweep` object: levels of the dials, and whether the answers are judged.

    Levels go before what body, headers or preset say of that dial; of a dial without levels those hold.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    safety: Levels | None = None
    helpfulness: Levels | None = None
    scores: bool = True

    def levels(self, ranges: Mapping[DialName, DialRange]) -> dict[DialName, Sequence[float]]:
        """Five levels of what the caller may have of either dial, where none is given."""
        given: dict[DialName, list[float] | None] = {"safety": self.safety, "helpfulness": self.helpfulness}
        named: dict[DialName, Sequence[float]] = {name: levels for name, levels in given.items() if levels}
        return named or {name: _five_levels(allowed) for name, allowed in ranges.items()}


def _five_levels(allowed: DialRange) -> list[float]:
    """Rounded, and none of them rounded out of the range."""
    least, most = allowed.minimum, allowed.maximum
    levels = (round(least + (most - least) * place / 4, 4) for place in range(5))
    return list(dict.fromkeys(min(max(level, least), most) for level in levels))


@router.post(ROUTE, response_model=None, responses=SWEEP, openapi_extra=SWEEP_BODY)
async def sweep(request: Request) -> Response:
    """Answers a conversation at a grid of dials, with the levels of each answer where the server has scorers.

    Every point counts as a request of the caller's, and is held to its envelope and rates.
    """
    runtime, record = runtime_of(request), record_of(request)
    chat = await read_chat_request(request, runtime, await caller_with_room(request))
    asked = _sweep(chat, runtime.settings.max_sweep)
    asked.check(runtime)
    record.model, record.stream, record.asked = chat.model, chat.wants_stream, chat.control.as_json()
    if chat.wants_stream:
        events = _events(asked, runtime, record)
        return await EventStream.begun(request, events, record, patience=runtime.settings.reader_seconds)
    return json_response(await unless_disconnected(request, _whole(asked, runtime, record)), headers=record.headers)


async def _whole(asked: Sweep, runtime: Runtime, record: Record) -> dict[str, Any]:
    reached = [point async for point in asked.answers(runtime, record)]
    points = [_told(point) for point in sorted(reached, key=lambda each: each.point.index)]
    return {"object": "control.sweep", "model": asked.chat.model, "points": points, "usage": asked.usage}


async def _events(asked: Sweep, runtime: Runtime, record: Record) -> AsyncGenerator[bytes, None]:
    async for point in asked.answers(runtime, record):
        yield event(_told(point))
    yield DONE


def _told(reached: Reached) -> dict[str, Any]:
    return as_json(reached) | (error_body(reached.error) if reached.error else {})


def _sweep(chat: ChatRequest, most: int) -> Sweep:
    """Raises InvalidField for a grid that is wrong or too large, and for fields of one answer's form."""
    block = _read_block(chat.body.get("sweep"))
    points = grid(block.levels(chat.caller.policy.envelope.ranges()))
    if len(points) > most:
        raise InvalidField(f"sweep has {len(points)} points; at most {most} are answered", param="sweep")
    for name, value in (("n", chat.body.get("n")), ("stream_options", chat.body.get("stream_options"))):
        if value not in (None, 1):
            raise InvalidField(f"{name} is {value} and does not go with a sweep; leave it out", param=name)
    body = {name: value for name, value in chat.body.items() if name not in ("sweep", "stream", "n", "stream_options")}
    return Sweep(replace(chat, body=body), points, ROUTE, judged=block.scores)


def _read_block(block: object) -> SweepBlock:
    try:
        return SweepBlock.model_validate({} if block is None else block)
    except ValidationError as exc:
        raise _invalid(exc) from exc


def _invalid(exc: ValidationError) -> InvalidField:
    first: Mapping[str, Any] = exc.errors(include_url=False, include_context=False)[0]
    where = ".".join(("sweep", *(str(part) for part in first["loc"])))
    if first["type"] == "extra_forbidden":
        known = ", ".join(SweepBlock.model_fields)
        return InvalidField(f"Unknown field {first['loc'][0]!r} in sweep; known fields: {known}.", param=where)
    right = _RIGHT[first["loc"][0]] if first["loc"] else "an object with levels of safety, helpfulness or both"
    return InvalidField(f"{where} is {reprlib.repr(first['input'])}; it must be {right}", param=where)
