"""Every error that a caller can see, and the one that an operator sees when a server cannot start.

RheostatError
├── BadRequest 400            the body cannot be read
│   ├── UnsupportedField      the engine cannot honour a field
│   ├── ContextOverflow       prompt and answer do not fit the model's context
│   ├── WrongContentType 415
│   └── BodyTooLarge 413
├── InvalidField 422          a field has a wrong value
│   ├── UnknownMode 422
│   └── PolicyRefused 422     the policy file does not fit; the old one stays in force
├── NotFound 404
│   ├── UnknownModel
│   ├── UnknownPreset
│   └── UnknownAdapter
├── Unauthorized 401          no key, or one that is not known
├── NotPermitted 403          outside the caller's envelope
├── NotAdmin 403              only for keys that may administer
├── EngineRejected            the engine refused the request: its own status and body
├── EngineUnavailable 503     the engine is gone or not ready
├── Draining 503              the server is about to end
├── RequestTimeout 504        the answer took longer than the operator lets it
├── AuditUnavailable 503      the request cannot be recorded (`audit/health.py`)
├── TooManyRequests 429       over the caller's rates (`limits/refusals.py`, and the three below)
├── LimitsUnavailable 503     the rates cannot be counted
├── QueueFull 503             too many requests wait
├── QueueTimeout 503          the request's turn did not come
├── NoBlendFree 503           every blend that the engine has room for is in use
├── EngineFailed 502          the engine answered with something that is no answer
├── IssuerUnavailable 503     tokens cannot be checked, since their issuer cannot be reached
├── NoScorers 501             the server was started without scorers
└── ScorerUnavailable 503     a scorer is gone, too busy or too slow, so candidates cannot be told apart

The HTTP status and the wire type sit on the class; `api/errors.py` renders them all in OpenAI's shape.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar


class RheostatError(Exception):
    """Base of all. `param` is the path of the field at fault, as OpenAI names it; `headers` go on the response.

    Who raises one whose message holds the words of another server gives it `logged`: what the log may say of it.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"
    code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        logged: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers
        self._logged = logged

    @property
    def logged(self) -> str:
        """Our own words alone, as others' may quote what people wrote; of a fault of the caller's, its code."""
        if self._logged is not None:
            return self._logged
        return self.message if self.status >= 500 else self.known_as

    @property
    def known_as(self) -> str:
        """The code by which records, metrics and traces know it."""
        return self.code or self.type


class BadRequest(RheostatError):
    status = 400
    type = "invalid_request_error"
    code = "bad_request"


class UnsupportedField(BadRequest):
    code = "unsupported_field"


class ContextOverflow(BadRequest):
    code = "context_length_exceeded"


class WrongContentType(BadRequest):
    status = 415
    code = "unsupported_media_type"


class BodyTooLarge(BadRequest):
    status = 413
    code = "body_too_large"


class InvalidField(RheostatError):
    status = 422
    type = "invalid_request_error"
    code = "invalid_value"


class UnknownMode(InvalidField):
    code = "unknown_mode"

    def __init__(self, mode: object, known: Iterable[str], *, param: str = "control.mode") -> None:
        super().__init__(f"Unknown mode {mode!r}; known modes: {', '.join(known)}.", param=param)


class NotFound(RheostatError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class UnknownModel(NotFound):
    code = "model_not_found"

    def __init__(self, model: str, known: Iterable[str]) -> None:
        super().__init__(f"Unknown model {model!r}; known models: {', '.join(known)}.", param="model")


class UnknownPreset(NotFound):
    code = "preset_not_found"

    def __init__(self, preset: str, known: Iterable[str], *, param: str = "control.preset") -> None:
        super().__init__(f"Unknown preset {preset!r}; known presets: {', '.join(known) or 'none'}.", param=param)


class UnknownAdapter(NotFound):
    code = "adapter_not_found"

    def __init__(self, adapter: str, known: Iterable[str], *, kind: str = "adapter") -> None:
        super().__init__(
            f"Unknown {kind} {adapter!r}; known {kind}s: {', '.join(known) or 'none'}.", param="control.adapter"
        )


class Unauthorized(RheostatError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class NotPermitted(RheostatError):
    status = 403
    type = "permission_error"
    code = "outside_envelope"


class NotAdmin(RheostatError):
    status = 403
    type = "permission_error"
    code = "not_admin"

    def __init__(self) -> None:
        super().__init__("this needs a key with admin: true in the policy file")


class PolicyRefused(InvalidField):
    code = "policy_refused"


class IssuerUnavailable(RheostatError):
    status = 503
    type = "issuer_unavailable"
    code = "issuer_unavailable"


class EngineRejected(RheostatError):
    """The engine refused the request for the caller's fault; carries the engine's own status, type, code and words."""

    def __init__(
        self, message: str, *, status: int, type: str = "invalid_request_error", code: str | None = None,
        param: str | None = None, headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            message, param=param, headers=headers, logged=f"the engine refused the request with status {status}"
        )
        self.status = status  # type: ignore[misc]
        self.type = type  # type: ignore[misc]
        self.code = code  # type: ignore[misc]


class EngineUnavailable(RheostatError):
    status = 503
    type = "engine_unavailable"
    code = "engine_unavailable"


class EngineFailed(RheostatError):
    status = 502
    type = "engine_failed"
    code = "engine_failed"


class NoBlendFree(RheostatError):
    status = 503
    type = "overloaded_error"
    code = "no_blend_free"

    def __init__(self, *, room: int, seconds: float) -> None:
        super().__init__(
            f"all {room} blends that the engine has room for are in use, and none came free within {seconds:g} s; try "
            "again in a second",
            headers={"Retry-After": "1"},
        )


class Draining(RheostatError):
    status = 503
    type = "engine_unavailable"
    code = "draining"

    def __init__(self) -> None:
        super().__init__("the server is about to end and takes no new requests", headers={"Retry-After": "5"})


class RequestTimeout(RheostatError):
    status = 504
    type = "timeout_error"
    code = "request_timeout"


class NoScorers(RheostatError):
    status = 501
    type = "invalid_request_error"
    code = "no_scorers"

    def __init__(self) -> None:
        super().__init__("the server has no scorers; start it with --scorers")


class ScorerUnavailable(RheostatError):
    status = 503
    type = "scorer_unavailable"
    code = "scorer_unavailable"


class CannotStart(ValueError):
    """The server must not start as it is asked to; the message says why and what would be right."""
