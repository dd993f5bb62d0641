"""A response of server-sent events whose source is closed as soon as the caller is gone."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from rheostat_server.api.disconnect import unless_disconnected
from rheostat_server.api.errors import error_body
from rheostat_server.api.patience import patient
from rheostat_server.engines import DONE
from rheostat_server.errors import RheostatError
from rheostat_server.record import Record
from rheostat_server.sse import event

log = structlog.get_logger(__name__)


class EventStream(StreamingResponse):
    """Events, the first of which is there already, so that what fails before it can still have its own status.

    One that fails midway ends with an error event. A caller that does not read for `patience` seconds is left, so that
    it does not hold its place in the engine. Starlette leaves a generator that was cut off to the garbage collector;
    here it is closed at once.
    """

    media_type = "text/event-stream"

    @classmethod
    async def begun(
        cls, request: Request, events: AsyncGenerator[bytes, None], record: Record, *, patience: float
    ) -> "EventStream":
        """The response, once the first event is there.

        A caller may go away in the very moment in which it comes; the source is closed all the same.
        """
        try:
            return cls(await unless_disconnected(request, anext(events)), events, record, patience)
        except BaseException:
            await events.aclose()
            raise

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], record: Record, patience: float) -> None:
        super().__init__(rest, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **record.headers})
        self._record = record
        self._first = first
        self._rest = rest
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._rest):
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with patient(send, self._patience) as patiently:
                await self._send_all(patiently)
        except TimeoutError:
            log.warning("stream left: its caller does not read", patience=self._patience)

    async def _send_all(self, send: Send) -> None:
        """The chunk that ends the stream ends the response too, so it does not go out before its record is written."""
        try:
            await send(_body(self._first))
            async for chunk in self._rest:
                await send(_body(chunk))
        except RheostatError as exc:
            self._record.failed(exc)
            log.warning("stream failed", code=exc.code, reason=exc.logged)
            await send(_body(event(error_body(exc)) + DONE))


def _body(chunk: bytes) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": not chunk.endswith(DONE)}
