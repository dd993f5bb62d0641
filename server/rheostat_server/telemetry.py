"""Prometheus metrics with bounded labels; they stand beside the engine's own under `/metrics`.

A label's values are modes, dials and words of ours: nothing that a caller writes or chooses the name of.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect

from rheostat_server.errors import EngineRejected, RheostatError
from rheostat_server.plan import ControlPlan
from rheostat_server.policy import InForce
from rheostat_server.reranking.facts import Facts

UNPLANNED: Final = "none"
"""The mode of a request that was refused before it had one."""

LEVELS: Final = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
DISTANCES: Final = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0]
ANSWER_SECONDS: Final = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600]
FIRST_SECONDS: Final = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

REQUESTS: Final = Counter("rheostat_requests", "Chat requests by mode and outcome.", ["mode", "outcome"])
ERRORS: Final = Counter("rheostat_errors", "Chat requests that an error ended, by its code.", ["code"])
SECONDS: Final = Histogram(
    "rheostat_request_seconds", "Seconds from a request to its last byte.", ["mode"], buckets=ANSWER_SECONDS
)
FIRST_EVENT: Final = Histogram(
    "rheostat_first_event_seconds", "Seconds from a request to its first event.", ["mode"], buckets=FIRST_SECONDS
)
DIALS: Final = Histogram("rheostat_dial_in_force", "Dials in force.", ["dial"], buckets=LEVELS)
CLAMPED: Final = Counter(
    "rheostat_dial_clamped", "Dials, and numbers of candidates, moved into the caller's envelope.", ["dial"]
)

CANDIDATES: Final = Counter(
    "rheostat_candidates", "Candidates of reranked requests by how they ended.", ["mode", "end"]
)
CANDIDATE_TOKENS: Final = Counter("rheostat_candidate_tokens", "Tokens of all candidates.", ["mode"])
JUDGING: Final = Histogram("rheostat_judging_seconds", "Seconds that an answer waited for its scorers.", ["mode"])
REFUSED: Final = Counter("rheostat_refused", "Answers in whose place a refusal was returned.", ["mode"])
SCORE: Final = Histogram("rheostat_score", "Judged levels of the answers returned.", ["mode", "dial"], buckets=LEVELS)
LEFT: Final = Histogram(
    "rheostat_distance_left",
    "How far the returned answer's level was from the dial.",
    ["mode", "dial"],
    buckets=DISTANCES,
)
DRIFT: Final = Histogram(
    "rheostat_drift",
    "How far above or below its dial a level was judged, where candidates were drawn at calibrated or trained levels.",
    ["mode", "dial", "direction"],
    buckets=DISTANCES,
)


def count_plan(in_force: InForce, plan: ControlPlan) -> None:
    """Records the dials in force, and what was clamped."""
    if plan.effective is None:
        return
    for name, value in plan.effective.as_dict().items():
        DIALS.labels(name).observe(value)
    for clamped in in_force.clamped:
        CLAMPED.labels(clamped).inc()


def count_facts(plan: ControlPlan, facts: Facts) -> None:
    """Records what a reranked answer cost, and how near it came."""
    mode = plan.mode
    CANDIDATES.labels(mode, "finished").inc(facts.finished)
    CANDIDATES.labels(mode, "failed").inc(facts.failed)
    CANDIDATES.labels(mode, "dropped").inc(max(0, facts.generated - facts.finished - facts.failed))
    CANDIDATE_TOKENS.labels(mode).inc(facts.tokens or 0)
    JUDGING.labels(mode).observe(facts.seconds_judging)
    if facts.refused:
        REFUSED.labels(mode).inc()
    for name, value in ((facts.choice and facts.choice.left) or {}).items():
        LEFT.labels(mode, name).observe(value)
    count_scores(plan, facts)


def count_scores(plan: ControlPlan, facts: Facts) -> None:
    """Records the levels of the answer returned, and their drift from the dials where something promised those.

    Weights of a blend promise no level.

    A histogram has no sum of values below 0, so the drift has one for each direction; the mean drift is the difference
    of their sums by the sum of their counts. A dial at 0 or 1 is a direction, from which nothing drifts.
    """
    if facts.choice is None or plan.effective is None:
        return
    for dial, asked in plan.effective.as_dict().items():
        level = facts.choice.scores.level(dial)
        if level is None:
            continue
        SCORE.labels(plan.mode, dial).observe(level)
        if plan.control_values is not None and plan.blend is None and 0 < asked < 1:
            above, below = (DRIFT.labels(plan.mode, dial, direction) for direction in ("above", "below"))
            (above if level >= asked else below).observe(abs(level - asked))


@contextmanager
def counted(mode: str) -> Iterator[None]:
    """Counts one request by how it ended: answered, refused (the caller's fault), failed (ours), or cancelled."""
    try:
        yield
    except BaseException as exc:
        REQUESTS.labels(mode, _outcome(exc)).inc()
        _count_error(exc)
        raise
    REQUESTS.labels(mode, "answered").inc()


@contextmanager
def unplanned() -> Iterator[None]:
    """Counts a request for which no plan could be made; one that has its plan is `counted` under its mode."""
    try:
        yield
    except Exception as exc:
        REQUESTS.labels(UNPLANNED, _outcome(exc)).inc()
        _count_error(exc)
        raise


def _outcome(exc: BaseException) -> str:
    if isinstance(exc, (asyncio.CancelledError, GeneratorExit, ClientDisconnect)):
        return "cancelled"
    return "refused" if isinstance(exc, RheostatError) and exc.status < 500 else "failed"


def _count_error(exc: BaseException) -> None:
    if _outcome(exc) != "cancelled":
        ERRORS.labels(code_of(exc)).inc()


def code_of(exc: BaseException) -> str:
    """The code of an error of ours; an engine's own codes are as many as it likes, so they share one."""
    if isinstance(exc, EngineRejected):
        return "engine_rejected"
    return exc.known_as if isinstance(exc, RheostatError) else "internal_error"
