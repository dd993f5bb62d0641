"""Prometheus metrics of the limits and of the queue; none is labelled by the caller."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

LIMITED: Final = Counter("rheostat_rate_limited", "Requests refused for a rate limit, by limit.", ["limit"])
FAILURES: Final = Counter("rheostat_limits_failures", "Checks and counts of rate limits that Redis did not make.")

WAITING: Final = Gauge("rheostat_queue_waiting", "Requests that wait for their turn.", multiprocess_mode="livesum")
RUNNING: Final = Gauge("rheostat_queue_running", "Requests whose turn it is.", multiprocess_mode="livesum")
WAITED: Final = Histogram(
    "rheostat_queue_seconds",
    "Seconds that a request waited for its turn.",
    buckets=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
)
QUEUE_REFUSED: Final = Counter("rheostat_queue_refused", "Requests that the queue refused, by cause.", ["cause"])
