"""Prometheus metrics with bounded labels; they stand beside the engine's own under `/metrics`."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Counter, Histogram

from rheostat_server.errors import RheostatError
from rheostat_server.plan import ControlPlan
from rheostat_server.policy import InForce

REQUESTS: Final = Counter("rheostat_requests", "Chat requests by mode and outcome.", ["mode", "outcome"])
SECONDS: Final = Histogram("rheostat_request_seconds", "Seconds from a request to its last byte.", ["mode"])
FIRST_EVENT: Final = Histogram("rheostat_first_event_seconds", "Seconds from a request to its first event.", ["mode"])
DIALS: Final = Histogram(
    "rheostat_dial_in_force",
    "Dials in force.",
    ["dial"],
    buckets=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
)
CLAMPED: Final = Counter("rheostat_dial_clamped", "Dials moved into the caller's envelope.", ["dial"])


def count_plan(in_force: InForce, plan: ControlPlan) -> None:
    """Records the dials in force and those that were clamped."""
    if plan.effective is None:
        return
    for name, value in plan.effective.as_dict().items():
        DIALS.labels(name).observe(value)
    for name in in_force.clamped:
        CLAMPED.labels(name).inc()


@contextmanager
def counted(mode: str) -> Iterator[None]:
    """Counts one request by how it ended: answered, refused (the caller's fault), failed (ours), or cancelled."""
    outcome = "failed"
    try:
        yield
        outcome = "answered"
    except (asyncio.CancelledError, GeneratorExit):
        outcome = "cancelled"
        raise
    except RheostatError as exc:
        outcome = "failed" if exc.status >= 500 else "refused"
        raise
    finally:
        REQUESTS.labels(mode, outcome).inc()
