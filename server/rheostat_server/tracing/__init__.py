"""Spans of a request, each told its parent: streams are read by several tasks, so nothing is left in the context.

Where the operator did not turn tracing on they are `NO_SPAN`, and OpenTelemetry is not imported.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Final, Protocol

Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value]
"""Numbers and names of ours: never what people or models wrote, and never a key."""
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Span(Protocol):
    """Begun when it is made, and ended by its `with`, which notes what it was left by; messages are not noted."""

    @property
    def ids(self) -> Mapping[str, str]:
        """`trace_id` and `span_id`, for lines that are logged."""
        ...

    def child(self, name: str, attributes: Attributes = NOTHING) -> "Span": ...

    def note(self, attributes: Attributes) -> None: ...

    def event(self, name: str) -> None: ...

    def failed(self, code: str) -> None:
        """For what went wrong without leaving the `with`."""
        ...

    def carried(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Headers, in lower case, by which another server goes on with this trace, in place of the caller's own."""
        ...

    def __enter__(self) -> "Span": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tracing(Protocol):
    """Makes the span of each request."""

    @property
    def on(self) -> bool: ...

    def request(self, name: str, attributes: Attributes, headers: Mapping[str, str]) -> Span:
        """A server's span; its parent is the `traceparent` among the headers, if it is one."""
        ...

    async def close(self) -> None:
        """Sends what is not sent yet."""
        ...


class NoSpan:
    """Takes everything and keeps nothing."""

    ids = NOTHING

    def child(self, name: str, attributes: Attributes = NOTHING) -> "NoSpan":
        return self

    def note(self, attributes: Attributes) -> None:
        return

    def event(self, name: str) -> None:
        return

    def failed(self, code: str) -> None:
        return

    def carried(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        return headers

    def __enter__(self) -> "NoSpan":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


NO_SPAN: Final = NoSpan()


class NoTracing:
    """A server that traces nothing."""

    on = False

    def request(self, name: str, attributes: Attributes, headers: Mapping[str, str]) -> Span:
        return NO_SPAN

    async def close(self) -> None:
        return


NO_TRACING: Final = NoTracing()
