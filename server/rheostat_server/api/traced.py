"""Every request under /v1 is a server span where tracing is on, from its headers to the last byte of its response."""

from collections.abc import Mapping
from typing import Any, Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rheostat_server.api.request_record import RECORD, SPAN
from rheostat_server.record import Record
from rheostat_server.runtime import runtime_in
from rheostat_server.tracing import Span, Value

PARENT: Final = ("traceparent", "tracestate")


class Traced:
    """ASGI around a recorded route: its record tells what the span says."""

    def __init__(self, app: ASGIApp, route: str) -> None:
        self._app = app
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = runtime_in(scope["app"])
        if runtime is None or not runtime.tracing.on:
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        asked = {"http.request.method": method, "http.route": self._route, "url.scheme": scope.get("scheme", "http")}
        with runtime.tracing.request(f"{method} {self._route}", asked, _parent(scope)) as span:
            scope[SPAN] = span
            await self._spanned(span, scope, receive, send)

    async def _spanned(self, span: Span, scope: Scope, receive: Receive, send: Send) -> None:
        sent = _Sent()

        async def noted(message: Message) -> None:
            await send(message)
            sent.take(message)

        with structlog.contextvars.bound_contextvars(**span.ids):
            try:
                await self._app(scope, receive, noted)
            except Exception:
                sent.status = sent.status or 500
                raise
            finally:
                _tell(span, scope[RECORD], sent)


class _Sent:
    """What has been sent of a response."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.whole = False

    def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.whole = not message.get("more_body")


def _parent(scope: Scope) -> dict[str, str]:
    """One `traceparent`; of several none can be told to be right, and joined they are no longer one."""
    headers = Headers(scope=scope)
    return {name: ",".join(values) for name in PARENT if (values := headers.getlist(name))}


def _tell(span: Span, record: Record, sent: _Sent) -> None:
    outcome = _outcome(record, sent)
    status = {"http.response.status_code": sent.status} if sent.status is not None else {}
    span.note({**status, **attributes(record), "rheostat.outcome": outcome})
    if outcome == "failed":
        span.failed(record.code or "internal_error")


def _outcome(record: Record, sent: _Sent) -> str:
    """As the record has it, which is not told of answers where there is no audit log."""
    if record.code is not None:
        return record.outcome
    if sent.status is not None and sent.status >= 500:
        return "failed"
    return "answered" if sent.whole and sent.status and sent.status < 400 else record.outcome


def attributes(record: Record) -> dict[str, Value]:
    """What the record tells of a request, less all that people wrote."""
    control, caller = record.control, record.caller
    effective = control.get("effective") or {}
    told: dict[str, Any] = {
        "rheostat.request_id": record.request_id,
        "rheostat.caller": caller and caller.name,
        "rheostat.envelope": caller and caller.policy.envelope.name,
        "rheostat.model": record.model if control else None,  # until there is a plan it is whatever was written
        "rheostat.stream": record.stream,
        "rheostat.safety": effective.get("safety"),
        "rheostat.helpfulness": effective.get("helpfulness"),
        "rheostat.clamped": control.get("clamped") or None,
        "rheostat.mode": control.get("mode"),
        "rheostat.adapter": control.get("adapter"),
        "rheostat.code": record.code,
        **_counts("rheostat.candidates", control.get("candidates"), ("wanted", "generated", "finished", "tokens")),
        **_counts("rheostat.usage", record.usage, ("prompt_tokens", "completion_tokens")),
    }
    return {name: value for name, value in told.items() if value is not None}


def _counts(name: str, counts: Mapping[str, Any] | None, parts: tuple[str, ...]) -> dict[str, int]:
    known = counts or {}
    return {f"{name}.{part}": known[part] for part in parts if isinstance(known.get(part), int)}
