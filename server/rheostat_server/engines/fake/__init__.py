"""The fake engine, for tests: answers words that mean nothing, the same ones each time. Read `engine.py` first."""

from rheostat_server.engines.fake.engine import FakeEngine
from rheostat_server.engines.fake.orders import Orders

__all__ = ["FakeEngine", "Orders"]
