"""Every request under /v1 has a Record, and leaves it in the audit log when it is over, however it ends."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rheostat_server.api.errors import error_body
from rheostat_server.api.json_response import json_response
from rheostat_server.api.request_id import request_id_of
from rheostat_server.api.request_record import RECORD, SPAN
from rheostat_server.audit.health import AuditUnavailable
from rheostat_server.engines import DONE
from rheostat_server.record import Record
from rheostat_server.runtime import runtime_in
from rheostat_server.sse import event
from rheostat_server.tracing import NO_SPAN

Write = Callable[[], Awaitable[None]]


class Recorded:
    """ASGI around a route. The last byte waits until the record is written.

    So where the audit log fails closed, no answer is whole that is not recorded: a whole answer gives way to an error,
    and a stream ends with one.
    """

    def __init__(self, app: ASGIApp, route: str) -> None:
        self._app = app
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = runtime_in(scope["app"])
        audit = runtime.admission.audit if runtime else None
        record = scope[RECORD] = Record(request_id_of(scope), self._route, span=scope.get(SPAN, NO_SPAN))
        if audit is None:
            await self._app(scope, receive, send)
            return
        response = _Response(send, record, lambda: audit.write(record.as_json()))
        try:
            await self._app(scope, receive, response.send)
        except Exception as exc:
            record.failed(exc)
            raise
        finally:
            await response.settle()


class _Response:
    """Passes a response on, and has the record written before its end."""

    def __init__(self, send: Send, record: Record, write: Write) -> None:
        self._send = send
        self._record = record
        self._write = write
        self._start: Message | None = None
        self._begun = False
        self._written = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message.get("more_body"):
            await self._begin()
            await self._send(message)
            return
        self._note()
        try:
            await self.settle()
        except AuditUnavailable as exc:
            await self._send_error(exc)
            return
        await self._begin()
        await self._send(message)

    async def settle(self) -> None:
        """Writes the record, once; a caller that goes away does not keep it from being written."""
        if self._written:
            return
        self._written = True
        await asyncio.shield(asyncio.ensure_future(self._write()))

    def _note(self) -> None:
        status = self._start["status"] if self._start else None
        if status is not None and status < 400:
            self._record.answered(status)
        elif self._record.status is None:
            self._record.status = status

    async def _begin(self) -> None:
        if not self._begun and self._start is not None:
            self._begun = True
            await self._send(self._start)

    async def _send_error(self, error: AuditUnavailable) -> None:
        if self._begun:
            await self._send(
                {"type": "http.response.body", "body": event(error_body(error)) + DONE, "more_body": False}
            )
            return
        response = json_response(error_body(error), status=error.status, headers=error.headers)
        await self._send({"type": "http.response.start", "status": error.status, "headers": response.raw_headers})
        await self._send({"type": "http.response.body", "body": response.body, "more_body": False})
