"""Tracing as the settings have it: off, or OpenTelemetry's, configured by its own environment variables."""

import os
from collections.abc import Mapping
from typing import Final

from rheostat_server.errors import CannotStart
from rheostat_server.packages import missing
from rheostat_server.settings import Settings
from rheostat_server.tracing import NO_TRACING, Tracing

PROTOCOLS: Final[Mapping[str, str]] = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
}
"""Modules of OpenTelemetry's exporters, of which the extra `otel` brings the first."""
NEEDED: Final = "opentelemetry.sdk.trace"
EXTRA: Final = "pip install '.[otel]' in the checkout"


def start_tracing(settings: Settings) -> Tracing:
    """Raises CannotStart where `check_tracing` does."""
    check_tracing(settings)
    if not settings.tracing:
        return NO_TRACING
    from rheostat_server.tracing.spans import OtelTracing

    return OtelTracing.exporting(PROTOCOLS[_protocol()])


def check_tracing(settings: Settings) -> None:
    """Nothing is imported here.

    Raises:
        CannotStart: tracing is on, and what it needs is not installed.
    """
    if not settings.tracing:
        return
    if (protocol := _protocol()) not in PROTOCOLS:
        raise CannotStart(f"the OTLP protocol is {protocol!r}; known ones: {', '.join(PROTOCOLS)}")
    for module, command in (
        (NEEDED, EXTRA),
        (PROTOCOLS[protocol], EXTRA if protocol != "grpc" else "pip install opentelemetry-exporter-otlp-proto-grpc"),
    ):
        if missing(module):
            raise CannotStart(
                f"RHEOSTAT_TRACING is on, and {module} is not installed; run: {command}, or turn tracing off"
            )


def _protocol() -> str:
    """By OpenTelemetry's variables, of which the one for traces goes first."""
    named = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    return next((value for name in named if (value := os.environ.get(name))), "http/protobuf")
