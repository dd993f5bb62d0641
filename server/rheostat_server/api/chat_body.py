"""From a request's JSON object to a ChatRequest."""

import reprlib
from collections.abc import Mapping
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import Request

from rheostat_server.api.body import read_json_object
from rheostat_server.api.control_block import read_control, split_preset
from rheostat_server.api.request_id import request_id_of
from rheostat_server.api.request_record import record_of
from rheostat_server.callers import Caller
from rheostat_server.chat_request import ChatRequest
from rheostat_server.errors import InvalidField
from rheostat_server.policy import Envelope, not_permitted
from rheostat_server.runtime import Runtime

_NOT_FORWARDED: Final = frozenset(
    {
        "authorization", "connection", "content-length", "content-type", "cookie", "host", "keep-alive",
        "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip


async def read_chat_request(request: Request, runtime: Runtime, caller: Caller) -> ChatRequest:
    """Reads and checks what is ours to check: model, messages, stream, n and control; the rest is the engine's.

    Raises:
        BadRequest, InvalidField, NotFound: the body is at fault.
    """
    body = await read_json_object(request, max_bytes=runtime.settings.max_body_bytes)
    record_of(request).ask(body)
    headers = _joined(request.headers)
    model, preset = split_preset(_model(body), runtime.engine.models(), caller.policy.presets)
    _check_permitted(model, caller.policy.envelope)
    control = read_control(body.pop("control", None), headers, preset)
    check_messages(body.get("messages"))
    _check_stream(body)
    _check_choices(body.get("n"), runtime.settings.max_choices)
    return ChatRequest(
        model=model,
        body=body,
        control=control,
        caller=caller,
        request_id=request_id_of(request.scope),
        headers={name: value for name, value in headers.items() if _is_forwarded(name)},
    )


def _joined(headers: Headers) -> dict[str, str]:
    """One value a name; those of a header that was sent twice with a comma between, as HTTP reads them."""
    joined: dict[str, str] = {}
    for name, value in headers.items():
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _is_forwarded(header: str) -> bool:
    return header not in _NOT_FORWARDED and not header.startswith("x-control-")


def _check_permitted(model: str, envelope: Envelope) -> None:
    if not envelope.may("models", model):
        raise not_permitted("model", model, envelope, envelope.models, param="model")


def _model(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidField(
            f"model is {reprlib.repr(model)}; it must be the name of a model, see GET /v1/models", param="model"
        )
    return model


def check_messages(messages: object) -> None:
    """Raises InvalidField unless it is a list of at least one message with a role and content."""
    if not isinstance(messages, list) or not messages:
        raise InvalidField(
            "messages is missing, empty or no list; it must be a list with at least one message", param="messages"
        )
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or not message["role"]:
            raise InvalidField(f"{where} must be an object with a role and content", param=where)
        if not isinstance(message.get("content"), (str, list, type(None))):
            raise InvalidField(
                f"{where}.content is of type {type(message['content']).__name__}; it must be text or a list of parts",
                param=f"{where}.content",
            )


def _check_stream(body: Mapping[str, Any]) -> None:
    stream, options = body.get("stream"), body.get("stream_options")
    if not isinstance(stream, (bool, type(None))):
        raise InvalidField(f"stream is {reprlib.repr(stream)}; it must be true or false", param="stream")
    if not isinstance(options, (dict, type(None))):
        raise InvalidField(f"stream_options is {reprlib.repr(options)}; it must be an object", param="stream_options")


def _check_choices(n: object, most: int) -> None:
    if n is None:
        return
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= most:
        raise InvalidField(f"n is {reprlib.repr(n)}; it must be a whole number from 1 to {most}", param="n")
