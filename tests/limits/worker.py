"""A worker: asks a hundred times for what a rate allows, and prints how often it was admitted.

Run as `python -m tests.limits.worker`; with `hold` after it, it holds one of two places until it is killed.
Redis is at `WORKER_REDIS`.
"""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from rheostat_server.limits.afterwards import Afterwards
from rheostat_server.limits.rate_limits import RateLimits
from rheostat_server.limits.rates import Rates
from rheostat_server.limits.refusals import TooManyRequests
from rheostat_server.limits.shared import SharedLeases, connect

RATES = Rates(requests_per_minute=70, candidates_per_minute=10_000)
LEASE = 2.0


@asynccontextmanager
async def leases_over(uri: str) -> AsyncGenerator[SharedLeases]:
    pool, afterwards = connect(uri, deadline=30), Afterwards()
    leases = SharedLeases(pool, afterwards, length=LEASE)
    try:
        yield leases
    finally:
        await leases.close()
        await afterwards.close()
        await pool.aclose()


async def ask_often(limits: RateLimits) -> int:
    admitted = 0
    for _ in range(100):
        try:
            async with limits.request("shared", RATES, candidates=4):
                admitted += 1
        except TooManyRequests:
            pass
        await asyncio.sleep(0)
    return admitted


async def main(uri: str, *, hold: bool) -> None:
    if hold:
        async with leases_over(uri) as leases, leases.held("a", 2):
            print("held", flush=True)
            await asyncio.sleep(300)
    limits = RateLimits.over(uri, deadline=30)
    print(await ask_often(limits), flush=True)
    await limits.close()


if __name__ == "__main__":
    asyncio.run(main(os.environ["WORKER_REDIS"], hold="hold" in sys.argv))
