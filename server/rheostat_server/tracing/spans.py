"""Spans of OpenTelemetry's SDK, and where they are sent; nothing else imports it."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rheostat_server.errors import RheostatError
from rheostat_server.tracing import NOTHING, Attributes

W3C: Final = TraceContextTextMapPropagator()
CANCELLED: Final = "cancelled"
QUOTE_HEADERS: Final = ("opentelemetry.trace.span", "opentelemetry.trace.propagation.tracecontext")
"""Loggers that warn of a malformed `tracestate` with what the caller wrote in it."""


class OtelSpan:
    """One span. It is never made the current one: whoever needs it is handed it."""

    __slots__ = ("_context", "_span", "_tracer")

    def __init__(self, tracer: Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = trace.set_span_in_context(span, Context())

    @property
    def ids(self) -> Mapping[str, str]:
        context = self._span.get_span_context()
        return {
            "trace_id": trace.format_trace_id(context.trace_id),
            "span_id": trace.format_span_id(context.span_id),
        }

    def child(self, name: str, attributes: Attributes = NOTHING) -> "OtelSpan":
        return OtelSpan(self._tracer, self._tracer.start_span(name, self._context, attributes=attributes))

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def event(self, name: str) -> None:
        self._span.add_event(name)

    def failed(self, code: str) -> None:
        self._span.set_attribute("error.type", code)
        self._span.set_status(StatusCode.ERROR)

    def carried(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        carried = {name: value for name, value in headers.items() if name not in W3C.fields}
        W3C.inject(carried, self._context)
        return carried

    def __enter__(self) -> "OtelSpan":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """An error's message may quote what people wrote, so its code or type is all that is noted."""
        if isinstance(error, RheostatError) and error.status < 500:
            self._span.set_attribute("error.type", _code(error))
        elif isinstance(error, Exception):
            self.failed(_code(error))
        elif error is not None:
            self._span.set_attribute("error.type", CANCELLED)
        self._span.end()


@dataclass(frozen=True, slots=True)
class OtelTracing:
    """Spans by a provider of our own: in vLLM's process the global one is vLLM's."""

    provider: TracerProvider
    on: bool = True

    @classmethod
    def exporting(cls, module: str) -> "OtelTracing":
        """Spans go out in batches by that module's exporter; OpenTelemetry reads its sampler and address itself."""
        for name in QUOTE_HEADERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        provider = TracerProvider(resource=_resource())
        provider.add_span_processor(BatchSpanProcessor(import_module(module).OTLPSpanExporter()))
        return cls(provider)

    def request(self, name: str, attributes: Attributes, headers: Mapping[str, str]) -> OtelSpan:
        tracer = self.provider.get_tracer("rheostat_server")
        parent = W3C.extract(headers, Context())
        return OtelSpan(tracer, tracer.start_span(name, parent, SpanKind.SERVER, attributes))

    async def close(self) -> None:
        await asyncio.to_thread(self.provider.shutdown)


def _resource() -> Resource:
    """Named `rheostat` unless OpenTelemetry's variables say otherwise."""
    named = Resource({"service.name": "rheostat"}).merge(OTELResourceDetector().detect())
    return Resource.create(named.attributes)


def _code(error: Exception) -> str:
    return error.known_as if isinstance(error, RheostatError) else type(error).__qualname__
