"""Prometheus metrics of blends; none is labelled by the blend."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

LOADS: Final = Counter("rheostat_blend_loads", "Blends loaded into the engine, by outcome.", ["outcome"])
LOAD_SECONDS: Final = Histogram(
    "rheostat_blend_load_seconds",
    "Seconds to make a blend and load it into the engine.",
    buckets=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
)
LOADED: Final = Gauge("rheostat_blends_loaded", "Blends in the engine.", multiprocess_mode="livesum")
EVICTIONS: Final = Counter("rheostat_blend_evictions", "Blends that made room for others.")
REFUSED: Final = Counter("rheostat_blend_refused", "Requests for which no blend came free in time.")
