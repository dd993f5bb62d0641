"""Prometheus metrics of the scorers; their label is the scorer's name, which the operator chose."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

DIALOGUES: Final = Counter("rheostat_scorer_dialogues", "Dialogues judged.", ["scorer"])
UNJUDGED: Final = Counter("rheostat_scorer_unjudged", "Dialogues that a scorer could not judge.", ["scorer"])
FAILURES: Final = Counter("rheostat_scorer_failures", "Calls that a scorer failed, by cause.", ["scorer", "cause"])
QUEUED: Final = Gauge("rheostat_scorer_queued", "Dialogues, or requests to another judge, that wait.", ["scorer"])
SECONDS: Final = Histogram(
    "rheostat_scorer_seconds", "Seconds that a batch, or a request to another judge, took.", ["scorer"]
)
BATCH: Final = Histogram(
    "rheostat_scorer_batch", "Dialogues in a batch.", ["scorer"], buckets=[1, 2, 4, 8, 16, 32, 64, 128, 256]
)
