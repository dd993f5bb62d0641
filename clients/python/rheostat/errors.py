"""Every error that the client raises for what a server said, or did not say.

RheostatError
├── APIError                  the server answered with an error
│   ├── BadRequest 400, 413, 415    the body cannot be read, is too large, or asks for what the engine does not have
│   ├── Unauthorized 401            no key, or one that is not known or has expired
│   ├── Forbidden 403               the key may not do this
│   │   └── OutsideEnvelope         a dial, mode, preset, adapter or model beyond what the key may set
│   ├── NotFound 404                no such model, preset or adapter
│   ├── InvalidValue 422            a field has a wrong value, or does not go with the mode
│   ├── RateLimited 429             over the key's rates
│   └── ServerError 5xx
│       ├── NoScorers 501           an answer is to be judged, and the server has no scorers
│       └── Unavailable 503         the engine, a scorer or the queue has no room now
├── ConnectionFailed          no answer came, or not the whole of one
│   └── TimedOut              not in time
├── StreamFailed              an error event in a stream, or a stream cut off before its end
└── UnreadableAnswer          an answer that is none of a Rheostat server

Each has `message`, `status`, `code`, `param` and `request_id`, None where there is none. What is wrong before anything
is sent, such as a dial of 1.2, is a ValueError or TypeError.
"""

from collections.abc import Mapping
from typing import Any, Final

SHOWN: Final = 200
"""Characters of an answer without an error object that a message shows."""


class RheostatError(Exception):
    """Base of all. `passing`: the same request may be answered a little later, and the client asks again.

    `retry_after` is the server's own word on when, in seconds.
    """

    passing: bool = False

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, param: str | None = None,
        request_id: str | None = None, retry_after: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        known = {"status": self.status, "code": self.code, "param": self.param, "request": self.request_id}
        told = ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
        return f"{self.message} ({told})" if told else self.message


class APIError(RheostatError):
    """The server answered with an error."""


class BadRequest(APIError):
    """400, 413, 415."""


class Unauthorized(APIError):
    """401."""


class Forbidden(APIError):
    """403."""


class OutsideEnvelope(Forbidden):
    """403 `outside_envelope`."""


class NotFound(APIError):
    """404."""


class InvalidValue(APIError):
    """422."""


class RateLimited(APIError):
    """429."""

    passing = True


class ServerError(APIError):
    """5xx."""


class NoScorers(ServerError):
    """501."""


class Unavailable(ServerError):
    """503."""

    passing = True


class ConnectionFailed(RheostatError):
    """No answer came; or it broke off, and then it has a status and is not asked for again."""

    def __init__(
        self, message: str, *, passing: bool = True, status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message, status=status, request_id=request_id)
        self.passing = passing


class TimedOut(ConnectionFailed):
    """The server may be at work on it still, so it is not asked again."""

    def __init__(self, message: str, *, status: int | None = None, request_id: str | None = None) -> None:
        super().__init__(message, passing=False, status=status, request_id=request_id)


class StreamFailed(RheostatError):
    """What had come before is no whole answer."""


class UnreadableAnswer(RheostatError):
    """A status of success, and a body that is not what this route answers."""


_BY_STATUS: Final[Mapping[int, type[APIError]]] = {
    400: BadRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 413: BadRequest, 415: BadRequest,
    422: InvalidValue, 429: RateLimited, 501: NoScorers, 503: Unavailable,
}  # fmt: skip
_BY_CODE: Final[Mapping[str, type[APIError]]] = {
    "outside_envelope": OutsideEnvelope, "rate_limit_exceeded": RateLimited, "no_scorers": NoScorers,
    "invalid_value": InvalidValue,
}  # fmt: skip


def api_error(
    body: object, *, status: int | None = None, request_id: str | None = None, retry_after: float | None = None
) -> APIError:
    """The error of an answer's body, or of a point's, which has no status of its own."""
    told = _error_object(body)
    code = told.get("code")
    code = code if isinstance(code, str) else None
    return _class_of(status, code)(
        str(told["message"]), status=status, code=code, param=told.get("param"), request_id=request_id,
        retry_after=retry_after,
    )  # fmt: skip


def stream_failed(body: object, request_id: str | None) -> StreamFailed:
    """That of an error event."""
    told = _error_object(body)
    return StreamFailed(
        f"the stream ended with an error: {told['message']}", code=told.get("code"), param=told.get("param"),
        request_id=request_id,
    )  # fmt: skip


def _class_of(status: int | None, code: str | None) -> type[APIError]:
    other = ServerError if status is not None and status >= 500 else APIError
    return _BY_CODE.get(code or "") or _BY_STATUS.get(status or 0, other)


def _error_object(body: object) -> Mapping[str, Any]:
    """Something between client and server, a proxy, may answer in another form; then the message shows it."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if isinstance(error, Mapping) and "message" in error:
        return error
    return {"message": f"an error without OpenAI's form: {str(error or body)[:SHOWN]!r}"}
