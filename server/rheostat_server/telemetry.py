"""Prometheus metrics with bounded labels; they stand beside the engine's own under `/metrics`."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Counter, Histogram

from rheostat_server.errors import RheostatError
from rheostat_server.plan import ControlPlan
from rheostat_server.policy import InForce
from rheostat_server.reranking.facts import Facts

REQUESTS: Final = Counter("rheostat_requests", "Chat requests by mode and outcome.", ["mode", "outcome"])
SECONDS: Final = Histogram("rheostat_request_seconds", "Seconds from a request to its last byte.", ["mode"])
FIRST_EVENT: Final = Histogram("rheostat_first_event_seconds", "Seconds from a request to its first event.", ["mode"])
DIALS: Final = Histogram(
    "rheostat_dial_in_force",
    "Dials in force.",
    ["dial"],
    buckets=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
)
CLAMPED: Final = Counter(
    "rheostat_dial_clamped", "Dials, and numbers of candidates, moved into the caller's envelope.", ["dial"]
)

CANDIDATES: Final = Counter(
    "rheostat_candidates", "Candidates of reranked requests by how they ended.", ["mode", "end"]
)
CANDIDATE_TOKENS: Final = Counter("rheostat_candidate_tokens", "Tokens of all candidates.", ["mode"])
JUDGING: Final = Histogram("rheostat_judging_seconds", "Seconds that an answer waited for its scorers.", ["mode"])
REFUSED: Final = Counter("rheostat_refused", "Answers in whose place a refusal was returned.", ["mode"])
LEFT: Final = Histogram(
    "rheostat_distance_left",
    "How far the returned answer's level was from the dial.",
    ["mode", "dial"],
    buckets=[0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0],
)


def count_plan(in_force: InForce, plan: ControlPlan) -> None:
    """Records the dials in force, and what was clamped."""
    if plan.effective is None:
        return
    for name, value in plan.effective.as_dict().items():
        DIALS.labels(name).observe(value)
    for clamped in in_force.clamped:
        CLAMPED.labels(clamped).inc()


def count_facts(mode: str, facts: Facts) -> None:
    """Records what a reranked answer cost, and how near it came."""
    CANDIDATES.labels(mode, "finished").inc(facts.finished)
    CANDIDATES.labels(mode, "failed").inc(facts.failed)
    CANDIDATES.labels(mode, "dropped").inc(max(0, facts.generated - facts.finished - facts.failed))
    CANDIDATE_TOKENS.labels(mode).inc(facts.tokens or 0)
    JUDGING.labels(mode).observe(facts.seconds_judging)
    if facts.refused:
        REFUSED.labels(mode).inc()
    for name, value in ((facts.choice and facts.choice.left) or {}).items():
        LEFT.labels(mode, name).observe(value)


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
