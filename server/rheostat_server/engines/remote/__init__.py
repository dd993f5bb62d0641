"""The remote engine: any OpenAI-compatible server over HTTP. Read `engine.py` first."""

from rheostat_server.engines.remote.blends import UpstreamBlends
from rheostat_server.engines.remote.engine import RemoteEngine
from rheostat_server.engines.remote.upstream import Upstream

__all__ = ["RemoteEngine", "Upstream", "UpstreamBlends"]
