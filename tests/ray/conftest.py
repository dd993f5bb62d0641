"""Clusters that the tests of a module share, one of them with a head and a second node, the app on both."""

import shutil
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from tests.ray.cluster import Node, RayCluster, ray_cluster

AT_ONCE: Final = 4
"""Most requests of a replica. Proxies prefer the replica of their own node until it has as many."""


@dataclass(slots=True)
class Two:
    """The cluster and its second node, which a test may replace."""

    cluster: RayCluster
    head: Node
    second: Node

    @property
    def url(self) -> str:
        """The head's proxy."""
        return f"http://127.0.0.1:{self.cluster.http}"

    def scale(self, least: int, most: int) -> None:
        """From `least` to `most` replicas, by requests, and at once."""
        self.cluster.deploy(
            {
                "max_replicas_per_node": 1,
                "max_ongoing_requests": AT_ONCE,
                "autoscaling_config": {
                    "min_replicas": least,
                    "max_replicas": most,
                    "target_ongoing_requests": 2,
                    "upscale_delay_s": 1,
                    "downscale_delay_s": 3,
                    "look_back_period_s": 2,
                    "metrics_interval_s": 0.5,
                },
            }
        )


@pytest.fixture(scope="module")
def cluster() -> Generator[RayCluster]:
    """A cluster without nodes. Its folder's path is short, as Ray's sockets need it."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'ray[serve]>=2.60'")
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    try:
        with ray_cluster(folder) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def two(cluster: RayCluster) -> Two:
    two = Two(cluster, cluster.start_head(), cluster.start_worker())
    two.scale(2, 2)
    cluster.wait_for(2)
    return two
