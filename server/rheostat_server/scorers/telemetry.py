"""Prometheus metrics of the scorers; their label is the scorer's name, which the operator chose."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from rheostat_server.scorers import ScorerCard, Scores

DIALOGUES: Final = Counter("rheostat_scorer_dialogues", "Dialogues judged.", ["scorer"])
UNJUDGED: Final = Counter("rheostat_scorer_unjudged", "Dialogues that a scorer could not judge.", ["scorer"])
FAILURES: Final = Counter("rheostat_scorer_failures", "Calls that a scorer failed, by cause.", ["scorer", "cause"])
QUEUED: Final = Gauge(
    "rheostat_scorer_queued",
    "Dialogues, or requests to another judge, that wait.",
    ["scorer"],
    multiprocess_mode="livesum",
)
SECONDS: Final = Histogram(
    "rheostat_scorer_seconds", "Seconds that a batch, or a request to another judge, took.", ["scorer"]
)
BATCH: Final = Histogram(
    "rheostat_scorer_batch", "Dialogues in a batch.", ["scorer"], buckets=[1, 2, 4, 8, 16, 32, 64, 128, 256]
)


def count_judged(card: ScorerCard, scores: Sequence[Scores]) -> None:
    """Counts judgements, and those of them that lack a level of a dial that the scorer judges."""
    DIALOGUES.labels(card.name).inc(len(scores))
    UNJUDGED.labels(card.name).inc(sum(any(one.level(dial) is None for dial in card.dials) for one in scores))
