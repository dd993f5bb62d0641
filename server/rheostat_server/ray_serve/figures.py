"""Our metrics, told to Ray, which exports those of all replicas on a node at an address of the node's own.

Behind Ray's proxy `GET /metrics` is answered by any one replica, so a scrape of it would see another process each time.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
from prometheus_client import REGISTRY
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from ray import serve  # pyright: ignore[reportMissingImports]
from ray.util.metrics import Gauge  # pyright: ignore[reportMissingImports]

from rheostat_server.log import trace_of

log = structlog.get_logger(__name__)
PERIOD_S: Final = 5.0
OURS: Final = "rheostat_"
REPLICA: Final = "replica"


class Told(Protocol):
    """One of Ray's gauges."""

    def set(self, value: float, tags: dict[str, str]) -> None: ...


@dataclass(slots=True)
class Figures:
    """Tells every sample as a gauge of the same name and labels, and the replica's.

    Ray has no way to hand it a histogram or counter that was counted elsewhere; Prometheus makes no difference.
    """

    replica: str
    source: Collector = REGISTRY
    _gauges: dict[str, Told] = field(default_factory=dict)

    def tell(self) -> None:
        for family in self.source.collect():
            if family.name.startswith(OURS):
                for sample in family.samples:
                    self._tell(sample, family.documentation)

    def _tell(self, sample: Sample, about: str) -> None:
        if sample.name.endswith("_created"):
            return
        if sample.name not in self._gauges:
            self._gauges[sample.name] = Gauge(sample.name, about, (*sample.labels, REPLICA))
        self._gauges[sample.name].set(sample.value, {**sample.labels, REPLICA: self.replica})


async def tell_forever() -> None:
    """Every few seconds, from a replica's own process."""
    figures = Figures(serve.get_replica_context().replica_id.unique_id)
    while True:
        try:
            figures.tell()
        except Exception as exc:  # noqa: BLE001, whatever it is, the next figures may be told
            log.error("metrics not told to Ray", trace=trace_of(exc))
        await asyncio.sleep(PERIOD_S)
