"""What a server exports: the samples of every metric of its modules, with their labels, as Prometheus sees them."""

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

import rheostat_server.telemetry
from rheostat_server.audit import health
from rheostat_server.blending import telemetry as of_blends
from rheostat_server.callers import telemetry as of_callers
from rheostat_server.limits import telemetry as of_limits
from rheostat_server.scorers import telemetry as of_scorers

MODULES = (rheostat_server.telemetry, health, of_blends, of_callers, of_limits, of_scorers)


def metrics() -> list[MetricWrapperBase]:
    """All of ours; each stands in the module that counts it."""
    return [each for module in MODULES for each in vars(module).values() if isinstance(each, MetricWrapperBase)]


def described() -> dict[str, tuple[str, ...]]:
    """The name under which each is documented, and its labels."""
    return {
        f"{family.name}_total" if isinstance(metric, Counter) else family.name: metric._labelnames
        for metric in metrics()
        for family in metric.describe()
    }


def labels_by_sample() -> dict[str, set[str]]:
    """By the name of each sample; a histogram has three, of which one has a label of its own."""
    found: dict[str, set[str]] = {}
    for metric in metrics():
        labels = {*metric._labelnames}
        [family] = metric.describe()
        match metric:
            case Counter():
                found[f"{family.name}_total"] = labels
            case Gauge():
                found[family.name] = labels
            case Histogram():
                found |= {f"{family.name}_{part}": labels for part in ("sum", "count")}
                found[f"{family.name}_bucket"] = labels | {"le"}
    return found
