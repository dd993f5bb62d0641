"""Reads a request's body within its limit, and parses it as a JSON object."""

from typing import Any, Final

import orjson
from starlette.requests import Request

from rheostat_server.errors import BadRequest, BodyTooLarge, WrongContentType

MAX_DEPTH: Final = 64


async def read_json_object(request: Request, *, max_bytes: int) -> dict[str, Any]:
    """The body as a dict.

    Raises:
        WrongContentType, BodyTooLarge: before the body is read, or as soon as it grows too large.
        BadRequest: not JSON, not an object, or nested more than `MAX_DEPTH` deep.
    """
    _check_content_type(request.headers.get("content-type", ""))
    raw = await _read(request, max_bytes)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise BadRequest(f"the body is not valid JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise BadRequest(f"the body is a JSON {_json_type(body)}; it must be an object")
    if _deeper_than(body, MAX_DEPTH):
        raise BadRequest(f"the body is nested more than {MAX_DEPTH} deep; flatten it")
    return body


def _check_content_type(content_type: str) -> None:
    essence = content_type.split(";")[0].strip().lower()
    if essence != "application/json":
        raise WrongContentType(f"content-type is {content_type!r}; it must be 'application/json'")


async def _read(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise BodyTooLarge(f"the body has {declared} bytes; at most {max_bytes} are accepted")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise BodyTooLarge(f"the body has more than {max_bytes} bytes; at most {max_bytes} are accepted")
        parts.append(part)
    return b"".join(parts)


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    """The containers directly inside a container."""
    inner = value.values() if isinstance(value, dict) else value
    return [child for child in inner if isinstance(child, (dict, list))]


def _json_type(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
